//! The HTTP client of the command line.
//!
//! Two ways to ask, for two kinds of answers:
//!
//! * [`Client::call`]: one request, one JSON answer. ureq, blocking, small buffers.
//! * [`Client::open`]: answers that come in pieces (listings, uploads, downloads). hyper on smol
//!   (`stream.rs`), because ureq reads past trailers, and the API reports an error after the first
//!   byte in the trailer `X-Stream-Error`; and because ureq sends all of an upload before it reads, so
//!   that a folder of many files would fill the socket with unread results and stand still.
//!
//! Several API addresses are tried in order, and only the next one when one cannot be reached: an
//! answer, even an error, is an answer. Everything that waits ends: at `--timeout`, or at the limits below.

pub mod hosts;
pub mod stream;

use super::args::Globals;
use super::face::Face;
use super::failure::{Failure, Outcome};
use crate::api::types::ErrorBody;
use crate::config::SERVICE_FOLDER;
use crate::trust as tls;
use hosts::{Endpoint, Place};
use hyper::Method;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Longest wait for a connection to one address.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence while an answer is awaited or comes in. Garbage collection on a large node is the
/// slowest answer there is, and its own limit is a day.
pub(crate) const SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Longest silence of a web server whose content is being added.
const WEB_SILENCE: Duration = Duration::from_secs(120);
/// Largest answer that is not streamed: the result of garbage collection lists every removed block.
pub(crate) const MAX_ANSWER: u64 = 256 << 20;
/// Read and write buffer of a connection.
const BUFFER: usize = 16 << 10;
/// Largest header block of an answer.
const MAX_HEADERS: usize = 64 << 10;

/// A client for the API of one cluster.
pub struct Client {
    endpoints: Vec<Endpoint>,
    authorization: Option<String>,
    timeout: Option<Duration>,
    verify: bool,
    debug: bool,
    agent: OnceLock<ureq::Agent>,
}

impl Client {
    /// Finds out where the API is and how to log in.
    ///
    /// # Errors
    /// [`Failure::Argument`] for an address or folder that cannot be used.
    pub fn new(face: Face, globals: &Globals, env: &dyn Fn(&str) -> Option<String>) -> Outcome<Client> {
        let mut verify = !globals.no_check_certificate;
        let mut authorization = None;
        let mut endpoints = None;
        // pinfold's own folder is looked at even when nobody names it: `up` may have chosen other ports.
        let folder = globals.config.as_ref().map(PathBuf::from).or_else(|| {
            // For root that is also the folder of the packaged service; others cannot look into it.
            let known = [Face::Pinfold.default_folder(), PathBuf::from(SERVICE_FOLDER)];
            let asked = face == Face::Pinfold && globals.host.is_none();
            known.into_iter().find(|folder| asked && folder.join("service.json").is_file())
        });
        if let Some(folder) = folder {
            match hosts::from_folder(&folder, env) {
                Ok(api) => {
                    // The daemon's certificate names the board, not 127.0.0.1; and nobody is in between.
                    verify &= !api.endpoints.iter().all(Endpoint::is_this_machine);
                    authorization = api.authorization;
                    endpoints = Some(api.endpoints);
                }
                // With --host the folder was only asked for credentials.
                Err(_) if globals.host.is_some() => {}
                Err(e) => return Err(Failure::argument("finding the API", e)),
            }
        }
        let mut https = globals.https;
        if let Some(text) = &globals.basic_auth {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            let pair = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
            authorization = Some(format!("Basic {pair}"));
            if globals.force_http {
                eprintln!("WARNING: the credentials travel without encryption (--force-http)");
            } else if endpoints.is_none() || globals.host.is_some() {
                https = true;
            }
        }
        if globals.host.is_some() || endpoints.is_none() {
            let text = globals.host.as_deref().unwrap_or(hosts::DEFAULT_HOST);
            let parsed = hosts::parse_hosts(text, https)
                .map_err(|e| Failure::argument("parsing host multiaddress", e))?;
            if globals.host.is_some() {
                verify = !globals.no_check_certificate;
            }
            endpoints = Some(parsed);
        }
        let endpoints = endpoints.unwrap_or_default();
        if endpoints.is_empty() {
            return Err(Failure::argument("parsing host multiaddress", "--host names no address"));
        }
        Ok(Client {
            endpoints,
            authorization,
            timeout: globals.timeout.filter(|t| *t > 0).map(Duration::from_secs),
            verify,
            debug: globals.debug,
            agent: OnceLock::new(),
        })
    }

    /// One request, one answer; `None` when it has no body.
    ///
    /// # Errors
    /// What the API answered, or why it could not be asked.
    pub fn call(&self, method: &Method, path: &str) -> Outcome<Option<Value>> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match self.call_one(endpoint, method, path) {
                Err(error @ Failure::Transport(_)) => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.expect("a client has at least one address"))
    }

    /// As [`Client::call`], for answers that always have a body.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn ask<T: serde::de::DeserializeOwned>(&self, method: &Method, path: &str) -> Outcome<(T, Value)> {
        let value = self.call(method, path)?.unwrap_or(Value::Null);
        let typed = serde_json::from_value(value.clone()).map_err(|e| {
            Failure::Transport(format!("the answer to {method} {path} is not what it should be: {e}"))
        })?;
        Ok((typed, value))
    }

    fn call_one(&self, endpoint: &Endpoint, method: &Method, path: &str) -> Outcome<Option<Value>> {
        if matches!(endpoint.place, Place::Unix(_)) {
            // ureq has no Unix sockets.
            let mut answer = stream::open(self, endpoint, method, path, None)?;
            return parse(method, path, &answer.read_whole(MAX_ANSWER)?);
        }
        let url = endpoint.url(path);
        let mut request = ureq::http::Request::builder().method(method.as_str()).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.body(()).map_err(|e| Failure::Transport(format!("{url} is not a URL: {e}")))?;
        self.trace(&format!("{method} {url}"));
        let failed = |e: ureq::Error| transport(method, &url, e);
        let mut answer = self.agent().run(request).map_err(failed)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(failed)?;
        self.trace(&format!("{status} {}", String::from_utf8_lossy(&body)));
        if status >= 400 {
            return Err(api_error(status, &body));
        }
        parse(method, path, &body)
    }

    /// A request whose answer comes in pieces.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn open(&self, method: &Method, path: &str) -> Outcome<stream::Answer> {
        self.first(|endpoint| stream::open(self, endpoint, method, path, None))
    }

    /// An upload: `upload` is made once, when a connection stands.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn upload(&self, path: &str, upload: stream::Upload) -> Outcome<stream::Answer> {
        // Only connecting may be repeated elsewhere: an upload that began is not sent twice.
        let endpoint = self.first(|e| stream::reach(self, e).map(|()| e))?;
        stream::open(self, endpoint, &Method::POST, path, Some(upload))
    }

    fn first<'c, T>(&'c self, mut ask: impl FnMut(&'c Endpoint) -> Outcome<T>) -> Outcome<T> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match ask(endpoint) {
                Err(error @ Failure::Transport(_)) => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.expect("a client has at least one address"))
    }

    fn agent(&self) -> &ureq::Agent {
        self.agent.get_or_init(|| {
            // A peer is asked directly, as for streams, whatever proxy the environment names for the web.
            agent(self.verify)
                .timeout_global(self.timeout)
                .timeout_per_read(Some(SILENCE))
                .proxy(None)
                .build()
                .new_agent()
        })
    }

    fn trace(&self, text: &str) {
        if self.debug {
            eprintln!("{}", super::text::plain(text.trim_end()));
        }
    }
}

/// A client for URLs that are to be added: through the environment's proxy, if it names one.
pub fn web_agent() -> ureq::Agent {
    agent(true).timeout_per_read(Some(WEB_SILENCE)).build().new_agent()
}

/// Blocking clients have small buffers and trust what this machine trusts.
fn agent(verify: bool) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    let mut tls = ureq::tls::TlsConfig::builder().disable_verification(!verify);
    if let Some(roots) = tls::system_roots() {
        let roots: Vec<_> =
            roots.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect();
        tls = tls.root_certs(ureq::tls::RootCerts::new_with_certs(&roots));
    }
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_response_header_size(MAX_HEADERS)
        .user_agent(format!("pinfold/{}", crate::VERSION))
        .tls_config(tls.build())
}

fn parse(method: &Method, path: &str, body: &[u8]) -> Outcome<Option<Value>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(body).map(Some).map_err(|e| {
        Failure::Transport(format!(
            "the answer to {method} {path} is not JSON ({e}); is this the API of a cluster peer?"
        ))
    })
}

/// The error that an answer of status 400 and more carries.
fn api_error(status: u16, body: &[u8]) -> Failure {
    if let Ok(error) = serde_json::from_slice::<ErrorBody>(body) {
        return Failure::Api(ErrorBody {
            code: error.code,
            message: super::text::plain(&error.message).into_owned(),
        });
    }
    let text = String::from_utf8_lossy(body);
    let message = match text.trim() {
        "" => hyper::StatusCode::from_u16(status)
            .ok()
            .and_then(|s| s.canonical_reason())
            .unwrap_or("no reason given")
            .to_string(),
        text => super::text::plain(text).into_owned(),
    };
    Failure::Api(ErrorBody { code: status, message })
}

/// Why a request did not reach the API, or its answer not us.
fn transport(method: &Method, url: &str, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(what) => {
            Failure::Deadline(format!("{method} {url}: deadline exceeded ({what})"))
        }
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => {
            Failure::Deadline(format!("{method} {url}: deadline exceeded"))
        }
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::Transport(refused(method, url))
        }
        ureq::Error::ConnectionFailed => Failure::Transport(refused(method, url)),
        error => {
            let text = tls::trouble(&error).unwrap_or_else(|| hint(&error.to_string()));
            Failure::Transport(format!("{method} {url}: {text}"))
        }
    }
}

fn refused(method: &Method, url: &str) -> String {
    format!("{method} {url}: connection refused; is a peer running there? (--host or -c names another)")
}

/// Adds the likely cause to errors whose own words do not say it.
fn hint(text: &str) -> String {
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return "the server gave an HTTP response to an HTTPS client; leave --https out".into();
    }
    if text.contains("UnknownIssuer") || text.contains("certificate") {
        return format!("{text}; --no-check-certificate accepts any certificate");
    }
    text.to_string()
}

/// Percent-encodes everything but unreserved characters, so that every server decodes it to the same.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[b]));
        }
    }
    out
}

/// A query string, built pair by pair.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    /// Adds a pair.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(&escape(key.as_bytes()));
        self.0.push('=');
        self.0.push_str(&escape(value.as_bytes()));
    }

    /// Adds `key=true` if `on`.
    pub fn switch(&mut self, key: &str, on: bool) {
        if on {
            self.add(key, "true");
        }
    }

    /// Adds a pair if there is a value.
    pub fn option(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(key, &value.to_string());
        }
    }

    /// `path?key=value&…`.
    pub fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let mut q = Query::default();
        assert_eq!(q.on("/pins"), "/pins");
        q.add("name", "a b&c=ü");
        q.switch("local", true);
        q.switch("no", false);
        q.option("rmin", Some(-1));
        q.option("rmax", None::<i32>);
        assert_eq!(q.on("/pins"), "/pins?name=a%20b%26c%3D%C3%BC&local=true&rmin=-1");
    }

    #[test]
    fn errors_of_the_api_keep_their_code_and_message() {
        let body = |code, message: &str| Failure::Api(ErrorBody { code, message: message.into() });
        assert_eq!(api_error(404, b"{\"code\":404,\"message\":\"no\"}\n"), body(404, "no"));
        assert_eq!(api_error(405, b""), body(405, "Method Not Allowed"));
        assert_eq!(api_error(502, b"<html>\x1b[1m"), body(502, "<html>\\u{1b}[1m"));
    }
}
