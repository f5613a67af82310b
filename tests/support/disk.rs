//! Small disks that fill up and folders that cannot be written: mounts, so for root only.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own at a folder; unmounted with the value.
pub struct SmallDisk {
    at: PathBuf,
}

/// `mount`, or `None` where this process may not.
fn mount(args: &[&str]) -> Option<()> {
    let output = Command::new("mount").args(args).output().ok()?;
    if !output.status.success() {
        super::skip(&format!(
            "mount {args:?} is not possible here: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
        return None;
    }
    Some(())
}

impl SmallDisk {
    /// A disk of this many MiB, in memory. `None`, having said so, where mounting is not possible.
    pub fn mount(at: &Path, mebibytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a mount point");
        let (size, path) = (format!("size={mebibytes}m,mode=0700"), at.to_str().expect("UTF-8"));
        mount(&["-t", "tmpfs", "-o", &size, "pinfold-test", path])?;
        Some(SmallDisk { at: at.to_owned() })
    }

    /// The folder as it is, but not to be written.
    pub fn read_only(at: &Path) -> Option<SmallDisk> {
        let path = at.to_str().expect("UTF-8");
        mount(&["--bind", path, path])?;
        let disk = SmallDisk { at: at.to_owned() };
        mount(&["-o", "remount,bind,ro", path])?;
        Some(disk)
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).expect("statvfs");
        stat.f_bavail * stat.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Writes ballast until this many bytes are free.
    pub fn fill_to(&self, free: u64) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).expect("ballast");
        let chunk = vec![1; 64 << 10];
        while self.free() > free {
            let n = usize::try_from(self.free() - free).expect("small").min(chunk.len());
            // Somebody else may take the last bytes: full is full.
            if file.write_all(&chunk[..n]).is_err() {
                return;
            }
        }
    }

    /// Takes the ballast away.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that still lives keeps its files, and the test's folder can go.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
