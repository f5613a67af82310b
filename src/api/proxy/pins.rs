//! `pin/add`, `pin/rm` and `pin/update` as verbs of the cluster.
//!
//! `pin/add` answers when the cluster has accepted the pin, as ipfs-cluster's proxy does: a majority has it durably,
//! and the holders set to work. With `progress=true` it stays, tells how many blocks the holders have reached
//! and ends when they have it, or with the reason why not; that is what Kubo does with or without it, and
//! what clusters above this one rely on. All arguments are checked before the first is acted upon.

use super::paths::{path, pin_path};
use super::{words, Call, Proxy};
use crate::api::http::Response;
use crate::api::stream::{ndjson, OnSuccess};
use crate::api::types::PinOptions;
use crate::error::{Error, Kind, Result};
use crate::state::PinMode;
use cid::Cid;
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use hyper::StatusCode;
use serde::Serialize;

/// Most arguments of one request.
const MAX_ARGUMENTS: usize = 1_000;

/// `{"Pins":[…]}`, or how far it is.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Progress {
        #[serde(rename = "Progress")]
        blocks: u64,
    },
    Pins {
        #[serde(rename = "Pins")]
        pins: Vec<String>,
    },
}

impl Proxy {
    pub(super) async fn pin_add(&self, call: &Call) -> Result<Response> {
        let paths = pin_paths(call)?;
        let direct = !call.query.flag("recursive", true)? || call.query.get("type") == Some("direct");
        let wanted = PinOptions {
            name: call.query.get("name").unwrap_or_default().to_owned(),
            mode: if direct { PinMode::Direct } else { PinMode::Recursive },
            ..PinOptions::default()
        };
        let progress = call.query.flag("progress", false)?;
        let cids = self.resolved(&paths).await?;
        if direct {
            self.none_recursive(&cids).await?;
        }
        if !progress {
            for cid in &cids {
                let options = self.cluster.options_of(cid, wanted.clone())?;
                self.cluster.pin(*cid, options).await?;
            }
            return words::answer(&pins(&cids));
        }
        let mut followed = Vec::new();
        for cid in &cids {
            followed.push(self.cluster.pin_and_follow(*cid, wanted.clone()).await?);
        }
        Ok(words::streamed(ndjson(progress_lines(followed, cids), OnSuccess::NoTrailer).await?))
    }

    pub(super) async fn pin_rm(&self, call: &Call) -> Result<Response> {
        let paths = pin_paths(call)?;
        let recursive = call.query.flag("recursive", true)?;
        let cids = self.resolved(&paths).await?;
        if !recursive {
            self.cluster.catch_up().await?;
            for cid in &cids {
                if self.cluster.allocation(cid).await?.mode == PinMode::Recursive {
                    return Err(Error::conflict(format!("{cid} is pinned recursively")));
                }
            }
        }
        for cid in &cids {
            self.cluster.unpin(*cid).await?;
        }
        words::answer(&pins(&cids))
    }

    pub(super) async fn pin_update(&self, call: &Call) -> Result<Response> {
        let arguments = call.arguments();
        let required = |name: &str| {
            words::refuse_with(StatusCode::BAD_REQUEST, &format!("argument \"{name}\" is required"))
        };
        let Some(from) = arguments.first() else { return Ok(required("from-path")) };
        let Some(to) = arguments.get(1) else { return Ok(required("to-path")) };
        let read = |name: &str, text: &str| {
            path(text).map_err(|e| e.context(format!("error parsing \"{name}\" argument")))
        };
        let (from, to) = (read("from-path", from)?, read("to-path", to)?);
        let unpin = call.query.flag("unpin", true)?;
        let (from, to) = (self.cluster.resolve(&from).await?, self.cluster.resolve(&to).await?);
        let options = PinOptions { pin_update: Some(from), ..PinOptions::default() };
        self.cluster.pin(to, options).await?;
        if call.composite {
            // A cluster above takes the answer for "it is there", as Kubo's is.
            let mode = self.cluster.allocation(&to).await?.mode;
            let mut followed =
                self.cluster.pin_and_follow(to, PinOptions { mode, ..PinOptions::default() }).await?;
            while let Some(step) = followed.next().await {
                step?;
            }
        }
        if unpin && from != to {
            self.cluster.unpin(from).await?;
        }
        words::answer(&pins(&[from, to]))
    }

    /// A recursive pin is not made direct by pinning; said in Kubo's words, by which clients know.
    async fn none_recursive(&self, cids: &[Cid]) -> Result<()> {
        self.cluster.catch_up().await?;
        for cid in cids {
            match self.cluster.allocation(cid).await {
                Ok(pin) if pin.mode == PinMode::Recursive => {
                    return Err(Error::conflict(format!("pin: {cid} already pinned recursively")));
                }
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All at once before anything is done with the first.
    async fn resolved(&self, paths: &[String]) -> Result<Vec<Cid>> {
        let mut cids = Vec::new();
        for path in paths {
            cids.push(self.cluster.resolve(path).await?);
        }
        Ok(cids)
    }
}

/// The arguments as paths. None at all is refused like an empty one, in ipfs-cluster's words.
fn pin_paths(call: &Call) -> Result<Vec<String>> {
    let arguments = call.arguments();
    if arguments.len() > MAX_ARGUMENTS {
        return Err(Error::too_large(format!("more than {MAX_ARGUMENTS} arguments in one request")));
    }
    match arguments.as_slice() {
        [] => pin_path("").map(|p| vec![p]),
        some => some.iter().map(|text| pin_path(text)).collect(),
    }
}

fn pins(cids: &[Cid]) -> Line {
    Line::Pins { pins: cids.iter().map(ToString::to_string).collect() }
}

/// One line per look at any of the pins, the sum of all, and at the end their names.
fn progress_lines(
    followed: Vec<BoxStream<'static, Result<u64>>>,
    cids: Vec<Cid>,
) -> BoxStream<'static, Result<Line>> {
    let mut reached = vec![0; followed.len()];
    let tagged = followed.into_iter().enumerate().map(|(n, steps)| steps.map(move |step| (n, step)).boxed());
    let steps = stream::select_all(tagged).map(move |(n, step)| {
        reached[n] = step?;
        Ok(Line::Progress { blocks: reached.iter().sum() })
    });
    let end = stream::once(async move { Ok(pins(&cids)) });
    // After an error there is no end to tell.
    let mut failed = false;
    let lines = steps.chain(end).take_while(move |line| {
        let go_on = !failed;
        failed = line.is_err();
        std::future::ready(go_on)
    });
    lines.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    fn play(followed: Vec<Vec<Result<u64>>>) -> Vec<String> {
        let followed = followed.into_iter().map(|steps| stream::iter(steps).boxed()).collect();
        let lines = progress_lines(followed, vec![Cid::default()]);
        block_on(
            lines
                .map(|l| l.map_or_else(|e| e.to_string(), |l| serde_json::to_string(&l).expect("JSON")))
                .collect(),
        )
    }

    #[test]
    fn progress_is_told_and_the_end_is_the_pins_or_the_reason() {
        let end = format!("{{\"Pins\":[\"{}\"]}}", Cid::default());
        assert_eq!(play(vec![vec![]]), std::slice::from_ref(&end));
        let got = play(vec![vec![Ok(1), Ok(2)], vec![Ok(5)]]);
        assert_eq!(got.last(), Some(&end));
        assert!(got.contains(&"{\"Progress\":7}".to_owned()), "{got:?}");
        let got = play(vec![vec![Ok(1), Err(Error::ipfs("p0: no such block"))]]);
        assert_eq!(got, ["{\"Progress\":1}", "p0: no such block"], "nothing says that it is pinned");
    }
}
