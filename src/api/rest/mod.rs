//! The REST API of ipfs-cluster 1.1.6 (port 9094), route for route, and pinfold's own reading of content.
//!
//! A request passes the rules for browsers, then credentials, then CORS, then the removal of trailing slashes, then the routes, in that order, as in
//! ipfs-cluster. Handlers take a [`Call`], check what it says, ask [`Cluster`], and give an answer or an
//! [`Error`], which becomes `{"code":…,"message":…}`.
//!
//! It must never: answer a request half, do something for a request it then calls invalid, or decide
//! anything that is [`Cluster`]'s to decide.

pub(super) mod add;
mod bulk;
mod content;
mod moves;
mod peers;
mod pins;

pub use content::Listed;

use super::access::AccessFile;
use super::auth::{Auth, Refusal};
use super::browsers::Browsers;
use super::cors::Cors;
use super::http::{empty, full, Body, Remote, Request, Response, Service, User};
use super::json;
use super::query::{decode, Query};
use super::types::ErrorBody;
use crate::clock;
use crate::cluster::Cluster;
use crate::error::{Context, Error, Result};
use async_trait::async_trait;
use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, StatusCode};
use serde::Serialize;

/// What an unknown route says.
const NOT_FOUND: &str = "not found";
/// The media type of nearly everything.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The REST API of one peer.
pub struct Rest {
    cluster: Cluster,
    auth: Option<Auth>,
    browsers: Browsers,
    cors: Cors,
    headers: Vec<(HeaderName, HeaderValue)>,
    access_file: Option<AccessFile>,
}

/// A request, decoded as far as all routes need it.
struct Call {
    /// Decoded path components, without the empty first one.
    path: Vec<String>,
    query: Query,
    headers: HeaderMap,
    /// Only the head of the answer is wanted.
    head: bool,
    /// Who asks; `None` without authentication.
    user: Option<String>,
    body: Body,
}

impl Rest {
    /// The API over a cluster peer. `headers` go on every answer.
    pub fn new(
        cluster: Cluster,
        auth: Option<Auth>,
        browsers: Browsers,
        cors: Cors,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        Rest { cluster, auth, browsers, cors, headers, access_file: None }
    }

    /// The same with its access log in a file.
    #[must_use]
    pub fn with_access_file(self, access_file: Option<AccessFile>) -> Self {
        Rest { access_file, ..self }
    }

    async fn authorize(&self, request: &Request) -> Result<Option<String>, Refusal> {
        let open = *request.method() == Method::OPTIONS
            || (*request.method() == Method::GET && request.uri().path() == "/health");
        match &self.auth {
            Some(auth) if !open => auth.check(request.headers()).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn respond(&self, request: Request, user: Option<String>) -> Result<Response> {
        if let Some(redirect) = without_slash(&request) {
            return Ok(redirect);
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().split('/').skip(1).map(|component| decode(component, false));
        let path: Vec<String> = path.collect::<Option<_>>().ok_or_else(|| {
            Error::invalid(format!("the path {} is not valid percent-encoding", parts.uri.path()))
        })?;
        let query = Query::parse(parts.uri.query().unwrap_or(""))?;
        // hyper leaves the body out of the answer to a HEAD.
        let head = parts.method == Method::HEAD;
        let method = if head { Method::GET } else { parts.method };
        if method == Method::GET && query.strong()? {
            self.cluster.consensus().read_index().await?;
        }
        self.route(&method, Call { path, query, headers: parts.headers, head, user, body }).await
    }

    async fn route(&self, method: &Method, call: Call) -> Result<Response> {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let (get, post, delete) =
            (*method == Method::GET, *method == Method::POST, *method == Method::DELETE);
        match path.as_slice() {
            ["id"] if get => answer(&self.cluster.id().await),
            ["version"] if get => answer(&self.cluster.version()),
            ["peers"] if get => self.peers().await,
            ["peers"] if post => self.peer_add(call).await,
            ["peers", peer, "drain"] if post => self.drain(peer, &call).await,
            ["rebalance"] if post => self.rebalance(&call).await,
            ["peers", peer] if delete => self.peer_remove(peer).await,
            ["add"] if post => self.add(call).await,
            ["allocations"] if get => self.allocations(&call).await,
            ["allocations", cid] if get => self.allocation(cid).await,
            ["pins"] if get => self.status_all(&call).await,
            ["pins"] if post => self.pin_list(call).await,
            ["pins", "recover"] if post => self.recover_all(&call).await,
            ["pins", "sync"] if post => self.sync_all(&call).await,
            ["pins", cid, "sync"] if post => self.sync(cid, &call).await,
            ["pins", cid, "recover"] if post => self.recover(cid, &call).await,
            ["pins", "ipfs" | "ipns" | "ipld", _, ..] if post => self.pin_path(&call).await,
            ["pins", "ipfs" | "ipns" | "ipld", _, ..] if delete => self.unpin_path(&call).await,
            ["pins", cid] if get => self.status(cid, &call).await,
            ["pins", cid] if post => self.pin(cid, &call).await,
            ["pins", cid] if delete => self.unpin(cid).await,
            ["monitor", "metrics"] if get => answer(&self.cluster.metric_names()),
            ["monitor", "metrics", name] if get => answer(&self.cluster.metrics(name)),
            ["health"] if get => Ok(no_content()),
            ["health", "graph"] if get => answer(&self.cluster.graph().await?),
            ["health", "clocks"] if get => answer(&self.cluster.clocks().await),
            ["health", "consensus"] if get => answer(&self.cluster.consensus_health()),
            ["health", "alerts"] if get => answer(&self.cluster.alerts()),
            ["health", "bandwidth"] if get => answer(&self.cluster.bandwidth()),
            ["ipfs", "gc"] if post => answer(&self.cluster.gc(call.query.local()).await?),
            ["ipfs", _, ..] if get => self.content(&call).await,
            ["token"] if post => self.token(&call),
            _ => Err(Error::not_found(NOT_FOUND)),
        }
    }

    fn token(&self, call: &Call) -> Result<Response> {
        match (&self.auth, &call.user) {
            (Some(auth), Some(user)) => {
                let life = match call.query.get("expire-in") {
                    None => None,
                    Some(text) => Some(clock::parse_duration(text).context("expire-in")?),
                };
                answer(&serde_json::json!({ "token": auth.token(user, life)? }))
            }
            _ => Err(Error::unauthorized("unauthorized")),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        let mut response = self.failed(refusal.status, &refusal.error);
        if refusal.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for challenge in refusal.challenges {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// Adds what every answer carries.
    fn dress(&self, response: &mut Response) {
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
    }
}

#[async_trait]
impl Service for Rest {
    fn name(&self) -> &'static str {
        "REST API"
    }

    fn access_log(&self) -> &'static str {
        "restapilog"
    }

    fn access_file(&self) -> Option<&AccessFile> {
        self.access_file.as_ref()
    }

    async fn call(&self, request: Request) -> Response {
        let remote = request.extensions().get::<Remote>().copied().unwrap_or(Remote(None));
        let judged = self.browsers.check(request.method(), request.headers(), remote, Some(&self.cors));
        if let Err(error) = judged {
            let mut response = self.failure(&error);
            self.dress(&mut response);
            return response;
        }
        let user = match self.authorize(&request).await {
            Ok(user) => user,
            Err(refusal) => {
                let mut response = self.refuse(refusal);
                self.dress(&mut response);
                return response;
            }
        };
        let (method, asked) = (request.method().clone(), request.headers().clone());
        if Cors::is_preflight(&method, &asked) {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.headers_mut() = self.cors.preflight(&asked);
            return response;
        }
        let mut response = match self.respond(request, user.clone()).await {
            Ok(response) => response,
            Err(error) => self.failure(&error),
        };
        self.dress(&mut response);
        self.cors.apply(&method, &asked, response.headers_mut());
        if let Some(user) = user {
            response.extensions_mut().insert(User(user));
        }
        response
    }

    fn failure(&self, error: &Error) -> Response {
        let code = error.kind().http_status();
        self.failed(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error)
    }
}

impl Rest {
    /// An error under a status of its own.
    fn failed(&self, status: StatusCode, error: &Error) -> Response {
        let body = ErrorBody { code: status.as_u16(), message: error.message().to_owned() };
        let mut response = Response::new(full(json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }
}

/// A value as JSON.
fn answer<T: Serialize + ?Sized>(value: &T) -> Result<Response> {
    let mut response = Response::new(full(json::to_vec(value)?));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// Done, and nothing to say.
fn no_content() -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A streamed answer, marked as JSON.
fn as_json(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The redirect that a path with a trailing slash gets. `/` itself is simply not found: ipfs-cluster
/// redirects it to itself, for ever.
fn without_slash(request: &Request) -> Option<Response> {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed == path || trimmed.is_empty() {
        return None;
    }
    // One slash in front, or the target would be another host.
    let mut target = format!("/{}", trimmed.trim_start_matches('/'));
    if let Some(query) = request.uri().query() {
        target.push('?');
        target.push_str(query);
    }
    let location = HeaderValue::from_str(&target).ok()?;
    let mut response = if *request.method() == Method::GET || *request.method() == Method::HEAD {
        let link = target.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;");
        let mut response = Response::new(full(format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n")));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
        response
    } else {
        Response::new(empty())
    };
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}
