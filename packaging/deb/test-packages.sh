# shellcheck shell=sh
# Part of packaging/deb/test: what is in the packages, that a second build gives the same bytes, what lintian says, and
# the apt repository made of them.

archs=
for pair in amd64:x86_64-unknown-linux-musl arm64:aarch64-unknown-linux-musl armhf:armv7-unknown-linux-musleabihf; do
    [ ! -f "$bin_dir/${pair#*:}/pinfold" ] || archs="$archs ${pair%%:*}"
done
case " $archs " in
*" amd64 "*) ;;
*) fail "there is no executable for amd64 in $bin_dir: run cross/build, or name the folder with --bin-dir" ;;
esac

# build DIR REVISION ARCH…
build() {
    to=$1
    revision=$2
    shift 2
    # shellcheck disable=SC2086 # a list of words
    "$root/packaging/deb/build" --bin-dir "$bin_dir" --out-dir "$to" --revision "$revision" $options "$@" >/dev/null
}

# shellcheck disable=SC2086 # a list of words
build "$work/one" 1 $archs
build "$work/again" 1 amd64
for deb in "$work/again"/*.deb; do
    cmp "$deb" "$work/one/$(basename "$deb")" || fail "a second build gives other bytes"
done
rm -rf "$work/again"
step "two builds give the same bytes"

if [ -z "$options" ]; then
    lintian --allow-root --fail-on error,warning "$work/one"/*.deb >"$work/lintian" 2>&1 ||
        fail "lintian: $(cat "$work/lintian")"
    step "lintian has no error and no warning"
fi

for deb in "$work/one"/pinfold_*.deb; do
    arch=$(dpkg-deb --field "$deb" Architecture)
    mkdir "$work/unpacked"
    dpkg-deb --extract "$deb" "$work/unpacked"
    is=$("$root/packaging/deb/elf" "$work/unpacked/usr/bin/pinfold")
    expect "the executable in $(basename "$deb")" "$is" "$arch"
    for file in usr/lib/systemd/system/pinfold.service usr/lib/systemd/system/pinfold@.service \
        usr/lib/systemd/system/pinfold-backup.timer usr/lib/sysusers.d/pinfold.conf usr/lib/tmpfiles.d/pinfold.conf \
        etc/default/pinfold usr/share/doc/pinfold/copyright usr/share/doc/pinfold/changelog.gz; do
        [ -f "$work/unpacked/$file" ] || fail "$(basename "$deb") lacks $file"
    done
    zcat "$work/unpacked/usr/share/doc/pinfold/THIRD-PARTY.gz" | grep -q '^heed ' ||
        fail "$(basename "$deb") does not list the crates that are linked in"
    (cd "$work/unpacked" && dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./md5sums | md5sum --check --quiet) ||
        fail "the checksums in $(basename "$deb") are wrong"
    [ -z "$(find "$work/unpacked" ! -user root -print -quit)" ] || fail "$(basename "$deb") has files that are not root's"
    rm -rf "$work/unpacked"
done
step "contents and architecture:$archs"

mkdir -p "$work/misplaced/aarch64-unknown-linux-musl"
cp "$bin_dir/x86_64-unknown-linux-musl/pinfold" "$work/misplaced/aarch64-unknown-linux-musl/"
# shellcheck disable=SC2086
refused "an executable for another architecture" "is for amd64 and not for arm64" \
    "$root/packaging/deb/build" --bin-dir "$work/misplaced" --out-dir "$work/misplaced" $options arm64
rm -rf "$work/misplaced"

# ---- the repository: the first version, then one more beside it

GNUPGHOME=$work/gnupg
export GNUPGHOME
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Test of the pinfold packages <test@invalid>' ed25519 sign never 2>"$work/gpg.log" ||
    fail "gpg makes no key: $(cat "$work/gpg.log")"
repo() {
    "$root/packaging/apt/make-repo" --key test@invalid --url file:/repo "$work/repo" "$@" >"$work/repo.says" &&
        mv "$work/repo.says" "$work/repo.said"
}

repo "$work/one"/*.deb
expect "the example for boards" "$(cat "$work/repo.said")" "Signed-By: /usr/share/keyrings/pinfold.gpg"
build "$work/two" 2 amd64
repo "$work/two"/*.deb
for arch in $archs; do
    versions=$(grep -c '^Filename: .*/pinfold_' "$work/repo/dists/stable/main/binary-$arch/Packages")
    case $arch in amd64) expected=2 ;; *) expected=1 ;; esac
    [ "$versions" = $expected ] || fail "the repository lists $versions version(s) for $arch, and not $expected"
done
cp "$work/two"/pinfold_*_amd64.deb "$work/other.deb"
printf 'x' >>"$work/other.deb"
refused "another package under the same version" "with other content" repo "$work/other.deb"
step "a signed repository with both versions"
