//! An API behind the rules for browsers and behind passwords: wraps any [`Service`] that knows of neither.
//!
//! A request passes the `Host` rules first, then the credentials, then reaches the API. Refusals are said in the API's own
//! form of errors, so that its clients understand them. `OPTIONS` needs no credentials, because browsers never send
//! any with it; whose page may do what is left to the API behind.
//!
//! It must never: let a request through that it did not look at, or hand on the password (an `Authorization` header that
//! was used up here would otherwise reach the IPFS daemon behind a proxy).

use super::auth::Auth;
use super::browsers::Browsers;
use super::http::{Remote, Request, Response, Service, User};
use crate::error::Error;
use async_trait::async_trait;
use hyper::header::{HeaderValue, AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use std::sync::Arc;

/// See the module's words.
pub struct Guarded {
    inner: Arc<dyn Service>,
    browsers: Browsers,
    auth: Option<Auth>,
}

impl Guarded {
    /// This API, behind these rules.
    pub fn new(inner: Arc<dyn Service>, browsers: Browsers, auth: Option<Auth>) -> Self {
        Guarded { inner, browsers, auth }
    }

    fn refusal(&self, status: StatusCode, error: &Error) -> Response {
        let mut response = self.inner.failure(error);
        *response.status_mut() = status;
        response
    }
}

#[async_trait]
impl Service for Guarded {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn access_log(&self) -> &'static str {
        self.inner.access_log()
    }

    async fn call(&self, mut request: Request) -> Response {
        let remote = request.extensions().get::<Remote>().copied().unwrap_or(Remote(None));
        if remote.0.is_some() {
            if let Err(error) = self.browsers.host(request.headers()) {
                return self.refusal(StatusCode::FORBIDDEN, &error);
            }
        }
        let Some(auth) = self.auth.as_ref().filter(|_| *request.method() != Method::OPTIONS) else {
            return self.inner.call(request).await;
        };
        let user = match auth.check(request.headers()).await {
            Ok(user) => user,
            Err(refused) => {
                let mut response = self.refusal(refused.status, &refused.error);
                for challenge in refused.challenges {
                    response.headers_mut().append(WWW_AUTHENTICATE, challenge);
                }
                if refused.status == StatusCode::TOO_MANY_REQUESTS {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                return response;
            }
        };
        request.headers_mut().remove(AUTHORIZATION);
        let mut response = self.inner.call(request).await;
        response.extensions_mut().insert(User(user));
        response
    }

    fn failure(&self, error: &Error) -> Response {
        self.inner.failure(error)
    }
}
