# shellcheck shell=sh
# What the scripts of packaging/ share. Source it with $root set to the top of the checkout.
#
#   die SENTENCE             ends the script with one sentence on standard error
#   say LINE                 a line of progress on standard error
#   $version $SOURCE_DATE_EPOCH
#   triple_of ARCH           Debian's and snapd's name of an architecture -> Rust's target
#   checked_executable DIR TRIPLE   prints DIR/TRIPLE/pinfold, after a look whether it is one for that processor
#   apt_install PACKAGE...
#   settle FOLDER            modes, owner and times as every package of this version has them

die() {
    printf '%s: %s\n' "${0##*/packaging/}" "$1" >&2
    exit "${2:-1}"
}

say() {
    printf '%s\n' "$*" >&2
}

# Installs a Debian package, waiting for whoever else is installing.
apt_install() {
    set -- apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
    "$@" >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1 && "$@" >/dev/null 2>&1; }
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "${root:?}/Cargo.toml" | head -n 1)
[ -n "$version" ] || die "Cargo.toml names no version"

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) ||
        die "there is no git history to take the date from; set SOURCE_DATE_EPOCH"
fi
export SOURCE_DATE_EPOCH
# Names sort alike and dates read alike on every machine.
export LC_ALL=C TZ=UTC

triple_of() {
    case $1 in
        amd64) echo x86_64-unknown-linux-musl ;;
        arm64) echo aarch64-unknown-linux-musl ;;
        armhf) echo armv7-unknown-linux-musleabihf ;;
        *) die "there is no architecture $1 here; choose among amd64, arm64 and armhf" 2 ;;
    esac
}

# The ELF header's number of the processor.
machine_of() {
    case $1 in
        x86_64-*) echo 62 ;;
        aarch64-*) echo 183 ;;
        arm*) echo 40 ;;
        *) die "the target $1 is not known; see cross/README.md" 2 ;;
    esac
}

checked_executable() {
    [ -f "$1/$2/pinfold" ] ||
        die "there is no executable $1/$2/pinfold; make it with cross/build $2, or name its folder with --bin-dir"
    found=$(od -An -j18 -N2 -tu2 "$1/$2/pinfold" | tr -d ' ')
    [ "$found" = "$(machine_of "$2")" ] || die "$1/$2/pinfold is not an executable for $2; build it again"
    printf '%s\n' "$1/$2/pinfold"
}

settle() {
    find "$1" -type d -exec chmod 0755 {} +
    find "$1" -type f -perm -0100 -exec chmod 0755 {} +
    find "$1" -type f ! -perm -0100 -exec chmod 0644 {} +
    [ "$(id -u)" -ne 0 ] || chown -hR 0:0 "$1"
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}
