# shellcheck shell=sh disable=SC2154,SC2016 # of the script that includes it; for shells on the boards
# Part of packaging/deb/test: boards that run. Two of them on one network, the first with two more peers of
# pinfold@NAME.service, so that an upgrade has a leader to move and a majority to keep.

# install_board NAME VERSION
install_board() {
    on "$1" apt-get -q update >"$work/$1.log" 2>&1 || fail "apt-get update on $1: $(cat "$work/$1.log")"
    on "$1" apt-get -q install -y "pinfold=$2" >>"$work/$1.log" 2>&1 || fail "apt-get install on $1: $(tail -n 20 "$work/$1.log")"
    on "$1" useradd --create-home alice
}

# Where something listens: protocol and address of each socket.
listeners() {
    on "$1" ss -Htuln | awk '{ print $1, $5 }' | sort -u
}

# Nothing of root's, nothing open to others.
all_is_the_services() {
    # shellcheck disable=SC2046 # user and group
    odd=$(foreign "$1" $(uid_of "$1"))
    [ -z "$odd" ] || fail "not the service's own on $1: $odd"
}

members() {
    on "$1" pinfold "$@" peers ls
}

pid() {
    on "$1" systemctl show --property MainPID --value "$2"
}

version=$(dpkg-deb --field "$work/one"/pinfold_*_amd64.deb Version)
version=${version%-1}

network_up
for name in attic cellar; do
    root "$name"
    use_repo "$name"
    case $options in
    *--allow-dynamic*)
        for unit in pinfold.service pinfold@.service pinfold-backup.service; do
            install -D -m 644 "$root/systemd/examples/dynamic-executable.conf" \
                "$work/$name/etc/systemd/system/$unit.d/dynamic.conf"
        done
        ;;
    esac
done
boot attic 10.77.0.1
boot cellar 10.77.0.2
step "two boards have booted"

# ---- the first board: everything works at once, for this machine only

install_board attic "$version-1"
expect "the end of the installation" "$(cat "$work/attic.log")" "Try: pinfold status"
for unit in pinfold.service pinfold-backup.timer; do
    on attic systemctl is-active --quiet "$unit" || fail "$unit does not run"
    on attic systemctl is-enabled --quiet "$unit" || fail "$unit is not enabled"
done
[ -z "$(as_user attic pinfold status)" ] || fail "a new cluster has pins"
expect "peers for everybody" "$(as_user attic pinfold peers ls)" "attic"
open=$(listeners attic | grep -Ev ' (127\.0\.0\.1|\[::1\]):' || true)
[ -z "$open" ] || fail "something listens beyond this machine: $open"
all_is_the_services attic
as_user attic sh -c 'echo "content of alice" >$HOME/file && pinfold add --wait $HOME/file' >"$work/added" || fail "add: $(cat "$work/added")"
cid=$(awk '/^added/ { print $2 }' "$work/added" | tail -n 1)
expect "the content" "$(as_user attic pinfold cat "$cid")" "content of alice"
on attic pinfold doctor >"$work/doctor" || fail "doctor: $(cat "$work/doctor")"
expect "what the doctor looks at" "$(cat "$work/doctor")" "/var/lib/pinfold"
refused "an invitation without sudo" "use sudo" as_user attic pinfold invite
[ "$(on attic stat -c %a /var/lib/pinfold)" = 700 ] || fail "others can look into the folder"
on attic systemctl start pinfold-backup || fail "the daily backup failed"
expect "the pin in the backup" "$(on attic cat /var/lib/pinfold/backups/daily/pinset-000001.ndjson)" "$cid"
expect "the unit's status" "$(on attic systemctl show --property StatusText pinfold)" "ready: leader, 1 of 1 peers here, "
all_is_the_services attic
step "installed: everybody can use it, nobody else can reach it"

# ---- the second board joins: one command on each

install_board cellar "$version-1"
first=$(pid cellar pinfold)
token=$(on attic pinfold invite 2>"$work/invited") || fail "invite: $(cat "$work/invited")"
expect "what an invitation opens" "$(cat "$work/invited")" "0.0.0.0/tcp/9096"
open=$(listeners attic | grep -Ev ' (127\.0\.0\.1|\[::1\]):' | grep -Ev ':(9096|4001|5353)$' || true)
[ -z "$open" ] || fail "an invitation opened more than it should: $open"
[ "$(on attic pinfold invite 2>/dev/null)" = "$token" ] || fail "a second invitation is another one"

refused "a token that lost its end" "incomplete" on cellar pinfold join "$(printf %.60s "$token")"
[ "$(pid cellar pinfold)" = "$first" ] || fail "a token that is none stopped the service"
as_user cellar sh -c 'echo "alone" >$HOME/file && pinfold add --wait $HOME/file' >/dev/null
refused "joining with pins of its own" "holds 1 pin" on cellar pinfold join "$token"
on cellar systemctl is-active --quiet pinfold || fail "a refused join left the board without its peer"
expect "the pins of a board that did not join" "$(on cellar pinfold status)" "PINNED"
on cellar pinfold state export 2>&1 | grep -q 'in use by' || fail "a command on the data of a running peer is not refused"
on cellar systemctl stop pinfold
on cellar pinfold state export --file /root/pins.json 2>/dev/null || fail "state export to a file of root's"
expect "the exported pins" "$(on cellar cat /root/pins.json)" '"cid"'
on cellar pinfold join --force "$token" >"$work/joined" 2>&1 || fail "join: $(cat "$work/joined")"
expect "what a join says at its end" "$(cat "$work/joined")" "joined"
on cellar systemctl is-active --quiet pinfold || fail "the service does not run after a join"
for board in attic cellar; do
    [ "$(as_user $board pinfold peers ls | grep -c 'Sees 1 other')" = 2 ] || fail "not two members: $(as_user $board pinfold peers ls)"
    all_is_the_services $board
done
on cellar test -d /var/lib/pinfold/raft.old.0 || fail "the data of the board's own cluster was not kept"
expect "the content on the other board" "$(as_user cellar pinfold cat "$cid")" "content of alice"
step "the second board has joined, and what it had is kept"

# ---- an upgrade under a writer: three peers on the first board, restarted one after the other

for peer in b c; do
    on attic systemctl enable --quiet --now "pinfold@$peer"
    on attic pinfold -c "/var/lib/pinfold-$peer" join "$token" >"$work/joined" 2>&1 || fail "join of pinfold@$peer: $(cat "$work/joined")"
done
[ "$(as_user cellar pinfold peers ls | grep -c 'Sees 3 other')" = 4 ] || fail "not four members: $(as_user cellar pinfold peers ls)"

# The writer asks the other board, and notes what was acknowledged and how long it took, in milliseconds.
cat >"$work/cellar/writer" <<'WRITER'
#!/bin/sh
n=0
longest=0
while [ ! -e /stop ]; do
    n=$((n + 1))
    cid=$(pinfold add --quieter --name "write $n" /usr/bin/env --chunker "size-$((1024 + n))" 2>&1) || { echo "write $n: $cid" >>/failed; continue; }
    echo "$cid" >>/acknowledged
    now=$(date +%s%N)
    took=$(((now - ${before:-$now}) / 1000000))
    before=$now
    [ $took -le $longest ] || longest=$took
    echo $longest >/longest
done
WRITER
chmod +x "$work/cellar/writer"
count() {
    on cellar sh -c 'cat /acknowledged 2>/dev/null | wc -l'
}
wrote() {
    [ "$(count)" -ge "$1" ]
}
on cellar sh -c 'nohup /writer >/dev/null 2>&1 &'
wait_for 20 "the writer" wrote 5
before=" $(pid attic pinfold) $(pid attic pinfold@b) $(pid attic pinfold@c) "
on attic apt-get -q install -y "pinfold=$version-2" >>"$work/attic.log" 2>&1 || fail "upgrade: $(tail -n 20 "$work/attic.log")"
for unit in pinfold pinfold@b pinfold@c; do
    now=$(pid attic $unit)
    case $before in
    *" $now "*) fail "$unit was not restarted by the upgrade" ;;
    esac
done
wait_for 20 "writes after the upgrade" wrote "$(($(count) + 5))"
on cellar touch /stop
for unit in pinfold pinfold@b pinfold@c; do
    on attic systemctl is-active --quiet $unit || fail "$unit does not run after the upgrade"
done
[ ! -e "$work/cellar/failed" ] || fail "writes failed during the upgrade: $(head -n 3 "$work/cellar/failed")"
sort -u "$work/cellar/acknowledged" >"$work/acknowledged"
as_user attic pinfold pin ls | awk '{ print $1 }' | sort -u >"$work/pinned"
lost=$(comm -23 "$work/acknowledged" "$work/pinned")
[ -z "$lost" ] || fail "acknowledged writes are gone after the upgrade: $lost"
step "upgraded under a writer: $(wc -l <"$work/acknowledged") writes, none lost or failed, the longest gap $(cat "$work/cellar/longest") ms"

# ---- systemd's part: the watchdog, and exits that must not be tried again

install -D -m 644 /dev/stdin "$work/attic/etc/systemd/system/pinfold@c.service.d/soon.conf" <<'SOON'
[Service]
WatchdogSec=2
TimeoutAbortSec=1
RestartSec=0
SOON
on attic systemctl daemon-reload
on attic systemctl restart pinfold@c
hung=$(pid attic pinfold@c)
on attic systemctl kill --signal=STOP pinfold@c
restarted() {
    now=$(pid attic pinfold@c)
    [ "$now" != "$hung" ] && [ "$now" != 0 ] && on attic systemctl is-active --quiet pinfold@c
}
wait_for 20 "the watchdog to restart a peer that hangs" restarted
on attic systemctl stop pinfold@c
on attic sh -c 'echo nonsense >/var/lib/pinfold-c/service.json'
if on attic systemctl start pinfold@c 2>/dev/null; then fail "a peer runs with nonsense for a configuration"; fi
# One that is tried again is never "failed", but "activating".
[ "$(on attic systemctl is-failed pinfold@c)" = failed ] || fail "a wrong configuration is tried again and again"
step "a hung peer is restarted by the watchdog, a wrong configuration is not tried again"

# ---- remove, install again, purge

id=$(on cellar pinfold id | sed -n '1s/ .*//p')
# Content on a disk of its own, as in the example for drop-ins.
on cellar sh -c 'mkdir -p /srv/blocks/ipfs && chown pinfold: /srv/blocks/ipfs && echo kept >/srv/blocks/ipfs/of-the-owner'
install -D -m 644 "$root/systemd/examples/blocks-disk.conf" "$work/cellar/etc/systemd/system/pinfold.service.d/blocks.conf"
on cellar apt-get -q remove -y pinfold >>"$work/cellar.log" 2>&1 || fail "remove: $(tail -n 20 "$work/cellar.log")"
[ -z "$(on cellar sh -c 'grep -lx pinfold /proc/[0-9]*/comm || true')" ] || fail "a peer runs although the package is gone"
on cellar test -f /var/lib/pinfold/service.json || fail "removing the package deleted data"
on cellar test -f /etc/default/pinfold || fail "removing the package deleted its configuration"
rm "$work/cellar/etc/systemd/system/pinfold.service.d/blocks.conf"
on cellar apt-get -q install -y "pinfold=$version-1" >>"$work/cellar.log" 2>&1 || fail "installing again: $(tail -n 20 "$work/cellar.log")"
[ "$(on cellar pinfold id | sed -n '1s/ .*//p')" = "$id" ] || fail "another peer after installing again"
expect "the pins after installing again" "$(as_user cellar pinfold pin ls)" "$cid"
step "removing keeps the data, and installing again goes on with it"

install -D -m 644 "$root/systemd/examples/blocks-disk.conf" "$work/cellar/etc/systemd/system/pinfold.service.d/blocks.conf"
said=$(on cellar apt-get -q purge -y pinfold 2>&1) || fail "purge: $said"
expect "what purging deletes" "$said" "deleting /var/lib/pinfold ("
expect "what purging keeps" "$said" "kept: /srv/blocks/ipfs"
[ ! -e "$work/cellar/var/lib/pinfold" ] || fail "purging left /var/lib/pinfold"
[ -f "$work/cellar/srv/blocks/ipfs/of-the-owner" ] || fail "purging deleted content that lies elsewhere"
[ ! -e "$work/cellar/etc/default/pinfold" ] || fail "purging left /etc/default/pinfold"
grep -q '^pinfold:' "$work/cellar/etc/passwd" || fail "purging removed the user"
on attic apt-get -q purge -y pinfold >"$work/purged" 2>&1 || fail "purge: $(cat "$work/purged")"
expect "what purging keeps" "$(cat "$work/purged")" "kept: /var/lib/pinfold-b"
step "purging deletes the folder, says so, and touches nothing elsewhere"
