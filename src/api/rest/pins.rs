//! Routes about pins: put, remove, list, status, sync, recover.

use super::{answer, as_json, Call, Rest};
use crate::api::http::Response;
use crate::api::query::decode_cid;
use crate::api::stream::{ndjson, OnSuccess};
use crate::api::types::{PinJson, PinOptions, PIN_TYPES};
use crate::error::{Error, Result};
use crate::state::{Pin, PinType};
use crate::tracker::StatusFilter;
use cid::Cid;
use futures::stream::{self, BoxStream};
use futures::StreamExt;

/// Statuses asked for at once by `GET /pins?cids=…`.
const STATUSES_AT_ONCE: usize = 8;

impl Rest {
    pub(super) async fn pin(&self, cid: &str, call: &Call) -> Result<Response> {
        let cid = decode_cid(cid)?;
        let options = call.query.pin_options()?;
        let pin = self.cluster.pin(cid, options.clone()).await?;
        answer(&posted(&pin, &options, call))
    }

    pub(super) async fn pin_path(&self, call: &Call) -> Result<Response> {
        let path = ipfs_path(call)?;
        let options = call.query.pin_options()?;
        let pin = self.cluster.pin_path(&path, options.clone()).await?;
        answer(&posted(&pin, &options, call))
    }

    pub(super) async fn unpin(&self, cid: &str) -> Result<Response> {
        answer(&PinJson::from_state(&self.cluster.unpin(decode_cid(cid)?).await?))
    }

    pub(super) async fn unpin_path(&self, call: &Call) -> Result<Response> {
        answer(&PinJson::from_state(&self.cluster.unpin_path(&ipfs_path(call)?).await?))
    }

    pub(super) async fn allocation(&self, cid: &str) -> Result<Response> {
        answer(&PinJson::from_state(&self.cluster.allocation(&decode_cid(cid)?).await?))
    }

    pub(super) async fn allocations(&self, call: &Call) -> Result<Response> {
        let wanted = TypeFilter::parse(call.query.get("filter").unwrap_or_default())?;
        let pins = self.cluster.allocations().filter_map(move |pin| {
            let pin = match pin {
                Ok(pin) if !wanted.matches(pin.kind) => None,
                pin => Some(pin.map(|p| PinJson::from_state(&p))),
            };
            std::future::ready(pin)
        });
        ndjson(pins.boxed(), OnSuccess::EmptyTrailer).await.map(as_json)
    }

    pub(super) async fn status(&self, cid: &str, call: &Call) -> Result<Response> {
        answer(&self.cluster.status(&decode_cid(cid)?, call.query.local()).await?)
    }

    pub(super) async fn status_all(&self, call: &Call) -> Result<Response> {
        let local = call.query.local();
        let statuses = match call.query.get("cids") {
            None => {
                let filter = StatusFilter::parse(call.query.get("filter").unwrap_or_default())?;
                self.cluster.status_all(filter, local).await?
            }
            Some(cids) => {
                let cids = cids.split(',').map(decode_cid).collect::<Result<Vec<Cid>>>()?;
                let cluster = self.cluster.clone();
                let status = move |cid: Cid| {
                    let cluster = cluster.clone();
                    async move { cluster.status(&cid, local).await }
                };
                stream::iter(cids).map(status).buffered(STATUSES_AT_ONCE).boxed()
            }
        };
        ndjson(statuses, OnSuccess::EmptyTrailer).await.map(as_json)
    }

    pub(super) async fn recover(&self, cid: &str, call: &Call) -> Result<Response> {
        answer(&self.cluster.recover(&decode_cid(cid)?, call.query.local()).await?)
    }

    pub(super) async fn sync(&self, cid: &str, call: &Call) -> Result<Response> {
        answer(&self.cluster.sync(&decode_cid(cid)?, call.query.local()).await?)
    }

    pub(super) async fn sync_all(&self, call: &Call) -> Result<Response> {
        let synced = self.cluster.sync_all(call.query.local()).await;
        ndjson(synced, OnSuccess::EmptyTrailer).await.map(as_json)
    }

    pub(super) async fn recover_all(&self, call: &Call) -> Result<Response> {
        let recovered: BoxStream<'static, _> = self.cluster.recover_all(call.query.local()).await?;
        ndjson(recovered, OnSuccess::EmptyTrailer).await.map(as_json)
    }
}

/// `/ipfs/<cid>/a/b` of `/pins/ipfs/<cid>/a/b`.
fn ipfs_path(call: &Call) -> Result<String> {
    let bad = |why: &dyn std::fmt::Display| Error::invalid(format!("error parsing path: {why}"));
    let components = call.path.get(1..).unwrap_or_default();
    if let Some(odd) = components.iter().find(|c| ["", ".", ".."].contains(&c.as_str()) || c.contains('/')) {
        return Err(bad(&format!("\"{odd}\" is not a name in a folder")));
    }
    match components {
        [space, root, ..] if space != "ipns" => {
            decode_cid(root).map_err(|e| bad(&e))?;
        }
        _ => {}
    }
    Ok(format!("/{}", components.join("/")))
}

/// A new pin as its POST answers it: with the hints that were given, which are stored nowhere, and, when it
/// copied another pin, as that one is stored.
fn posted(pin: &Pin, options: &PinOptions, call: &Call) -> PinJson {
    let mut json =
        if options.pin_update.is_some() { PinJson::from_state(pin) } else { PinJson::from_post(pin) };
    if call.query.get("user-allocations").is_some() && options.pin_update.is_none() {
        json.user_allocations = Some(options.user_allocations.iter().map(ToString::to_string).collect());
    }
    json
}

/// Which types of pins `GET /allocations` lists.
#[derive(Clone, Copy)]
struct TypeFilter([bool; PIN_TYPES.len()]);

impl TypeFilter {
    /// A comma list of type names and `all`. Unknown names are ignored unless none is known, as in ipfs-cluster.
    fn parse(text: &str) -> Result<Self> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        if text.is_empty() || names.contains(&"all") {
            return Ok(TypeFilter([true; PIN_TYPES.len()]));
        }
        let wanted = PIN_TYPES.map(|(_, name)| names.contains(&name));
        if wanted.contains(&true) {
            Ok(TypeFilter(wanted))
        } else {
            Err(Error::invalid("invalid filter value"))
        }
    }

    fn matches(self, kind: PinType) -> bool {
        PIN_TYPES.iter().zip(self.0).any(|((k, _), wanted)| wanted && *k == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_allocations() {
        let matches = |text: &str, kind| TypeFilter::parse(text).expect(text).matches(kind);
        assert!(matches("", PinType::Shard) && matches("nosuch,all", PinType::Meta));
        assert!(matches("pin,nosuch", PinType::Data) && !matches("pin", PinType::Meta));
        assert!(TypeFilter::parse("nosuch").is_err());
    }
}
