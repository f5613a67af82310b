//! `repo/stat` and `repo/gc`: the repositories of all peers as one.

use super::{words, Call, Proxy};
use crate::api::http::Response;
use crate::api::stream::{ndjson, OnSuccess};
use crate::error::Result;
use futures::StreamExt;
use serde::Serialize;

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "RepoSize")]
    repo_size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
}

/// A removed block, or with `stream-errors` why one could not be removed.
#[derive(Serialize)]
struct Removed {
    #[serde(rename = "Key")]
    key: Link,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "/", skip_serializing_if = "String::is_empty")]
    cid: String,
}

impl Proxy {
    pub(super) async fn repo_stat(&self) -> Result<Response> {
        let stat = self.cluster.repo_stat().await;
        words::answer(&Stat { repo_size: stat.repo_size, storage_max: stat.storage_max })
    }

    pub(super) async fn repo_gc(&self, call: &Call) -> Result<Response> {
        let errors_as_lines = call.query.flag("stream-errors", false)?;
        let silent = call.query.flag("silent", false)?;
        let removed = self.cluster.gc_stream().filter_map(move |key| {
            let line = match key {
                Ok(_) if silent => None,
                Ok(cid) => Some(Ok(Removed { key: Link { cid }, error: String::new() })),
                Err(error) if errors_as_lines => Some(Ok(Removed {
                    key: Link { cid: String::new() },
                    error: error.message().to_owned(),
                })),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(line)
        });
        Ok(words::streamed(ndjson(removed.boxed(), OnSuccess::NoTrailer).await?))
    }
}
