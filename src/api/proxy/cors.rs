//! Web pages and the proxy: whose page may ask, and what it may read, is decided by the IPFS daemon.
//!
//! An intercepted request never reaches the daemon, so its policy is asked for first: an `OPTIONS` with the
//! page's origin tells whether the daemon would let it in, and what the answer must carry; one `POST` now and then
//! tells the headers that the daemon puts on every answer (`extract_headers_path`, `extract_headers_ttl`). Programs
//! that are no browser have no origin, so for them everything is remembered and costs nothing.
//!
//! ipfs-cluster stops there, and does what a foreign page asked for without letting it read the answer. Here a
//! page that the daemon would turn away is turned away (403, as Kubo does), so that no page on the web can
//! unpin what is kept here. A daemon that is down has no policy: programs are served, pages are not.
//!
//! With the embedded node the policy is Kubo's default: pages that this machine served itself, at any name of loopback
//! and at the port they are asking.

use super::forward::Forward;
use crate::api::http::empty;
use crate::error::{Error, Result};
use crate::runtime;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How long the daemon may take to tell its policy; the client waits meanwhile.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failure the daemon is not asked again for this long: a daemon that hangs must not cost every
/// request [`ASK_TIMEOUT`].
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// What Kubo lets pages read.
const EXPOSED: HeaderValue = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");
/// What depends on the page.
const FROM_PREFLIGHT: [HeaderName; 3] =
    [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::VARY, header::ACCESS_CONTROL_ALLOW_CREDENTIALS];

/// A page was turned away, or a web browser that hides which page it asks for.
#[derive(Debug)]
pub(super) struct TurnedAway;

/// The page that asks: its origin, `None` for a program that is no browser.
///
/// # Errors
/// [`TurnedAway`] for a browser that does not say: Kubo's rule, with `Sec-Fetch-Site` on top, by which today's
/// browsers tell of an `<img>` or a link on a foreign page.
pub(super) fn page(request: &HeaderMap) -> Result<Option<String>, TurnedAway> {
    let text = |name: HeaderName| request.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
    if let Some(origin) = text(header::ORIGIN) {
        return Ok(Some(origin.to_owned()));
    }
    let foreign = |site: &str| !["same-origin", "none"].contains(&site);
    if text(HeaderName::from_static("sec-fetch-site")).is_some_and(foreign) {
        return Err(TurnedAway);
    }
    if let Some(referer) = text(header::REFERER) {
        let uri: Uri = referer.parse().map_err(|_| TurnedAway)?;
        return match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(host)) => Ok(Some(format!("{scheme}://{host}"))),
            _ => Err(TurnedAway),
        };
    }
    match text(header::USER_AGENT) {
        Some(agent) if agent.starts_with("Mozilla") => Err(TurnedAway),
        _ => Ok(None),
    }
}

/// Headers that were asked for, and when.
type Remembered = Option<(Instant, Result<HeaderMap, ()>)>;

/// The policy of a daemon behind the proxy.
pub(super) struct FromKubo {
    /// `extract_headers_path`.
    path: Uri,
    /// What is copied from its answer.
    extra: Vec<HeaderName>,
    /// `extract_headers_ttl`; zero: for ever.
    ttl: Duration,
    extracted: Mutex<Remembered>,
    /// The answer to an `OPTIONS` without an origin, which is the same for every path.
    no_page: Mutex<Remembered>,
}

impl FromKubo {
    /// Asks at `path`, and copies `extra` besides what Kubo always exposes.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] naming the key that is wrong.
    pub(super) fn new(path: &str, extra: &[String], ttl: Duration) -> Result<Self> {
        let path = match path.parse::<Uri>() {
            Ok(uri) if uri.path_and_query().is_some() && path.starts_with('/') => uri,
            _ => {
                return Err(Error::invalid(format!(
                "extract_headers_path is {path:?}; it must be a path of the daemon, like \"/api/v0/version\""
            )))
            }
        };
        let mut names = vec![header::ACCESS_CONTROL_EXPOSE_HEADERS];
        for name in extra {
            names.push(HeaderName::try_from(name).map_err(|_| {
                Error::invalid(format!("extract_headers_extra holds {name:?}, which is no name of a header"))
            })?);
        }
        Ok(FromKubo { path, extra: names, ttl, extracted: Mutex::default(), no_page: Mutex::default() })
    }

    /// What the answer to an intercepted request must carry.
    ///
    /// # Errors
    /// [`TurnedAway`] when the daemon would not let this page in.
    pub(super) async fn headers(
        &self,
        kubo: &Forward,
        path: &str,
        page: Option<&str>,
    ) -> Result<HeaderMap, TurnedAway> {
        let mut headers = match page {
            None => self.remembered(&self.no_page, || preflight(kubo, path, None)).await,
            Some(_) => {
                runtime::timeout(ASK_TIMEOUT, "the IPFS daemon", preflight(kubo, path, page)).await.ok()
            }
        }
        .unwrap_or_default();
        if page.is_some() && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return Err(TurnedAway);
        }
        let extracted = self.remembered(&self.extracted, || self.extract(kubo)).await.unwrap_or_default();
        for (name, value) in &extracted {
            headers.append(name, value.clone());
        }
        Ok(headers)
    }

    async fn remembered<F>(&self, slot: &Mutex<Remembered>, ask: impl FnOnce() -> F) -> Option<HeaderMap>
    where
        F: std::future::Future<Output = Result<HeaderMap>>,
    {
        if let Some((at, known)) = &*slot.lock() {
            let fresh = match known {
                Ok(_) => self.ttl.is_zero() || at.elapsed() < self.ttl,
                Err(()) => at.elapsed() < ASK_AGAIN,
            };
            if fresh {
                return known.clone().ok();
            }
        }
        let asked = runtime::timeout(ASK_TIMEOUT, "the IPFS daemon", ask()).await.map_err(|error| {
            log::debug!("the daemon's headers could not be asked for: {error}");
        });
        *slot.lock() = Some((Instant::now(), asked.clone()));
        asked.ok()
    }

    async fn extract(&self, kubo: &Forward) -> Result<HeaderMap> {
        let mut request = hyper::Request::new(empty());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let response = kubo.ask(request).await?;
        Ok(chosen(response.headers(), &self.extra))
    }
}

/// Asks what the daemon would tell this page about this path.
async fn preflight(kubo: &Forward, path: &str, page: Option<&str>) -> Result<HeaderMap> {
    let bad = |e: &dyn std::fmt::Display| Error::invalid(format!("cannot ask for {path:?}: {e}"));
    let mut request = hyper::Request::new(empty());
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = path.parse().map_err(|e| bad(&e))?;
    let headers = request.headers_mut();
    if let Some(page) = page {
        headers.insert(header::ORIGIN, HeaderValue::from_str(page).map_err(|e| bad(&e))?);
    }
    // The daemon's own commands are all POST, whatever the client said here.
    headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
    Ok(chosen(kubo.ask(request).await?.headers(), &FROM_PREFLIGHT))
}

fn chosen(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in names {
        for value in from.get_all(name) {
            out.append(name, value.clone());
        }
    }
    out
}

/// The policy where there is no daemon: Kubo's default.
///
/// # Errors
/// [`TurnedAway`] for a page that this machine did not serve.
pub(super) fn own(request: &HeaderMap, page: Option<&str>) -> Result<HeaderMap, TurnedAway> {
    let mut headers = HeaderMap::new();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, EXPOSED);
    let Some(page) = page else { return Ok(headers) };
    if !is_local(page, request) {
        return Err(TurnedAway);
    }
    let value = HeaderValue::from_str(page).map_err(|_| TurnedAway)?;
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    Ok(headers)
}

/// Whether a page comes from loopback, at the port that is being asked.
fn is_local(page: &str, request: &HeaderMap) -> bool {
    let port_of = |authority: &hyper::http::uri::Authority| authority.port_u16();
    let asked = request.get(header::HOST).and_then(|v| v.to_str().ok()?.parse().ok());
    let asked: Option<hyper::http::uri::Authority> = asked;
    let Ok(page) = page.parse::<Uri>() else { return false };
    let Some(authority) = page.authority() else { return false };
    let named = ["localhost", "127.0.0.1", "[::1]"].contains(&authority.host());
    named && asked.is_some_and(|asked| port_of(&asked) == port_of(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &str)| {
            (HeaderName::from_static(n), HeaderValue::from_str(v).expect("value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn who_asks_is_read_as_kubo_reads_it() {
        let asked = |pairs: &[(&'static str, &str)]| page(&request(pairs));
        assert_eq!(asked(&[]).expect("curl"), None);
        assert_eq!(asked(&[("user-agent", "curl/8")]).expect("curl"), None);
        assert_eq!(asked(&[("origin", "http://a")]).expect("page"), Some("http://a".into()));
        let referred = asked(&[("referer", "https://a.b:3/c?d")]).expect("page");
        assert_eq!(referred, Some("https://a.b:3".into()));
        for hidden in [
            &[("user-agent", "Mozilla/5.0")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("referer", "nothing")],
        ] {
            asked(hidden).expect_err("a browser");
        }
    }

    #[test]
    fn only_pages_of_this_machine_may_ask_the_embedded_node() {
        let request = request(&[("host", "127.0.0.1:9095")]);
        for good in ["http://127.0.0.1:9095", "http://localhost:9095", "https://[::1]:9095"] {
            let headers = own(&request, Some(good)).expect(good);
            assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], good);
        }
        for bad in ["http://127.0.0.1:80", "http://evil.example:9095", "null", "http://localhost.evil:9095"] {
            own(&request, Some(bad)).expect_err(bad);
        }
        assert!(!own(&request, None).expect("curl").contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn keys_that_are_wrong_are_named() {
        let new = |path: &str, extra: &str| FromKubo::new(path, &[extra.to_owned()], Duration::ZERO);
        new("/api/v0/version", "X-Extra").expect("good");
        assert!(new("nosuch", "X").err().expect("path").message().contains("extract_headers_path"));
        assert!(new("/", "a b").err().expect("name").message().contains("extract_headers_extra"));
    }
}
