//! The folder of a peer: where it is, who may read it, who holds it.
//!
//! The folder is 0700 and its files with secrets are 0600, from their first byte on. Files are replaced by
//! writing a neighbour, flushing it, and renaming it over: after a power cut there is the old text or the
//! new one. Whoever works with the folder's data holds [`FolderLock`]; the kernel gives it back when the
//! process ends, however it ends.

use crate::durable;
use crate::error::{Context, Error, Result};
use libp2p::Multiaddr;
use rustix::fs::{flock, FlockOperation};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The most addresses that are read from a peerstore.
const MAX_PEERSTORE: usize = 4096;
/// The most bytes of the lock file that are shown to the one who finds it held.
const MAX_HOLDER: u64 = 200;

/// Under which name the program runs: it decides on the default folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// pinfold.
    Pinfold,
    /// ipfs-cluster-service or ipfs-cluster-ctl.
    IpfsCluster,
}

impl Face {
    fn default_folder(self) -> &'static str {
        match self {
            Face::Pinfold => ".pinfold",
            Face::IpfsCluster => ".ipfs-cluster",
        }
    }
}

/// The folder of a peer. Making one touches nothing on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    /// Relative to the folder, unless it is a whole path.
    peerstore: PathBuf,
}

/// Where the packaged service keeps its peer, and what its units are started for.
pub const SERVICE_FOLDER: &str = "/var/lib/pinfold";

/// Where the addresses of other peers are kept, unless `cluster.peerstore_file` says otherwise.
const PEERSTORE: &str = "peerstore";
/// The configuration.
const SERVICE_JSON: &str = "service.json";

impl Folder {
    /// This folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder { path: path.into(), peerstore: PEERSTORE.into() }
    }

    /// The same with another file of addresses: `cluster.peerstore_file`.
    #[must_use]
    pub fn with_peerstore(self, file: &str) -> Self {
        Folder { peerstore: file.into(), ..self }
    }

    /// The folder to use: the `-c` option, else `$IPFS_CLUSTER_PATH`, else the default of the name in `$HOME`. Under
    /// the name pinfold, [`SERVICE_FOLDER`] stands in for that default where the package is installed, unless the
    /// user has a peer there already: `sudo pinfold invite` is about the peer that the machine runs.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when none of them says where.
    pub fn find(option: Option<&Path>, face: Face) -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::find_in(option, face, Path::new(SERVICE_FOLDER), variable)
    }

    fn find_in(
        option: Option<&Path>,
        face: Face,
        service: &Path,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let service = (face == Face::Pinfold && service.is_dir()).then(|| service.to_owned());
        let path = match option {
            Some(path) if path.as_os_str().is_empty() => {
                return Err(Error::invalid("-c/--config is empty; name a folder"));
            }
            Some(path) => path.to_owned(),
            None => match variable("IPFS_CLUSTER_PATH") {
                Some(path) => PathBuf::from(path),
                None => {
                    let own = variable("HOME").map(|home| PathBuf::from(home).join(face.default_folder()));
                    let made =
                        own.as_ref().is_some_and(|own| own.join(SERVICE_JSON).symlink_metadata().is_ok());
                    let found = if made { own } else { service.or(own) };
                    found.ok_or_else(|| {
                        Error::invalid(
                            "there is no home folder, as HOME is not set; say where the configuration is with -c FOLDER",
                        )
                    })?
                }
            },
        };
        // Absolute, so that messages can be acted upon from anywhere.
        let path = std::path::absolute(&path).context(format!("finding {}", path.display()))?;
        Ok(Folder::new(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `service.json`.
    pub fn service_json(&self) -> PathBuf {
        self.path.join(SERVICE_JSON)
    }

    /// `identity.json`.
    pub fn identity_json(&self) -> PathBuf {
        self.path.join("identity.json")
    }

    /// `peerstore`, or what `cluster.peerstore_file` says.
    pub fn peerstore(&self) -> PathBuf {
        self.path.join(&self.peerstore)
    }

    /// `cluster.lock`.
    pub fn lock_file(&self) -> PathBuf {
        self.path.join("cluster.lock")
    }

    /// Makes the folder, 0700, with the folders above it, if it is not there.
    ///
    /// # Errors
    /// Names the folder and what the system said.
    pub fn create(&self) -> Result<()> {
        crate::durable::make_folder(&self.path)
            .map_err(|e| Error::new(e.kind(), format!("{e} (is the folder above it there and writable?)")))
    }

    /// The files with secrets that other users of the machine can read, as warnings.
    pub(super) fn readable_by_others(&self) -> Vec<String> {
        let open = |path: &PathBuf| path.metadata().is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        let files = [self.service_json(), self.identity_json()].into_iter().filter(open);
        files
            .map(|path| {
                let path = path.display();
                format!("{path} holds a secret and other users can read it; close it with: chmod 600 {path}")
            })
            .collect()
    }

    /// Takes the folder for this process; `what` is who it is, for the next one who asks: `pinfold up`.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] saying who holds it.
    pub fn lock(&self, what: &str) -> Result<FolderLock> {
        let path = self.lock_file();
        let doing = "error obtaining execution lock";
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context(format!("{doing}: opening {} (can the folder be written?)", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => {
                return Err(Error::conflict(format!(
                    "{doing}: the folder {} is in use by {}; stop it first",
                    self.path.display(),
                    holder(&mut file)
                )));
            }
            Err(e) => {
                return Err(Error::from_io(format!("{doing}: locking {}", path.display()), &e.into()));
            }
        }
        // Who holds it is a courtesy to the next one. On a full disk the lock is good without it.
        let clean: String = what.chars().filter(|c| !c.is_control()).collect();
        let _ = file.set_len(0);
        let _ = write!(file, "{} {clean}", std::process::id());
        Ok(FolderLock { file })
    }

    /// The addresses of the peerstore, and what was wrong with its lines. An absent file is an empty one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read_peerstore(&self) -> Result<(Vec<Multiaddr>, Vec<String>)> {
        let path = self.peerstore();
        if !path.exists() {
            return Ok((Vec::new(), Vec::new()));
        }
        let text = super::file::read_text(&path)?;
        let (mut addresses, mut warnings) = (Vec::new(), Vec::new());
        // ipfs-cluster, too, takes lines with another beginning for comments.
        for (n, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('/')) {
            if addresses.len() == MAX_PEERSTORE {
                warnings
                    .push(format!("{}: only the first {MAX_PEERSTORE} addresses are used", path.display()));
                break;
            }
            match line.trim().parse() {
                Ok(address) => addresses.push(address),
                Err(e) => {
                    warnings.push(format!("{}, line {}: not a multiaddress: {e}", path.display(), n + 1));
                }
            }
        }
        Ok((addresses, warnings))
    }

    /// Replaces the peerstore.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn write_peerstore(&self, addresses: &[Multiaddr]) -> Result<()> {
        let text: String = addresses.iter().map(|a| format!("{a}\n")).collect();
        write_private(&self.peerstore(), text.as_bytes())
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.take(MAX_HOLDER).read_to_string(&mut text);
    match text.split_once(' ') {
        Some((pid, what)) if pid.parse::<u32>().is_ok() => {
            let what: String = what.chars().filter(|c| !c.is_control()).collect();
            format!("process {pid} ({what})")
        }
        _ => "another process".into(),
    }
}

/// Holds a folder for this process. Given back on drop and at the end of the process.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl Drop for FolderLock {
    /// ipfs-cluster takes a lock file with anything in it for held: whoever goes back to it must find it empty.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// A neighbour of `path` to write to, named so that two writers never share one.
fn neighbour(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".tmp.{}.{n}", std::process::id()));
    path.with_file_name(name)
}

fn write_neighbour(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let next = neighbour(path);
    let written = (|| {
        // A leftover of a process with the same number that was cut off is in nobody's way.
        match std::fs::remove_file(&next) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        // A mask or an ACL may have made it something else.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        keep_owner(path, &file)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&next);
    }
    written.context(format!("writing {}", path.display()))?;
    Ok(next)
}

/// Gives what root writes to the one whose file it replaces, or whose folder it is in: whoever runs the peer must be
/// able to read it.
fn keep_owner(path: &Path, file: &File) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let whose = std::fs::metadata(path).or_else(|_| std::fs::metadata(durable::folder_of(path)))?;
    let now = file.metadata()?;
    if (whose.uid(), whose.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(whose.uid()), Some(whose.gid()))
}

/// Makes a rename durable.
fn sync_folder_of(path: &Path) -> Result<()> {
    durable::sync_folder(durable::folder_of(path))
}

/// Replaces a file as a whole, durably, readable by the owner only. A symbolic link stays one: the file it
/// points to is replaced.
///
/// # Errors
/// Names the file and what the system said; the file is then as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let next = write_neighbour(&target, bytes)?;
    let renamed = std::fs::rename(&next, &target);
    if renamed.is_err() {
        let _ = std::fs::remove_file(&next);
    }
    renamed.context(format!("writing {}", path.display()))?;
    sync_folder_of(&target)
}

/// Like [`write_private`], for a file that must not be there yet.
pub(super) fn write_new_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let exists = || {
        Error::conflict(format!(
            "{} exists already and is never overwritten; move it away first",
            path.display()
        ))
    };
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let next = write_neighbour(path, bytes)?;
    // A hard link is the one way to give a name only if it is free that every kernel knows.
    let linked = std::fs::hard_link(&next, path);
    let done = match linked {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
        // FAT and some network filesystems have no hard links; the check above must do.
        Err(_) => std::fs::rename(&next, path).context(format!("writing {}", path.display())),
        Ok(()) => Ok(()),
    };
    let _ = std::fs::remove_file(&next);
    done?;
    sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("temp dir");
        let folder = Folder::new(dir.path().join("deep/peer"));
        folder.create().expect("create");
        (dir, folder)
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn the_option_wins_over_the_variable_and_that_over_home() {
        let both = |name: &str| match name {
            "IPFS_CLUSTER_PATH" => Some(OsString::from("/var/peer")),
            "HOME" => Some(OsString::from("/home/someone")),
            _ => None,
        };
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/someone"));
        let found = |option: Option<&str>, face, variable: &dyn Fn(&str) -> Option<OsString>| {
            Folder::find_in(option.map(Path::new), face, Path::new("/nosuch/service"), variable)
                .map(|f| f.path().display().to_string())
        };
        assert_eq!(found(Some("/x"), Face::Pinfold, &both).expect("option"), "/x");
        assert_eq!(found(None, Face::Pinfold, &both).expect("variable"), "/var/peer");
        assert_eq!(found(None, Face::Pinfold, &home).expect("home"), "/home/someone/.pinfold");
        assert_eq!(found(None, Face::IpfsCluster, &home).expect("home"), "/home/someone/.ipfs-cluster");
        assert!(found(None, Face::Pinfold, &|_| None).expect_err("none").message().contains("-c FOLDER"));
        assert!(found(Some(""), Face::Pinfold, &both).is_err());
    }

    #[test]
    fn the_folder_of_the_service_stands_in_for_a_default_that_nobody_has_made() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (home, service) = (dir.path().join("home"), dir.path().join("service"));
        let variable = |name: &str| (name == "HOME").then(|| home.clone().into_os_string());
        let found = |face, variable: &dyn Fn(&str) -> Option<OsString>| {
            Folder::find_in(None, face, &service, variable).expect("found").path().to_owned()
        };
        assert_eq!(found(Face::Pinfold, &variable), home.join(".pinfold"), "the package is not installed");
        std::fs::create_dir(&service).expect("installed");
        assert_eq!(found(Face::Pinfold, &variable), service);
        assert_eq!(found(Face::Pinfold, &|_| None), service, "a service without a home");
        // Scripts of ipfs-cluster bring their own folder.
        assert_eq!(found(Face::IpfsCluster, &variable), home.join(".ipfs-cluster"));
        std::fs::create_dir_all(home.join(".pinfold")).expect("own");
        assert_eq!(found(Face::Pinfold, &variable), service, "an empty folder is no peer");
        std::fs::write(home.join(".pinfold/service.json"), "{}").expect("own");
        assert_eq!(found(Face::Pinfold, &variable), home.join(".pinfold"));
        let option = Folder::find_in(Some(Path::new("/x")), Face::Pinfold, &service, variable);
        assert_eq!(option.expect("option").path(), Path::new("/x"));
    }

    #[test]
    fn what_root_writes_belongs_to_whose_folder_it_is() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_dir, folder) = temp();
        let (uid, gid) = (54321, 54322);
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("chown");
        write_new_private(&folder.identity_json(), b"{}").expect("write");
        write_private(&folder.service_json(), b"{}").expect("write");
        let owner = |path: &Path| path.metadata().map(|m| (m.uid(), m.gid())).expect("metadata");
        assert_eq!(owner(&folder.identity_json()), (uid, gid), "as the folder");
        assert_eq!(owner(&folder.service_json()), (uid, gid), "as the folder");
        std::os::unix::fs::chown(folder.service_json(), Some(11111), None).expect("chown");
        write_private(&folder.service_json(), b"{ }").expect("write");
        assert_eq!(owner(&folder.service_json()), (11111, gid), "as the file that was there");
    }

    #[test]
    fn only_the_owner_may_look_into_it() {
        let (_dir, folder) = temp();
        assert_eq!(mode(folder.path()), 0o700);
        write_private(&folder.service_json(), b"{}").expect("write");
        assert_eq!(mode(&folder.service_json()), 0o600);
        // A file that was open to others is closed when it is written.
        std::fs::set_permissions(folder.service_json(), PermissionsExt::from_mode(0o644)).expect("chmod");
        write_private(&folder.service_json(), b"{ }").expect("write");
        assert_eq!(mode(&folder.service_json()), 0o600);
        assert_eq!(std::fs::read(folder.service_json()).expect("read"), b"{ }");
        let names: Vec<_> = std::fs::read_dir(folder.path()).expect("list").collect();
        assert_eq!(names.len(), 1, "no neighbour is left behind: {names:?}");
    }

    #[test]
    fn a_new_file_never_replaces_an_old_one() {
        let (_dir, folder) = temp();
        let path = folder.identity_json();
        write_new_private(&path, b"one").expect("first");
        let error = write_new_private(&path, b"two").expect_err("second");
        assert_eq!(error.kind(), crate::Kind::Conflict);
        assert_eq!(std::fs::read(&path).expect("read"), b"one");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }

    #[test]
    fn the_second_holder_is_told_who_the_first_is() {
        let (_dir, folder) = temp();
        let first = folder.lock("pinfold up").expect("first");
        let error = folder.lock("pinfold daemon").expect_err("second");
        assert_eq!(
            error.message(),
            format!(
                "error obtaining execution lock: the folder {} is in use by process {} (pinfold up); stop it first",
                folder.path().display(),
                std::process::id()
            )
        );
        drop(first);
        let again = folder.lock("pinfold daemon").expect("free again");
        // The text of a longer-named holder before it is gone.
        assert!(folder.lock("x").expect_err("held").message().contains("(pinfold daemon)"));
        drop(again);
        std::fs::write(folder.lock_file(), b"\xff\xfe garbage").expect("write");
        folder.lock("x").expect("what is in the file does not matter");
    }

    #[test]
    fn a_lock_in_a_folder_that_is_not_there_says_so() {
        let error = Folder::new("/nonexistent/peer").lock("x").expect_err("no folder");
        assert!(error.message().contains("/nonexistent/peer/cluster.lock"), "{error}");
    }

    #[test]
    fn a_peerstore_is_read_leniently() {
        let (_dir, folder) = temp();
        assert_eq!(folder.read_peerstore().expect("absent"), (Vec::new(), Vec::new()));
        let good: Multiaddr =
            "/ip4/192.168.1.2/tcp/9096/p2p/12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy"
                .parse()
                .expect("addr");
        folder.write_peerstore(std::slice::from_ref(&good)).expect("write");
        assert_eq!(mode(&folder.peerstore()), 0o600);
        let text = format!("# a comment\n\n{good}\n/nonsense/1\n");
        std::fs::write(folder.peerstore(), text).expect("write");
        let (addresses, warnings) = folder.read_peerstore().expect("read");
        assert_eq!(addresses, [good]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("line 4"), "{warnings:?}");
    }
}
