//! A disk with a file system of its own, in a file, that can be unplugged and plugged in again: for root only.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A disk that may be mounted. Unmounted with the value.
pub struct LoopDisk {
    image: PathBuf,
    at: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

impl LoopDisk {
    /// A disk of this many MiB with ext4 on it, mounted at a folder. `None`, having said so, where that is not possible.
    pub fn new(image: &Path, at: &Path, mebibytes: u64) -> Option<LoopDisk> {
        std::fs::create_dir_all(at).expect("a mount point");
        std::fs::File::create(image).and_then(|f| f.set_len(mebibytes << 20)).expect("an image");
        let disk = LoopDisk { image: image.to_owned(), at: at.to_owned() };
        let options = ["-q", "-F", "-m", "0", disk.image.to_str().expect("UTF-8")];
        match run("mkfs.ext4", &options).and_then(|_| disk.try_plug_in()) {
            Ok(()) => Some(disk),
            Err(why) => {
                super::skip(&format!("a disk of our own is not possible here: {why}"));
                None
            }
        }
    }

    fn try_plug_in(&self) -> Result<(), String> {
        let (image, at) = (self.image.to_str().expect("UTF-8"), self.at.to_str().expect("UTF-8"));
        run("mount", &["-o", "loop,errors=remount-ro", image, at]).map(drop)
    }

    /// Mounts it.
    pub fn plug_in(&self) {
        self.try_plug_in().expect("mounted");
    }

    /// Takes it away, whoever uses it.
    pub fn unplug(&self) {
        run("umount", &["-l", self.at.to_str().expect("UTF-8")]).expect("unmounted");
    }

    /// Waits until nobody uses it any more: until then mounting it gives the same file system, with its errors.
    pub fn wait_released(&self) {
        let image = self.image.to_str().expect("UTF-8");
        super::wait_for("the disk to be let go", std::time::Duration::from_secs(30), || {
            let users = run("losetup", &["-j", image])?;
            match users.stdout.is_empty() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&users.stdout).into_owned()),
            }
        });
    }

    /// From now on nothing can be read from it or written to it that is not in memory, as when its plug is pulled.
    pub fn fail(&self) {
        // EXT4_IOC_SHUTDOWN, without writing the journal.
        self.ioctl("0x8004587d", "pack('L', 2)");
    }

    fn ioctl(&self, number: &str, argument: &str) {
        let script = format!(
            "open(my $f, '<', $ARGV[0]) or die $!; my $a = {argument}; ioctl($f, {number}, $a) or die $!"
        );
        run("perl", &["-e", &script, self.at.to_str().expect("UTF-8")]).expect("ioctl");
    }

    /// The kernel stops writing to it, as after an error that it has met.
    pub fn turn_read_only(&self) {
        let _ = run("mount", &["-o", "remount,abort", self.at.to_str().expect("UTF-8")]);
    }

    /// The folder that it is, or would be, mounted at.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// What is in that folder.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.at).expect("the folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.at.to_str().expect("UTF-8")]);
    }
}
