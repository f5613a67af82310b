//! What a host does on its connections: identify, ping, limits, raw streams.

use super::streams::{self, Registry};
use super::HostConfig;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{identify, ping};
use std::time::Duration;

/// Connections per peer. Two come from dialling each other at the same moment, one more may be what a
/// peer that lost power has left behind.
const CONNECTIONS_PER_PEER: u32 = 3;
/// Incoming connections that are still in their handshake.
const PENDING_INCOMING: u32 = 64;
/// How often a connection is tried, so that a peer without power is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long one try may take. Bulk data on a slow line delays it, hence more than the interval.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries that may fail in a row; then the connection is closed.
pub(super) const PING_FAILURES: u8 = 2;
/// How often identify repeats itself unasked; changes are pushed at once.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(300);

/// The behaviours of one swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) streams: streams::Behaviour,
}

impl Behaviour {
    pub(super) fn new(config: &HostConfig, registry: Registry) -> Behaviour {
        // With announced addresses those are told (as external ones) and the real ones are kept back.
        let identify = identify::Config::new(config.protocol_version.clone(), config.keypair.public())
            .with_agent_version(config.agent.clone())
            .with_interval(IDENTIFY_INTERVAL)
            .with_push_listen_addr_updates(true)
            .with_cache_size(0)
            .with_hide_listen_addrs(!config.announce.is_empty());
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        Behaviour {
            limits: connection_limits::Behaviour::new(limits(config.max_connections, 0)),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            streams: streams::Behaviour::new(registry),
        }
    }

    /// Leaves to incoming connections what the outgoing ones do not use.
    pub(super) fn set_outgoing(&mut self, max_connections: usize, outgoing: usize) {
        *self.limits.limits_mut() = limits(max_connections, outgoing);
    }
}

fn limits(max_connections: usize, outgoing: usize) -> ConnectionLimits {
    let incoming = u32::try_from(max_connections.saturating_sub(outgoing)).unwrap_or(u32::MAX);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING))
        .with_max_established_incoming(Some(incoming))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
}
