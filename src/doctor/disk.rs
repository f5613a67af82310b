//! The disks that the folder lies on: space, whether they can be written, and how long a flush takes.
//!
//! A commit waits for two flushes, so the time of a flush is the speed of the cluster. It is measured on a file without a
//! name (`O_TMPFILE`), of which nothing is left, however this ends.

use super::{quoted, Finding};
use crate::config::{ByteSize, Config, Folder, IpfsSection};
use crate::ipfs::removable::mounts::{self, Health};
use rustix::fs::{statvfs, OFlags, StatVfsMountFlags};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Below this the stores refuse to take more.
const FULL: u64 = 64 << 20;
/// Below this it is time to make room.
const NEARLY_FULL: u64 = 1 << 30;
/// Flushes that are timed; the middle one counts.
const FLUSHES: usize = 5;
/// Bytes before each flush: a page, as in a commit.
const PAGE: usize = 4096;
/// A flush that takes longer makes writes slow.
const SLOW: Duration = Duration::from_millis(50);

/// Looks at the folder's disk, and at that of the blocks if it is another.
pub(super) fn look(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    let mut places: Vec<(PathBuf, u64)> = vec![(folder.path().to_owned(), 0)];
    if let IpfsSection::Embedded(node) = &config.ipfs {
        let blocks = config.resolve(folder, &node.data_folder);
        let other = |path: &Path| path.metadata().map(|m| m.dev()).ok();
        if blocks.is_dir() && other(&blocks) != other(folder.path()) {
            places.push((blocks, node.storage_max.0));
        } else {
            places[0].1 = node.storage_max.0;
        }
    }
    for (path, wanted) in places {
        memory(&path, findings);
        space(&path, wanted, config, folder, findings);
        writing(&path, findings);
    }
}

fn space(path: &Path, storage_max: u64, config: &Config, folder: &Folder, findings: &mut Vec<Finding>) {
    let shown = path.display();
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(e) => {
            let what = format!("{shown}: the disk cannot be asked: {e}");
            return findings.push(Finding::fail("disk", what, format!("df {}", quoted(path))));
        }
    };
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) || mounts::health(path) == Health::ReadOnly {
        let what = format!(
            "{shown} is on a disk that is mounted read-only (a card that fails is remounted so by the kernel)"
        );
        let fix = format!(
            "dmesg | grep -i -e mmc -e ext4 -e 'I/O error'; then: mount -o remount,rw \"$(findmnt -no TARGET -T {})\"",
            quoted(path)
        );
        return findings.push(Finding::fail("disk", what, fix));
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let room = format!("{} free", amount(free));
    let du = format!("du -xsh {}/* | sort -h", quoted(path));
    if free < FULL {
        let what = format!("{shown} has {room}: nothing more is taken");
        return findings.push(Finding::fail("disk", what, du));
    }
    if free < NEARLY_FULL {
        return findings.push(Finding::warn("disk", format!("{shown} has only {room}"), du));
    }
    if storage_max > 0 {
        let used = used_by_blocks(&blocks(config, folder));
        if storage_max.saturating_sub(used) > free {
            let what = format!(
                "{shown} has {room}, less than ipfs_connector.embedded.storage_max ({}) promises to the cluster",
                ByteSize(storage_max)
            );
            let fix = format!(
                "set storage_max to at most {} in {}",
                ByteSize((used + free.saturating_sub(NEARLY_FULL)) / 1_000_000_000 * 1_000_000_000),
                quoted(&folder.service_json())
            );
            return findings.push(Finding::warn("disk", what, fix));
        }
    }
    findings.push(Finding::ok("disk", format!("{shown} has {room}")));
}

/// A folder that is no longer there after a power cut.
fn memory(path: &Path, findings: &mut Vec<Finding>) {
    if let Some(kind) = mounts::in_memory(path) {
        let what =
            format!("{} is in memory ({kind}): what is acknowledged is gone with the power", path.display());
        findings.push(Finding::warn(
            "disk",
            what,
            "move it to a disk that is written: stop the daemon, cp -a, start with -c",
        ));
    }
}

/// Bytes as a person counts them.
fn amount(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn blocks(config: &Config, folder: &Folder) -> PathBuf {
    match &config.ipfs {
        IpfsSection::Embedded(node) => config.resolve(folder, &node.data_folder),
        IpfsSection::Http(_) => folder.path().to_owned(),
    }
}

/// Bytes on disk in a folder and the folders directly in it, which is as deep as blocks lie.
fn used_by_blocks(path: &Path) -> u64 {
    let sizes = |path: &Path| -> (u64, Vec<PathBuf>) {
        let (mut sum, mut folders) = (0, Vec::new());
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => sum += meta.blocks() * 512,
                Err(_) => {}
            }
        }
        (sum, folders)
    };
    let (sum, folders) = sizes(path);
    sum + folders.iter().map(|folder| sizes(folder).0).sum::<u64>()
}

/// Writes and flushes a page a few times.
fn writing(path: &Path, findings: &mut Vec<Finding>) {
    let median = match flush_time(path) {
        Ok(median) => median,
        Err(error) => {
            let fix = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    format!(
                        "run this as the user of the daemon, or: sudo chown -R \"$USER\" {}",
                        quoted(path)
                    )
                }
                _ => format!("df {}; dmesg | tail", quoted(path)),
            };
            let what = format!("{} cannot be written: {error}", path.display());
            return findings.push(Finding::fail("disk", what, fix));
        }
    };
    let card = on_a_card(path);
    let what = format!(
        "a flush takes {:.1} ms{}",
        median.as_secs_f64() * 1e3,
        if card { ", on an SD card" } else { "" }
    );
    findings.push(if median > SLOW {
        Finding::warn(
            "disk",
            format!("{what}: each write to the cluster waits for two"),
            "move the folder to a USB disk or SSD: stop the daemon, copy the folder with `cp -a`, start with -c",
        )
    } else {
        Finding::ok("disk", what)
    });
}

fn flush_time(path: &Path) -> std::io::Result<Duration> {
    let mut file = unnamed(path)?;
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&[0; PAGE])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[FLUSHES / 2])
}

/// A file without a name; on filesystems that have none, one whose name is gone at once.
fn unnamed(path: &Path) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
    let made = OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(path);
    let unsupported = [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::ISDIR, rustix::io::Errno::NOENT];
    match made {
        Err(e) if unsupported.iter().any(|no| e.raw_os_error() == Some(no.raw_os_error())) => {
            let name = path.join(format!(".doctor.{}", std::process::id()));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
            std::fs::remove_file(&name)?;
            Ok(file)
        }
        made => made,
    }
}

/// Whether the filesystem lies on an SD or MMC card.
fn on_a_card(path: &Path) -> bool {
    let Ok(meta) = path.metadata() else { return false };
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let device = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"));
    device.is_ok_and(|device| device.to_string_lossy().contains("mmcblk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_a_flush_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(flush_time(dir.path()).expect("flush") > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
        assert!(flush_time(&dir.path().join("missing")).is_err());
    }
}
