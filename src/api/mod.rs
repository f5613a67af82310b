//! The served HTTP APIs: hyper 1 on smol, with connection, header, body and time limits everywhere.
//!
//! | file | keeps |
//! |---|---|
//! | `server`, `gate`, `listen`, `tls` | a generic HTTP/1.1 server and its limits |
//! | `http` | requests, answers, the trait of an API |
//! | `access` | access logs in files |
//! | `auth`, `browsers`, `cors`, `guarded` | who may ask, under which names, and from which web pages |
//! | `query`, `multipart` | what comes in |
//! | `json`, `stream`, `tar`, `types` | what goes out |
//! | `proxy` | the IPFS proxy: looks like an IPFS daemon, pins in the cluster |
//! | `rest` | the routes of ipfs-cluster's REST API, and pinfold's own reading of content |
//!
//! Everything that a client sends is checked in this room, so that [`Cluster`] only sees values of
//! the right type and size. Errors are said in the form of the API that is being spoken.

pub mod access;
pub mod auth;
pub mod browsers;
pub mod cors;
mod gate;
pub mod guarded;
pub mod http;
pub mod json;
pub mod listen;
pub mod multipart;
pub mod own;
pub mod proxy;
pub mod query;
pub mod rest;
pub mod server;
pub mod stream;
mod tar;
pub mod tls;
pub mod types;

use crate::cluster::Cluster;
use crate::error::{Context, Error, Result};
use access::AccessFile;
use auth::Auth;
use browsers::Browsers;
use cors::Cors;
use hyper::header::{HeaderName, HeaderValue};
use rest::Rest;
pub use server::Server;
use server::{Limits, ServerConfig};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The section `api.restapi` of the config, checked and with paths made absolute.
#[derive(Clone, Debug)]
pub struct RestConfig {
    /// `http_listen_multiaddress`.
    pub listen: Vec<String>,
    /// `read_timeout`: longest silence in a request body; zero for [`server::BODY_TIMEOUT`].
    pub read_timeout: Duration,
    /// `read_header_timeout`; zero for [`server::HEADER_TIMEOUT`].
    pub read_header_timeout: Duration,
    /// `write_timeout`: longest time a client may not read; zero for [`server::WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// `idle_timeout`; zero for [`server::IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// `max_header_bytes`, at least [`server::MIN_HEADER_BYTES`].
    pub max_header_bytes: usize,
    /// `max_connections`.
    pub max_connections: usize,
    /// `max_connections_per_address`.
    pub max_connections_per_address: usize,
    /// `allowed_hosts`: further names that the API may be asked under.
    pub allowed_hosts: Vec<String>,
    /// `basic_auth_credentials`: user → password.
    pub basic_auth: Option<BTreeMap<String, String>>,
    /// `http_log_file`: where a line per request goes; `None` is the log.
    pub log_file: Option<PathBuf>,
    /// `ssl_cert_file` and `ssl_key_file`.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `headers`: added to every answer.
    pub headers: Vec<(String, String)>,
    /// `cors_allowed_origins`.
    pub cors_allowed_origins: Vec<String>,
    /// `cors_allowed_methods`.
    pub cors_allowed_methods: Vec<String>,
    /// `cors_allowed_headers`.
    pub cors_allowed_headers: Vec<String>,
    /// `cors_exposed_headers`.
    pub cors_exposed_headers: Vec<String>,
    /// `cors_allow_credentials`.
    pub cors_allow_credentials: bool,
    /// `cors_max_age`.
    pub cors_max_age: Duration,
}

impl Default for RestConfig {
    fn default() -> Self {
        let cors = Cors::default();
        RestConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/9094".into()],
            read_timeout: Duration::ZERO,
            read_header_timeout: server::HEADER_TIMEOUT,
            write_timeout: Duration::ZERO,
            idle_timeout: server::IDLE_TIMEOUT,
            max_header_bytes: server::MIN_HEADER_BYTES,
            max_connections: server::MAX_CONNECTIONS,
            max_connections_per_address: server::MAX_PER_ADDRESS,
            allowed_hosts: Vec::new(),
            basic_auth: None,
            log_file: None,
            tls: None,
            headers: Vec::new(),
            cors_allowed_origins: cors.origins,
            cors_allowed_methods: cors.methods,
            cors_allowed_headers: cors.headers,
            cors_exposed_headers: cors.exposed,
            cors_allow_credentials: cors.credentials,
            cors_max_age: cors.max_age,
        }
    }
}

/// Starts the REST API.
///
/// # Errors
/// A sentence naming the address, file or header that is wrong.
pub async fn start_rest(config: RestConfig, cluster: Cluster) -> Result<Server> {
    let headers = config
        .headers
        .iter()
        .map(|(name, value)| match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => Ok((name, value)),
            _ => Err(Error::invalid(format!(
                "api.restapi.headers: \"{name}: {value}\" is not an HTTP header; correct or remove it"
            ))),
        })
        .collect::<Result<_>>()?;
    let cors = Cors {
        origins: config.cors_allowed_origins,
        methods: config.cors_allowed_methods,
        headers: config.cors_allowed_headers,
        exposed: config.cors_exposed_headers,
        credentials: config.cors_allow_credentials,
        max_age: config.cors_max_age,
    };
    let tls = match &config.tls {
        Some((certificate, key)) => Some(tls::Tls::open("REST API", certificate, key).await?),
        None => None,
    };
    let auth = config.basic_auth.map(Auth::new).transpose().context("api.restapi.basic_auth_credentials")?;
    let browsers = Browsers::new("api.restapi", &config.listen, &config.allowed_hosts, auth.is_some());
    let limits = Limits {
        connections: config.max_connections,
        per_address: config.max_connections_per_address,
        header_bytes: config.max_header_bytes,
        header_timeout: config.read_header_timeout,
        idle_timeout: config.idle_timeout,
        body_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
    };
    let log_file = config.log_file.map(AccessFile::open).transpose()?;
    let rest = Rest::new(cluster, auth, browsers, cors, headers).with_access_file(log_file);
    Server::bind(ServerConfig { listen: config.listen, tls, limits }, Arc::new(rest)).await
}
