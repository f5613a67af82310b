//! The commands that work on a folder of this machine: `init`, `daemon`, `up`, `join`, `invite`, `state`.
//!
//! This module asks the person and hands over; making configurations, running peers and moving state
//! are the work of `config` and `daemon`.

use super::args::{self, Globals, Parsed};
use super::face::Face;
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::{doctor, secrets};
use crate::config::init::{self, InitOptions, Ports};
use crate::config::{self, Env, Folder, Secret};
use crate::daemon::{self, DaemonOptions, ImportOverrides, RunMode};
use crate::error::{Context, Error, Result};
use libp2p::Multiaddr;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

/// How often a question is asked before no answer counts as "no".
const ATTEMPTS: usize = 3;

/// Runs a local command.
///
/// # Errors
/// Whatever ends it.
pub fn run(face: Face, globals: &Globals, command: Parsed, encoding: Encoding) -> Outcome {
    if command == Parsed::Version {
        writeln!(std::io::stdout(), "{}", crate::VERSION)?;
        return Ok(());
    }
    if command == Parsed::HashPassword {
        return secrets::hash_password();
    }
    crate::log::init(&levels(globals)).map_err(|e| Failure::Usage(e.to_string()))?;
    let home = if face == Face::Pinfold { config::Face::Pinfold } else { config::Face::IpfsCluster };
    let folder = Folder::find(globals.config.as_ref().map(Path::new), home)?;
    match command {
        Parsed::Init(args) => init(face, &folder, &args, globals.force),
        Parsed::Daemon(args) => {
            let bootstrap = addresses("--bootstrap", args.bootstrap.as_deref())?;
            daemon(folder, bootstrap, args.leave, args.stats, args.insecure_no_secret, RunMode::Daemon)
        }
        Parsed::Up(args) => {
            daemon(folder, Vec::new(), args.leave, args.stats, args.insecure_no_secret, RunMode::Up)
        }
        Parsed::Join(args) => {
            // A token that lost its end is told before a folder is made for it.
            config::Invite::parse(&args.token)?;
            daemon(folder, Vec::new(), args.leave, args.stats, false, RunMode::Join(args.token))
        }
        Parsed::Invite => {
            let token = daemon::invite(&folder)?;
            writeln!(std::io::stdout(), "{token}")?;
            Ok(())
        }
        Parsed::Doctor => doctor::run(&folder, encoding),
        Parsed::StateExport(args) => state_export(&folder, args.file.as_deref()),
        Parsed::StateImport(args) => state_import(&folder, &args, globals.force),
        Parsed::StateCleanup(args) => {
            let question = "The peer state will be removed.  Existing pins may be lost. Continue? [y/n]:";
            if args.force || globals.force || yes(question)? {
                daemon::state_cleanup(&folder)?;
            }
            Ok(())
        }
        other => Err(Failure::Usage(format!("{other:?} is not a command for this machine"))),
    }
}

/// The log levels that were asked for.
fn levels(globals: &Globals) -> String {
    match (&globals.loglevel, globals.debug) {
        (_, true) => "debug".into(),
        (Some(levels), false) => levels.clone(),
        (None, false) => String::new(),
    }
}

fn daemon(
    folder: Folder,
    bootstrap: Vec<Multiaddr>,
    leave: bool,
    stats: bool,
    insecure_no_secret: bool,
    mode: RunMode,
) -> Outcome {
    if stats {
        // The variable is how everything else overrides the file; no thread runs yet that could read it.
        std::env::set_var("CLUSTER_METRICS_ENABLESTATS", "true");
    }
    Ok(daemon::run(DaemonOptions { folder, bootstrap, leave, insecure_no_secret, mode })?)
}

fn init(face: Face, folder: &Folder, args: &args::Init, force: bool) -> Outcome {
    let consensus =
        args.consensus.as_deref().unwrap_or("raft").parse().map_err(|_| {
            Failure::argument("choosing consensus", "flag value must be set to 'raft' or 'crdt'")
        })?;
    if let Some(url) = &args.source {
        return Err(Failure::Local(Error::invalid(format!(
            "a configuration on a web server ({url}) is not supported; download it as {}",
            folder.service_json().display()
        ))));
    }
    let embedded = match args.ipfs.as_deref() {
        None => face == Face::Pinfold,
        Some("embedded") => true,
        Some("kubo") => false,
        Some(other) => {
            let error = format!("\"{other}\" is neither embedded nor kubo");
            return Err(Failure::argument("choosing the IPFS node", error));
        }
    };
    let peers = addresses("--peers", args.peers.as_deref())?;
    // A running daemon keeps its folder.
    let _lock = if init::is_fresh(folder) { None } else { Some(folder.lock("init")?) };
    let question = "The configuration file will be overwritten. Continue? [y/n]:";
    if init::would_overwrite(folder).is_some() && !args.force && !force && !yes(question)? {
        return Ok(());
    }
    let secret = if args.custom_secret {
        let text = ask("Enter cluster secret (32-byte hex string): ")?.unwrap_or_default();
        Some(Secret::from_hex(&text)?)
    } else {
        None
    };
    let options = InitOptions {
        consensus,
        secret,
        peers,
        force: true,
        ports: if args.randomports { Ports::Random } else { Ports::Default },
        embedded,
        peername: None,
    };
    let report = init::init(folder, &options, &Env::process())?;
    let mut err = std::io::stderr();
    for warning in &report.warnings {
        writeln!(err, "WARNING: {warning}")?;
    }
    for message in &report.messages {
        writeln!(err, "{message}")?;
    }
    Ok(())
}

fn state_export(folder: &Folder, file: Option<&str>) -> Outcome {
    let count = match file {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let count = daemon::state_export(folder, &mut out)?;
            out.flush()?;
            count
        }
        Some(name) => {
            let doing = format!("writing {name}");
            let mut out = BufWriter::new(File::create(name).context(&doing)?);
            let count = daemon::state_export(folder, &mut out)?;
            out.flush().and_then(|()| out.get_ref().sync_all()).context(&doing)?;
            count
        }
    };
    log::info!(target: "service", "state successfully exported: {count} pins");
    Ok(())
}

fn state_import(folder: &Folder, args: &args::StateImport, force: bool) -> Outcome {
    let mut overrides = ImportOverrides {
        replication_min: args.replication_min.unwrap_or(0),
        replication_max: args.replication_max.unwrap_or(0),
        allocations: Vec::new(),
    };
    for peer in args.allocations.as_deref().unwrap_or_default().split(',').map(str::trim) {
        if !peer.is_empty() {
            overrides.allocations.push(
                peer.parse().map_err(|e| {
                    Error::invalid(format!("--allocations: \"{peer}\" is not a peer ID: {e}"))
                })?,
            );
        }
    }
    let question = "The pinset (state) of this peer will be replaced. Continue? [y/n]:";
    if !args.force && !force && !yes(question)? {
        return Ok(());
    }
    let count = match &args.file {
        None => {
            writeln!(std::io::stderr(), "reading from stdin, Ctrl-D to finish")?;
            daemon::state_import(folder, &mut std::io::stdin().lock(), &overrides)?
        }
        Some(name) => {
            let mut file = File::open(name).context(format!("reading {name}"))?;
            daemon::state_import(folder, &mut file, &overrides)?
        }
    };
    log::info!(target: "service", "state successfully imported: {count} pins");
    Ok(())
}

/// A comma list of addresses.
fn addresses(flag: &str, list: Option<&str>) -> Result<Vec<Multiaddr>> {
    let words = list.unwrap_or_default().split(',').map(str::trim).filter(|w| !w.is_empty());
    words
        .map(|word| {
            word.parse().map_err(|e| {
                Error::invalid(format!(
                    "{flag}: \"{word}\" is not an address like /ip4/192.168.1.2/tcp/9096/p2p/<peer ID>: {e}"
                ))
            })
        })
        .collect()
}

/// Asks for one line; `None` at the end of the input.
fn ask(question: &str) -> Outcome<Option<String>> {
    let mut out = std::io::stdout();
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    let read = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Error::from_io("reading the answer from standard input", &e))?;
    Ok((read > 0).then(|| line.trim().to_string()))
}

/// A yes-or-no question; anything but a yes is a no in the end.
fn yes(question: &str) -> Outcome<bool> {
    for _ in 0..ATTEMPTS {
        match ask(&format!("{question} "))?.map(|a| a.to_lowercase()).as_deref() {
            Some("y" | "yes") => return Ok(true),
            Some("n" | "no") => return Ok(false),
            None => {
                writeln!(std::io::stdout())?;
                return Ok(false);
            }
            Some(_) => {}
        }
    }
    Ok(false)
}
