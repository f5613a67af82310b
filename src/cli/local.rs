//! The commands that work on a folder of this machine: `init`, `daemon`, `up`, `join`, `invite`, `state`,
//! `config`.
//!
//! This module asks the person and hands over; making configurations, running peers and moving state
//! are the work of `config` and `daemon`.

use super::args::{self, Globals, Parsed};
use super::face::Face;
use super::failure::{Failure, Outcome};
use super::output::Encoding;
use super::{doctor, manual, secrets, service};
use crate::config::init::{self, InitOptions, Ports};
use crate::config::{self, Config, Env, Folder, Secret, SwarmKey};
use crate::daemon::{self, DaemonOptions, FreshOptions, ImportOverrides, Imported, Join, RunMode, Upgraded};
use crate::error::{Context, Error, Result};
use crate::ipfs::removable;
use libp2p::Multiaddr;
use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::Path;

/// How often a question is asked before no answer counts as "no".
const ATTEMPTS: usize = 3;
/// Most bytes that are read where a token should be: more than any has.
const MAX_TOKEN_INPUT: u64 = 64 << 10;

/// Asked before `state import`.
pub(super) const REPLACE: &str = "The pinset (state) of this peer will be replaced. Continue? [y/n]:";

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
    match &command {
        Parsed::Completion(args) => return manual::completion(&args.shell, args.name.as_deref()),
        Parsed::Man(args) => return manual::man(args.what.as_deref()),
        _ => {}
    }
    crate::log::init(&levels(globals)).map_err(|e| Failure::Usage(e.to_string()))?;
    let home = if face == Face::Pinfold { config::Face::Pinfold } else { config::Face::IpfsCluster };
    let folder = Folder::find(globals.config.as_ref().map(Path::new), home)?;
    if let Some(done) = service::on_behalf(&folder, &command) {
        return done;
    }
    match command {
        Parsed::Init(args) => init(face, &folder, &args, globals.force),
        Parsed::Daemon(args) => {
            let bootstrap = addresses("--bootstrap", args.bootstrap.as_deref())?;
            let mode = RunMode::Daemon;
            let (leave, insecure_no_secret, fresh) =
                (args.leave, args.insecure_no_secret, FreshOptions::default());
            let upgrade = args.upgrade;
            let options =
                DaemonOptions { folder, bootstrap, leave, upgrade, insecure_no_secret, mode, fresh };
            daemon(args.stats, options)
        }
        Parsed::Up(args) => {
            let mut fresh = fresh(args.ipfs.as_deref(), args.swarm_key.as_deref(), args.witness)?;
            fresh.loopback = args.loopback;
            let (leave, insecure_no_secret, bootstrap) = (args.leave, args.insecure_no_secret, Vec::new());
            let mode = RunMode::Up;
            let upgrade = args.upgrade;
            let options =
                DaemonOptions { folder, bootstrap, leave, upgrade, insecure_no_secret, mode, fresh };
            daemon(args.stats, options)
        }
        Parsed::Join(args) => {
            let token = token(&args.token)?;
            let fresh = fresh(args.ipfs.as_deref(), args.swarm_key.as_deref(), args.witness)?;
            let (leave, insecure_no_secret, bootstrap) = (args.leave, false, Vec::new());
            let mode = RunMode::Join(Join { token, once: args.once, force: args.force });
            let upgrade = false;
            let options =
                DaemonOptions { folder, bootstrap, leave, upgrade, insecure_no_secret, mode, fresh };
            daemon(args.stats, options)
        }
        Parsed::Invite => {
            let token = daemon::invite(&folder)?;
            writeln!(std::io::stdout(), "{token}")?;
            Ok(())
        }
        Parsed::Open => {
            let changes = daemon::open(&folder)?;
            if changes.is_empty() {
                writeln!(std::io::stderr(), "other machines can reach this peer already")?;
            }
            for change in changes {
                writeln!(std::io::stdout(), "{change}")?;
            }
            Ok(())
        }
        Parsed::SwarmKey(args) => swarm_key(&folder, &args),
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
        Parsed::ConfigUpgrade(args) => super::config::upgrade(&folder, args.dry_run),
        Parsed::ConfigCheck => super::config::check(&folder),
        Parsed::ConfigSet(args) => super::config::set(&folder, &args),
        Parsed::ConfigKeys(args) => super::config::explain(args.prefix.as_deref(), args.markdown),
        Parsed::StateUpgrade(args) => state_upgrade(&folder, args.force || args.yes || globals.force),
        Parsed::StateCheck(args) => super::check::run(&folder, &args),
        Parsed::StateRecover(args) => super::recover::run(&folder, &args),
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

fn daemon(stats: bool, options: DaemonOptions) -> Outcome {
    if stats {
        // The variable is how everything else overrides the file; no thread runs yet that could read it.
        std::env::set_var("CLUSTER_METRICS_ENABLESTATS", "true");
    }
    Ok(daemon::run(options)?)
}

/// Whether `--ipfs` asks for Kubo; `None` when it is not there.
fn asks_for_kubo(ipfs: Option<&str>) -> Outcome<Option<bool>> {
    match ipfs {
        None => Ok(None),
        Some("embedded") => Ok(Some(false)),
        Some("kubo") => Ok(Some(true)),
        Some(other) => {
            let error = format!("\"{other}\" is neither embedded nor kubo");
            Err(Failure::argument("choosing the IPFS node", error))
        }
    }
}

fn read_swarm_key(file: Option<&str>) -> Result<Option<SwarmKey>> {
    file.map(|file| SwarmKey::read(Path::new(file), "--swarm-key")).transpose()
}

/// What `up` and `join` make of a fresh folder.
fn fresh(ipfs: Option<&str>, swarm_key: Option<&str>, witness: bool) -> Outcome<FreshOptions> {
    let kubo = asks_for_kubo(ipfs)?.unwrap_or(false);
    Ok(FreshOptions { kubo, swarm_key: read_swarm_key(swarm_key)?, witness, loopback: false })
}

/// The token that was typed, or with `-` the one on standard input. One that lost its end is told before a folder is
/// made for it.
pub(super) fn token(word: &str) -> Result<String> {
    let mut token = word.to_owned();
    if word == "-" {
        token.clear();
        std::io::stdin()
            .lock()
            .take(MAX_TOKEN_INPUT)
            .read_to_string(&mut token)
            .context("reading the token from standard input")?;
    }
    config::Invite::parse(&token)?;
    Ok(token)
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
    removable::check_mounted(folder.path())?;
    let kubo = asks_for_kubo(args.ipfs.as_deref())?;
    let embedded = kubo.map_or(face == Face::Pinfold, |kubo| !kubo);
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
        swarm_key: read_swarm_key(args.swarm_key.as_deref())?,
        witness: args.witness,
        loopback: args.loopback,
        bootstrap: Vec::new(),
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

fn swarm_key(folder: &Folder, args: &args::SwarmKey) -> Outcome {
    let key = if args.show {
        let (config, _) = Config::load(folder, &Env::process())?;
        SwarmKey::of_node(&config, folder)?.ok_or_else(|| {
            Error::not_found(
                "this peer's IPFS node is in no private network: ipfs_connector.embedded.network is \"public\", or \
                 there is no cluster.secret",
            )
        })?
    } else {
        SwarmKey::generate()?
    };
    match &args.file {
        Some(file) => key.write_new(Path::new(file))?,
        None => write!(std::io::stdout(), "{}", key.to_text())?,
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
        reallocate: args.reallocate,
        skip_bad: args.skip_bad,
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
    if !args.force && !force && !yes(REPLACE)? {
        return Ok(());
    }
    let imported = match &args.file {
        None => {
            writeln!(std::io::stderr(), "reading from stdin, Ctrl-D to finish")?;
            daemon::state_import(folder, &mut std::io::stdin().lock(), &overrides)?
        }
        Some(name) => {
            let mut file = File::open(name).context(format!("reading {name}"))?;
            daemon::state_import(folder, &mut file, &overrides)?
        }
    };
    tell_import(&imported)
}

/// What an import found and did.
fn tell_import(imported: &Imported) -> Outcome {
    let (report, mut err) = (&imported.report, std::io::stderr());
    for fault in &report.faults {
        writeln!(err, "{fault}")?;
    }
    let told = report.faults.len() as u64;
    if report.fault_count > told {
        writeln!(err, "and {} more like that", report.fault_count - told)?;
    }
    if !imported.done {
        return Err(Failure::Local(Error::invalid(format!(
            "{} of {} objects are not pins, so nothing was imported: correct them, or import the others with --skip-bad",
            report.fault_count,
            report.fault_count + report.pins
        ))));
    }
    for (field, pins) in &report.unknown_fields {
        writeln!(
            err,
            "WARNING: the field \"{field}\" of {pins} pins means nothing to pinfold and was left out"
        )?;
    }
    for leak in &report.leaks {
        writeln!(err, "WARNING: {leak}")?;
    }
    if report.leaked > 0 {
        writeln!(
            err,
            "WARNING: {} pins look as if ipfs-cluster had copied fields from the pin before (its Raft mode does); they were \
             imported as they are: look at them with `pin ls`, above all those that expire",
            report.leaked
        )?;
    }
    if !imported.strangers.is_empty() {
        writeln!(
            err,
            "WARNING: the pins name {} holders that this folder does not know. Unless these peers join, their copies are \
             made elsewhere, unless cluster.disable_repinning is set; `--reallocate` leaves them out at once",
            imported.strangers.len()
        )?;
    }
    if report.reallocated > 0 {
        writeln!(err, "{} pins lost holders and are allocated anew by the cluster", report.reallocated)?;
    }
    if report.pins == 0 {
        writeln!(err, "WARNING: there was no pin in the input, so that the state has none now")?;
    }
    if imported.pins < report.pins {
        let twice = report.pins - imported.pins;
        writeln!(err, "{twice} pins came again later in the input, and the later ones stayed")?;
    }
    if let Some(rotated) = &imported.rotated {
        writeln!(err, "the data that was there before is kept in {}", rotated.display())?;
    }
    log::info!(target: "service", "state successfully imported: {} pins", imported.pins);
    Ok(())
}

fn state_upgrade(folder: &Folder, agreed: bool) -> Outcome {
    let done = daemon::state_upgrade(folder, &mut |plan| {
        let question = format!(
            "The data of this peer ({} pins, {} members) will be brought from format {} to {}; the old data is kept in \
             {}. Continue? [y/n]:",
            plan.pins,
            plan.members,
            plan.from,
            plan.to,
            plan.backup.display()
        );
        Ok(agreed || yes(&question).map_err(|e| Error::io(format!("asking: {e:?}")))?)
    })?;
    let mut out = std::io::stdout();
    match done {
        Upgraded::NoData => writeln!(out, "nothing to upgrade: there is no data in this folder yet")?,
        Upgraded::Current(format, None) => {
            writeln!(out, "nothing to upgrade: the data has format {format}, the present one")?;
        }
        Upgraded::Current(format, Some(backup)) => writeln!(
            out,
            "finished an upgrade that had been cut off: the data has format {format}, the old data is kept in {}",
            backup.display()
        )?,
        Upgraded::Declined => writeln!(out, "nothing was changed")?,
        Upgraded::Done(plan) => writeln!(out, "{plan}")?,
    }
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
pub(super) fn yes(question: &str) -> Outcome<bool> {
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
