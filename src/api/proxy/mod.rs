//! The IPFS proxy (port 9095): looks like an IPFS daemon, pins in the cluster.
//!
//! A few of Kubo's calls are *intercepted* and become verbs of the cluster (the table below, reference G); every other
//! request goes to the IPFS side of this peer: a daemon gets it as it came ([`forward`]), the embedded node answers
//! it itself ([`node`]).
//!
//! | file | what |
//! |---|---|
//! | `forward` | everything else, to the daemon and back, streaming |
//! | `node` | everything else, answered by the embedded node |
//! | `cors` | which web pages may ask, as the daemon says |
//! | `words` | Kubo's JSON and errors |
//!
//! Clients written for Kubo and for ipfs-cluster's proxy must not notice the difference: methods, shapes, status
//! codes and messages are the recorded ones. When the daemon is down the proxy says so (502) and lives on.
//!
//! It must never: pin anywhere but through the cluster, hold an upload or a download, or let a page of the web
//! do what the daemon would not let it do.

mod cors;
mod forward;
mod node;
mod words;

use super::http::{empty, Request, Response, Service};
use super::server::{Limits, Server, ServerConfig};
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::ipfs::kubo::dial::Dialer;
use crate::ipfs::Ipfs;
use async_trait::async_trait;
use forward::Forward;
use hyper::header::{HeaderValue, ALLOW, SERVER};
use hyper::{Method, StatusCode};
use libp2p::Multiaddr;
use std::sync::Arc;
use std::time::Duration;

/// Who answers, on every intercepted request.
const AGENT: &str = concat!("ipfs-cluster/ipfsproxy/", env!("CARGO_PKG_VERSION"));

/// The section `api.ipfsproxy` of the config, checked.
pub struct ProxyConfig {
    /// `listen_multiaddress`.
    pub listen: Vec<String>,
    /// `read_timeout`: longest silence in a request body; zero for the server's default.
    pub read_timeout: Duration,
    /// `read_header_timeout`.
    pub read_header_timeout: Duration,
    /// `write_timeout`: longest time a client may not read; zero for the server's default.
    pub write_timeout: Duration,
    /// `idle_timeout`.
    pub idle_timeout: Duration,
    /// `max_header_bytes`.
    pub max_header_bytes: usize,
    /// Who answers what is not intercepted.
    pub behind: Behind,
}

/// Who answers what is not intercepted.
pub enum Behind {
    /// An IPFS daemon.
    Kubo {
        /// `node_multiaddress`: several addresses stand for one daemon.
        nodes: Vec<Multiaddr>,
        /// `node_https`.
        https: bool,
        /// `extract_headers_path`.
        headers_path: String,
        /// `extract_headers_extra`.
        headers_extra: Vec<String>,
        /// `extract_headers_ttl`.
        headers_ttl: Duration,
    },
    /// The embedded node of this peer.
    Embedded(Arc<dyn Ipfs>),
}

/// Who is behind the proxy, at work.
enum Origin {
    Kubo(Box<Forward>, cors::FromKubo),
    Embedded(node::Node),
}

/// The proxy of one peer.
struct Proxy {
    cluster: Cluster,
    origin: Origin,
}

/// Starts the proxy.
///
/// # Errors
/// A sentence naming the address or key that is wrong.
pub async fn start(config: ProxyConfig, cluster: Cluster) -> Result<Server> {
    let limits = Limits {
        header_bytes: config.max_header_bytes,
        header_timeout: config.read_header_timeout,
        idle_timeout: config.idle_timeout,
        body_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
        ..Limits::default()
    };
    let origin = match config.behind {
        Behind::Kubo { nodes, https, headers_path, headers_extra, headers_ttl } => {
            let dialer = Dialer::new("node_multiaddress", &nodes, https)?;
            let policy = cors::FromKubo::new(&headers_path, &headers_extra, headers_ttl)?;
            Origin::Kubo(Box::new(Forward::new(dialer)), policy)
        }
        Behind::Embedded(ipfs) => Origin::Embedded(node::Node { cluster: cluster.clone(), ipfs }),
    };
    let proxy = Arc::new(Proxy { cluster, origin });
    Server::bind(ServerConfig { listen: config.listen, tls: None, limits }, proxy).await
}

impl Proxy {
    /// What nobody intercepts.
    async fn pass(&self, request: Request) -> Response {
        match &self.origin {
            Origin::Kubo(kubo, _) => match kubo.forward(request).await {
                Ok(response) => response,
                Err(error) if error.kind() == Kind::Unavailable => {
                    words::refuse_with(StatusCode::BAD_GATEWAY, error.message())
                }
                Err(error) => words::refuse(&error),
            },
            Origin::Embedded(node) => self.answered_here(node, request).await,
        }
    }

    /// The embedded node has no web server of its own to keep pages out and to answer preflights.
    async fn answered_here(&self, node: &node::Node, request: Request) -> Response {
        let allowed = cors::page(request.headers())
            .and_then(|page| cors::own(request.headers(), page.as_deref()));
        let Ok(headers) = allowed else { return words::plain(StatusCode::FORBIDDEN) };
        let mut response = match *request.method() {
            Method::OPTIONS => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
                response
            }
            _ => node::answer(node, request).await,
        };
        for (name, value) in &headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }
}

#[async_trait]
impl Service for Proxy {
    fn name(&self) -> &'static str {
        "IPFS proxy"
    }

    fn access_log(&self) -> &'static str {
        "ipfsproxylog"
    }

    async fn call(&self, request: Request) -> Response {
        let _ = (&self.cluster, SERVER, AGENT);
        self.pass(request).await
    }

    fn failure(&self, error: &Error) -> Response {
        match error.kind() {
            Kind::Invalid => words::refuse_with(StatusCode::BAD_REQUEST, error.message()),
            _ => words::refuse(error),
        }
    }
}
