//! Where the API is: `--host`, or the service.json of a folder, or the default.
//!
//! An API address is a multiaddress: `/ip4/127.0.0.1/tcp/9094`, `/dns4/node1/tcp/9094/https`,
//! `/unix/run/api.sock`. Several are tried in order. A folder's own file also gives the credentials, so
//! that on the board itself `pinfold -c FOLDER status` needs no password on the command line.

use crate::api::own;
use crate::error::{Context, Error, Result};
use libp2p::multiaddr::{Multiaddr, Protocol};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The address of the API when nobody says otherwise.
pub const DEFAULT_HOST: &str = "/ip4/127.0.0.1/tcp/9094";
/// A service.json larger than this is not one.
const MAX_CONFIG: u64 = 4 << 20;

/// How to reach one API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Host (name or address, IPv6 without brackets) and port.
    Tcp(String, u16),
    /// A socket file.
    Unix(PathBuf),
}

/// One API address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub place: Place,
    /// Whether it speaks TLS.
    pub https: bool,
}

impl Endpoint {
    /// Host and port as they stand in a URL and in the `Host` header.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp(host, port) => format!("{host}:{port}"),
            // A numeric host, so that nobody tries to resolve it.
            Place::Unix(_) => "127.0.0.1".into(),
        }
    }

    /// The URL of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.https { "https" } else { "http" }, self.authority())
    }

    /// What to call it in an error.
    pub fn label(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix:{}", path.display()),
            Place::Tcp(..) => self.url(""),
        }
    }

    /// Whether the way to it never leaves this machine.
    pub fn is_this_machine(&self) -> bool {
        match &self.place {
            Place::Unix(_) => true,
            Place::Tcp(host, _) => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// Parses one API address.
///
/// # Errors
/// [`crate::Kind::Invalid`] with the address and what is missing.
pub fn parse_host(text: &str, https: bool) -> Result<Endpoint> {
    if let Some(path) = text.strip_prefix("/unix/") {
        return Ok(Endpoint { place: Place::Unix(Path::new("/").join(path)), https });
    }
    if !text.starts_with('/') {
        return Err(Error::invalid(format!(
            "failed to parse multiaddr \"{text}\": must begin with / (like {DEFAULT_HOST})"
        )));
    }
    let address: Multiaddr =
        text.parse().map_err(|e| Error::invalid(format!("failed to parse multiaddr \"{text}\": {e}")))?;
    let (mut host, mut port, mut https) = (None, None, https);
    for part in &address {
        match part {
            Protocol::Ip4(ip) if host.is_none() => host = Some(ip.to_string()),
            Protocol::Ip6(ip) if host.is_none() => host = Some(ip.to_string()),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) if host.is_none() => {
                host = Some(name.into_owned());
            }
            Protocol::Tcp(n) if port.is_none() => port = Some(n),
            Protocol::Http => {}
            Protocol::Https | Protocol::Tls => https = true,
            Protocol::P2p(_) | Protocol::Dnsaddr(_) => {
                return Err(Error::invalid(format!(
                    "\"{text}\" asks for the API over libp2p, which pinfold does not serve; use the peer's HTTP API \
                     address, like {DEFAULT_HOST}"
                )))
            }
            other => {
                return Err(Error::invalid(format!(
                    "\"{text}\" is not an API address: {other} does not belong there; use one like {DEFAULT_HOST}"
                )))
            }
        }
    }
    match (host, port) {
        (Some(host), Some(port)) => Ok(Endpoint { place: Place::Tcp(host, port), https }),
        _ => Err(Error::invalid(format!(
            "\"{text}\" is not an API address: it needs a host and a port, like {DEFAULT_HOST}"
        ))),
    }
}

/// Parses a comma list of API addresses.
///
/// # Errors
/// As [`parse_host`].
pub fn parse_hosts(text: &str, https: bool) -> Result<Vec<Endpoint>> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| parse_host(t, https)).collect()
}

/// What a folder's service.json says about its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderApi {
    /// Where it listens, as seen from this machine.
    pub endpoints: Vec<Endpoint>,
    /// A value of the `Authorization` header that it accepts.
    pub authorization: Option<String>,
}

/// Reads where the API of the peer in `folder` is. `env` overrides the file as it does for the daemon.
///
/// # Errors
/// When the file cannot be read or names no API.
pub fn from_folder(folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<FolderApi> {
    let file = folder.join("service.json");
    let doing = format!("reading the API address from {}", file.display());
    let size = std::fs::metadata(&file).map_err(|e| unreadable(&doing, &e))?.len();
    if size > MAX_CONFIG {
        return Err(Error::invalid(format!(
            "{doing}: the file has {size} bytes, which no configuration has"
        )));
    }
    let text = std::fs::read(&file).map_err(|e| unreadable(&doing, &e))?;
    let config: Value =
        serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("{doing}: not JSON: {e}")))?;
    api_of(&config, env).context(doing)
}

/// A folder that belongs to somebody else is the usual case of a peer that is a service.
fn unreadable(doing: &str, e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => Error::from_io(
            format!("{doing}, which is not yours to read (run this with sudo, or name the API with --host {DEFAULT_HOST})"),
            e,
        ),
        _ => Error::from_io(doing, e),
    }
}

fn api_of(config: &Value, env: &dyn Fn(&str) -> Option<String>) -> Result<FolderApi> {
    if config.get("source").is_some() {
        return Err(Error::invalid(
            "the configuration is fetched from elsewhere (\"source\"); name the API with --host",
        ));
    }
    let api = config.pointer("/api/restapi").filter(|v| !v.is_null()).ok_or_else(|| {
        Error::invalid("api.restapi is missing, so this peer serves no API; name another one with --host")
    })?;
    // 0.3 called the key listen_multiaddress.
    let listen = api.get("http_listen_multiaddress").or_else(|| api.get("listen_multiaddress"));
    let mut listen: Vec<String> = match listen {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => Vec::new(),
    };
    if let Some(list) = env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS").filter(|l| !l.is_empty()) {
        listen = list.split(',').map(|l| l.trim().to_string()).collect();
    }
    if listen.is_empty() {
        listen.push(DEFAULT_HOST.into());
    }
    let https = api.get("ssl_cert_file").and_then(Value::as_str).is_some_and(|f| !f.is_empty());
    let endpoints = listen
        .iter()
        .map(|address| {
            parse_host(
                &address.replace("/ip4/0.0.0.0/", "/ip4/127.0.0.1/").replace("/ip6/::/", "/ip6/::1/"),
                https,
            )
        })
        .collect::<Result<Vec<_>>>()?;
    let mut users: Vec<(String, String)> = api
        .get("basic_auth_credentials")
        .and_then(Value::as_object)
        .map(|m| m.iter().map(|(u, p)| (u.clone(), p.as_str().unwrap_or_default().to_string())).collect())
        .unwrap_or_default();
    if let Some(list) = env("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS").filter(|l| !l.is_empty()) {
        users = list
            .split(',')
            .filter_map(|pair| pair.split_once(':'))
            .map(|(u, p)| (u.trim().to_string(), p.to_string()))
            .collect();
    }
    let authorization = own::authorization(users.iter().map(|(user, password)| (user, password)))?;
    Ok(FolderApi { endpoints, authorization })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_addresses_are_multiaddresses() {
        let tcp = |h: &str, p| Place::Tcp(h.into(), p);
        assert_eq!(parse_host("/ip4/127.0.0.1/tcp/9094", false).expect("ip4").place, tcp("127.0.0.1", 9094));
        let six = parse_host("/ip6/::1/tcp/1/https", false).expect("ip6");
        assert_eq!(six.url("/id"), "https://[::1]:1/id");
        assert!(six.is_this_machine());
        assert_eq!(parse_host("/dns4/node1/tcp/80/http", false).expect("dns").url("/"), "http://node1:80/");
        let unix = parse_host("/unix/run/api.sock", false).expect("unix");
        assert_eq!(unix.place, Place::Unix("/run/api.sock".into()));
        for bad in ["nosuch", "", "/ip4/1.2.3.4", "/tcp/9", "/ip4/1.2.3.4/udp/9", "/ip4/1.2.3.4/tcp/99999"] {
            assert!(parse_host(bad, false).is_err(), "{bad}");
        }
        assert_eq!(parse_hosts("/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.5/tcp/2", false).expect("two").len(), 2);
    }

    #[test]
    fn a_folder_names_its_api_and_credentials() {
        let none = |_: &str| None;
        let config = serde_json::json!({"api": {"restapi": {
            "http_listen_multiaddress": ["/ip4/0.0.0.0/tcp/19094", "/ip6/::/tcp/19094"],
            "basic_auth_credentials": {"nobody": "", "me": "pw"}}}});
        let api = api_of(&config, &none).expect("api");
        assert_eq!(api.endpoints[0].url(""), "http://127.0.0.1:19094");
        assert_eq!(api.endpoints[1].url(""), "http://[::1]:19094");
        assert_eq!(api.authorization.as_deref(), Some("Basic bWU6cHc="));
        let env = |name: &str| {
            (name == "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS").then(|| "/ip4/10.0.0.1/tcp/7".to_string())
        };
        assert_eq!(api_of(&config, &env).expect("env").endpoints[0].url(""), "http://10.0.0.1:7");
        assert!(api_of(&serde_json::json!({"api": {}}), &none).is_err());
        assert!(api_of(&serde_json::json!({"source": "http://x"}), &none).is_err());
    }
}
