//! `sudo pinfold …`: root and the peer that the machine runs as a service.
//!
//! The packages run peers as a user of their own, in [`SERVICE_FOLDER`] (`pinfold.service`) and in folders beside it
//! with `-NAME` at the end (`pinfold@NAME.service`). Whatever root does with such a folder is done *as its owner*: the
//! work goes to a process that has become that user before it touches anything. So all that is made in there belongs to
//! the service, and a link that somebody planted there leads root nowhere. Files that are named on the command line are
//! root's business: they are opened before, and handed over open.
//!
//! `join`, `invite` and `open` want the service stopped or started again. That part stays with root, and only that.
//!
//! What this module must never do: change anything in such a folder as root; leave the service stopped.

use super::args::{self, Parsed};
use super::failure::{Failure, Outcome};
use super::local;
use crate::config::{Folder, SERVICE_FOLDER};
use crate::error::{Context as _, Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// There as long as systemd runs the machine (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";
/// The exit code of a process that a signal ended, as a shell would say it.
const EXIT_SIGNAL: u8 = 128;

/// A folder that a service works in, and whose owner we are not.
struct Service<'a> {
    folder: &'a Path,
    uid: u32,
    gid: u32,
    /// `pinfold.service`, `pinfold@NAME.service`.
    unit: String,
}

/// Does a command in the place of the owner of a service's folder; `None` when it is to be done right here.
pub(super) fn on_behalf(folder: &Folder, command: &Parsed) -> Option<Outcome> {
    let unit = unit_of(folder.path())?;
    if !works_on_folder(command) {
        return None;
    }
    let (owner, us) = (std::fs::metadata(folder.path()).ok()?, rustix::process::geteuid());
    if owner.uid() == us.as_raw() {
        return None;
    }
    if !us.is_root() {
        return Some(Err(Failure::Local(Error::forbidden(format!(
            "{} belongs to the service {unit}, which runs the peer of this machine: use sudo for this command, or name a \
             folder for a peer of your own with -c FOLDER",
            folder.path().display()
        )))));
    }
    let service = Service { folder: folder.path(), uid: owner.uid(), gid: owner.gid(), unit };
    Some(service.run(command))
}

/// The unit whose folder this is.
fn unit_of(folder: &Path) -> Option<String> {
    let rest = folder.to_str()?.strip_prefix(SERVICE_FOLDER)?;
    match rest.strip_prefix('-') {
        None if rest.is_empty() => Some("pinfold.service".into()),
        Some(name) if !name.is_empty() && !name.contains('/') => Some(format!("pinfold@{name}.service")),
        _ => None,
    }
}

fn works_on_folder(command: &Parsed) -> bool {
    match command {
        Parsed::Version | Parsed::HashPassword | Parsed::ConfigKeys(_) => false,
        Parsed::SwarmKey(args) => args.show,
        _ => true,
    }
}

impl Service<'_> {
    fn run(&self, command: &Parsed) -> Outcome {
        match command {
            Parsed::Join(args) if !args.once && self.is_managed() => self.join(args),
            Parsed::Invite if self.is_managed() => {
                self.open()?;
                self.become_owner()
            }
            Parsed::Open if self.is_managed() => match self.open()? {
                true => Ok(()),
                false => Ok(writeln!(std::io::stderr(), "other machines can reach this peer already")?),
            },
            Parsed::StateExport(args::StateExport { file: Some(name) }) => {
                let file = File::create(name).context(format!("writing {name}"))?;
                let mut export = self.as_owner(["state", "export"]);
                ended(export.stdout(file).status().context("starting the export")?)
            }
            Parsed::StateImport(args) if args.file.is_some() => self.import(args),
            _ => self.become_owner(),
        }
    }

    /// This program with other words, as the owner of the folder.
    fn as_owner(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let own = std::env::current_exe().unwrap_or_else(|_| "pinfold".into());
        let mut command = Command::new(own);
        // With the user all other groups of root's are given up, too.
        command.uid(self.uid).gid(self.gid).args(words);
        command.env("IPFS_CLUSTER_PATH", self.folder).env("HOME", self.folder);
        command
    }

    /// The same command line in this process, as the owner from here on.
    fn become_owner(&self) -> Outcome {
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_else(|| "pinfold".into());
        let error = self.as_owner(words).arg0(name).exec();
        Err(Failure::Local(Error::from_io(
            format!("becoming the owner of {} (user {})", self.folder.display(), self.uid),
            &error,
        )))
    }

    /// Whether systemd runs this peer.
    fn is_managed(&self) -> bool {
        Path::new(SYSTEMD).is_dir() && quiet(&["cat", &self.unit])
    }

    /// Opens the peer to other machines, when it is not, and starts it again with that. Whether it was necessary.
    fn open(&self) -> Outcome<bool> {
        let mut open = self.as_owner(["open"]);
        // What it says when there is nothing to do is no answer to what was asked.
        let done = open.stderr(Stdio::piped()).output().context("starting `pinfold open`")?;
        if !done.status.success() {
            std::io::stderr().write_all(&done.stderr)?;
            return ended(done.status).map(|()| false);
        }
        if done.stdout.is_empty() {
            return Ok(false);
        }
        let mut err = std::io::stderr();
        writeln!(err, "this peer listened to its own machine only; now other machines can reach it:")?;
        err.write_all(&done.stdout)?;
        self.systemctl("restart")?;
        Ok(true)
    }

    fn join(&self, args: &args::Join) -> Outcome {
        let token = local::token(&args.token)?;
        // The others' keys and options are told by the process that joins; what it would only guess is told here.
        writeln!(std::io::stderr(), "stopping {}, joining, and starting it again", self.unit)?;
        self.systemctl("stop")?;
        let joined = self.join_once(args, &token);
        // Whatever came of it: a machine never loses its peer by this.
        let started = self.systemctl("start");
        joined?;
        started?;
        writeln!(std::io::stdout(), "joined; {} runs. `pinfold peers ls` shows who is there", self.unit)?;
        Ok(())
    }

    fn join_once(&self, args: &args::Join, token: &str) -> Outcome {
        let mut words = vec!["--loglevel=warning", "join", "-", "--once"];
        words.extend(
            [(args.witness, "--witness"), (args.force, "--force")]
                .iter()
                .filter_map(|(on, w)| on.then_some(*w)),
        );
        for (flag, value) in [("--ipfs", &args.ipfs), ("--swarm-key", &args.swarm_key)] {
            words.extend(value.iter().flat_map(|value| [flag, value.as_str()]));
        }
        let mut child = self.as_owner(words);
        // The token goes through a pipe: on the command line every user would see it.
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting `pinfold join`")?;
        let told = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(token.as_bytes()));
        let status = child.wait().context("waiting for `pinfold join`")?;
        ended(status)?;
        Ok(told?)
    }

    /// `state import FILE`, of a file that its owner need not be able to read.
    fn import(&self, args: &args::StateImport) -> Outcome {
        let name = args.file.as_deref().unwrap_or_default();
        let file = File::open(name).context(format!("reading {name}"))?;
        if !args.force && !local::yes(local::REPLACE)? {
            return Ok(());
        }
        let numbers =
            [("--replication-min", args.replication_min), ("--replication-max", args.replication_max)];
        let switches = [(args.reallocate, "--reallocate"), (args.skip_bad, "--skip-bad")];
        let mut words: Vec<String> = ["state", "import", "--force"].map(String::from).into();
        words.extend(numbers.iter().filter_map(|(flag, n)| n.map(|n| format!("{flag}={n}"))));
        words.extend(args.allocations.iter().map(|peers| format!("--allocations={peers}")));
        words.extend(switches.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()));
        ended(self.as_owner(words).stdin(file).status().context("starting the import")?)
    }

    fn systemctl(&self, verb: &str) -> Result<()> {
        let doing = format!("`systemctl {verb} {}`", self.unit);
        let status = Command::new("systemctl").args([verb, &self.unit]).status().context(&doing)?;
        if status.success() {
            return Ok(());
        }
        Err(Error::unavailable(format!("{doing} failed: `journalctl -u {} -n 20` says why", self.unit)))
    }
}

/// Whether systemctl agrees, without a word.
fn quiet(words: &[&str]) -> bool {
    let mut ask = Command::new("systemctl");
    ask.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How a process ended becomes how we end.
fn ended(status: ExitStatus) -> Outcome {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Told(u8::try_from(code).unwrap_or(u8::MAX))),
        None => Err(Failure::Told(EXIT_SIGNAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_services_are_known_by_their_names() {
        let unit = |path: &str| unit_of(Path::new(path));
        assert_eq!(unit("/var/lib/pinfold").as_deref(), Some("pinfold.service"));
        assert_eq!(unit("/var/lib/pinfold-attic").as_deref(), Some("pinfold@attic.service"));
        for other in
            ["/var/lib/pinfolds", "/var/lib/pinfold-", "/var/lib/pinfold-a/b", "/home/a/.pinfold", "/"]
        {
            assert_eq!(unit(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_of_ones_own_is_worked_on_right_here() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert!(on_behalf(&Folder::new(dir.path()), &Parsed::Doctor).is_none());
    }

    #[test]
    fn what_needs_no_folder_needs_no_owner() {
        assert!(!works_on_folder(&Parsed::Version));
        assert!(!works_on_folder(&Parsed::SwarmKey(args::SwarmKey::default())));
        assert!(works_on_folder(&Parsed::SwarmKey(args::SwarmKey { show: true, file: None })));
        assert!(works_on_folder(&Parsed::Invite));
    }

    #[test]
    fn the_exit_code_of_the_one_who_did_it_is_ours() {
        let run = |line: &str| Command::new("sh").args(["-c", line]).status().expect("sh");
        assert_eq!(ended(run("exit 0")), Ok(()));
        assert_eq!(ended(run("exit 5")), Err(Failure::Told(5)));
        assert_eq!(ended(run("kill -9 $$")), Err(Failure::Told(EXIT_SIGNAL)));
    }
}
