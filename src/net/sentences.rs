//! Failures of the network as sentences for a person.
//!
//! Each names the address and the likely cause, and what to do. Kinds: [`Kind::Timeout`] and
//! [`Kind::Unavailable`] may go away by themselves; [`Kind::Conflict`] (other secret, other peer) and
//! [`Kind::Version`] will not, so a caller may stop trying.

use super::handshake::{Failure, Step};
use crate::error::{Error, Kind};
use libp2p::core::transport::TransportError;
use libp2p::core::upgrade::NegotiationError;
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::{DialError, ListenError};
use libp2p::PeerId;
use std::io;

/// Addresses of one failed dial that are told one by one; the rest is counted.
const ADDRESSES_TOLD: usize = 4;

/// The cause of a failed connection, without the address.
pub(super) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Tcp(error) => tcp(error),
        Failure::Foreign { private: true } => "the cluster secret there differs from ours (or what listens there is not pinfold); use the same cluster.secret on every peer".into(),
        Failure::Foreign { private: false } => "what listens there does not speak libp2p without a secret; it probably has a cluster.secret and we have none".into(),
        Failure::Closed { step: Step::Yamux, .. } => "the connection was closed after encryption; the peer there is probably stopping, or runs an incompatible version".into(),
        Failure::Closed { step: Step::Noise, private: true } => "the connection was closed during the handshake; most likely the cluster secret there differs from ours: use the same cluster.secret on every peer".into(),
        Failure::Closed { step: Step::Noise, private: false } => "the connection was closed during the handshake; the peer there probably has a cluster.secret and we have none".into(),
        Failure::Closed { step: Step::Secret, .. } => "the connection was closed at once; the peer there has no cluster.secret, or no room for more connections, or what listens there is not pinfold".into(),
        Failure::Silent { step, limit } => format!("the {step} was not answered within {limit:?}; what listens there is not pinfold, or it hangs"),
        Failure::WrongPeer { expected, obtained } => format!("peer {obtained} answers there, not {expected}; its identity was made anew, or the address now belongs to another machine"),
        Failure::Ourselves => "that is ourselves; the address belongs to this peer".into(),
        Failure::Broken { step, reason } => format!("the {step} failed: {reason}"),
    }
}

fn tcp(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is the daemon running there, and is this its cluster port?".into()
        }
        io::ErrorKind::TimedOut => {
            format!("{error}; is the machine on, and does a firewall let the port through?")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            format!("{error}; is the machine on and in a network that this one can reach?")
        }
        io::ErrorKind::NotFound => format!("{error}; is the name right, and does this machine reach a name server?"),
        _ => error.to_string(),
    }
}

fn kind(failure: &Failure) -> Kind {
    match failure {
        Failure::Tcp(error) if error.kind() == io::ErrorKind::TimedOut => Kind::Timeout,
        Failure::Silent { .. } => Kind::Timeout,
        Failure::Foreign { .. } | Failure::WrongPeer { .. } | Failure::Ourselves => Kind::Conflict,
        Failure::Closed { step: Step::Noise, .. } => Kind::Conflict,
        _ => Kind::Unavailable,
    }
}

/// Our own failure inside what the boxed transport reports.
fn inner(error: &io::Error) -> Option<&Failure> {
    error.get_ref()?.downcast_ref::<Failure>()
}

/// Who is being dialled, for the beginning of a sentence.
fn whom(peer: Option<PeerId>) -> String {
    peer.map_or_else(|| "the peer".to_owned(), |peer| format!("peer {peer}"))
}

/// A failed dial.
pub(super) fn dial(peer: Option<PeerId>, error: &DialError) -> Error {
    let whom = whom(peer);
    match error {
        DialError::Transport(attempts) => attempts_failed(&whom, attempts),
        DialError::NoAddresses => no_addresses(peer),
        DialError::LocalPeerId { address } => {
            Error::conflict(format!("cannot reach {whom} at {address}: {}", failure(&Failure::Ourselves)))
        }
        DialError::WrongPeerId { obtained, address } => {
            let expected = peer.unwrap_or(*obtained);
            Error::conflict(format!(
                "cannot reach {whom} at {address}: {}",
                failure(&Failure::WrongPeer { expected, obtained: *obtained })
            ))
        }
        DialError::Denied { cause } => Error::unavailable(format!("cannot connect to {whom}: {cause}")),
        DialError::Aborted => Error::unavailable(format!(
            "cannot reach {whom}: the attempt was given up because the connection was closed"
        )),
        DialError::DialPeerConditionFalse(_) => {
            Error::unavailable(format!("cannot reach {whom}: another attempt is already under way"))
        }
    }
}

/// Nothing is known about where the peer is.
pub(super) fn no_addresses(peer: Option<PeerId>) -> Error {
    Error::unavailable(format!(
        "cannot reach {}: no address of it is known; give one that ends in /p2p/<peer id>",
        whom(peer)
    ))
}

fn attempts_failed(whom: &str, attempts: &[(Multiaddr, TransportError<io::Error>)]) -> Error {
    // The most telling failure decides the kind: one that waiting does not cure.
    let mut worst = None;
    let mut told = Vec::new();
    for (address, error) in attempts {
        let (sentence, kind) = match error {
            TransportError::MultiaddrNotSupported(_) => (
                "this is not a TCP address; only /ip4, /ip6 and /dns with /tcp can be dialled".to_owned(),
                Kind::Invalid,
            ),
            TransportError::Other(error) => match inner(error) {
                Some(found) => (failure(found), kind(found)),
                None => (tcp(error), Kind::Unavailable),
            },
        };
        let rank = |kind| match kind {
            Kind::Conflict => 3,
            Kind::Unavailable => 2,
            Kind::Timeout => 1,
            _ => 0,
        };
        if worst.is_none_or(|w| rank(kind) > rank(w)) {
            worst = Some(kind);
        }
        if told.len() < ADDRESSES_TOLD {
            told.push(format!("{}: {sentence}", without_peer(address)));
        }
    }
    let more = match attempts.len().saturating_sub(ADDRESSES_TOLD) {
        0 => String::new(),
        n => format!(" (and {n} more addresses)"),
    };
    Error::new(
        worst.unwrap_or(Kind::Unavailable),
        format!("cannot reach {whom} at {}{more}", told.join(" | ")),
    )
}

/// The address without a closing `/p2p/…`, which the sentence names already.
fn without_peer(address: &Multiaddr) -> Multiaddr {
    super::split_p2p(address).map_or_else(|_| address.clone(), |(_, rest)| rest)
}

/// A failed incoming connection: the sentence, and whether a person should see it (a wrong secret).
pub(super) fn incoming(from: &Multiaddr, error: &ListenError) -> (String, bool) {
    match error {
        ListenError::Transport(TransportError::Other(error)) => match inner(error) {
            Some(found @ Failure::Foreign { private }) => {
                let reason = if *private {
                    "its secret differs from ours, or it is not pinfold".to_owned()
                } else {
                    failure(found)
                };
                (format!("refused a connection from {from}: {reason}"), true)
            }
            Some(found) => (format!("a connection from {from} did not come up: {}", failure(found)), false),
            None => (format!("a connection from {from} did not come up: {error}"), false),
        },
        other => (format!("a connection from {from} did not come up: {other}"), false),
    }
}

/// A listen address that could not be bound.
pub(super) fn listen(address: &Multiaddr, error: &TransportError<io::Error>) -> Error {
    let error = match error {
        TransportError::MultiaddrNotSupported(_) => return Error::invalid(format!(
            "cannot listen on {address}: only /ip4/<address>/tcp/<port> and /ip6/<address>/tcp/<port> are possible"
        )),
        TransportError::Other(error) => error,
    };
    let io = match inner(error) {
        Some(Failure::Tcp(io)) => io,
        _ => error,
    };
    let reason = match io.kind() {
        io::ErrorKind::AddrInUse => "address already in use; is another daemon running? choose another port in cluster.listen_multiaddress".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied; choose a port above 1023 in cluster.listen_multiaddress".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; correct cluster.listen_multiaddress".to_owned(),
        io::ErrorKind::Unsupported => "this machine does not support that kind of address; correct cluster.listen_multiaddress".to_owned(),
        _ if io.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            "this machine does not support that kind of address; correct cluster.listen_multiaddress".to_owned()
        }
        _ => io.to_string(),
    };
    Error::io(format!("cannot listen on {address}: {reason}"))
}

/// The peer speaks libp2p but not this protocol.
pub(super) fn unsupported(peer: PeerId, protocol: &str) -> Error {
    Error::version(format!(
        "peer {peer} does not speak {protocol}; it runs another version of pinfold: update the older one"
    ))
}

/// A failure on a stream that is open. With lazy negotiation this is also where it shows that the far side does
/// not know the protocol.
pub(super) fn stream(peer: PeerId, protocol: &str, doing: &str, error: &io::Error) -> Error {
    let refused = error.get_ref().and_then(|e| e.downcast_ref::<NegotiationError>());
    if matches!(refused, Some(NegotiationError::Failed)) {
        return unsupported(peer, protocol);
    }
    match error.kind() {
        io::ErrorKind::TimedOut => Error::timeout(format!("{doing} peer {peer}: no answer in time")),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::WriteZero
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => {
            Error::unavailable(format!("{doing} peer {peer}: the connection was closed"))
        }
        _ => Error::unavailable(format!("{doing} peer {peer}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn attempt(address: &str, failure: Failure) -> (Multiaddr, TransportError<io::Error>) {
        (address.parse().expect(address), TransportError::Other(io::Error::other(failure)))
    }

    #[test]
    fn the_failure_that_waiting_does_not_cure_decides_the_kind() {
        let peer = PeerId::random();
        let refused = || Failure::Tcp(io::ErrorKind::ConnectionRefused.into());
        let silent = || Failure::Silent { step: Step::Noise, limit: Duration::from_secs(10) };
        let cases = [
            (vec![refused(), silent()], Kind::Unavailable),
            (vec![silent()], Kind::Timeout),
            (vec![silent(), Failure::Foreign { private: true }, refused()], Kind::Conflict),
            (vec![Failure::WrongPeer { expected: peer, obtained: PeerId::random() }], Kind::Conflict),
        ];
        for (failures, expected) in cases {
            let attempts: Vec<_> =
                failures.into_iter().map(|failure| attempt("/ip4/10.0.0.1/tcp/9096", failure)).collect();
            let error = dial(Some(peer), &DialError::Transport(attempts));
            assert_eq!(error.kind(), expected, "{error}");
            assert!(error.message().contains("/ip4/10.0.0.1/tcp/9096: "), "{error}");
            assert!(error.message().contains(&peer.to_string()), "{error}");
        }
    }

    #[test]
    fn a_long_list_of_failures_is_cut() {
        let refused = |n| {
            attempt(&format!("/ip4/10.0.0.{n}/tcp/1"), Failure::Tcp(io::ErrorKind::ConnectionRefused.into()))
        };
        let error = dial(None, &DialError::Transport((1..=10).map(refused).collect()));
        assert!(error.message().ends_with("(and 6 more addresses)"), "{error}");
    }

    #[test]
    fn a_listener_says_what_to_do() {
        let address: Multiaddr = "/ip4/0.0.0.0/tcp/9096".parse().expect("address");
        let taken = TransportError::Other(io::Error::other(Failure::Tcp(io::ErrorKind::AddrInUse.into())));
        assert_eq!(
            listen(&address, &taken).message(),
            "cannot listen on /ip4/0.0.0.0/tcp/9096: address already in use; is another daemon running? choose \
             another port in cluster.listen_multiaddress"
        );
    }
}
