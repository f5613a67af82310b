# shellcheck shell=sh
# What cross/setup, cross/build and cross/reproduce share. They set `here` to this folder and read this file.

# Exit codes: 1 a check or a build failed, 2 wrong usage, 3 something is missing on this machine,
# 4 something could not be fetched.
# shellcheck disable=SC2034 # used by those who read this file
MISSING=3 UNREACHED=4

me=$(basename "$0")
# shellcheck source-path=SCRIPTDIR
. "${here:?}/versions"
checkout=$(dirname "$here")

# die CODE SENTENCE
die() {
    echo "$me: $2" >&2
    exit "$1"
}

# usage: what stands in the script's opening comment.
usage() {
    sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
}

# full_target NAME: the target triple of NAME, which may be its first part alone.
full_target() {
    for known in $TARGETS; do
        case $1 in
        "$known" | "${known%%-*}") echo "$known" && return ;;
        esac
    done
    die 2 "'$1' is no target of pinfold: take one of $(echo "$TARGETS" | sed 's/-[^ ]*//g')"
}

# env_name TARGET: the target as it stands in names of variables.
env_name() {
    echo "$1" | tr 'a-z-' 'A-Z_'
}

# The folder of the tools, and cargo's.
tools=${PINFOLD_CROSS:-${CARGO_TARGET_DIR:-$checkout/target}/cross-tools}
case $tools in /*) ;; *) tools=$(pwd)/$tools ;; esac
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# The compiler of the user, also for one who has read the tools' own `env`.
case ${RUSTUP_TOOLCHAIN-} in */toolchain) unset RUSTUP_TOOLCHAIN ;; esac

# C compilers get paths in flags that are split at blanks.
case $checkout$tools$cargo_home in
*[[:space:]]*) die 2 "a folder with a blank in its name cannot be built in: move the checkout ($checkout), PINFOLD_CROSS ($tools) or CARGO_HOME ($cargo_home)" ;;
esac
