//! What the embedded node answers itself: Kubo's RPC calls that no cluster verb stands behind, so that the real `ipfs`
//! command and the clients written for it work against a pinfold without Kubo.
//!
//! | file | what |
//! |---|---|
//! | `table` | the calls there are: arguments, options, and the sentence for those that are refused |
//! | `call` | a request taken apart, checked against its line of the table |
//! | `reply` | Kubo's shapes of an answer: one object, lines, bytes, and errors before and after the first byte |
//! | `path`, `walk` | from a path to a block; a DAG block by block, in order |
//! | `content` | cat, get, ls |
//! | `block`, `upload` | block/…; the parts of a form, one at a time |
//! | `dag`, `archive`, `refs` | dag/…; CAR out and in; refs |
//! | `info`, `swarm` | who and how much; with whom |
//! | `human` | sizes for people |
//!
//! Texts, statuses and headers are those of Kubo 0.42, recorded (`golden/kubo.json`) and tried against the real one.
//! Where Kubo accepts what this node cannot keep (hashes that it cannot check, blocks that cannot travel) or does what it
//! does not do (MFS, IPNS, pubsub, the DHT), the answer is an error of one sentence in Kubo's form, never a silent no.
//!
//! It must never: pin or unpin (that is the cluster's), hold a file, an archive or a DAG in memory, wait without the
//! client's deadline or the node's own, or panic on anything a client sends.

mod archive;
mod block;
pub(crate) mod call;
mod content;
mod dag;
mod human;
mod info;
mod path;
mod refs;
mod reply;
mod swarm;
mod table;
mod upload;
mod walk;

use crate::api::http::{Request, Response};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::ipfs::embedded::Embedded;
use crate::ipfs::Ipfs;
use call::{Call, Form};
use reply::Reply;
use std::sync::Arc;
use std::time::Instant;
use table::Does;

/// The Kubo whose conduct this is: what `version` says, because clients decide by it what they may ask.
const KUBO_VERSION: &str = "0.42.0";
/// The version of its repository, for the same reason.
const REPO_VERSION: &str = "18";

/// The embedded node as the proxy sees it.
pub(super) struct Node {
    /// The cluster peer.
    pub(super) cluster: Cluster,
    /// The node of this peer.
    pub(super) ipfs: Arc<dyn Ipfs>,
}

impl Node {
    fn embedded(&self) -> Result<Embedded> {
        self.ipfs.embedded().ok_or_else(|| match self.ipfs.away() {
            Some(away) => Error::unavailable(away.cause),
            None => Error::internal("the IPFS node of this peer is not the embedded one"),
        })
    }
}

/// Answers one request that was not intercepted. Origin and CORS headers are the caller's business.
pub(super) async fn answer(node: &Node, request: Request) -> Response {
    let (call, form) = match Call::parse(request) {
        Ok(call) => call,
        Err(response) => return *response,
    };
    let (text, deadline) = (call.text, call.deadline);
    let done = reply::within(deadline, dispatch(node, call, form)).await;
    match done {
        Ok(reply) => reply.response(text, deadline).await,
        Err(error) => reply::failure(&error),
    }
}

async fn dispatch(node: &Node, call: Call, form: Form) -> Result<Reply> {
    match call.command.does {
        Does::Refuse(sentence) => Err(Error::invalid(sentence)),
        Does::List => Ok(Reply::nothing()),
        Does::Cat => content::cat(node, &call).await,
        Does::Get => content::get(node, &call).await,
        Does::Ls => content::ls(node, &call).await,
        Does::BlockGet => block::get(node, &call).await,
        Does::BlockStat => block::stat(node, &call).await,
        Does::BlockPut => block::put(node, &call, form),
        Does::BlockRm => block::rm(node, &call).await,
        Does::DagGet => dag::get(node, &call).await,
        Does::DagPut => dag::put(node, &call, form),
        Does::DagResolve => dag::resolve(node, &call).await,
        Does::DagStat => dag::stat(node, &call).await,
        Does::DagExport => archive::export(node, &call).await,
        Does::DagImport => archive::import(node, &call, form),
        Does::Refs => refs::refs(node, &call).await,
        Does::RefsLocal => refs::local(node, &call).await,
        Does::Resolve => path::command(node, &call).await,
        Does::Version => info::version(&call),
        Does::Id => info::id(node, &call).await,
        Does::Commands => info::commands(&call),
        Does::ConfigShow => info::config_show(node).await,
        Does::Config => info::config(node, &call).await,
        Does::KeyList => info::key_list(node, &call),
        Does::RepoStat => info::repo_stat(node, &call).await,
        Does::RepoVersion => info::repo_version(&call),
        Does::RepoVerify => info::repo_verify(node).await,
        Does::StatsBw => swarm::bandwidth(node, &call),
        Does::BitswapStat => swarm::bitswap_stat(node, &call),
        Does::BitswapWantlist => swarm::wantlist(node, &call),
        Does::SwarmPeers => swarm::peers(node, &call),
        Does::SwarmConnect => swarm::connect(node, &call).await,
        Does::SwarmDisconnect => swarm::disconnect(node, &call),
        Does::SwarmAddrs => swarm::addrs(node, &call),
        Does::SwarmAddrsLocal => swarm::addrs_local(node, &call),
        Does::NoPeers => Reply::either(call.text, &serde_json::json!({ "Peers": [] }), String::new),
    }
}

/// Seconds since 1970 by this board's clock, for what only people look at.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// What a request has left.
type Deadline = Option<Instant>;
