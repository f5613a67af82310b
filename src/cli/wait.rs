//! What happens after a pin or unpin: show its status soon, or wait until it is reached.
//!
//! `--wait` asks for the status every second until enough peers are there. A peer in an error state ends
//! the waiting at once, with that peer's own words; peers that hold nothing by design do not count.

use super::args::Waiting;
use super::client::Client;
use super::failure::{Failure, Outcome};
use super::progress::{Progress, Unit};
use super::text;
use crate::api::types::{GlobalPinInfo, PinJson};
use crate::clock::{format_duration, parse_duration};
use crate::tracker::Status;
use hyper::Method;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Time between two questions while waiting.
const INTERVAL: Duration = Duration::from_secs(1);
/// Without `--wait`, the status is shown as it is after this long, or as soon as it is reached.
const SOON: Duration = Duration::from_secs(1);
/// Time between two questions within [`SOON`].
const SOON_INTERVAL: Duration = Duration::from_millis(100);

/// The time limit of `--wait-timeout`; `None` waits for ever.
///
/// # Errors
/// [`Failure::Argument`] when it is not a duration.
pub fn timeout(waiting: &Waiting) -> Outcome<Option<Duration>> {
    let Some(text) = &waiting.timeout else { return Ok(None) };
    let limit = parse_duration(text).map_err(|e| Failure::argument("parsing wait-timeout", e))?;
    Ok((!limit.is_zero()).then_some(limit))
}

fn ask(client: &Client, pin: &PinJson) -> Outcome<(GlobalPinInfo, Value)> {
    client.ask::<GlobalPinInfo>(&Method::GET, &format!("/pins/{}", pin.cid))
}

/// The status a moment later.
///
/// # Errors
/// When it cannot be asked for.
pub fn soon(client: &Client, pin: &PinJson, target: Status) -> Outcome<(GlobalPinInfo, Value)> {
    let started = Instant::now();
    loop {
        std::thread::sleep(SOON_INTERVAL);
        let answer = ask(client, pin)?;
        if started.elapsed() >= SOON || matches!(reached(&answer.0, target, 0), Ok((_, _, true))) {
            return Ok(answer);
        }
    }
}

/// Waits until `target` is reached on as many peers as needed: `limit` if not 0, else (for pinning) the
/// fewest copies of the pin, else all.
///
/// # Errors
/// When a peer is in an error state, the time is over, or the status cannot be asked for.
pub fn until(
    client: &Client,
    pin: &PinJson,
    target: Status,
    limit: usize,
    timeout: Option<Duration>,
) -> Outcome<(GlobalPinInfo, Value)> {
    let limit = match limit {
        0 if target == Status::Pinned => usize::try_from(pin.replication_factor_min).unwrap_or(0),
        limit => limit,
    };
    let started = Instant::now();
    let doing = if target == Status::Pinned { "pinning" } else { "unpinning" };
    let progress = Progress::start(doing, Unit::Peers, 0);
    loop {
        let answer = ask(client, pin)?;
        let (there, of, enough) = reached(&answer.0, target, limit)?;
        progress.set_total(of as u64);
        progress.counter().set(there as u64);
        if enough {
            return Ok(answer);
        }
        let rest = timeout.map(|t| t.saturating_sub(started.elapsed()));
        if rest.is_some_and(|r| r.is_zero()) {
            return Err(Failure::Deadline(format!(
                "{} is {target} on {there} of {of} peers after {}",
                pin.cid,
                format_duration(timeout.unwrap_or_default())
            )));
        }
        std::thread::sleep(rest.map_or(INTERVAL, |r| r.min(INTERVAL)));
    }
}

/// How many peers are there, of how many, and whether that is enough.
fn reached(info: &GlobalPinInfo, target: Status, limit: usize) -> Outcome<(usize, usize, bool)> {
    let (mut there, mut counted) = (0, 0);
    for (peer, on) in &info.peer_map {
        match on.status {
            status if status == target => there += 1,
            Status::Undefined | Status::ClusterError | Status::PinError | Status::UnpinError => {
                let name = text::plain(if on.peername.is_empty() { peer } else { &on.peername });
                return Err(Failure::argument(
                    "waiting for pin status",
                    format!(
                        "error has occurred while attempting to reach status: {target} ({name}: {}{}{})",
                        on.status,
                        if on.error.is_empty() { "" } else { ": " },
                        text::plain(&on.error)
                    ),
                ));
            }
            Status::Remote if target == Status::Pinned => continue,
            _ => {}
        }
        counted += 1;
    }
    let enough = match limit.min(info.peer_map.len()) {
        0 => there == counted,
        limit => there >= limit,
    };
    Ok((there, counted, enough))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::PinInfo;
    use crate::clock::Timestamp;

    fn info(states: &[Status]) -> GlobalPinInfo {
        let on = |status| PinInfo {
            peername: String::new(),
            ipfs_peer_id: String::new(),
            ipfs_peer_addresses: Vec::new(),
            status,
            timestamp: Timestamp::ZERO,
            error: String::new(),
            attempt_count: 0,
            priority_pin: false,
        };
        GlobalPinInfo {
            cid: String::new(),
            name: String::new(),
            allocations: None,
            origins: None,
            created: Timestamp::ZERO,
            metadata: None,
            peer_map: states.iter().enumerate().map(|(i, s)| (i.to_string(), on(*s))).collect(),
        }
    }

    #[test]
    fn waiting_ends_when_enough_peers_are_there() {
        use Status::{PinError, Pinned, Pinning, Remote, Unpinned, Unpinning};
        for (states, target, limit, enough) in [
            (&[Pinned, Pinned][..], Pinned, 0, true),
            (&[Pinned, Pinning], Pinned, 0, false),
            (&[Pinned, Pinning], Pinned, 1, true),
            (&[Pinned, Remote], Pinned, 0, true),
            (&[Pinned, Remote], Pinned, 2, false),
            (&[Pinned, Pinned], Pinned, 9, true),
            (&[Unpinned, Unpinning], Unpinned, 0, false),
            (&[Unpinned, Unpinned], Unpinned, 0, true),
            (&[Unpinned, Remote], Unpinned, 0, false),
        ] {
            let (_, _, is) = reached(&info(states), target, limit).expect("no error");
            assert_eq!(is, enough, "{states:?} {target} {limit}");
        }
        assert!(reached(&info(&[Pinned, PinError]), Pinned, 1).is_err());
    }
}
