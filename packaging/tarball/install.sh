#!/bin/sh
# Installs pinfold from this folder, or removes what it installed. It fetches nothing.
#
# usage: ./install.sh [--prefix DIR] [--destdir DIR] [--no-service] [--dry-run]
#        ./install.sh --uninstall [--prefix DIR] [--destdir DIR] [--dry-run]
#
#   --prefix DIR     where things go: DIR/bin, DIR/share, ... (/usr/local)
#   --destdir DIR    put all of it below DIR instead, for a package or an image; nothing is started then
#   --no-service     only the files: no user, no service
#   --uninstall      remove the files that were installed; configuration, data and the user stay
#   -n, --dry-run    say what would be done, and do nothing
#
# Each file is named as it is written. With systemd a user `pinfold` is made and the service enabled and started (or
# restarted, if it runs). Settings that are there (/etc/default/pinfold, /var/lib/pinfold) are never overwritten.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

prefix=/usr/local destdir='' service=yes uninstall=no dry=no

die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix|--destdir)
            [ $# -ge 2 ] || die "$1 wants a folder" 2
            if [ "$1" = --prefix ]; then prefix=$2; else destdir=$2; fi
            shift ;;
        --prefix=*) prefix=${1#*=} ;;
        --destdir=*) destdir=${1#*=} ;;
        --no-service) service=no ;;
        --uninstall) uninstall=yes ;;
        -n|--dry-run) dry=yes ;;
        -h|--help) usage; exit 0 ;;
        *) die "there is no option $1; see --help" 2 ;;
    esac
    shift
done

case $prefix in
    /*) prefix=${prefix%/} ;;
    *) die "--prefix must be a whole path, like /usr/local" 2 ;;
esac
destdir=${destdir%/}
# systemd looks below /usr and /usr/local, and in /etc.
case $prefix in
    /usr|/usr/local) system=$prefix/lib ;;
    *) system=/etc ;;
esac
manifest=$prefix/share/pinfold/installed-files

do_it() {
    [ "$dry" = yes ] || "$@"
}

# Whether this machine runs systemd, and may be changed by us.
live() {
    [ "$service" = yes ] && [ -z "$destdir" ] && [ -d /run/systemd/system ] && [ "$(id -u)" -eq 0 ]
}

put() { # FROM TO MODE
    echo "  $destdir$2"
    do_it mkdir -p "$destdir${2%/*}"
    # Beside it and then in its place: an executable that runs cannot be written to.
    do_it cp "$1" "$destdir$2.new"
    do_it chmod "$3" "$destdir$2.new"
    do_it mv -f "$destdir$2.new" "$destdir$2"
    files="$files$2
"
}

link() { # TARGET NAME
    echo "  $destdir$2 -> $1"
    do_it ln -sfn "$1" "$destdir$2"
    files="$files$2
"
}

# The units name /usr/bin; here the executable may be elsewhere.
put_unit() { # FROM TO
    sed "s|/usr/bin/pinfold|$prefix/bin/pinfold|g" "$1" > "$scratch/unit"
    put "$scratch/unit" "$2" 0644
}

each() { # DO FOLDER PATTERN TO...
    what=$1 from=$2 pattern=$3 to=$4
    for file in "$here/$from"/$pattern; do
        [ -f "$file" ] || continue
        "$what" "$file" "$to/${file##*/}" 0644
    done
}

put_all() {
    put "$here/bin/pinfold" "$prefix/bin/pinfold" 0755
    link pinfold "$prefix/bin/ipfs-cluster-service"
    link pinfold "$prefix/bin/ipfs-cluster-ctl"
    for section in 1 5 8; do
        each put man "*.$section" "$prefix/share/man/man$section"
    done
    # zsh's functions have an underscore, fish's an ending; bash finds its own by the command's name.
    for file in "$here"/completions/*; do
        [ -f "$file" ] || continue
        name=${file##*/}
        case $name in
            _*) put "$file" "$prefix/share/zsh/site-functions/$name" 0644 ;;
            *.fish) put "$file" "$prefix/share/fish/vendor_completions.d/$name" 0644 ;;
            *.bash) put "$file" "$prefix/share/bash-completion/completions/${name%.bash}" 0644 ;;
        esac
    done
    for name in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE THIRD-PARTY-LICENCES; do
        put "$here/$name" "$prefix/share/doc/pinfold/$name" 0644
    done
    each put systemd/examples "*" "$prefix/share/doc/pinfold/examples"
    [ "$service" = yes ] || return 0
    each put_unit systemd "*.service" "$system/systemd/system"
    each put_unit systemd "*.timer" "$system/systemd/system"
    each put systemd/sysusers.d "*.conf" "$system/sysusers.d"
    each put systemd/tmpfiles.d "*.conf" "$system/tmpfiles.d"
    if [ -e "$destdir/etc/default/pinfold" ]; then
        echo "  $destdir/etc/default/pinfold is there already and stays as it is"
    elif [ -f "$here/default/pinfold" ]; then
        put "$here/default/pinfold" /etc/default/pinfold 0644
    fi
}

# What was installed before and is not any more, and is no setting.
remove_old() {
    [ -f "$destdir$manifest" ] || return 0
    while IFS= read -r file; do
        case "
$files" in
            *"
$file
"*) continue ;;
        esac
        remove "$file"
    done < "$destdir$manifest"
}

remove() {
    case $1 in
        # Somebody may have written into it.
        /etc/default/*) echo "  $destdir$1 stays" ;;
        *)
            if [ -e "$destdir$1" ] || [ -L "$destdir$1" ]; then
                echo "  $destdir$1 is removed"
                do_it rm -f "$destdir$1"
            fi ;;
    esac
}

write_manifest() {
    echo "  $destdir$manifest"
    [ "$dry" = no ] || return 0
    mkdir -p "$destdir${manifest%/*}"
    printf '%s%s\n' "$files" "$manifest" > "$destdir$manifest.new"
    mv -f "$destdir$manifest.new" "$destdir$manifest"
}

make_user() {
    getent passwd pinfold >/dev/null && return 0
    echo "Making the user pinfold, who runs the service."
    [ "$dry" = no ] || return 0
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers "$system/sysusers.d/pinfold.conf"
    else
        useradd --system --home-dir /var/lib/pinfold --no-create-home --shell /usr/sbin/nologin pinfold
    fi
}

start() {
    make_user
    echo "Enabling and starting pinfold.service."
    [ "$dry" = no ] || return 0
    if command -v systemd-tmpfiles >/dev/null; then
        systemd-tmpfiles --create "$system/tmpfiles.d/pinfold.conf" || true
    fi
    systemctl daemon-reload
    systemctl enable pinfold.service
    systemctl restart pinfold.service || die "the service did not start; journalctl -u pinfold says why"
    echo "A cluster of one peer runs. It listens to this machine only. Next: sudo $prefix/bin/pinfold status; sudo $prefix/bin/pinfold invite"
}

may_install() {
    [ -x "$here/bin/pinfold" ] || die "there is no bin/pinfold beside install.sh; unpack the whole tarball and run it there"
    if [ -z "$destdir" ]; then
        "$here/bin/pinfold" version >/dev/null 2>&1 ||
            die "bin/pinfold does not run on this machine ($(uname -m)); take the tarball for its processor"
        # Two of them would fight for the service and the data.
        if [ "$(dpkg-query -W -f '${db:Status-Status}' pinfold 2>/dev/null)" = installed ]; then
            die "the Debian package pinfold is installed; upgrade it with apt, or remove it first (its data stays)"
        fi
    fi
    [ "$dry" = yes ] || mkdir -p "$destdir$prefix" 2>/dev/null || true
    [ "$dry" = yes ] || [ -w "$destdir$prefix" ] ||
        die "$destdir$prefix cannot be written to; run this with sudo, or choose another --prefix"
}

install_all() {
    may_install
    echo "Installing $("$here/bin/pinfold" version 2>/dev/null | head -n 1 || true) into $destdir$prefix:"
    files=''
    put_all
    remove_old
    write_manifest
    if live; then
        start
    else
        echo "No service was started. $prefix/bin/pinfold up runs a peer."
    fi
}

uninstall_all() {
    [ -f "$destdir$manifest" ] || die "nothing was installed into $destdir$prefix by this script (no $destdir$manifest)"
    if live; then
        echo "Stopping and disabling pinfold.service."
        do_it systemctl disable --now pinfold.service || true
    fi
    echo "Removing from $destdir$prefix:"
    while IFS= read -r file; do
        remove "$file"
    done < "$scratch/manifest"
    # The folders that are only ours.
    for folder in share/doc/pinfold/examples share/doc/pinfold share/pinfold; do
        [ ! -d "$destdir$prefix/$folder" ] || do_it rmdir "$destdir$prefix/$folder" 2>/dev/null || true
    done
    if live; then
        do_it systemctl daemon-reload
    fi
    echo "What stays: /etc/default/pinfold, /var/lib/pinfold with identity, configuration and data, and the user pinfold."
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ "$uninstall" = yes ]; then
    [ ! -f "$destdir$manifest" ] || cp "$destdir$manifest" "$scratch/manifest"
    uninstall_all
else
    install_all
fi
