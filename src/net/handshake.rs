//! From a TCP connection to an authenticated, multiplexed one: pre-shared key, noise, yamux.
//!
//! The steps are libp2p's (so Kubo and go-libp2p can take part), but they are driven here by hand, because
//! then each failure is known by its step: [`Failure`] is what [`super::sentences`] turns into words.
//! Two peers with different secrets see each other's bytes as noise; a naive multistream reader would wait for
//! a message of a random length until the timeout. [`Greeted`] looks at the very first bytes instead and
//! gives up at once when they are not multistream's greeting.
//!
//! Nothing here may log or keep the key.

use super::transport::Socket;
use futures::io::{BufReader, BufWriter};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::{InboundConnectionUpgrade, NegotiationError, OutboundConnectionUpgrade, Version};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{noise, yamux, PeerId};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Outgoing bytes gathered before a write to the socket. The private-network cipher hands out 1 KiB at a
/// time; without gathering each of them would be a system call.
const WRITE_BUFFER: usize = 64 << 10;
/// Bytes read from the socket at once.
const READ_BUFFER: usize = 64 << 10;
/// Streams that may be open on one connection.
const MAX_STREAMS: usize = 1024;
/// What every multistream conversation begins with: its length, its name, a line feed.
const GREETING: &[u8; 20] = b"\x13/multistream/1.0.0\n";

/// A step of the handshake, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Exchanging the private network's nonces.
    Secret,
    /// Agreeing on and doing noise.
    Noise,
    /// Agreeing on yamux.
    Yamux,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Secret => "private-network handshake",
            Step::Noise => "encryption handshake",
            Step::Yamux => "multiplexer negotiation",
        })
    }
}

/// Why a connection did not come up.
#[derive(Debug)]
pub(super) enum Failure {
    /// TCP itself.
    Tcp(io::Error),
    /// The first bytes were not libp2p's under our secret (or under none, when we have none).
    Foreign {
        /// Whether we have a secret.
        private: bool,
    },
    /// The far side hung up.
    Closed {
        /// When.
        step: Step,
        /// Whether we have a secret.
        private: bool,
    },
    /// The far side went silent after TCP was up.
    Silent {
        /// Since when.
        step: Step,
        /// The limit that passed.
        limit: Duration,
    },
    /// Somebody else answers there.
    WrongPeer {
        /// Whom we wanted.
        expected: PeerId,
        /// Who it is.
        obtained: PeerId,
    },
    /// We reached ourselves.
    Ourselves,
    /// Anything else, in the libraries' words.
    Broken {
        /// When.
        step: Step,
        /// What.
        reason: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::sentences::failure(self))
    }
}

impl std::error::Error for Failure {}

/// Our side of every handshake.
#[derive(Clone)]
pub(super) struct Handshake {
    local: PeerId,
    noise: noise::Config,
    psk: Option<PreSharedKey>,
    limit: Duration,
}

/// A byte stream of any make; boxed so that noise and yamux are compiled once.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Handshake {
    /// Handshakes of this identity; each must be over within `limit`.
    pub(super) fn new(
        keypair: &libp2p::identity::Keypair,
        psk: Option<[u8; 32]>,
        limit: Duration,
    ) -> crate::Result<Handshake> {
        let noise = noise::Config::new(keypair).map_err(|error| {
            crate::Error::invalid(format!(
                "the identity's key cannot sign a handshake: {error}; make a new identity"
            ))
        })?;
        let local = keypair.public().to_peer_id();
        Ok(Handshake { local, noise, psk: psk.map(PreSharedKey::new), limit })
    }

    /// Runs the handshake on a fresh connection.
    pub(super) async fn run(
        self,
        socket: Socket,
        point: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), Failure> {
        let limit = self.limit;
        let mut step = if self.psk.is_some() { Step::Secret } else { Step::Noise };
        let outcome = {
            let work = self.steps(socket, point, &mut step);
            smol::future::or(async { Some(work.await) }, async {
                async_io::Timer::after(limit).await;
                None
            })
            .await
        };
        outcome.unwrap_or(Err(Failure::Silent { step, limit }))
    }

    async fn steps(
        self,
        socket: Socket,
        point: ConnectedPoint,
        step: &mut Step,
    ) -> Result<(PeerId, StreamMuxerBox), Failure> {
        let private = self.psk.is_some();
        let socket = BufReader::with_capacity(READ_BUFFER, BufWriter::with_capacity(WRITE_BUFFER, socket));
        let io: Box<dyn Io> = match self.psk {
            None => Box::new(socket),
            Some(psk) => Box::new(PnetConfig::new(psk).handshake(socket).await.map_err(|error| {
                let (libp2p::pnet::PnetError::HandshakeError(error)
                | libp2p::pnet::PnetError::IoError(error)) = error;
                broken(Step::Secret, private, error)
            })?),
        };
        let first = Arc::new(FirstBytes::default());
        let io = Greeted { io, seen: 0, first: first.clone() };
        let judge = |step, error: io::Error| {
            if first.foreign.load(Ordering::Relaxed) {
                Failure::Foreign { private }
            } else if !first.greeted.load(Ordering::Relaxed) && hung_up_unheard(&error) {
                Failure::Closed { step, private }
            } else {
                broken(step, private, error)
            }
        };

        *step = Step::Noise;
        let dialer = point.to_endpoint() == Endpoint::Dialer;
        let (peer, io) = if dialer {
            let (name, io) = multistream_select::dialer_select_proto(io, ["/noise"], Version::V1)
                .await
                .map_err(|e| judge(Step::Noise, e.into()))?;
            self.noise.upgrade_outbound(io, name).await
        } else {
            let (name, io) = multistream_select::listener_select_proto(io, ["/noise"])
                .await
                .map_err(|e| judge(Step::Noise, e.into()))?;
            self.noise.upgrade_inbound(io, name).await
        }
        .map_err(|error| match error {
            noise::Error::Io(error) => judge(Step::Noise, error),
            other => Failure::Broken { step: Step::Noise, reason: other.to_string() },
        })?;
        // Judged here and not only by the swarm: there a wrong answer at one address ends the whole dial,
        // here the other addresses still get their chance.
        if let ConnectedPoint::Dialer { address, .. } = &point {
            let expected = address.iter().find_map(|part| match part {
                Protocol::P2p(peer) => Some(peer),
                _ => None,
            });
            match expected {
                _ if peer == self.local => return Err(Failure::Ourselves),
                Some(expected) if expected != peer => {
                    return Err(Failure::WrongPeer { expected, obtained: peer });
                }
                _ => {}
            }
        } else if peer == self.local {
            return Err(Failure::Ourselves);
        }

        *step = Step::Yamux;
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        let muxer = if dialer {
            let (name, io) = multistream_select::dialer_select_proto(io, ["/yamux/1.0.0"], Version::V1)
                .await
                .map_err(|e| judge(Step::Yamux, e.into()))?;
            config.upgrade_outbound(io, name).await
        } else {
            let (name, io) = multistream_select::listener_select_proto(io, ["/yamux/1.0.0"])
                .await
                .map_err(|e| judge(Step::Yamux, e.into()))?;
            config.upgrade_inbound(io, name).await
        }
        .map_err(|error| judge(Step::Yamux, error))?;
        Ok((peer, StreamMuxerBox::new(muxer)))
    }
}

/// Sorts an input/output error of a step: hung up, or something rarer.
fn broken(step: Step, private: bool, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::WriteZero => Failure::Closed { step, private },
        _ => Failure::Broken { step, reason: error.to_string() },
    }
}

/// A dialer that hears nothing at all before the end is told by multistream that "negotiation failed".
fn hung_up_unheard(error: &io::Error) -> bool {
    let negotiation = error.get_ref().and_then(|e| e.downcast_ref::<NegotiationError>());
    matches!(negotiation, Some(NegotiationError::Failed))
}

/// What the first bytes were.
#[derive(Default)]
struct FirstBytes {
    /// Multistream's greeting has come, whole.
    greeted: AtomicBool,
    /// Something else has come.
    foreign: AtomicBool,
}

/// A stream whose first bytes must be multistream's greeting. Anything else ends it.
struct Greeted {
    io: Box<dyn Io>,
    seen: usize,
    first: Arc<FirstBytes>,
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(n)), true) = (&polled, self.seen < GREETING.len()) {
            let fresh = (*n).min(GREETING.len() - self.seen);
            if buffer[..fresh] != GREETING[self.seen..self.seen + fresh] {
                self.first.foreign.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not a libp2p greeting")));
            }
            self.seen += fresh;
            self.first.greeted.store(self.seen == GREETING.len(), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
