//! The text forms of answers, exactly as ipfs-cluster-ctl prints them (reference C.3).
//!
//! Pure functions from an answer's shape to its lines: whoever changes a character here breaks
//! someone's `awk`. Text from other peers (names, errors) is printed with its control characters made
//! visible, so that nobody's pin name can move the cursor of a terminal.

use super::humanize;
use crate::api::types::{Alert, Bandwidth, GlobalPinInfo, GlobalRepoGc, Id, Metric, PinJson};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Text that came from elsewhere, without control characters.
pub fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
    } else {
        text.into()
    }
}

/// `id`, and each item of `peers ls`.
pub fn id(id: &Id) -> String {
    let mut out = String::new();
    if !id.error.is_empty() {
        let _ = writeln!(out, "{} | ERROR: {}", plain(&id.id), plain(&id.error));
        return out;
    }
    let others = id.cluster_peers.as_deref().unwrap_or_default().len().saturating_sub(1);
    let _ = writeln!(out, "{} | {} | Sees {others} other peers", plain(&id.id), plain(&id.peername));
    match id.role.as_str() {
        "" => {}
        "witness" => out.push_str("  > Role: witness (votes, holds no content)\n"),
        "learner" => out.push_str("  > Role: learner (holds content, does not vote)\n"),
        other => {
            let _ = writeln!(out, "  > Role: {}", plain(other));
        }
    }
    let _ = writeln!(out, "  > Addresses:");
    addresses(&mut out, id.addresses.as_deref());
    let ipfs = id.ipfs.clone().unwrap_or_default();
    if id.role == "witness" {
        let _ = writeln!(out, "  > IPFS: none");
    } else if ipfs.error.is_empty() {
        let _ = writeln!(out, "  > IPFS: {}", plain(&ipfs.id));
        addresses(&mut out, ipfs.addresses.as_deref());
    } else {
        let _ = writeln!(out, "  > IPFS ERROR: {}", plain(&ipfs.error));
    }
    out
}

fn addresses(out: &mut String, addresses: Option<&[String]>) {
    let mut sorted: Vec<&String> = addresses.unwrap_or_default().iter().collect();
    sorted.sort();
    for address in sorted {
        let _ = writeln!(out, "    - {}", plain(address));
    }
}

/// `pin ls`, and `pin add --no-status`.
pub fn pin(pin: &PinJson) -> String {
    let direct = if pin.mode == "direct" { "-DIRECT" } else { "" };
    let mut out = format!("{} | {} | {}{direct} | ", pin.cid, plain(&pin.name), pin.kind.to_uppercase());
    if pin.replication_factor_min < 0 {
        out.push_str("Repl. Factor: -1 | Allocations: [everywhere]");
    } else {
        let mut holders: Vec<&str> = pin.allocations.iter().flatten().map(String::as_str).collect();
        holders.sort_unstable();
        let _ = write!(
            out,
            "Repl. Factor: {}--{} | Allocations: [{}]",
            pin.replication_factor_min,
            pin.replication_factor_max,
            holders.join(" ")
        );
    }
    match pin.max_depth {
        0 => out.push_str(" | Direct"),
        -1 => out.push_str(" | Recursive"),
        depth => {
            let _ = write!(out, " | Recursive-{depth}");
        }
    }
    let metadata = pin.metadata.as_ref().is_some_and(|m| !m.is_empty());
    let expires = if pin.expire_at.is_zero() { "∞".into() } else { pin.expire_at.plain() };
    let added = if pin.timestamp.is_zero() { "unknown".into() } else { pin.timestamp.plain() };
    let yes = if metadata { "yes" } else { "no" };
    let _ = writeln!(out, " | Metadata: {yes} | Exp: {expires} | Added: {added}");
    out
}

/// `status`, `recover`, and what `pin add` shows at its end.
pub fn status(info: &GlobalPinInfo) -> String {
    let mut out = info.cid.clone();
    if !info.name.is_empty() {
        let _ = write!(out, " | {}", plain(&info.name));
    }
    out.push_str(":\n");
    for (peer, on) in &info.peer_map {
        let name = plain(if on.peername.is_empty() { peer } else { &on.peername });
        let _ = write!(out, "    > {name:<20} : {}", on.status.name().to_uppercase());
        if !on.error.is_empty() {
            let _ = write!(out, ": {}", plain(&on.error));
        }
        let _ = writeln!(
            out,
            " | {} | Attempts: {} | Priority: {}",
            on.timestamp, on.attempt_count, on.priority_pin
        );
    }
    out
}

/// `health metrics <name>`; `now` in Unix nanoseconds.
pub fn metric(metric: &Metric, now: i64) -> String {
    let value = match u64::try_from(metric.weight) {
        Ok(weight) if metric.name == "freespace" && weight > 0 => humanize::bytes(weight),
        _ => plain(&metric.value).into_owned(),
    };
    format!(
        "{} | {}: {value} | Expires in: {}\n",
        plain(&metric.peer),
        plain(&metric.name),
        humanize::relative(metric.expire, now)
    )
}

/// `health alerts`; `now` in Unix nanoseconds.
pub fn alert(alert: &Alert, now: i64) -> String {
    format!(
        "{}: {}. Expired at: {}. Triggered at: {}\n",
        plain(&alert.metric.peer),
        plain(&alert.metric.name),
        humanize::relative(alert.metric.expire, now),
        humanize::relative(alert.triggered_at.unix_nanos(), now)
    )
}

/// `health bandwidth`.
pub fn bandwidth(protocols: &BTreeMap<String, Bandwidth>) -> String {
    let mut out = String::new();
    for (protocol, b) in protocols {
        let _ = writeln!(
            out,
            "{:>25}: In: {:>7}. Out: {:>7}. RateIn: {:.2}B/s. RateOut: {:.2}B/s",
            plain(protocol),
            humanize::bytes(b.total_in),
            humanize::bytes(b.total_out),
            b.rate_in,
            b.rate_out
        );
    }
    out
}

/// `ipfs gc`.
pub fn gc(all: &GlobalRepoGc) -> String {
    let mut out = String::new();
    for (peer, one) in &all.peer_map {
        let name = plain(if one.peername.is_empty() { peer } else { &one.peername });
        let _ = write!(out, "{name:<15}");
        if !one.error.is_empty() {
            let _ = write!(out, " | ERROR: {}", plain(&one.error));
        }
        out.push_str("\n  > CIDs:\n");
        for key in &one.keys {
            let _ = match key.error.as_str() {
                "" => writeln!(out, "    - {}", plain(key.key.as_deref().unwrap_or_default())),
                error => writeln!(out, "    - ERROR: {}", plain(error)),
            };
        }
    }
    out
}
