# shellcheck shell=sh
# Boards for packaging/deb/test: Debian roots, entered by chroot or booted with systemd in containers of their own, on a
# network that leads nowhere else. Sourced; expects $work (a temporary folder) and $cache.
# It says nothing on standard output but what the commands inside say.

suite=bookworm
# What is in a root beside the essential packages: what runs and configures a board.
include=systemd,systemd-sysv,dbus,iproute2
network=pinfold-deb-test-$$
booted=

fail() {
    echo "packaging/deb/test: $*" >&2
    exit 1
}

# mmdebstrap makes the same root as debootstrap, in half the time.
make_base() {
    if command -v mmdebstrap; then
        mmdebstrap --variant=minbase --include="$include" "$suite" "$1"
    else
        debootstrap --variant=minbase --include="$include" "$suite" "$1"
    fi
}

# A root that nothing was installed in, made once and kept. Prints the archive's path.
base() {
    tar=$cache/$suite-minbase.tar
    if [ ! -f "$tar" ]; then
        make_base "$work/base" >"$work/base.log" 2>&1 || fail "making a Debian root failed: $(tail -n 3 "$work/base.log")"
        rm -rf "$work/base/var/cache/apt/archives"/*.deb "$work/base/var/lib/apt/lists"/*
        tar -C "$work/base" -cf "$tar.new" .
        mv "$tar.new" "$tar"
        rm -rf "$work/base"
    fi
    echo "$tar"
}

# root NAME: unpacks a fresh root as $work/NAME.
root() {
    mkdir "$work/$1"
    tar -C "$work/$1" -xf "$base"
    # No archive but ours, and no questions.
    : >"$work/$1/etc/apt/sources.list"
    echo 'APT::Install-Recommends "false";' >"$work/$1/etc/apt/apt.conf.d/90test"
    echo "$1" >"$work/$1/etc/hostname"
}

# within NAME COMMAND…: in the root by chroot, without systemd.
within() {
    name=$1
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        chroot "$work/$name" "$@"
}

# A network for the boards: a switch in a namespace of its own.
network_up() {
    ip netns add "$network"
    in_network ip link set lo up
    in_network ip link add switch type bridge
    in_network ip link set switch up
}

in_network() {
    nsenter --net="/run/netns/$network" "$@"
}

# boot NAME ADDRESS: boots the root; the repository is at /repo.
boot() {
    # Not by a function: $! must be the container's keeper itself.
    nsenter --net="/run/netns/$network" systemd-nspawn --quiet --boot --register=no --keep-unit --directory="$work/$1" --machine="$1" \
        --network-bridge=switch --bind-ro="$work/repo:/repo" --resolv-conf=off --timezone=off --link-journal=no \
        </dev/null >"$work/$1.console" 2>&1 &
    echo $! >"$work/$1.nspawn"
    booted="$booted $1"
    wait_for 30 "$1 to boot" board_is_up "$1"
    on "$1" ip address add "$2/24" dev host0
    on "$1" ip link set host0 up
}

# The first process of a booted board, as seen from here.
leader() {
    read -r nspawn <"$work/$1.nspawn"
    # The line has no end, which read takes for an error.
    read -r first _ <"/proc/$nspawn/task/$nspawn/children" || true
    echo "$first"
}

board_is_up() {
    first=$(leader "$1" 2>/dev/null) && [ -n "$first" ] &&
        [ "$(cat "/proc/$first/comm" 2>/dev/null)" = systemd ] &&
        on "$1" systemctl is-active --quiet multi-user.target 2>/dev/null
}

# on NAME COMMAND…: as root on a booted board.
on() {
    name=$1
    shift
    nsenter --target "$(leader "$name")" --mount --uts --ipc --net --pid --root --wd=/ \
        env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# as_user NAME COMMAND…: the same as somebody who may do nothing special.
as_user() {
    name=$1
    shift
    on "$name" runuser -u alice -- env HOME=/home/alice "$@"
}

halt() {
    read -r nspawn <"$work/$1.nspawn" || return 0
    # Nobody needs what is on it any more: its power is cut.
    first=$(leader "$1" 2>/dev/null || true)
    [ -z "$first" ] || kill -9 "$first" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
    rm -f "$work/$1.nspawn"
}

all_down() {
    for name in $booted; do
        [ ! -f "$work/$name.nspawn" ] || halt "$name"
    done
    ip netns delete "$network" 2>/dev/null || true
}

# wait_for SECONDS WHAT COMMAND…: until it succeeds.
wait_for() {
    seconds=$1
    what=$2
    shift 2
    until_=$(($(date +%s) + seconds))
    until "$@"; do
        [ "$(date +%s)" -lt "$until_" ] || fail "waited $seconds s for $what"
        sleep 0.1
    done
}
