//! Peers of another kind: told apart by the protocol names that they announce, in words.
//!
//! The name of a protocol ends in its major version (`/pinfold/rpc/1`). Two peers that share a name understand each
//! other; what is new within a major version is new calls, which an older peer refuses by name, and new commands in the
//! log, which nobody proposes before all can read them (`crate::state::version`). A peer that announces the
//! same protocol under another number cannot be talked to, and whoever runs it should know which of the two to update.
//!
//! What a peer says of itself is untrusted: it is cut, and only what can be printed is shown.

use crate::error::Error;
use libp2p::PeerId;

/// Characters of a peer's own name for its software that are shown.
const MAX_SHOWN: usize = 64;

/// What a peer said of itself when it connected.
#[derive(Clone, Debug, Default)]
pub(super) struct Spoken {
    /// Its software: `pinfold/0.2.0`, `kubo/0.42.0`.
    pub(super) agent: String,
    /// The protocols it takes.
    pub(super) protocols: Vec<String>,
}

/// A protocol name without its version, and the version.
fn split(protocol: &str) -> Option<(&str, u32)> {
    let (name, version) = protocol.rsplit_once('/')?;
    Some((name, version.parse().ok()?))
}

/// What can be shown of a peer's own words.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_SHOWN).collect()
}

/// The sentence for a peer that does not take `protocol`, if it is known what it takes and that is not among it.
pub(super) fn mismatch(peer: PeerId, protocol: &str, spoken: &Spoken) -> Option<Error> {
    if spoken.protocols.iter().any(|p| p == protocol) {
        return None;
    }
    let who = match shown(&spoken.agent) {
        agent if agent.is_empty() => "it does not say what it runs".to_owned(),
        agent => format!("it runs {agent}"),
    };
    let us = format!("pinfold/{}", crate::VERSION);
    let (name, ours) = split(protocol).unwrap_or((protocol, 0));
    let mut others: Vec<u32> = spoken
        .protocols
        .iter()
        .filter_map(|p| split(p))
        .filter(|(n, _)| *n == name)
        .map(|(_, v)| v)
        .collect();
    others.sort_unstable();
    let Some(theirs) = others.last() else {
        let pinfold = spoken.agent.starts_with("pinfold/");
        let what = if pinfold {
            "it is probably the IPFS node of a pinfold, or still starting: use the address that `pinfold id` tells"
        } else {
            "it is no pinfold: use the address that `pinfold id` on that machine tells"
        };
        return Some(Error::version(format!("peer {peer} does not speak {protocol} ({who}); {what}")));
    };
    let (older, number) =
        if *theirs > ours { ("this peer".to_owned(), theirs) } else { (format!("peer {peer}"), &ours) };
    Some(Error::version(format!(
        "peer {peer} does not speak {protocol} but {name}/{theirs}: {who}, this peer runs {us}, and the two cannot work \
         together; update {older} to a pinfold that speaks {name}/{number}"
    )))
}

/// The same, seen from the side that is not asking: a peer that announces one of our protocols under other numbers only.
pub(super) fn stranger<'a>(
    peer: PeerId,
    ours: impl IntoIterator<Item = &'a str>,
    spoken: &Spoken,
) -> Option<Error> {
    let ours: Vec<&str> =
        ours.into_iter().filter(|p| split(p).is_some_and(|(n, _)| n.starts_with("/pinfold/"))).collect();
    let kin = |protocol: &&&str| {
        let name = split(protocol).map(|(name, _)| name);
        spoken.protocols.iter().any(|p| split(p).map(|(name, _)| name) == name)
    };
    if ours.iter().any(|p| spoken.protocols.iter().any(|t| t == p)) {
        return None;
    }
    mismatch(peer, ours.iter().find(kin)?, spoken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn spoken(agent: &str, protocols: &[&str]) -> Spoken {
        Spoken { agent: agent.into(), protocols: protocols.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_older_of_two_is_the_one_to_update() {
        let (peer, ours) = (PeerId::random(), "/pinfold/rpc/2");
        assert!(mismatch(peer, ours, &spoken("pinfold/9.0.0", &["/pinfold/rpc/9", ours])).is_none());
        let newer = mismatch(peer, ours, &spoken("pinfold/9.0.0", &["/ipfs/ping/1.0.0", "/pinfold/rpc/9"]))
            .expect("newer");
        assert_eq!(newer.kind(), Kind::Version);
        for word in
            ["does not speak /pinfold/rpc/2 but /pinfold/rpc/9", "it runs pinfold/9.0.0", "update this peer"]
        {
            assert!(newer.message().contains(word), "{newer}");
        }
        let older = mismatch(peer, ours, &spoken("pinfold/0.1.0", &["/pinfold/rpc/1"])).expect("older");
        assert!(
            older.message().contains(&format!("update peer {peer} to a pinfold that speaks /pinfold/rpc/2")),
            "{older}"
        );
        assert_eq!(
            stranger(peer, [ours, "/pinfold/raft/1"], &spoken("x", &["/pinfold/rpc/1"])),
            Some(mismatch(peer, ours, &spoken("x", &["/pinfold/rpc/1"])).expect("x"))
        );
    }

    #[test]
    fn what_is_no_pinfold_is_said_to_be_none() {
        let peer = PeerId::random();
        let kubo =
            mismatch(peer, "/pinfold/rpc/1", &spoken("kubo/0.42.0\n\u{1b}[31m", &["/ipfs/bitswap/1.2.0"]))
                .expect("kubo");
        assert!(kubo.message().contains("it runs kubo/0.42.0[31m); it is no pinfold"), "{kubo}");
        let silent = mismatch(peer, "/pinfold/rpc/1", &spoken("", &[])).expect("silent");
        assert!(silent.message().contains("does not say what it runs"), "{silent}");
        assert!(stranger(peer, ["/pinfold/rpc/1"], &spoken("kubo", &["/ipfs/bitswap/1.2.0"])).is_none());
        assert!(stranger(peer, ["/ipfs/bitswap/1.2.0"], &spoken("x", &["/ipfs/bitswap/1.1.0"])).is_none());
        assert!(stranger(peer, ["/pinfold/rpc/1", "/pinfold/raft/1"], &spoken("x", &["/pinfold/rpc/1"]))
            .is_none());
        let long = spoken(&"x".repeat(10_000), &["/pinfold/rpc/9"]);
        assert!(mismatch(peer, "/pinfold/rpc/1", &long).expect("long").message().len() < 600);
    }
}
