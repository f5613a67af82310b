//! A small HTTP client for tests: one request per connection, everything that came back, trailers too.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer as it was on the wire.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks.
    pub body: Vec<u8>,
    /// Trailers in order.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// All values of a header, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request and reads the answer to its end.
pub fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Result<Answer, String> {
    let stream = TcpStream::connect(to).map_err(|e| format!("cannot connect to {to}: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).map_err(|e| e.to_string())?;
    send_over(stream, &to.to_string(), method, path, headers, body)
}

/// The same over a connection that is there already.
pub fn send_over(
    mut stream: impl Read + Write,
    to: &str,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Result<Answer, String> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    stream.write_all(&request).map_err(|e| format!("cannot send: {e}"))?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).map_err(|e| format!("{method} {path}: no whole answer: {e}"))?;
    parse(&raw, method == "HEAD")
        .ok_or_else(|| format!("{method} {path}: not HTTP: {:?}", String::from_utf8_lossy(&raw)))
}

/// A form of parts, each with its own headers.
pub fn multipart(parts: &[(Vec<(String, String)>, Vec<u8>)]) -> (String, Vec<u8>) {
    let boundary = "pinfold-test-boundary";
    let mut body = Vec::new();
    for (headers, content) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        for (name, value) in headers {
            body.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn parse(raw: &[u8], head_only: bool) -> Option<Answer> {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(raw.get(..end)?).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, headers: fields(lines), ..Answer::default() };
    let mut rest = raw.get(end + 4..)?;
    let chunked = answer.header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    if !chunked || head_only {
        answer.body = rest.to_vec();
        return Some(answer);
    }
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            let trailers = String::from_utf8_lossy(rest).into_owned();
            answer.trailers = fields(trailers.split("\r\n"));
            return Some(answer);
        }
        answer.body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[allow(dead_code)]
/// Headers of a recording, as a map or as a list of pairs.
pub fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        Value::Array(list) => list.iter().map(|p| (text(&p[0]), text(&p[1]))).collect(),
        _ => Vec::new(),
    }
}

/// Sends a request as it was recorded.
#[allow(dead_code)]
pub fn play(to: SocketAddr, request: &Value) -> Result<Answer, String> {
    let mut headers = pairs(&request["headers"]);
    let body = match (&request["multipart"], &request["body"]) {
        (Value::Array(parts), _) => {
            let bytes = |v: &Value| v.as_str().unwrap_or_default().as_bytes().to_vec();
            let parts: Vec<_> = parts.iter().map(|p| (pairs(&p["headers"]), bytes(&p["body"]))).collect();
            let (kind, body) = multipart(&parts);
            headers.push(("Content-Type".into(), kind));
            Some(body)
        }
        (_, Value::String(body)) => Some(body.clone().into_bytes()),
        _ => None,
    };
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    send(to, text("method"), text("path"), &headers, body.as_deref())
}
