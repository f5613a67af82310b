//! What a web page may not do with an API that trusts its network.
//!
//! An API on loopback without a password trusts whoever can connect: the programs of this machine. A browser is one of
//! them, and runs code of strangers. Two ways lead from a web page to the API:
//!
//! *DNS rebinding.* The page's own name is pointed at 127.0.0.1, and the browser takes the API for the page's server.
//! Only the `Host` header tells: it carries the page's name. So an API that asks for no password takes requests only
//! under names that no stranger's page can have: IP addresses, names without a dot (the public DNS has none),
//! names of the local zones ([`LOCAL_ZONES`]), the name it listens under, this machine's name, and
//! what `allowed_hosts` lists. With a password there is nothing to gain by rebinding, because the browser knows none
//! for the page's name.
//!
//! *Cross-site requests.* A page may send simple requests anywhere without asking; that it may not read the answer
//! does not undo what they did. Browsers put the page's `Origin` on them. So a request that changes something is taken
//! from a page only if it is the API's own (same origin) or the CORS rules allow the page and the method.
//!
//! Programs send no `Origin` and a `Host` that they were told: nothing changes for them.

use super::cors::Cors;
use super::http::Remote;
use crate::error::{Error, Result};
use hyper::header::{HeaderMap, HOST, ORIGIN};
use hyper::Method;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Zones that only a local network answers for (RFC 6761, 6762, 8375; `internal` is reserved by ICANN, and `lan` is
/// what home routers use and the public DNS does not have).
const LOCAL_ZONES: [&str; 5] = ["localhost", "local", "home.arpa", "internal", "lan"];
/// As much of a refused header as a message shows, characters.
const SHOWN: usize = 80;

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Browsers {
    /// Names under which the API may be asked; `None` when any will do.
    names: Option<BTreeSet<String>>,
    /// The key that the sentence names: `api.restapi.allowed_hosts`.
    key: String,
}

impl Browsers {
    /// The rules for an API that listens on these multiaddresses, in the section `section` of the configuration.
    /// `authenticated`: it asks for a password.
    pub fn new(section: &str, listen: &[String], allowed_hosts: &[String], authenticated: bool) -> Self {
        let key = format!("{section}.allowed_hosts");
        if authenticated || allowed_hosts.iter().any(|host| host == "*") {
            return Browsers { names: None, key };
        }
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let listened = listen.iter().filter_map(|address| match address.split('/').collect::<Vec<_>>()[..] {
            ["", "dns" | "dns4" | "dns6", name, ..] => Some(name.to_owned()),
            _ => None,
        });
        let names = allowed_hosts.iter().cloned().chain(listened).chain([machine]);
        Browsers { names: Some(names.map(|name| plain(&name)).collect()), key }
    }

    /// Whether a request may be looked at. `cors` are the rules of the API, if it has any.
    ///
    /// # Errors
    /// [`crate::Kind::Forbidden`] with what to change, if the request is meant.
    pub fn check(&self, method: &Method, headers: &HeaderMap, remote: Remote, cors: Option<&Cors>) -> Result<()> {
        // No browser reaches a Unix socket.
        if remote.0.is_none() {
            return Ok(());
        }
        self.host(headers)?;
        self.origin(method, headers, cors)
    }

    /// The first way: under which name was the API asked?
    ///
    /// # Errors
    /// As [`Browsers::check`].
    pub fn host(&self, headers: &HeaderMap) -> Result<()> {
        // HTTP/1.0 programs may leave it out; browsers never do.
        let (Some(names), Some(host)) = (&self.names, headers.get(HOST)) else { return Ok(()) };
        let host = String::from_utf8_lossy(host.as_bytes());
        let name = plain(without_port(&host));
        if is_local(&name) || names.contains(&name) {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "the Host header says \"{}\", a name that this API does not go by: a web page could have pointed its own \
             name here; ask by IP address, or add the name to {}",
            shown(&host),
            self.key
        )))
    }

    /// The second way: which page wants to change something?
    ///
    /// # Errors
    /// As [`Browsers::check`].
    pub fn origin(&self, method: &Method, headers: &HeaderMap, cors: Option<&Cors>) -> Result<()> {
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let Some(origin) = headers.get(ORIGIN).filter(|_| changes) else { return Ok(()) };
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let page = origin.split_once("://").map(|(_, authority)| authority);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let own = page.zip(host).is_some_and(|(page, host)| page.eq_ignore_ascii_case(host));
        if own || cors.is_some_and(|cors| cors.permits(method, headers)) {
            return Ok(());
        }
        let fix = match cors {
            Some(_) => "if it is meant, allow it with cors_allowed_origins and cors_allowed_methods of the API's section",
            None => "it has to ask a program of yours instead",
        };
        Err(Error::forbidden(format!(
            "the web page {} may not send {method} requests here: {fix}",
            shown(&origin)
        )))
    }
}

/// Host without port; IPv6 addresses keep their brackets off.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// A name as names are compared: lower case, without the root's dot.
fn plain(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// Whether no page of a stranger can be under this name.
fn is_local(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || LOCAL_ZONES.iter().any(|zone| name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.')))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &str)| {
            (HeaderName::from_static(n), HeaderValue::from_str(v).expect("value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn near() -> Remote {
        Remote(Some(([127, 0, 0, 1], 4711).into()))
    }

    fn rules(allowed: &[&str]) -> Browsers {
        let listen = ["/ip4/127.0.0.1/tcp/9094".to_owned(), "/dns4/Pi.Example.org/tcp/9094".to_owned()];
        let allowed: Vec<String> = allowed.iter().map(|s| (*s).to_owned()).collect();
        Browsers::new("api.restapi", &listen, &allowed, false)
    }

    #[test]
    fn names_that_no_page_can_have_are_taken() {
        for host in [
            "127.0.0.1:9094",
            "192.168.1.20",
            "[::1]:9094",
            "[fe80::1]",
            "localhost:9094",
            "LOCALHOST",
            "cluster0:9094",
            "board1.local:9094",
            "board1.home.arpa",
            "board1.lan",
            "pi.example.org:9094",
            "pi.example.org.",
            "cluster.example.net",
            "",
        ] {
            let asked = headers(&[("host", host)]);
            rules(&["cluster.example.net"]).host(&asked).unwrap_or_else(|e| panic!("{host}: {e}"));
        }
        rules(&[]).host(&HeaderMap::new()).expect("HTTP/1.0 without Host");
    }

    #[test]
    fn a_rebound_name_is_refused_with_the_way_out() {
        for host in ["evil.example:9094", "127.0.0.1.evil.example", "pi.example.org.evil.example", "local.evil", "x.notlocal"] {
            let error = rules(&[]).host(&headers(&[("host", host)])).expect_err(host);
            assert_eq!(error.kind(), crate::Kind::Forbidden);
            assert!(error.message().contains("api.restapi.allowed_hosts"), "{error}");
        }
        let asked = headers(&[("host", "evil.example")]);
        rules(&["*"]).host(&asked).expect("whoever says so");
        Browsers::new("api.restapi", &[], &[], true).host(&asked).expect("a password protects");
        rules(&[]).check(&Method::POST, &asked, Remote(None), None).expect("a Unix socket");
    }

    #[test]
    fn pages_change_something_only_with_leave() {
        let cors = Cors::default();
        let from = |origin: &str| headers(&[("host", "127.0.0.1:9094"), ("origin", origin)]);
        let ask = |method: Method, origin: &str, cors: &Cors| {
            rules(&[]).check(&method, &from(origin), near(), Some(cors))
        };
        ask(Method::GET, "http://evil.example", &cors).expect("reading is for the CORS headers to say");
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9095", "http://127.0.0.1"] {
            let error = ask(Method::POST, origin, &cors).expect_err(origin);
            assert!(error.message().contains("cors_allowed_methods"), "{error}");
            ask(Method::DELETE, origin, &cors).expect_err(origin);
        }
        ask(Method::POST, "http://127.0.0.1:9094", &cors).expect("the API's own page");
        let open = Cors { methods: vec!["GET".into(), "POST".into()], ..Cors::default() };
        ask(Method::POST, "http://evil.example", &open).expect("the configuration says so");
        ask(Method::DELETE, "http://evil.example", &open).expect_err("but not this");
        let narrow = Cors { origins: vec!["https://ui.example".into()], ..open };
        ask(Method::POST, "https://ui.example", &narrow).expect("that page");
        ask(Method::POST, "https://evil.example", &narrow).expect_err("not that one");
        rules(&[]).check(&Method::POST, &headers(&[("host", "127.0.0.1")]), near(), None).expect("curl");
    }
}
