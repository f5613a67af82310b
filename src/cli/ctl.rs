//! The commands that ask a peer over HTTP: one function each, from flags to request to output.
//!
//! What is wrong with the arguments is found before any request (exit 1); what the API answers is
//! printed as it comes. Listings are never collected: each item is printed and forgotten.

use super::args::{self, Parsed, Waiting};
use super::client::{escape, Client, Query};
use super::failure::{Failure, Outcome};
use super::output::{Encoding, Output};
use super::{add, dot, get, import, moves, text, wait};
use crate::api::types::{
    Alert, Bandwidth, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id, Metric, PinJson, Version,
};
use crate::clock::{parse_duration, Timestamp};
use crate::tracker::{Status, StatusFilter};
use cid::Cid;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// Types of pins that `pin ls --filter` knows.
const PIN_FILTERS: [&str; 5] = ["pin", "meta-pin", "clusterdag-pin", "shard-pin", "all"];

/// A client and where its results go.
pub struct Ctl<'a> {
    /// The API.
    pub client: &'a Client,
    /// The results.
    pub out: &'a mut Output,
    /// Whether folders are added without being asked for (`pinfold`).
    pub folders: bool,
}

impl Ctl<'_> {
    /// Runs a command.
    ///
    /// # Errors
    /// Whatever ends it early; what was printed before stays printed.
    pub fn run(&mut self, command: Parsed) -> Outcome {
        let done = self.dispatch(command);
        let flushed = self.out.flush();
        done.and(flushed)
    }

    fn dispatch(&mut self, command: Parsed) -> Outcome {
        match command {
            Parsed::Id => self.one::<Id>(&Method::GET, "/id", text::id),
            Parsed::PeerVersion => {
                self.one::<Version>(&Method::GET, "/version", |v| format!("{}\n", text::plain(&v.version)))
            }
            Parsed::PeersLs => self.each::<Id>(&Method::GET, "/peers", text::id),
            Parsed::PeersAdd(args) => peers_add(&args.what.unwrap_or_default()),
            Parsed::PeersRm(args) => self.peers_rm(&args.what.unwrap_or_default()),
            Parsed::Drain(args) => moves::drain(self, &args),
            Parsed::Rebalance(args) => moves::rebalance(self, &args),
            Parsed::Add(args) => add::run(self, &args),
            Parsed::Get(args) => get::get(self, &args),
            Parsed::Cat(args) => get::cat(self, &args.what),
            Parsed::Ls(args) => get::ls(self, args.what.first().map_or("", String::as_str)),
            Parsed::PinAdd(args) => self.pin_add(&args),
            Parsed::PinRm(args) => self.pin_rm(&args),
            Parsed::PinUpdate(args) => self.pin_update(&args),
            Parsed::PinImport(args) => import::run(self, &args),
            Parsed::PinLs(args) => self.pin_ls(&args),
            Parsed::Status(args) => self.status(&args),
            Parsed::Sync(args) => self.on_pins("sync", &args),
            Parsed::Recover(args) => self.on_pins("recover", &args),
            Parsed::HealthGraph(args) => self.graph(&args),
            Parsed::HealthMetrics(args) => self.metrics(args.what.as_deref()),
            Parsed::HealthAlerts => {
                let now = Timestamp::now().unix_nanos();
                self.list::<Alert>("/health/alerts", |a| text::alert(a, now))
            }
            Parsed::HealthBandwidth => {
                self.one::<BTreeMap<String, Bandwidth>>(&Method::GET, "/health/bandwidth", text::bandwidth)
            }
            Parsed::IpfsGc(args) => self.gc(args.local),
            other => Err(Failure::Usage(format!("{other:?} is not a command for the API"))),
        }
    }

    /// One answer of one object.
    fn one<T: DeserializeOwned>(&mut self, method: &Method, path: &str, words: fn(&T) -> String) -> Outcome {
        let (typed, value) = self.client.ask::<T>(method, path)?;
        self.item(&typed, &value, words)
    }

    fn item<T>(&mut self, typed: &T, value: &Value, words: impl Fn(&T) -> String) -> Outcome {
        match self.out.encoding {
            Encoding::Json => self.out.json(value),
            Encoding::Text => self.out.text(&words(typed)),
        }
    }

    /// One answer of one array; every element is an item.
    fn list<T: DeserializeOwned>(&mut self, path: &str, words: impl Fn(&T) -> String) -> Outcome {
        let value = self.client.call(&Method::GET, path)?.unwrap_or(Value::Null);
        if self.out.encoding == Encoding::Json {
            return self.out.json(&value);
        }
        let items: Option<Vec<T>> = serde_json::from_value(value).map_err(|e| {
            Failure::Transport(format!("the answer to GET {path} is not what it should be: {e}"))
        })?;
        for item in items.unwrap_or_default() {
            self.out.text(&words(&item))?;
        }
        Ok(())
    }

    /// A streamed answer; every line is an item.
    fn each<T: DeserializeOwned>(&mut self, method: &Method, path: &str, words: fn(&T) -> String) -> Outcome {
        let mut answer = self.client.open(method, path)?;
        while let Some(line) = answer.next_line()? {
            let odd = |e| {
                Failure::Transport(format!("the answer to {method} {path} is not what it should be: {e}"))
            };
            match self.out.encoding {
                Encoding::Json => self.out.json(&serde_json::from_slice(&line).map_err(odd)?)?,
                Encoding::Text => self.out.text(&words(&serde_json::from_slice(&line).map_err(odd)?))?,
            }
            if !answer.has_line() {
                // The next item may take a while: what is there is shown.
                self.out.flush()?;
            }
        }
        Ok(())
    }

    fn peers_rm(&mut self, peer: &str) -> Outcome {
        let id: libp2p::PeerId = peer
            .parse()
            .map_err(|e| Failure::argument("parsing peer ID", format!("\"{peer}\" is not a peer ID: {e}")))?;
        self.client.call(&Method::DELETE, &format!("/peers/{id}")).map(|_| ())
    }

    fn pin_add(&mut self, args: &args::PinAdd) -> Outcome {
        let path = pin_path(args.what.as_deref().unwrap_or_default())?;
        let mut query = Query::default();
        match args.mode.as_deref() {
            None => {}
            Some(mode @ ("recursive" | "direct")) => query.add("mode", mode),
            Some(mode) => {
                return Err(Failure::argument(
                    "parsing mode",
                    format!("\"{mode}\" is not recursive or direct"),
                ))
            }
        }
        let both = args.replication.filter(|r| *r != 0);
        pin_options(
            &mut query,
            args.name.as_deref(),
            both.or(args.replication_min),
            both.or(args.replication_max),
            args.allocations.as_deref(),
            args.expire_in.as_deref(),
            &args.metadata,
        )?;
        let waiting = Waiting {
            no_status: args.no_status,
            wait: args.wait,
            limit: args.wait_limit.unwrap_or(0),
            timeout: args.wait_timeout.clone(),
        };
        self.change(&Method::POST, &query.on(&format!("/pins{path}")), &waiting, Status::Pinned)
    }

    fn pin_rm(&mut self, args: &args::PinRm) -> Outcome {
        let path = pin_path(args.what.as_deref().unwrap_or_default())?;
        let waiting = Waiting {
            no_status: args.no_status,
            wait: args.wait,
            limit: args.wait_limit.unwrap_or(0),
            timeout: args.wait_timeout.clone(),
        };
        self.change(&Method::DELETE, &format!("/pins{path}"), &waiting, Status::Unpinned)
    }

    fn pin_update(&mut self, args: &args::PinUpdate) -> Outcome {
        let [from, to] = args.what.as_slice() else {
            return Err(Failure::argument(
                "updating a pin",
                "it needs the existing CID and the new CID or path",
            ));
        };
        let from = parse_cid(from)?;
        let path = pin_path(to)?;
        let mut query = Query::default();
        query.add("pin-update", &from.to_string());
        pin_options(&mut query, args.name.as_deref(), None, None, None, args.expire_in.as_deref(), &[])?;
        let waiting = Waiting {
            no_status: args.no_status,
            wait: args.wait,
            limit: args.wait_limit.unwrap_or(0),
            timeout: args.wait_timeout.clone(),
        };
        self.change(&Method::POST, &query.on(&format!("/pins{path}")), &waiting, Status::Pinned)
    }

    /// Pins or unpins, then shows what became of it.
    fn change(&mut self, method: &Method, path: &str, waiting: &Waiting, target: Status) -> Outcome {
        let limit = wait::timeout(waiting)?;
        let (pin, value) = self.client.ask::<PinJson>(method, path)?;
        let mut shown = None;
        if waiting.wait {
            shown = Some(wait::until(self.client, &pin, target, waiting.limit, limit)?);
        }
        if waiting.no_status {
            return self.item(&pin, &value, text::pin);
        }
        let (info, value) = match shown {
            Some(shown) => shown,
            None => wait::soon(self.client, &pin, target)?,
        };
        self.item(&info, &value, text::status)
    }

    fn pin_ls(&mut self, args: &args::PinLs) -> Outcome {
        if let Some(cid) = &args.what {
            let cid = parse_cid(cid)?;
            return self.one::<PinJson>(&Method::GET, &format!("/allocations/{cid}"), text::pin);
        }
        let filter = args.filter.as_deref().unwrap_or("all");
        if let Some(odd) = filter.split(',').map(str::trim).find(|name| !PIN_FILTERS.contains(name)) {
            return Err(Failure::argument(
                "parsing filter flag",
                format!("\"{odd}\" is not one of {}", PIN_FILTERS.join(", ")),
            ));
        }
        let mut query = Query::default();
        query.add("filter", filter);
        self.each::<PinJson>(&Method::GET, &query.on("/allocations"), text::pin)
    }

    fn status(&mut self, args: &args::Status) -> Outcome {
        let mut query = Query::default();
        query.switch("local", args.local);
        let cids: Vec<String> =
            args.cids.iter().map(|c| parse_cid(c).map(|c| c.to_string())).collect::<Outcome<_>>()?;
        if let [one] = cids.as_slice() {
            return self.one::<GlobalPinInfo>(&Method::GET, &query.on(&format!("/pins/{one}")), text::status);
        }
        if !cids.is_empty() {
            query.add("cids", &cids.join(","));
        }
        if let Some(filter) = args.filter.as_deref().filter(|f| !f.is_empty()) {
            StatusFilter::parse(filter).map_err(|_| {
                let names: Vec<_> =
                    Status::NAMES.iter().skip(1).map(|(_, n)| *n).chain(["error", "queued"]).collect();
                Failure::argument(
                    "parsing filter flag",
                    format!("invalid filter name: \"{filter}\" has none of {}", names.join(", ")),
                )
            })?;
            query.add("filter", filter);
        }
        self.each::<GlobalPinInfo>(&Method::GET, &query.on("/pins"), text::status)
    }

    /// `sync` and `recover`: one CID or all of them.
    fn on_pins(&mut self, verb: &str, args: &args::LocalOne) -> Outcome {
        let mut query = Query::default();
        query.switch("local", args.local);
        match &args.what {
            Some(cid) => {
                let path = format!("/pins/{}/{verb}", parse_cid(cid)?);
                self.one::<GlobalPinInfo>(&Method::POST, &query.on(&path), text::status)
            }
            None => {
                let path = format!("/pins/{verb}");
                self.each::<GlobalPinInfo>(&Method::POST, &query.on(&path), text::status)
            }
        }
    }

    fn metrics(&mut self, name: Option<&str>) -> Outcome {
        match name {
            None => self.list::<String>("/monitor/metrics", |name| format!("{}\n", text::plain(name))),
            Some(name) => {
                let now = Timestamp::now().unix_nanos();
                let path = format!("/monitor/metrics/{}", escape(name.as_bytes()));
                self.list::<Metric>(&path, |m| text::metric(m, now))
            }
        }
    }

    fn gc(&mut self, local: bool) -> Outcome {
        let mut query = Query::default();
        query.switch("local", local);
        let mut value = self.client.call(&Method::POST, &query.on("/ipfs/gc"))?.unwrap_or(Value::Null);
        if self.out.encoding == Encoding::Json {
            return self.out.json(&value);
        }
        // A peer that removed nothing may say null.
        for peer in value.get_mut("peer_map").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(keys) = peer.1.get_mut("keys").filter(|k| k.is_null()) {
                *keys = Value::Array(Vec::new());
            }
        }
        let all: GlobalRepoGc = serde_json::from_value(value).map_err(|e| {
            Failure::Transport(format!("the answer to POST /ipfs/gc is not what it should be: {e}"))
        })?;
        self.out.text(&text::gc(&all))
    }

    fn graph(&mut self, args: &args::HealthGraph) -> Outcome {
        let (graph, value) = self.client.ask::<ConnectGraph>(&Method::GET, "/health/graph")?;
        let text = match self.out.encoding {
            Encoding::Json => super::output::pretty(&value),
            Encoding::Text => dot::graph(&graph, args.all_ipfs_peers),
        };
        match &args.file {
            Some(file) => {
                std::fs::write(file, text).map_err(|e| Failure::argument(format!("writing {file}"), e))
            }
            None => self.out.text(&text),
        }
    }
}

/// A CID from the command line.
///
/// # Errors
/// [`Failure::Argument`] with the word.
pub fn parse_cid(word: &str) -> Outcome<Cid> {
    word.parse().map_err(|e| Failure::argument("parsing cid", format!("invalid cid: \"{word}\": {e}")))
}

/// `/ipfs/<cid>/…`, `/ipns/…` or `/ipld/…`, escaped for a URL, from a CID or a path.
///
/// # Errors
/// [`Failure::Argument`] with the word and what is wrong with it.
pub fn pin_path(word: &str) -> Outcome<String> {
    let full = if word.starts_with('/') { word.to_string() } else { format!("/ipfs/{word}") };
    let odd = |why: String| Err(Failure::argument("", format!("invalid path \"{full}\": {why}")));
    let mut parts = full.split('/').filter(|p| !p.is_empty());
    let namespace = parts.next().unwrap_or_default();
    if !["ipfs", "ipns", "ipld"].contains(&namespace) {
        return odd("it does not begin with a CID, /ipfs/, /ipns/ or /ipld/".into());
    }
    let Some(root) = parts.next() else {
        return odd("path does not have enough components".into());
    };
    if namespace != "ipns" {
        if let Err(e) = root.parse::<Cid>() {
            return odd(format!("invalid cid: {e}"));
        }
    }
    let mut path = format!("/{namespace}/{}", escape(root.as_bytes()));
    for part in parts {
        path.push('/');
        path.push_str(&escape(part.as_bytes()));
    }
    Ok(path)
}

/// Adds pin options to a query, checked as far as that needs no cluster.
///
/// # Errors
/// [`Failure::Argument`] naming the flag.
pub fn pin_options(
    query: &mut Query,
    name: Option<&str>,
    min: Option<i32>,
    max: Option<i32>,
    allocations: Option<&str>,
    expire_in: Option<&str>,
    metadata: &[String],
) -> Outcome {
    query.option("name", name);
    query.option("replication-min", min.filter(|n| *n != 0));
    query.option("replication-max", max.filter(|n| *n != 0));
    if let Some(peers) = allocations.filter(|p| !p.is_empty()) {
        for peer in peers.split(',').map(str::trim) {
            if let Err(e) = peer.parse::<libp2p::PeerId>() {
                return Err(Failure::argument(
                    "parsing allocations",
                    format!("\"{peer}\" is not a peer ID: {e}"),
                ));
            }
        }
        query.add("user-allocations", peers);
    }
    if let Some(text) = expire_in.filter(|e| !e.is_empty()) {
        let duration = parse_duration(text).map_err(|e| Failure::argument("parsing expire-in", e))?;
        if !duration.is_zero() {
            query.add("expire-in", text);
        }
    }
    for pair in metadata {
        match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => query.add(&format!("meta-{key}"), value),
            _ => {
                return Err(Failure::argument(
                    "parsing metadata",
                    format!("\"{pair}\" is not of the form key=value"),
                ))
            }
        }
    }
    Ok(())
}

/// `peers add ADDRESS`, of ipfs-cluster up to 0.3: a peer is never pulled into a cluster, because it may have data of
/// another one, and only the person at its keyboard knows.
fn peers_add(address: &str) -> Outcome {
    Err(Failure::argument(
        "adding a peer",
        format!("peers add themselves: on that peer ({address}) run `pinfold join TOKEN`, with the token that `pinfold invite` prints here, or `pinfold daemon --bootstrap ADDRESS` with an address of this peer from `pinfold id`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    #[test]
    fn paths_are_checked_and_escaped() {
        assert_eq!(pin_path(CID).expect("cid"), format!("/ipfs/{CID}"));
        assert_eq!(pin_path(&format!("{CID}/a b/ü")).expect("below"), format!("/ipfs/{CID}/a%20b/%C3%BC"));
        assert_eq!(pin_path("/ipns/example.org/x").expect("ipns"), "/ipns/example.org/x");
        for bad in ["", "nosuch", "/ipfs/", "/ipfs/nosuch", "/foo/bar", "/", "/ipns"] {
            assert!(matches!(pin_path(bad), Err(Failure::Argument(..))), "{bad}");
        }
    }

    #[test]
    fn pin_options_become_a_query() {
        let mut q = Query::default();
        pin_options(&mut q, Some("n"), Some(-1), Some(0), None, Some("24h"), &["a=b=c".into()])
            .expect("options");
        assert_eq!(q.on(""), "?name=n&replication-min=-1&expire-in=24h&meta-a=b%3Dc");
        for metadata in ["a", "=b", ""] {
            assert!(
                pin_options(&mut q, None, None, None, None, None, &[metadata.into()]).is_err(),
                "{metadata}"
            );
        }
        assert!(pin_options(&mut q, None, None, None, None, Some("soon"), &[]).is_err());
        assert!(pin_options(&mut q, None, None, None, Some("nosuch"), None, &[]).is_err());
    }
}
