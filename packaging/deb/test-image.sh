# shellcheck shell=sh
# Part of packaging/deb/test: a root in which systemd does not run, as when an image for boards is made.

base=$(base)
step "a Debian root"

# use_repo NAME: lets a root take packages from the repository.
use_repo() {
    install -m 644 "$work/repo/pinfold.gpg" "$work/$1/usr/share/keyrings/pinfold.gpg"
    # The lines that the generator prints, as a person would copy them.
    sed -n "/^    Types:/,/^    Signed-By:/s/^    //p" "$work/repo.said" >"$work/$1/etc/apt/sources.list.d/pinfold.sources"
}

# foreign NAME: what is in the service's folder and not only the service's.
foreign() {
    find "$work/$1/var/lib/pinfold" \( ! -uid "$2" -o ! -gid "$3" -o -perm /077 \) ! -type l
}

uid_of() {
    awk -F : -v OFS=' ' '$1 == "pinfold" { print $3, $4 }' "$work/$1/etc/passwd"
}

root image
mkdir "$work/image/repo"
mount --bind "$work/repo" "$work/image/repo"
trap 'umount "$work/image/repo" 2>/dev/null || true; cleanup' EXIT
use_repo image
# A folder from before, of root; and a disk that is not there.
mkdir -p "$work/image/var/lib/pinfold"
install -m 600 /dev/null "$work/image/var/lib/pinfold/kept"
within image apt-get -q update >"$work/image.log" 2>&1 || fail "apt-get update: $(cat "$work/image.log")"
within image apt-get -q install -y pinfold=0*-1 >>"$work/image.log" 2>&1 || fail "apt-get install: $(tail -n 20 "$work/image.log")"
user=$(uid_of image)
[ -n "$user" ] || fail "there is no user pinfold"
# shellcheck disable=SC2086 # user and group
[ -z "$(foreign image $user)" ] || fail "not the service's own: $(foreign image $user)"
[ -f "$work/image/var/lib/pinfold/kept" ] || fail "a folder from before was not kept"
[ ! -e "$work/image/var/lib/pinfold/identity.json" ] || fail "an image has a key that all boards made of it would share"
[ -L "$work/image/etc/systemd/system/multi-user.target.wants/pinfold.service" ] || fail "the service is not enabled"
# Twice, and once more as after a failed upgrade.
within image sh -c '/var/lib/dpkg/info/pinfold.postinst configure 0.4.0-1 && /var/lib/dpkg/info/pinfold.postinst abort-upgrade 0.4.0-1' \
    >>"$work/image.log" 2>&1 || fail "postinst cannot be run twice: $(tail -n 5 "$work/image.log")"
step "installed in an image without systemd: no key, all of it the service's, enabled"

echo 'LABEL=absent /var/lib/pinfold ext4 nofail 0 2' >"$work/image/etc/fstab"
rm -r "$work/image/var/lib/pinfold" && mkdir -m 755 "$work/image/var/lib/pinfold"
said=$(within image /var/lib/dpkg/info/pinfold.postinst configure 0.4.0-1 2>&1)
expect "a disk that is not mounted" "$said" "is not mounted"
[ -z "$(ls -A "$work/image/var/lib/pinfold")" ] || fail "something was made in the place of a disk"
within image dpkg --purge pinfold >>"$work/image.log" 2>&1 || fail "purge in an image: $(tail -n 5 "$work/image.log")"
step "a missing disk is told, and the package goes without systemd"

# What apt must refuse: an index that was changed after it was signed, and a key that is not ours.
cp -a "$work/repo" "$work/tampered"
umount "$work/image/repo"
mount --bind "$work/tampered" "$work/image/repo"
packages=$work/tampered/dists/stable/main/binary-amd64
sed -i 's/^Version: 0/Version: 9/' "$packages/Packages"
gzip -9nkf "$packages/Packages" && xz -9kf "$packages/Packages"
rm -rf "$work/image/var/lib/apt/lists"/*
refused "a changed index" "Hash Sum mismatch" within image apt-get -q update
sed -i 's/^Origin: pinfold/Origin: pinfoId/' "$work/tampered/dists/stable/InRelease" "$work/tampered/dists/stable/Release"
refused "a changed Release" "GPG error" within image apt-get -q update -o APT::Update::Error-Mode=any
umount "$work/image/repo"
rm -rf "$work/tampered" "$work/image"
trap cleanup EXIT
step "apt refuses a changed index and a changed Release"
