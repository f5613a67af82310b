//! `pin/ls`: the shared list of pins in Kubo's two forms, at constant memory.
//!
//! Programs get what the cluster has decided to keep, as from ipfs-cluster's proxy. A cluster above this one (it
//! says so in a header, see [`COMPOSITE`](crate::ipfs::kubo::COMPOSITE)) asks in order to compare, so it gets what *is*
//! kept: a pin that failed here is not in its list, and it can see, say and repair that.

use super::paths::path;
use super::{words, Call, Proxy};
use crate::api::http::{streamed, Response};
use crate::api::json;
use crate::api::query::parse_cid;
use crate::api::stream::{ndjson, OnSuccess};
use crate::cluster::{Cluster, Holding};
use crate::error::{Error, Kind, Result};
use crate::state::{Pin, PinMode};
use crate::tracker::StatusFilter;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use serde::Serialize;
use std::collections::BTreeMap;

/// Keys of one piece of the whole list.
const KEYS_TOGETHER: usize = 256;

/// `type=`: which pins are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Only(PinMode),
    /// What a recursive pin reaches: nothing of that is in a cluster's list.
    Indirect,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "all" => Ok(Wanted::All),
            "recursive" => Ok(Wanted::Only(PinMode::Recursive)),
            "direct" => Ok(Wanted::Only(PinMode::Direct)),
            "indirect" => Ok(Wanted::Indirect),
            other => Err(Error::invalid(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            ))),
        }
    }

    fn matches(self, pin: &Pin) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Only(mode) => pin.mode == mode,
            Wanted::Indirect => false,
        }
    }
}

/// A pin in the streamed form.
#[derive(Serialize)]
struct Line {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(flatten)]
    key: Key,
}

/// A pin in the other form.
#[derive(Serialize)]
struct Key {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Name", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Keys {
    #[serde(rename = "Keys")]
    keys: BTreeMap<String, Key>,
}

/// How a pin is shown.
#[derive(Clone, Copy)]
struct Show {
    names: bool,
}

impl Show {
    fn key(self, pin: &Pin) -> Key {
        let kind = if pin.mode == PinMode::Direct { "direct" } else { "recursive" };
        Key { kind, name: self.names.then(|| pin.name.clone()) }
    }

    fn line(self, pin: &Pin) -> Line {
        Line { cid: pin.cid.to_string(), key: self.key(pin) }
    }
}

impl Proxy {
    pub(super) async fn pin_ls(&self, call: &Call) -> Result<Response> {
        let wanted = Wanted::parse(call.query.get("type").unwrap_or_default())?;
        let show = Show { names: call.query.flag("names", false)? };
        let streamed = call.query.flag("stream", false)? || call.query.flag("s", false)?;
        let arguments = call.arguments();
        if !arguments.is_empty() {
            let mut found = Vec::new();
            for text in arguments {
                found.push(self.one(text, wanted, call.composite).await?);
            }
            if streamed {
                let lines: Vec<_> = found.iter().map(|pin| Ok(show.line(pin))).collect();
                return lines_of(stream::iter(lines).boxed()).await;
            }
            let keys = found.iter().map(|pin| (pin.cid.to_string(), show.key(pin))).collect();
            return words::answer(&Keys { keys });
        }
        let pins = match call.composite {
            true => self.kept().await?,
            false => self.cluster.allocations(),
        };
        let pins = pins.filter(move |pin| {
            let listed = pin.as_ref().map_or(true, |pin| wanted.matches(pin));
            std::future::ready(listed)
        });
        match streamed {
            true => lines_of(pins.map(move |pin| Ok(show.line(&pin?))).boxed()).await,
            false => whole(pins.boxed(), show).await,
        }
    }

    /// One argument.
    async fn one(&self, text: &str, wanted: Wanted, composite: bool) -> Result<Pin> {
        let cid = match text.starts_with('/') {
            true => self.cluster.resolve(&path(text)?).await?,
            false => parse_cid(text)?,
        };
        // Its last words are what clients go by.
        let not_pinned = || Error::not_found(format!("Error: path '{text}' is not pinned"));
        let pin = match self.cluster.allocation(&cid).await {
            Err(error) if error.kind() == Kind::NotFound => return Err(not_pinned()),
            pin => pin?,
        };
        if !wanted.matches(&pin) {
            return Err(not_pinned());
        }
        if composite && !matches!(self.cluster.holding(&cid).await?, Some((_, Holding::Held))) {
            return Err(not_pinned());
        }
        Ok(pin)
    }

    /// The pins that are kept, by the word of their holders.
    async fn kept(&self) -> Result<BoxStream<'static, Result<Pin>>> {
        let cluster = self.cluster.clone();
        let statuses = self.cluster.status_all(StatusFilter::ALL, false).await?;
        let kept = statuses.filter_map(move |info| {
            let cluster = cluster.clone();
            async move {
                match info {
                    Ok(info) => held(&cluster, &info).await.transpose(),
                    Err(error) => Some(Err(error)),
                }
            }
        });
        Ok(kept.boxed())
    }
}

async fn held(cluster: &Cluster, info: &crate::api::types::GlobalPinInfo) -> Result<Option<Pin>> {
    let cid: Cid = parse_cid(&info.cid)?;
    let pin = match cluster.allocation(&cid).await {
        // Still pinned somewhere, but no longer wanted.
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        pin => pin?,
    };
    Ok((Holding::of(&pin, info) == Holding::Held).then_some(pin))
}

async fn lines_of(lines: BoxStream<'static, Result<Line>>) -> Result<Response> {
    Ok(words::streamed(ndjson(lines, OnSuccess::NoTrailer).await?))
}

/// The whole list as one JSON object, written while it is read. An error on the way cuts the connection: there
/// is no other way to say that an object is not all.
async fn whole(pins: BoxStream<'static, Result<Pin>>, show: Show) -> Result<Response> {
    let mut pages = pins.ready_chunks(KEYS_TOGETHER);
    // What fails at once still has its status.
    let first = pages.next().await.map(|page| text_of(page, show, true)).transpose()?;
    let rest = pages.map(move |page| text_of(page, show, false));
    let open = stream::iter([Ok(Bytes::from_static(b"{\"Keys\":{")), Ok(first.unwrap_or_default())]);
    let close = stream::iter([Ok(Bytes::from_static(b"}}"))]);
    Ok(words::streamed(Response::new(streamed(open.chain(rest).chain(close), None))))
}

fn text_of(page: Vec<Result<Pin>>, show: Show, first: bool) -> Result<Bytes> {
    let mut text = Vec::new();
    for (n, pin) in page.into_iter().enumerate() {
        let pin = pin?;
        if !(first && n == 0) {
            text.push(b',');
        }
        // A CID is letters and digits: nothing in it needs escaping.
        text.extend_from_slice(format!("\"{}\":", pin.cid).as_bytes());
        json::append(&mut text, &show.key(&pin))?;
        text.pop();
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::runtime::block_on;
    use http_body_util::BodyExt;

    fn pin(n: u64) -> Pin {
        let hash = cid::multihash::Multihash::wrap(0x12, &[n as u8; 32]).expect("hash");
        let mut pin = Pin::new(Cid::new_v1(0x55, hash), Timestamp::ZERO);
        pin.name = format!("n<{n}>");
        pin
    }

    fn listed(count: u64, show: Show) -> serde_json::Value {
        let pins = stream::iter((0..count).map(|n| Ok(pin(n)))).boxed();
        block_on(async {
            let response = whole(pins, show).await.expect("answer");
            let body = response.into_body().collect().await.expect("body").to_bytes();
            serde_json::from_slice(&body).expect("one JSON object")
        })
    }

    #[test]
    fn the_whole_list_is_one_object_however_long_it_is() {
        assert_eq!(listed(0, Show { names: false }).to_string(), r#"{"Keys":{}}"#);
        let got = listed(200, Show { names: false });
        assert_eq!(got["Keys"].as_object().expect("keys").len(), 200);
        assert_eq!(got["Keys"][pin(3).cid.to_string()].to_string(), r#"{"Type":"recursive"}"#);
        let got = listed(1, Show { names: true });
        assert_eq!(got["Keys"][pin(0).cid.to_string()]["Name"], "n<0>");
    }

    #[test]
    fn types_filter_and_others_are_refused() {
        let mut direct = pin(1);
        direct.mode = PinMode::Direct;
        let matches = |text: &str| {
            let wanted = Wanted::parse(text).expect(text);
            (wanted.matches(&pin(0)), wanted.matches(&direct))
        };
        assert_eq!(matches(""), (true, true));
        assert_eq!(matches("all"), (true, true));
        assert_eq!(matches("recursive"), (true, false));
        assert_eq!(matches("direct"), (false, true));
        assert_eq!(matches("indirect"), (false, false));
        assert!(Wanted::parse("x").expect_err("x").message().starts_with("invalid type 'x', must be one of"));
    }
}
