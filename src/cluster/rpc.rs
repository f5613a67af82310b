//! The calls between cluster peers: names, messages, handlers.
//!
//! Only [`JOIN`] is open to whoever got through the secret; everything else is for members.

use super::{version, Cluster};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ipfs::Block;
use crate::monitor::{Monitor, Reading};
use crate::net::rpc::{Access, Call, Handler, Rpc};
use crate::runtime;
use crate::state::{Member, RaftId, Role};
use crate::tracker::{Row, StatusFilter};
use async_trait::async_trait;
use cid::Cid;
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Become a member.
pub(super) const JOIN: &str = "cluster.join";
/// Who are you: JSON of [`crate::api::types::Id`].
pub(super) const ID: &str = "cluster.id";
/// Here are my metrics.
pub(super) const METRICS: &str = "cluster.metrics";
/// Your rows that pass this filter, in key order.
pub(super) const STATUS: &str = "cluster.status";
/// Your row of this CID.
pub(super) const STATUS_ONE: &str = "cluster.status_one";
/// Try this CID again; your row of it.
pub(super) const RECOVER_ONE: &str = "cluster.recover_one";
/// Try everything again; what was re-queued.
pub(super) const RECOVER: &str = "cluster.recover";
/// Collect garbage; CIDs in batches.
pub(super) const GC: &str = "cluster.gc";
/// Store these blocks.
pub(super) const BLOCKS: &str = "cluster.blocks";
/// Whom are you connected to.
pub(super) const LINKS: &str = "cluster.links";

/// Rows in one frame of a status stream.
pub(super) const ROWS_PER_FRAME: usize = 500;
/// How long whoever asked for all statuses may leave us waiting: it reads from all peers in step, at the pace
/// of the slowest and of its own client.
pub(super) const STATUS_IDLE: Duration = Duration::from_secs(300);
/// A peer that works on an answer, or has nothing to send yet, gives a sign of life this often: well
/// below the idle limit of the other end.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Removed CIDs in one frame of a GC stream.
const KEYS_PER_FRAME: usize = 1_000;
/// A GC may take long between two frames.
pub(super) const GC_IDLE: Duration = Duration::from_secs(24 * 3600);
/// A join may wait for a leader and for earlier membership changes.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks to become a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The joiner's Raft id.
    pub raft_id: RaftId,
    /// Its name.
    pub name: String,
    /// Where it listens, without `/p2p/…`.
    pub addresses: Vec<String>,
    /// Its version.
    pub version: String,
}

/// The answer to [`JoinRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinReply {
    /// The cluster it is a member of now.
    pub cluster_id: u64,
    /// The members (encoded [`Member`]s), so that the joiner can listen to any of them.
    pub members: Vec<Vec<u8>>,
}

impl JoinReply {
    /// The members, decoded.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] for garbage.
    pub fn members(&self) -> Result<Vec<Member>> {
        self.members.iter().map(|m| Member::decode(m)).collect()
    }
}

/// Asks a peer to let us in; it asks the leader.
///
/// # Errors
/// No leader, refused, not reachable.
pub async fn join(rpc: &Rpc, peer: PeerId, request: &JoinRequest) -> Result<JoinReply> {
    rpc.call(peer, JOIN, request, JOIN_TIMEOUT).await
}

/// Whom a peer is connected to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Links {
    /// Cluster peers.
    pub cluster: Vec<String>,
    /// Its IPFS node.
    pub ipfs_id: Option<String>,
    /// IPFS nodes that its IPFS node is connected to.
    pub ipfs: Vec<String>,
}

/// A handler that is a method of [`Cluster`].
pub(super) struct Method<F>(pub(super) Cluster, pub(super) F);

/// Every handler has this shape.
pub(super) type Serve = for<'a> fn(&'a Cluster, &'a mut Call) -> futures::future::BoxFuture<'a, Result<()>>;

#[async_trait]
impl Handler for Method<Serve> {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        (self.1)(&self.0, call).await
    }
}

/// Registers all of them.
pub(super) fn register(cluster: &Cluster) {
    let methods: [(&'static str, Access, Serve); 10] = [
        (JOIN, Access::Open, |c, call| Box::pin(serve_join(c, call))),
        (ID, Access::Members, |c, call| Box::pin(serve_id(c, call))),
        (METRICS, Access::Members, |c, call| Box::pin(serve_metrics(c, call))),
        (STATUS, Access::Members, |c, call| Box::pin(serve_status(c, call))),
        (STATUS_ONE, Access::Members, |c, call| Box::pin(serve_status_one(c, call))),
        (RECOVER_ONE, Access::Members, |c, call| Box::pin(serve_recover_one(c, call))),
        (RECOVER, Access::Members, |c, call| Box::pin(serve_recover(c, call))),
        (GC, Access::Members, |c, call| Box::pin(serve_gc(c, call))),
        (BLOCKS, Access::Members, |c, call| Box::pin(serve_blocks(c, call))),
        (LINKS, Access::Members, |c, call| Box::pin(serve_links(c, call))),
    ];
    for (name, access, serve) in methods {
        cluster.inner.rpc.register(name, access, Arc::new(Method(cluster.clone(), serve)));
    }
    for (name, serve) in [super::holding::METHOD, super::repos::METHOD] {
        cluster.inner.rpc.register(name, Access::Members, Arc::new(Method(cluster.clone(), serve)));
    }
}

/// Registers one more, for rooms that keep theirs beside what they do.
pub(super) fn register_one(cluster: &Cluster, name: &'static str, access: Access, serve: Serve) {
    cluster.inner.rpc.register(name, access, Arc::new(Method(cluster.clone(), serve)));
}

async fn serve_join(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let request: JoinRequest = call.need().await?;
    let_in(cluster, call, request, false).await
}

/// Makes a caller a member and answers the call.
pub(super) async fn let_in(
    cluster: &Cluster,
    call: &mut Call,
    request: JoinRequest,
    witness: bool,
) -> Result<()> {
    let addresses: Vec<Multiaddr> =
        request.addresses.iter().take(Member::MAX_ADDRESSES).filter_map(|a| a.parse().ok()).collect();
    let mut name = request.name;
    let mut end = name.len().min(Member::MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    let version = version::of_joiner(cluster, &call.peer(), &request.version)?;
    let member = Member {
        raft_id: request.raft_id,
        peer_id: call.peer(),
        name,
        addresses,
        role: Role::Learner,
        version,
        witness,
    };
    if member.raft_id == 0 {
        return Err(Error::invalid("a joining peer must bring a Raft id other than 0"));
    }
    // The leader will want to dial it at once.
    cluster.inner.rpc.host().set_addresses(member.peer_id, member.addresses.clone());
    let what = if witness { " as a witness" } else { "" };
    log::info!(target: "cluster", "{} ({}) asks to join{what}", member.name, member.peer_id);
    let cluster_id = cluster.inner.consensus.add_member(member).await?;
    let members = cluster.inner.consensus.members().iter().map(Member::encode).collect();
    call.send(&JoinReply { cluster_id, members }).await
}

async fn serve_id(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let id = serde_json::to_string(&cluster.id().await).map_err(|e| Error::internal(e.to_string()))?;
    call.send(&id).await
}

async fn serve_metrics(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let readings: Vec<Reading> = call.need().await?;
    if !cluster.member_ids().contains(&call.peer()) {
        // A peer that has just joined does not know its neighbours yet: they tell it again a moment later.
        return Err(Error::unavailable("this peer is still catching up with the membership"));
    }
    let shared = &cluster.inner.readings;
    let node = |of: &Monitor| of.last_ping(&call.peer()).map(|ping| ping.ipfs_id);
    let new = {
        let mut monitor = shared.lock();
        let before = node(&monitor);
        monitor.take(call.peer(), readings, shared.now_ms(), Timestamp::now());
        node(&monitor) != before
    };
    if new {
        let _ = cluster.inner.new_node.0.try_send(());
    }
    call.send(&()).await
}

async fn serve_status(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let filter: StatusFilter = call.need().await?;
    call.set_idle(STATUS_IDLE);
    let mut rows = cluster.tracker().rows(filter);
    loop {
        let (back, page) = runtime::unblock(move || {
            let page = rows.next_page(ROWS_PER_FRAME);
            (rows, page)
        })
        .await;
        rows = back;
        // An empty page goes too: it says that we are still looking.
        let Some(page) = page? else { return Ok(()) };
        call.send(&page).await?;
        if page.is_empty() {
            call.flush().await?;
        }
    }
}

pub(super) fn cid_of(bytes: &[u8]) -> Result<Cid> {
    Cid::try_from(bytes).map_err(|e| Error::invalid(format!("a peer sent a CID that is none: {e}")))
}

async fn serve_status_one(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let key: Vec<u8> = call.need().await?;
    let row = cluster.tracker().status(&cid_of(&key)?).await?;
    call.send(&row).await
}

async fn serve_recover_one(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let key: Vec<u8> = call.need().await?;
    let row = cluster.tracker().recover(&cid_of(&key)?).await?;
    call.send(&row).await
}

async fn serve_recover(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let tracker = cluster.tracker().clone();
    send_found(call, |found| async move { tracker.recover_all(found).await }).await
}

/// Does work that compares a whole repository, and sends the rows that it finds as it finds them, with signs of life
/// between them: that takes its time.
pub(super) async fn send_found<F>(
    call: &mut Call,
    work: impl FnOnce(async_channel::Sender<Row>) -> F,
) -> Result<()>
where
    F: std::future::Future<Output = Result<()>> + Send + 'static,
{
    call.set_idle(STATUS_IDLE);
    let (sender, found) = async_channel::bounded(ROWS_PER_FRAME);
    let work = runtime::spawn(work(sender));
    loop {
        match next_or_beat(&found).await {
            Next::Item(row) => call.send(&vec![row]).await?,
            Next::Beat => {
                call.send(&Vec::<Row>::new()).await?;
                call.flush().await?;
            }
            Next::End => return work.await,
        }
    }
}

/// What came out of a channel.
pub(super) enum Next<T> {
    /// An item.
    Item(T),
    /// Nothing for [`SIGN_OF_LIFE`].
    Beat,
    /// The end.
    End,
}

/// The next item, but nothing for too long.
pub(super) async fn next_or_beat<T: Send>(items: &async_channel::Receiver<T>) -> Next<T> {
    let item = async { items.recv().await.map_or(Next::End, Next::Item) };
    smol::future::or(item, async {
        runtime::sleep(SIGN_OF_LIFE).await;
        Next::Beat
    })
    .await
}

async fn serve_gc(cluster: &Cluster, call: &mut Call) -> Result<()> {
    call.set_idle(GC_IDLE);
    let mut removed = cluster.inner.ipfs.gc().await?;
    let mut batch = Vec::new();
    while let Some(cid) = removed.next().await {
        batch.push(cid?.to_string());
        if batch.len() == KEYS_PER_FRAME {
            call.send(&batch).await?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        call.send(&batch).await?;
    }
    Ok(())
}

/// Blocks on their way to a peer: (CID bytes, data).
#[derive(Serialize, Deserialize)]
pub(super) struct Batch(pub Vec<(Vec<u8>, bytes_serde::Data)>);

/// Bytes as one run in postcard, without a copy per element.
pub(super) mod bytes_serde {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A run of bytes.
    pub struct Data(pub bytes::Bytes);

    impl Serialize for Data {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Data {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl serde::de::Visitor<'_> for Visitor {
                type Value = Data;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<Data, E> {
                    Ok(Data(bytes::Bytes::copy_from_slice(v)))
                }
            }
            d.deserialize_bytes(Visitor)
        }
    }
}

async fn serve_blocks(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let mut stored = 0u64;
    while let Some(Batch(batch)) = call.recv::<Batch>().await? {
        let blocks = batch
            .into_iter()
            .map(|(cid, data)| Ok(Block { cid: cid_of(&cid)?, data: data.0 }))
            .collect::<Result<Vec<_>>>()?;
        if blocks.is_empty() {
            // A sign of life of an adder whose client takes its time.
            continue;
        }
        stored += blocks.len() as u64;
        cluster.inner.ipfs.put_blocks(blocks).await?;
    }
    call.send(&stored).await
}

async fn serve_links(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let links = cluster.links().await;
    call.send(&links).await
}
