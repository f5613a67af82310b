//! Cross-origin requests: which web pages may talk to the API from a browser.
//!
//! The semantics are those of the Go library that ipfs-cluster uses (rs/cors), header for header: a preflight is
//! always answered 204, and simply lacks the allowing headers when something is not allowed.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::Method;
use std::time::Duration;

/// Headers a page may send when none are configured.
const DEFAULT_HEADERS: [&str; 4] = ["accept", "content-type", "origin", "x-requested-with"];
const PREFLIGHT_VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// The rules, as configured (`cors_*`).
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins; `*` for any, and one `*` inside stands for anything.
    pub origins: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Request headers; `*` for any, empty for the library's default.
    pub headers: Vec<String>,
    /// Response headers a page may read.
    pub exposed: Vec<String>,
    /// Whether a page may send credentials.
    pub credentials: bool,
    /// How long a browser may remember a preflight.
    pub max_age: Duration,
}

impl Default for Cors {
    fn default() -> Self {
        Cors {
            origins: vec!["*".into()],
            methods: vec!["GET".into()],
            headers: Vec::new(),
            exposed: ["Content-Type", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"]
                .map(String::from)
                .to_vec(),
            credentials: true,
            max_age: Duration::ZERO,
        }
    }
}

impl Cors {
    /// Whether a request is a preflight.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The headers of the answer to a preflight.
    pub fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        answer.insert(header::VARY, HeaderValue::from_static(PREFLIGHT_VARY));
        let method = text(request, header::ACCESS_CONTROL_REQUEST_METHOD);
        let wanted = text(request, header::ACCESS_CONTROL_REQUEST_HEADERS);
        let Some(origin) = self.allowed_origin(request) else { return answer };
        if !self.allows_method(method) || !self.allows_headers(wanted) {
            return answer;
        }
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        put(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, &method.to_ascii_uppercase());
        if !wanted.is_empty() {
            put(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
        self.put_credentials(&mut answer);
        if !self.max_age.is_zero() {
            put(&mut answer, header::ACCESS_CONTROL_MAX_AGE, &self.max_age.as_secs().to_string());
        }
        answer
    }

    /// Adds what the answer to an ordinary request must carry.
    pub fn apply(&self, method: &Method, request: &HeaderMap, answer: &mut HeaderMap) {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = self.allowed_origin(request) else { return };
        if !self.allows_method(method.as_str()) {
            return;
        }
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if !self.exposed.is_empty() {
            put(answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed.join(", "));
        }
        self.put_credentials(answer);
    }

    /// Whether a page's ordinary request is among what the rules allow.
    pub fn permits(&self, method: &Method, request: &HeaderMap) -> bool {
        self.allowed_origin(request).is_some() && self.allows_method(method.as_str())
    }

    fn put_credentials(&self, answer: &mut HeaderMap) {
        if self.credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The value of `Access-Control-Allow-Origin`, if the request has an origin and it may ask.
    fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let given = request.get(header::ORIGIN).filter(|v| !v.is_empty())?;
        if self.origins.is_empty() || self.origins.iter().any(|o| o == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = given.to_str().ok()?.to_ascii_lowercase();
        let matches = |rule: &String| {
            let rule = rule.to_ascii_lowercase();
            match rule.split_once('*') {
                None => rule == origin,
                Some((before, after)) => {
                    origin.len() >= before.len() + after.len()
                        && origin.starts_with(before)
                        && origin.ends_with(after)
                }
            }
        };
        self.origins.iter().any(matches).then(|| given.clone())
    }

    fn allows_method(&self, method: &str) -> bool {
        method.eq_ignore_ascii_case("OPTIONS") || self.methods.iter().any(|m| m.eq_ignore_ascii_case(method))
    }

    fn allows_headers(&self, wanted: &str) -> bool {
        self.headers.iter().any(|h| h == "*")
            || wanted.split(',').map(str::trim).filter(|h| !h.is_empty()).all(|name| {
                if self.headers.is_empty() {
                    DEFAULT_HEADERS.iter().any(|h| h.eq_ignore_ascii_case(name))
                } else {
                    name.eq_ignore_ascii_case("origin")
                        || self.headers.iter().any(|h| h.eq_ignore_ascii_case(name))
                }
            })
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).expect("value")))
            .collect()
    }

    #[test]
    fn ordinary_requests() {
        let mut answer = HeaderMap::new();
        Cors::default().apply(&Method::GET, &request(&[("origin", "http://example.org")]), &mut answer);
        assert_eq!(text(&answer, header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(text(&answer, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
        assert!(
            text(&answer, header::ACCESS_CONTROL_EXPOSE_HEADERS).starts_with("Content-Type, X-Stream-Output")
        );
        for (method, headers) in
            [(Method::GET, request(&[])), (Method::POST, request(&[("origin", "http://x")]))]
        {
            let mut answer = HeaderMap::new();
            Cors::default().apply(&method, &headers, &mut answer);
            assert_eq!(answer.len(), 1);
            assert_eq!(text(&answer, header::VARY), "Origin");
        }
    }

    #[test]
    fn preflights() {
        let ask = |method: &str, headers: &str, origin: &str| {
            request(&[
                ("origin", origin),
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ])
        };
        let refused = Cors::default().preflight(&ask("POST", "", "http://x"));
        assert_eq!(refused.len(), 1, "{refused:?}");
        let granted = Cors::default().preflight(&ask("GET", "content-type", "http://x"));
        assert_eq!(text(&granted, header::ACCESS_CONTROL_ALLOW_METHODS), "GET");
        assert_eq!(text(&granted, header::ACCESS_CONTROL_ALLOW_HEADERS), "content-type");
        assert_eq!(Cors::default().preflight(&ask("GET", "x-secret", "http://x")).len(), 1);
        let narrow = Cors { origins: vec!["https://*.example.org".into()], ..Cors::default() };
        assert_eq!(narrow.preflight(&ask("GET", "", "https://evil.org")).len(), 1);
        let granted = narrow.preflight(&ask("GET", "", "https://a.example.org"));
        assert_eq!(text(&granted, header::ACCESS_CONTROL_ALLOW_ORIGIN), "https://a.example.org");
    }
}
