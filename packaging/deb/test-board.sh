# shellcheck shell=sh
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
        for unit in pinfold.service pinfold@.service; do
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
# shellcheck disable=SC2016 # for the shell on the board
as_user attic sh -c 'echo "content of alice" >$HOME/file && pinfold add --wait $HOME/file' >"$work/added" || fail "add: $(cat "$work/added")"
cid=$(awk '/^added/ { print $2 }' "$work/added" | tail -n 1)
expect "the content" "$(as_user attic pinfold cat "$cid")" "content of alice"
on attic pinfold doctor >"$work/doctor" || fail "doctor: $(cat "$work/doctor")"
expect "what the doctor looks at" "$(cat "$work/doctor")" "/var/lib/pinfold"
refused "an invitation without sudo" "use sudo" as_user attic pinfold invite
[ "$(on attic stat -c %a /var/lib/pinfold)" = 700 ] || fail "others can look into the folder"
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
