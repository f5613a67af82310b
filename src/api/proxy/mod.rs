//! The IPFS proxy (port 9095): looks like an IPFS daemon, pins in the cluster.
//!
//! A few of Kubo's calls are *intercepted* and become verbs of the cluster (the table below, reference G); every other
//! request goes to the IPFS side of this peer: a daemon gets it as it came ([`forward`]), the embedded node answers
//! it itself ([`node`]).
//!
//! | file | what |
//! |---|---|
//! | `pins`, `listing` | `pin/add`, `pin/rm`, `pin/update`; `pin/ls` |
//! | `add` | `add` |
//! | `repo` | `repo/stat`, `repo/gc` |
//! | `put` | `block/put`, `dag/put` with `pin=true` |
//! | `paths` | what clients name |
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

mod add;
mod cors;
mod forward;
mod listing;
pub(crate) mod node;
mod paths;
mod pins;
mod put;
mod repo;
mod words;

use super::access::AccessFile;
use super::auth::{Auth, Refusal};
use super::browsers::Browsers;
use super::http::{empty, Body, Remote, Request, Response, Service, User};
use super::query::{decode, Query};
use super::server::{Limits, Server, ServerConfig};
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Kind, Result};
use crate::ipfs::kubo::dial::Dialer;
use crate::ipfs::kubo::COMPOSITE;
use crate::ipfs::Ipfs;
use async_trait::async_trait;
use forward::Forward;
use hyper::header::{HeaderMap, HeaderValue, ALLOW, AUTHORIZATION, RETRY_AFTER, SERVER, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use libp2p::Multiaddr;
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    /// `log_file`: where a line per request goes; `None` is the log.
    pub log_file: Option<PathBuf>,
    /// `max_connections`.
    pub max_connections: usize,
    /// `max_connections_per_address`.
    pub max_connections_per_address: usize,
    /// `allowed_hosts`: further names that the proxy may be asked under.
    pub allowed_hosts: Vec<String>,
    /// `basic_auth_credentials`: user → password.
    pub basic_auth: Option<BTreeMap<String, String>>,
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
    Kubo(Box<Forward>, Box<cors::FromKubo>),
    Embedded(node::Node),
}

/// The proxy of one peer.
struct Proxy {
    cluster: Cluster,
    origin: Origin,
    auth: Option<Auth>,
    browsers: Browsers,
    access_file: Option<AccessFile>,
}

/// Starts the proxy.
///
/// # Errors
/// A sentence naming the address or key that is wrong.
pub async fn start(config: ProxyConfig, cluster: Cluster) -> Result<Server> {
    let limits = Limits {
        connections: config.max_connections,
        per_address: config.max_connections_per_address,
        header_bytes: config.max_header_bytes,
        header_timeout: config.read_header_timeout,
        idle_timeout: config.idle_timeout,
        body_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
    };
    let auth = config.basic_auth.map(Auth::new).transpose().context("basic_auth_credentials")?;
    let browsers = Browsers::new("api.ipfsproxy", &config.listen, &config.allowed_hosts, auth.is_some());
    let origin = match config.behind {
        Behind::Kubo { nodes, https, headers_path, headers_extra, headers_ttl } => {
            let dialer = Dialer::new("node_multiaddress", &nodes, https)?;
            let policy = cors::FromKubo::new(&headers_path, &headers_extra, headers_ttl)?;
            Origin::Kubo(Box::new(Forward::new(dialer)), Box::new(policy))
        }
        Behind::Embedded(ipfs) => Origin::Embedded(node::Node { cluster: cluster.clone(), ipfs }),
    };
    let access_file = config.log_file.map(AccessFile::open).transpose()?;
    let proxy = Arc::new(Proxy { cluster, origin, auth, browsers, access_file });
    Server::bind(ServerConfig { listen: config.listen, tls: None, limits }, proxy).await
}

/// The intercepted calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    PinAdd,
    PinRm,
    PinLs,
    PinUpdate,
    Add,
    RepoStat,
    RepoGc,
    BlockPut,
    DagPut,
}

/// What a request asks of the cluster, and the argument that is part of its path; `None` for what is not
/// intercepted. Kubo's commands are POST; GET and PUT count as ipfs-cluster counts them.
fn verb(method: &Method, path: &str) -> Option<(Verb, Option<String>)> {
    if ![Method::POST, Method::GET, Method::PUT].contains(method) {
        return None;
    }
    let names: Vec<&str> = path.strip_prefix("/api/v0/")?.split('/').collect();
    let (verb, argument) = match names.as_slice() {
        ["pin", "add", rest @ ..] => (Verb::PinAdd, rest),
        ["pin", "rm", rest @ ..] => (Verb::PinRm, rest),
        ["pin", "ls", rest @ ..] => (Verb::PinLs, rest),
        ["pin", "update"] => return Some((Verb::PinUpdate, None)),
        ["add"] => return Some((Verb::Add, None)),
        ["repo", "stat"] => return Some((Verb::RepoStat, None)),
        ["repo", "gc"] => return Some((Verb::RepoGc, None)),
        ["block", "put"] => return Some((Verb::BlockPut, None)),
        ["dag", "put"] => return Some((Verb::DagPut, None)),
        _ => return None,
    };
    match argument {
        [] => Some((verb, None)),
        [argument] => Some((verb, Some(decode(argument, false)?))),
        _ => None,
    }
}

/// An intercepted request, decoded as far as all of them need it.
struct Call {
    /// The argument in the path.
    argument: Option<String>,
    query: Query,
    /// A cluster above this one asks (see [`COMPOSITE`]).
    composite: bool,
    parts: Parts,
    body: Body,
}

impl Call {
    fn new(argument: Option<String>, parts: Parts, body: Body) -> Result<Call> {
        let query = Query::parse(parts.uri.query().unwrap_or(""))?;
        let composite = parts.headers.contains_key(COMPOSITE);
        Ok(Call { argument, query, composite, parts, body })
    }

    /// The arguments, the one in the path first.
    fn arguments(&self) -> Vec<&str> {
        self.argument.as_deref().into_iter().chain(self.query.all("arg")).collect()
    }

    /// Back to the request it came as.
    fn into_request(self) -> Request {
        Request::from_parts(self.parts, self.body)
    }
}

impl Proxy {
    /// Who asks, if anybody has to prove that, under a name that the proxy goes by.
    ///
    /// # Errors
    /// The answer to whoever may not ask.
    async fn admit(&self, request: &Request) -> Result<Option<String>, Box<Response>> {
        let remote = request.extensions().get::<Remote>().and_then(|remote| remote.0);
        // No browser reaches a Unix socket.
        if remote.is_some() {
            self.browsers.host(request.headers()).map_err(|e| Box::new(words::refuse(&e)))?;
        }
        match &self.auth {
            // Browsers send no credentials with a preflight.
            Some(auth) if *request.method() != Method::OPTIONS => {
                auth.check(request.headers()).await.map(Some).map_err(|refusal| Box::new(refused(refusal)))
            }
            _ => Ok(None),
        }
    }

    /// Takes a request apart and decides who answers it.
    async fn answer(&self, request: Request) -> Response {
        let Some((verb, argument)) = verb(request.method(), request.uri().path()) else {
            return self.pass(request).await;
        };
        let (parts, body) = request.into_parts();
        let headers = match self.courtesy(&parts.headers, parts.uri.path()).await {
            Ok(headers) => headers,
            Err(cors::TurnedAway) => return words::plain(StatusCode::FORBIDDEN),
        };
        let done = match Call::new(argument, parts, body) {
            Ok(call) => self.intercepted(verb, call).await,
            Err(error) => Err(error),
        };
        let mut response = done.unwrap_or_else(|error| words::refuse(&error));
        dress(response.headers_mut(), headers);
        response.headers_mut().insert(SERVER, HeaderValue::from_static(AGENT));
        response
    }

    async fn intercepted(&self, verb: Verb, call: Call) -> Result<Response> {
        match verb {
            Verb::PinAdd => self.pin_add(&call).await,
            Verb::PinRm => self.pin_rm(&call).await,
            Verb::PinLs => self.pin_ls(&call).await,
            Verb::PinUpdate => self.pin_update(&call).await,
            Verb::Add => self.add(call).await,
            Verb::RepoStat => self.repo_stat().await,
            Verb::RepoGc => self.repo_gc(&call).await,
            Verb::BlockPut | Verb::DagPut if call.query.flag("pin", false)? => self.put(call).await,
            Verb::BlockPut | Verb::DagPut => Ok(self.pass(call.into_request()).await),
        }
    }

    /// Whether the page that asks may, and what its answer must carry.
    async fn courtesy(&self, request: &HeaderMap, path: &str) -> Result<HeaderMap, cors::TurnedAway> {
        let page = cors::page(request)?;
        match &self.origin {
            Origin::Kubo(kubo, policy) => policy.headers(kubo, path, page.as_deref()).await,
            Origin::Embedded(_) => cors::own(request, page.as_deref()),
        }
    }

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
        let allowed =
            cors::page(request.headers()).and_then(|page| cors::own(request.headers(), page.as_deref()));
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
        dress(response.headers_mut(), headers);
        response
    }
}

/// A refusal in Kubo's form, with its challenges.
fn refused(refusal: Refusal) -> Response {
    let mut response = words::refuse_with(refusal.status, refusal.error.message());
    if refusal.status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    for challenge in refusal.challenges {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Puts headers on an answer, in the place of those that are there by the same names.
fn dress(answer: &mut HeaderMap, headers: HeaderMap) {
    for name in headers.keys() {
        answer.remove(name);
    }
    for (name, value) in &headers {
        answer.append(name, value.clone());
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

    fn access_file(&self) -> Option<&AccessFile> {
        self.access_file.as_ref()
    }

    async fn call(&self, mut request: Request) -> Response {
        let user = match self.admit(&request).await {
            Ok(user) => user,
            Err(response) => return *response,
        };
        if self.auth.is_some() {
            // It was for us: the daemon has credentials of its own, if any.
            request.headers_mut().remove(AUTHORIZATION);
        }
        let mut response = self.answer(request).await;
        if let Some(user) = user {
            response.extensions_mut().insert(User(user));
        }
        response
    }

    fn failure(&self, error: &Error) -> Response {
        match error.kind() {
            Kind::Invalid => words::refuse_with(StatusCode::BAD_REQUEST, error.message()),
            _ => words::refuse(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_intercepted_is_the_recorded_list() {
        let at = |method: &Method, path: &str| verb(method, &format!("/api/v0/{path}"));
        assert_eq!(at(&Method::POST, "pin/add"), Some((Verb::PinAdd, None)));
        assert_eq!(at(&Method::GET, "pin/ls"), Some((Verb::PinLs, None)));
        assert_eq!(at(&Method::PUT, "pin/rm/a%2Fb"), Some((Verb::PinRm, Some("a/b".into()))));
        assert_eq!(at(&Method::POST, "add"), Some((Verb::Add, None)));
        for passed in ["pin/verify", "pin", "pin/add/a/b", "add/x", "repo/stat/x", "version", "pin/remote/ls"]
        {
            assert_eq!(at(&Method::POST, passed), None, "{passed}");
        }
        for method in [Method::OPTIONS, Method::HEAD, Method::DELETE] {
            assert_eq!(at(&method, "pin/add"), None, "{method}");
        }
        assert_eq!(verb(&Method::POST, "/pin/add"), None);
    }
}
