//! What the system says about mounts: what should be mounted and is not, what went read-only, which device is gone.
//!
//! Nothing here touches a disk, so that a disk may sleep, and one that hangs cannot make the looking hang.
//!
//! Must never: take an empty place for a mounted disk because something else (a sandbox) has bound the place to itself.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What shall be mounted at each start.
const FSTAB: &str = "/etc/fstab";
/// What is mounted, as this process sees it.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";

/// How the mount is that a folder lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// As far as the system says.
    Well,
    /// It can be read and not written.
    ReadOnly,
    /// The file system has given up.
    Dead,
}

/// A place where a disk should be mounted, and none is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmounted {
    /// Where.
    pub(crate) point: PathBuf,
    /// What, as fstab calls it.
    pub(crate) device: String,
}

/// A line of mountinfo, as far as it matters.
struct Mount<'a> {
    /// The part of the file system that is shown there.
    root: PathBuf,
    point: PathBuf,
    options: Vec<&'a str>,
}

/// A path as these files write it: spaces and the like as three octal digits.
fn path(text: &str) -> PathBuf {
    let (bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match octal.filter(|_| bytes[at] == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// All mounts, in order; the last one at a place is the one that is seen.
fn mounts(text: &str) -> Vec<Mount<'_>> {
    text.lines()
        .filter_map(|line| {
            let (own, system) = line.split_once(" - ")?;
            let mut places = own.split(' ').skip(3);
            let (root, point) = (path(places.next()?), path(places.next()?));
            let own = own.split(' ').nth(5)?.split(',');
            let options = own.chain(system.split(' ').nth(2).unwrap_or_default().split(',')).collect();
            Some(Mount { root, point, options })
        })
        .collect()
}

/// The path with every link followed as far as it exists.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    match there {
        Some((above, real)) => path.strip_prefix(above).map_or_else(|_| real.clone(), |rest| real.join(rest)),
        None => path.to_owned(),
    }
}

/// How the mount is that a folder lies on.
pub(crate) fn health(folder: &Path) -> Health {
    let Ok(text) = std::fs::read_to_string(MOUNTINFO) else { return Health::Well };
    health_in(&text, &real(folder))
}

fn health_in(mountinfo: &str, folder: &Path) -> Health {
    let mounts = mounts(mountinfo);
    let under = mounts.iter().filter(|m| folder.starts_with(&m.point));
    let Some(mount) = under.max_by_key(|m| m.point.components().count()) else { return Health::Well };
    let says = |word| mount.options.contains(&word);
    match (says("shutdown"), says("ro") || says("emergency_ro")) {
        (true, _) => Health::Dead,
        (_, true) => Health::ReadOnly,
        _ => Health::Well,
    }
}

/// In what memory a folder lies, when that is no disk: then nothing in it survives the power. An overlay of a system
/// that is kept read-only (raspi-config, overlayroot) writes to memory; one of a container does not.
pub(crate) fn in_memory(folder: &Path) -> Option<&'static str> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const OVERLAY: u64 = 0x794c_7630;
    // Its type differs between 32 and 64 bits; magic numbers have 32.
    let kind = rustix::fs::statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    let boot = || std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match kind {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        OVERLAY if is_overlaid(&boot()) => Some("an overlay of a system that is kept read-only"),
        _ => None,
    }
}

/// Whether this kernel was told to keep the root as it is and to write to memory.
fn is_overlaid(cmdline: &str) -> bool {
    cmdline.split_whitespace().any(|word| word == "boot=overlay" || word.starts_with("overlayroot=tmpfs"))
}

/// Whether a block device was there and is no more: its plug was pulled. File systems without one have none to lose.
pub(super) fn device_is_gone(device: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let devices = Path::new(DEVICES);
    major != 0 && devices.is_dir() && !devices.join(format!("{major}:{minor}")).exists()
}

/// The place above a path (or the path itself) where fstab wants a disk, when none is mounted there.
pub(crate) fn unmounted(path: &Path) -> Option<Unmounted> {
    let (fstab, mountinfo) = (std::fs::read_to_string(FSTAB).ok()?, std::fs::read_to_string(MOUNTINFO).ok()?);
    let same_device = |point: &Path| {
        let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
        point.parent().is_some_and(|above| device(point) == device(above))
    };
    unmounted_in(&fstab, &mountinfo, &real(path), same_device)
}

fn unmounted_in(
    fstab: &str,
    mountinfo: &str,
    wanted: &Path,
    same_device: impl Fn(&Path) -> bool,
) -> Option<Unmounted> {
    let mounts = mounts(mountinfo);
    for line in fstab.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split_whitespace();
        let (Some(device), Some(at)) = (fields.next(), fields.next()) else { continue };
        let (point, options) = (path(at), fields.nth(1).unwrap_or_default());
        if !point.is_absolute() || point.parent().is_none() || !wanted.starts_with(&point) {
            continue;
        }
        let bound = options.split(',').any(|o| o == "bind" || o == "rbind");
        // A sandbox binds a folder to itself to make it writable: then it is a mount, of the disk around it.
        let is_itself = |m: &Mount<'_>| m.root != Path::new("/") && !bound && same_device(&point);
        let mounted = mounts.iter().any(|m| m.point == point && !is_itself(m));
        if !mounted {
            return Some(Unmounted { point, device: device.to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str = "# <file system> <mount point>\n\
        UUID=1 / ext4 defaults 0 1\n\
        UUID=2 /mnt/disk ext4 nofail 0 2\n\
        UUID=3 /mnt/with\\040space ext4 nofail 0 2\n\
        /srv/a /srv/b none bind 0 0\n\
        UUID=4 none swap sw 0 0\n";
    const ROOT: &str = "22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw\n";

    fn mounted(line: &str) -> String {
        format!("{ROOT}{line}\n")
    }

    #[test]
    fn what_fstab_wants_and_nobody_mounted_is_found() {
        let look = |info: &str, at: &str| {
            unmounted_in(FSTAB, info, Path::new(at), |_| true).map(|u| (u.point, u.device))
        };
        let disk = || Some((PathBuf::from("/mnt/disk"), "UUID=2".to_owned()));
        assert_eq!(look(ROOT, "/mnt/disk/blocks"), disk());
        assert_eq!(look(ROOT, "/mnt/disk"), disk());
        assert_eq!(look(ROOT, "/mnt/disk2/blocks"), None, "another folder of a similar name");
        assert_eq!(look(ROOT, "/home/pi/.pinfold"), None, "the root is always there");
        assert_eq!(look(ROOT, "/mnt/with space/x").map(|u| u.1), Some("UUID=3".into()));
        let there = mounted("40 22 8:1 / /mnt/disk rw shared:2 - ext4 /dev/sda1 rw");
        assert_eq!(look(&there, "/mnt/disk/blocks"), None);
        // A sandbox made the empty place writable by binding it to itself.
        let itself = mounted("41 22 179:2 /mnt/disk /mnt/disk rw shared:3 - ext4 /dev/root rw");
        assert_eq!(look(&itself, "/mnt/disk/blocks"), disk());
        let bound = mounted("42 22 179:2 /srv/a /srv/b rw shared:3 - ext4 /dev/root rw");
        assert_eq!(look(&bound, "/srv/b/x"), None, "fstab itself wants a binding there");
    }

    #[test]
    fn a_mount_tells_how_it_is() {
        let of = |own: &str, system: &str| {
            let text = mounted(&format!("40 22 8:1 / /mnt/disk {own} shared:2 - ext4 /dev/sda1 {system}"));
            health_in(&text, Path::new("/mnt/disk/blocks"))
        };
        assert_eq!(of("rw,noatime", "rw"), Health::Well);
        assert_eq!(of("rw", "ro,errors=remount-ro"), Health::ReadOnly);
        assert_eq!(of("ro", "rw"), Health::ReadOnly);
        assert_eq!(of("rw", "rw,emergency_ro"), Health::ReadOnly);
        assert_eq!(of("rw", "rw,shutdown,emergency_ro"), Health::Dead);
        assert_eq!(of("rw", "rw,errors=remount-ro"), Health::Well, "what shall happen has not happened");
        assert_eq!(health_in(ROOT, Path::new("/mnt/disk")), Health::Well);
    }

    #[test]
    fn a_root_that_is_kept_as_it_is_writes_to_memory() {
        assert!(is_overlaid("console=tty1 root=PARTUUID=1 boot=overlay rw"));
        assert!(is_overlaid("overlayroot=tmpfs:recurse=0"));
        assert!(!is_overlaid("root=/dev/mmcblk0p2 overlayroot=disabled"));
        assert_eq!(in_memory(Path::new("/proc")), None);
    }

    #[test]
    fn a_device_that_never_was_one_is_not_gone() {
        let here = Path::new("/proc/self").metadata().expect("proc").dev();
        assert!(!device_is_gone(here));
        assert!(device_is_gone(rustix::fs::makedev(240, 4_000)) == Path::new(DEVICES).is_dir());
    }
}
