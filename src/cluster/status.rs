//! Global status: a merge of sorted streams, one per peer, against the shared state. Bounded memory.
//!
//! Every peer sends its rows in key order (see `tracker::rows`); this peer walks its own copy of the state in
//! the same order. What the state says about peers that hold nothing (`remote`) is added here, so it
//! never crosses the network. A peer that cannot be asked, or is lost on the way, shows as `cluster_error` with
//! the reason from there on.

use super::rpc;
use super::{Cluster, Readings};
use crate::api::types::{GlobalPinInfo, PinInfo};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::net::rpc::Call;
use crate::runtime;
use crate::state::{Member, Pin};
use crate::store::{StateStore, Table};
use crate::tracker::{Row, RowReader, Status, StatusFilter, TableReader};
use cid::Cid;
use futures::stream::BoxStream;
use futures::StreamExt;
use libp2p::PeerId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(super) mod sync;
#[cfg(test)]
mod tests;

/// Items computed ahead of the client.
const AHEAD: usize = 256;

/// Where the rows of one peer come from.
enum Source {
    Here(Option<Box<RowReader>>),
    There(Box<Call>),
    Recovered(async_channel::Receiver<Row>),
    /// Rows, and how the comparison that gives them ended.
    Synced(async_channel::Receiver<Row>, Option<smol::Task<Result<()>>>),
}

/// The rows of one peer, with a look ahead.
struct Rows {
    member: Member,
    source: Option<Source>,
    ahead: VecDeque<Row>,
    /// The last key that came, for the order.
    last: Vec<u8>,
    error: Option<String>,
}

impl Rows {
    fn new(member: Member, source: Result<Source>) -> Self {
        let (source, error) = match source {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Rows { member, source, ahead: VecDeque::new(), last: Vec::new(), error }
    }

    /// A member that has no rows of its own: a witness. What the state says about it is added like for everybody.
    fn none(member: Member) -> Self {
        Rows { member, source: None, ahead: VecDeque::new(), last: Vec::new(), error: None }
    }

    /// Fills the look-ahead; after an error or the end it stays empty.
    async fn fill(&mut self) {
        while self.ahead.is_empty() {
            let page = match &mut self.source {
                None => return,
                Some(Source::Here(slot)) => {
                    let Some(mut reader) = slot.take() else { return };
                    let (reader, page) = runtime::unblock(move || {
                        let page = reader.next_page(rpc::ROWS_PER_FRAME);
                        (reader, page)
                    })
                    .await;
                    *slot = Some(reader);
                    page
                }
                Some(Source::There(call)) => call.recv::<Vec<Row>>().await,
                Some(Source::Recovered(rows)) => Ok(rows.recv().await.ok().map(|row| vec![row])),
                Some(Source::Synced(rows, work)) => match (rows.recv().await, work.take()) {
                    (Ok(row), unfinished) => {
                        *work = unfinished;
                        Ok(Some(vec![row]))
                    }
                    (Err(_), Some(work)) => work.await.map(|()| None),
                    (Err(_), None) => Ok(None),
                },
            };
            let checked = page.and_then(|rows| match rows {
                Some(rows) => self.check(&rows).map(|()| Some(rows)),
                None => Ok(None),
            });
            match checked {
                Ok(Some(rows)) => self.ahead.extend(rows),
                Ok(None) => self.source = None,
                Err(error) => {
                    self.error = Some(error.to_string());
                    self.source = None;
                }
            }
        }
    }

    /// One peer's rows out of order, or of no CID, must not spoil the merge for the others.
    fn check(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            if row.key <= self.last || Cid::try_from(row.key.as_slice()).is_err() {
                return Err(Error::corrupt(format!(
                    "{} sent statuses out of order; it may run another version of pinfold",
                    self.member.peer_id
                )));
            }
            self.last.clone_from(&row.key);
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8]) -> Option<Row> {
        (self.ahead.front()?.key == key).then(|| self.ahead.pop_front())?
    }
}

/// What a merged item needs to know besides the rows.
struct Merge {
    state: Arc<dyn StateStore>,
    readings: Arc<Readings>,
    filter: StatusFilter,
    peers: Vec<Rows>,
    /// The state in key order; `None` when only rows count (recover, sync).
    pins: Option<PinWalk>,
    /// Whether peers that could not answer make the end an error.
    complain: bool,
}

/// The pins of the state, page by page.
struct PinWalk {
    reader: Option<TableReader>,
    ahead: VecDeque<(Vec<u8>, Pin)>,
}

/// Pins decoded ahead of the merge.
const PIN_PAGE: usize = 500;

impl PinWalk {
    async fn fill(&mut self) -> Result<()> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let Some(mut reader) = self.reader.take() else { return Ok(()) };
        let (reader, page) = runtime::unblock(move || {
            let mut page = VecDeque::new();
            while page.len() < PIN_PAGE {
                match reader.next_row() {
                    Ok(Some((key, value))) => match Pin::decode(&value) {
                        Ok(pin) => page.push_back((key, pin)),
                        Err(error) => return (None, Err(error)),
                    },
                    Ok(None) => return (None, Ok(page)),
                    Err(error) => return (None, Err(error)),
                }
            }
            (Some(reader), Ok(page))
        })
        .await;
        self.reader = reader;
        self.ahead = page?;
        Ok(())
    }
}

impl Merge {
    /// The next item, or `None` at the end.
    async fn next(&mut self) -> Result<Option<GlobalPinInfo>> {
        loop {
            for rows in &mut self.peers {
                rows.fill().await;
            }
            let mut key =
                self.peers.iter().filter_map(|r| r.ahead.front()).map(|row| &row.key).min().cloned();
            let mut pin = None;
            if let Some(walk) = &mut self.pins {
                walk.fill().await?;
                if let Some((pin_key, _)) = walk.ahead.front() {
                    if key.as_ref().is_none_or(|k| pin_key <= k) {
                        pin = walk.ahead.pop_front();
                        key = pin.as_ref().map(|(k, _)| k.clone());
                    }
                }
            }
            let Some(key) = key else { return self.end() };
            let mut pin = pin.map(|(_, pin)| pin);
            if pin.is_none() && self.pins.is_none() {
                pin = find_by_key(&self.state, &key)?;
            }
            if let Some(item) = self.item(&key, pin.as_ref())? {
                return Ok(Some(item));
            }
        }
    }

    /// The end, once.
    fn end(&mut self) -> Result<Option<GlobalPinInfo>> {
        if !std::mem::take(&mut self.complain) {
            return Ok(None);
        }
        let silent = self
            .peers
            .iter()
            .filter_map(|rows| rows.error.as_ref().map(|error| format!("{}: {error}", rows.member.name)));
        let silent: Vec<String> = silent.collect();
        match silent.is_empty() {
            true => Ok(None),
            false => Err(Error::unavailable(silent.join("; "))),
        }
    }

    fn item(&mut self, key: &[u8], pin: Option<&Pin>) -> Result<Option<GlobalPinInfo>> {
        let cid =
            Cid::try_from(key).map_err(|e| Error::corrupt(format!("a CID of the state is damaged: {e}")))?;
        let mut map = BTreeMap::new();
        let mut silent = Vec::new();
        for rows in &mut self.peers {
            let member = &rows.member;
            if let Some(error) = rows.error.clone().filter(|_| rows.ahead.is_empty()) {
                let concerned = pin.is_none_or(|p| member.is_to_hold(p));
                if concerned {
                    silent.push((member.clone(), error));
                    continue;
                }
            }
            let row = match rows.take(key) {
                Some(row) => row,
                None if self.pins.is_some() && self.filter.matches(Status::Remote) => match pin {
                    Some(p) if !rows.member.is_to_hold(p) => plain_row(Status::Remote),
                    _ => continue,
                },
                None => continue,
            };
            map.insert(rows.member.peer_id, (rows.member.name.clone(), row));
        }
        if !map.is_empty() || self.filter.matches(Status::ClusterError) && pin.is_some() {
            for (member, error) in silent {
                let row = Row { error, ..plain_row(Status::ClusterError) };
                map.insert(member.peer_id, (member.name, row));
            }
        }
        if map.is_empty() {
            return Ok(None);
        }
        Ok(Some(global(&self.readings, &cid, pin, map)))
    }
}

/// A row that no peer sent.
fn plain_row(status: Status) -> Row {
    Row { key: Vec::new(), status, at: Timestamp::now(), error: String::new(), attempts: 0, priority: false }
}

fn find_by_key(state: &Arc<dyn StateStore>, key: &[u8]) -> Result<Option<Pin>> {
    state.get(Table::Pins, key)?.map(|v| Pin::decode(&v)).transpose()
}

/// Rows by peer to the JSON shape.
fn global(
    readings: &Readings,
    cid: &Cid,
    pin: Option<&Pin>,
    rows: BTreeMap<PeerId, (String, Row)>,
) -> GlobalPinInfo {
    let monitor = readings.lock();
    let peer_map = rows
        .into_iter()
        .map(|(peer, (name, row))| {
            let ping = monitor.last_ping(&peer).unwrap_or_default();
            let info = PinInfo {
                peername: name,
                ipfs_peer_id: ping.ipfs_id,
                ipfs_peer_addresses: ping.ipfs_addresses,
                status: row.status,
                timestamp: row.at,
                error: row.error,
                attempt_count: row.attempts,
                priority_pin: row.priority,
            };
            (peer.to_string(), info)
        })
        .collect();
    GlobalPinInfo {
        cid: cid.to_string(),
        name: pin.map(|p| p.name.clone()).unwrap_or_default(),
        allocations: Some(
            pin.map(|p| p.allocations.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        ),
        origins: pin.map(|p| p.origins.iter().map(ToString::to_string).collect()),
        created: pin.map_or_else(Timestamp::now, |p| p.timestamp),
        metadata: pin.filter(|p| !p.metadata.is_empty()).map(|p| p.metadata.clone()),
        peer_map,
    }
}

impl Cluster {
    /// Status of one CID (unknown: every peer `unpinned`).
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub async fn status(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo> {
        self.ask_all(cid, local, rpc::STATUS_ONE).await
    }

    /// Retries one CID everywhere (or here).
    ///
    /// # Errors
    /// With `local`, NotFound for a CID that is not pinned.
    pub async fn recover(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo> {
        if local {
            self.allocation(cid).await?;
        }
        self.ask_all(cid, local, rpc::RECOVER_ONE).await
    }

    async fn ask_all(&self, cid: &Cid, local: bool, method: &'static str) -> Result<GlobalPinInfo> {
        let key = cid.to_bytes();
        let pin = find_by_key(&self.inner.state, &key)?;
        let me = self.inner.me;
        let asked =
            self.inner.consensus.members().into_iter().filter(|m| !local || m.peer_id == me).map(|member| {
                let (key, pin) = (key.clone(), pin.as_ref());
                async move {
                    // Who holds nothing need not be asked; a witness has nobody to ask.
                    let concerned =
                        !member.witness && (member.peer_id == me || pin.is_none_or(|p| member.is_to_hold(p)));
                    let row = match concerned {
                        false if pin.is_none() => Ok(plain_row(Status::Unpinned)),
                        false => Ok(plain_row(Status::Remote)),
                        true => {
                            self.inner
                                .rpc
                                .call::<_, Row>(member.peer_id, method, &key, super::PEER_TIMEOUT)
                                .await
                        }
                    };
                    let row = row.unwrap_or_else(|error| Row {
                        error: error.to_string(),
                        ..plain_row(Status::ClusterError)
                    });
                    (member.peer_id, (member.name, row))
                }
            });
        let rows = futures::future::join_all(asked).await.into_iter().collect();
        Ok(global(&self.inner.readings, cid, pin.as_ref(), rows))
    }

    /// Status of everything that matches, merged over all peers in bounded memory.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub async fn status_all(
        &self,
        filter: StatusFilter,
        local: bool,
    ) -> Result<BoxStream<'static, Result<GlobalPinInfo>>> {
        let me = self.inner.me;
        let members = self.inner.consensus.members().into_iter().filter(|m| !local || m.peer_id == me);
        let opened = members.map(|member| async move {
            if member.witness {
                return Rows::none(member);
            }
            let source = if member.peer_id == me {
                Ok(Source::Here(Some(Box::new(self.tracker().rows(filter)))))
            } else {
                self.ask_stream(member.peer_id, rpc::STATUS, Some(filter)).await
            };
            Rows::new(member, source)
        });
        let peers = futures::future::join_all(opened).await;
        let reader = TableReader::new(self.inner.state.clone(), Table::Pins);
        let pins = Some(PinWalk { reader: Some(reader), ahead: VecDeque::new() });
        Ok(run(self.merge(filter, peers, pins)))
    }

    fn merge(&self, filter: StatusFilter, peers: Vec<Rows>, pins: Option<PinWalk>) -> Merge {
        let (state, readings) = (self.inner.state.clone(), self.inner.readings.clone());
        Merge { state, readings, filter, peers, pins, complain: false }
    }

    async fn ask_stream(
        &self,
        peer: PeerId,
        method: &'static str,
        filter: Option<StatusFilter>,
    ) -> Result<Source> {
        let mut call = self.inner.rpc.open(peer, method, super::PEER_TIMEOUT).await?;
        // The others wait while this one is waited for, see `rpc::STATUS_IDLE`.
        call.set_idle(super::PEER_TIMEOUT);
        if let Some(filter) = filter {
            call.send(&filter).await?;
        }
        call.finish().await?;
        Ok(Source::There(Box::new(call)))
    }

    /// Retries everything in error; yields what was re-queued.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub async fn recover_all(&self, local: bool) -> Result<BoxStream<'static, Result<GlobalPinInfo>>> {
        let me = self.inner.me;
        let members = self.inner.consensus.members().into_iter().filter(|m| !local || m.peer_id == me);
        let opened = members.map(|member| async move {
            if member.witness {
                return Rows::none(member);
            }
            let source = if member.peer_id == me {
                let (sender, rows) = async_channel::bounded(AHEAD);
                let tracker = self.tracker().clone();
                runtime::spawn(async move {
                    if let Err(error) = tracker.recover_all(sender).await {
                        log::warn!(target: "pintracker", "recover: {error}");
                    }
                })
                .detach();
                Ok(Source::Recovered(rows))
            } else {
                self.ask_stream(member.peer_id, rpc::RECOVER, None).await
            };
            Rows::new(member, source)
        });
        let peers = futures::future::join_all(opened).await;
        // Only what peers re-queued is shown: a filter that matches no synthesised row.
        let filter = StatusFilter::parse("queued,pinning,unpinning")?;
        Ok(run(self.merge(filter, peers, None)))
    }
}

/// Runs a merge in a task of its own, a bounded number of items ahead of the reader.
fn run(mut merge: Merge) -> BoxStream<'static, Result<GlobalPinInfo>> {
    let (sender, items) = async_channel::bounded(AHEAD);
    runtime::spawn(async move {
        loop {
            let item = match merge.next().await {
                Ok(Some(item)) => Ok(item),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let last = item.is_err();
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    })
    .detach();
    items.boxed()
}
