//! Notices that the daemon ended, was restarted, or is another one now.
//!
//! One connection is kept for nothing else than to see it close, which a daemon's end does at once, however it ends.
//! Behind it the daemon is asked who it is, and when its process began: the RPC port serves Kubo's own metrics, and
//! `process_start_time_seconds` among them. A proxy may close an idle connection or hide the metrics; so a closed
//! connection alone proves nothing, and a [`Run`] may come without a start.
//!
//! It must never be held back by the calls that wait for a dead daemon (nor take the place of one that could go), so
//! it goes past their gate, and opens the gate for them when the daemon answers.

use super::answers::IdAnswer;
use super::http::{Client, Connection};
use super::words::name_of;
use crate::error::{Error, Kind, Result};
use crate::ipfs::Run;
use crate::runtime;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{header, Method, Request, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// How long the daemon may take to say who it is.
const ASK: Duration = Duration::from_secs(10);
/// Between two questions over the kept connection: a machine that vanished from the network closes nothing. Shorter
/// than the time after which common proxies close an idle connection (60 s and more).
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Most bytes of Kubo's metrics that are read (about 100 KB today).
const MAX_METRICS: usize = 4 << 20;
/// Most bytes of an `id`.
const MAX_ID: usize = 256 << 10;
/// Where Kubo's metrics are.
const METRICS: &str = "/debug/metrics/prometheus";
/// The metric that tells when the process began.
const STARTED: &str = "process_start_time_seconds ";

/// The kept connection.
#[derive(Default)]
pub(super) struct Watch(smol::lock::Mutex<Option<(Connection, Run)>>);

impl Watch {
    /// See [`crate::ipfs::Ipfs::current_run`].
    pub(super) async fn current_run(&self, client: &Arc<Client>) -> Result<Run> {
        let mut kept = self.0.lock().await;
        *kept = None;
        let asked = runtime::timeout(ASK, "", async {
            let mut connection = client.connect().await?;
            let id = id(client, &mut connection).await?;
            // What it does not tell, or not to us, is no reason to call it dead.
            let started = started(client, &mut connection).await.unwrap_or_default();
            Ok((connection, Run { id, started }))
        });
        let (connection, run) = asked.await.map_err(|error| match error.kind() {
            Kind::Timeout => client.silent("id", ASK),
            _ => error,
        })?;
        client.is_up();
        *kept = Some((connection, run.clone()));
        Ok(run)
    }

    /// See [`crate::ipfs::Ipfs::run_over`].
    pub(super) async fn run_over(&self, client: &Arc<Client>) {
        let mut kept = self.0.lock().await;
        let Some((connection, run)) = kept.as_mut() else {
            // Nobody was there to watch.
            return runtime::sleep(ASK_AGAIN).await;
        };
        loop {
            let closed = smol::future::or(
                async {
                    connection.closed().await;
                    true
                },
                async {
                    runtime::sleep(ASK_AGAIN).await;
                    false
                },
            );
            if closed.await {
                break;
            }
            let same = runtime::timeout(ASK, "", id(client, connection)).await;
            if !same.is_ok_and(|id| id == run.id) {
                break;
            }
        }
        *kept = None;
    }
}

async fn id(client: &Client, connection: &mut Connection) -> Result<libp2p::PeerId> {
    let body = exchange(client, connection, &Method::POST, "/api/v0/id", MAX_ID).await?;
    let answer: IdAnswer = serde_json::from_slice(&body).map_err(|e| client.nonsense("id", &body, &e))?;
    Ok(answer.into_id()?.id)
}

async fn started(client: &Client, connection: &mut Connection) -> Result<Option<String>> {
    let body = exchange(client, connection, &Method::GET, METRICS, MAX_METRICS).await?;
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().find_map(|line| line.strip_prefix(STARTED));
    Ok(line.map(|value| value.trim().to_string()))
}

/// One request on this very connection.
async fn exchange(
    client: &Client,
    connection: &mut Connection,
    method: &Method,
    path: &str,
    max: usize,
) -> Result<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &connection.target.authority)
        .header(header::USER_AGENT, concat!("pinfold/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::new()))
        .map_err(|e| Error::internal(format!("cannot ask the IPFS daemon for {path}: {e}")))?;
    let broken = |error: hyper::Error| client.broken(name_of(path), &error);
    connection.sender.ready().await.map_err(broken)?;
    let response = connection.sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), max);
    let body = body.collect().await.map_err(|e| {
        Error::unavailable(format!("the answer of the IPFS daemon to {path} did not come whole: {e}"))
    })?;
    let body = body.to_bytes();
    match status {
        StatusCode::OK => Ok(body),
        _ => Err(client.refused(path.trim_start_matches("/api/v0/"), status, &body)),
    }
}
