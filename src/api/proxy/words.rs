//! Answers in Kubo's words: errors, and JSON without a line end, as ipfs-cluster's proxy writes it.

use crate::api::http::{full, Response};
use crate::api::json;
use crate::error::{Error, Kind, Result};
use hyper::header::{HeaderValue, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use hyper::StatusCode;
use serde::Serialize;

/// The media type of nearly everything.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Kubo's error object.
#[derive(Serialize)]
struct Words<'a> {
    #[serde(rename = "Message")]
    message: &'a str,
    #[serde(rename = "Code")]
    code: i32,
    #[serde(rename = "Type")]
    kind: &'a str,
}

/// A value as JSON.
///
/// # Errors
/// Only for a value that cannot be JSON (a defect).
pub(super) fn answer<T: Serialize + ?Sized>(value: &T) -> Result<Response> {
    let mut bytes = json::to_vec(value)?;
    bytes.pop();
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// An error as Kubo says it. Nearly all of them are 500: that is what Kubo and ipfs-cluster answer, and what
/// their clients expect.
pub(super) fn refuse(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse_with(status, error.message())
}

/// The same with a status of its own.
pub(super) fn refuse_with(status: StatusCode, message: &str) -> Response {
    let words = Words { message, code: 0, kind: "error" };
    // A sentence is always JSON; were it not, the status would still say that something is wrong.
    let mut response = answer(&words).unwrap_or_else(|_| Response::new(full("")));
    *response.status_mut() = status;
    response
}

/// A few words of plain text, as Kubo's own server refuses.
pub(super) fn plain(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let mut response = Response::new(full(format!("{} - {reason}\n", status.as_u16())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Marks a streamed answer as JSON. No line at all is still 200 here: Kubo knows no 204.
pub(super) fn streamed(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn errors_are_kubo_s_to_the_byte() {
        let text = |response: Response| {
            let body = crate::runtime::block_on(response.into_body().collect()).expect("body").to_bytes();
            String::from_utf8(body.to_vec()).expect("utf-8")
        };
        let response = refuse(&Error::not_found("pin is not part of the pinset"));
        assert_eq!(response.status(), 500);
        assert_eq!(
            text(response),
            r#"{"Message":"pin is not part of the pinset","Code":0,"Type":"error"}"#
        );
        assert_eq!(text(plain(StatusCode::FORBIDDEN)), "403 - Forbidden\n");
        assert_eq!(text(plain(StatusCode::METHOD_NOT_ALLOWED)), "405 - Method Not Allowed\n");
    }
}
