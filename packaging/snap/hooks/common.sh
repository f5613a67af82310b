# shellcheck shell=sh
# What the hooks share. They run as root, in the snap's confinement, with the shell of the base.

export IPFS_CLUSTER_PATH="${SNAP_COMMON:?}"
# A person's variables have no part in what snapd does.
unset HOME

# What snapd shows of a hook that failed is what it printed: one sentence, without the program's name before it.
refuse() {
    printf '%s\n' "${1#pinfold: }" >&2
    exit 1
}

# The app that runs the peer: the one with the watchdog where its plug is connected.
peer_app() {
    if snapctl is-connected daemon-notify; then
        echo "${SNAP_INSTANCE_NAME:?}.daemon-watched"
    else
        echo "${SNAP_INSTANCE_NAME:?}.daemon"
    fi
}

# Whether an app is running. snapctl prints a table: name, at boot, now.
runs() {
    snapctl services "$1" | while read -r name _ now _; do
        if [ "$name" = "$1" ] && [ "$now" = active ]; then echo yes; fi
    done | grep -q yes
}
