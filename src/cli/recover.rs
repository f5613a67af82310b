//! `pinfold state recover`: shows what a survivor has, explains, asks, and tells what to do next.

use super::args::StateRecover;
use super::failure::{Failure, Outcome};
use super::output;
use crate::config::Folder;
use crate::daemon::{self, Done, Look, Offer};
use crate::error::Error;
use crate::state::Role;
use serde_json::{json, Value};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `state recover`.
pub(super) fn run(folder: &Folder, args: &StateRecover) -> Outcome {
    let agreed = args.yes;
    if args.look {
        return show(folder, &args.folders, args.json);
    }
    if !args.folders.is_empty() {
        return Err(Failure::Usage(
            "folders are compared with --look; what is recovered is the folder of -c".into(),
        ));
    }
    if !agreed && !std::io::stdin().is_terminal() {
        return Err(Failure::Local(Error::invalid(
            "state recover asks before it does anything, and standard input is no terminal: run it in one, or with --yes once you have read docs/guides/lost-majority.md",
        )));
    }
    let done = daemon::state_recover(folder, args.force, &mut |offer| {
        let mut out = std::io::stdout();
        out.write_all(explained(offer).as_bytes())?;
        out.flush()?;
        Ok(agreed
            || super::local::yes("Make a new cluster of this peer alone? [y/n]:")
                .map_err(|e| Error::io(format!("asking: {e:?}")))?)
    })?;
    let mut out = std::io::stdout();
    match done {
        None => writeln!(out, "nothing was changed")?,
        Some(done) => out.write_all(told(&done).as_bytes())?,
    }
    Ok(())
}

/// `--look`.
fn show(folder: &Folder, others: &[String], json: bool) -> Outcome {
    let mut looks = vec![daemon::look(folder)?];
    for path in others {
        looks.push(daemon::look(&Folder::new(Path::new(path)))?);
    }
    let mut out = std::io::stdout();
    if json {
        let all: Vec<Value> = looks.iter().map(as_json).collect();
        out.write_all(output::pretty(&Value::Array(all)).as_bytes())?;
        return Ok(());
    }
    for look in &looks {
        writeln!(out, "{}", described(look))?;
    }
    if let Some(verdict) = verdict(&looks) {
        writeln!(out, "{verdict}")?;
    }
    Ok(())
}

/// Which of several is the best.
fn verdict(looks: &[Look]) -> Option<String> {
    let first = looks.first().filter(|_| looks.len() > 1)?;
    if looks.iter().any(|look| look.survivor.cluster_id != first.survivor.cluster_id) {
        return Some("these are not of one cluster, and cannot be compared".into());
    }
    let best = looks.iter().max_by_key(|look| look.freshness())?;
    Some(format!("the best survivor is {}", best.folder.display()))
}

fn as_json(look: &Look) -> Value {
    let s = &look.survivor;
    let members: Vec<Value> = s
        .members
        .iter()
        .map(|m| {
            let role = if m.role == Role::Voter { "voter" } else { "learner" };
            json!({ "peer_id": m.peer_id.to_string(), "peername": m.name, "role": role })
        })
        .collect();
    json!({
        "folder": look.folder.display().to_string(),
        "peer_id": look.peer.to_string(),
        "cluster_id": format!("{:016x}", s.cluster_id),
        "raft_id": format!("{:016x}", s.raft_id),
        "term": s.term,
        "last_term": s.last.term,
        "last_index": s.last.index,
        "committed": s.committed,
        "applied": s.applied.index,
        "pins": look.pins,
        "members": members,
        "written": look.written.map(rfc3339),
    })
}

/// What a survivor has, for a person who compares several.
fn described(look: &Look) -> String {
    let s = &look.survivor;
    let (needed, voters) = daemon::majority_of(s);
    let mut text = format!("{}\n", look.folder.display());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14}{value}");
    };
    line("cluster", format!("{:016x}, {needed} of {voters} voters must agree", s.cluster_id));
    line("peer", format!("{}, Raft id {:016x}", look.peer, s.raft_id));
    line("freshness", format!("term {}, entry {}", s.last.term, s.last.index));
    line("committed", format!("entry {}, as far as this peer knows", s.committed));
    line("on disk", format!("{} pins, as of entry {}", look.pins, s.applied.index));
    line("last written", look.written.map_or_else(|| "unknown".into(), rfc3339));
    for member in look.others() {
        let role = if member.role == Role::Voter { "voter" } else { "learner" };
        line("other member", format!("{} ({}), {role}", member.peer_id, member.name));
    }
    text
}

/// What is about to happen, for the person who is asked.
fn explained(offer: &Offer) -> String {
    let mut text = described(&offer.look);
    for (peer, at) in &offer.alive {
        let _ = writeln!(text, "  ANSWERS       {peer} at {at}");
    }
    text.push_str(
        "\nThis is for a cluster that has lost the majority of its voters for good. Of several survivors, recover the one of\n\
         the highest term, and among these of the highest entry: it has all that the others know; the other survivors\n\
         then join it. `pinfold state recover --look` shows these numbers on each of them.\n\n\
         What happens: a new cluster is made, of this peer alone, with every pin in its log, also those of which it never\n\
         heard that they were committed. What only the lost peers had is lost. The data from before is kept beside it.\n\
         Peers of the old cluster that come back put their data aside and join the new one with the content they have.\n\n",
    );
    text
}

/// What was done, and what comes next.
fn told(done: &Done) -> String {
    let r = &done.recovered;
    let mut text = format!(
        "recovered: the cluster {:016x} of this peer alone, with {} pins\n  {} entries of the log were applied that the state did not have yet",
        r.into, r.pins, r.replayed
    );
    if r.uncommitted > 0 {
        let _ = write!(text, ", {} of them not known to be committed", r.uncommitted);
    }
    let _ = write!(text, "\n  the data from before ({:016x}) is kept in {}\n", r.from, done.backup.display());
    for peer in &r.given_up {
        let _ = writeln!(text, "  given up: {peer}");
    }
    text.push_str("Start this peer. Boards that come back join it by themselves; new ones with `pinfold invite` here and `pinfold join TOKEN` there.\n");
    text
}

/// A time as people and programs read it, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    crate::clock::Timestamp::from_secs(i64::try_from(seconds).unwrap_or(0)).to_string()
}
