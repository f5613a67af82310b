//! Snapshots on their way from one simulated peer to another.
//!
//! As in the daemon: the giver reads one moment of its state when the stream opens, and the taker has it when the
//! stream ends, which may be long after. Meanwhile both go on, and either may crash.

use super::check::Broken;
use super::cluster::Sim;
use super::network::{Flight, Peer, TICK};
use crate::consensus::driver::Input;
use crate::consensus::snapshot::{Chunk, Giver, Receiver, SnapshotRequest, MAX_STREAMS};
use crate::error::{Error, Result};
use crate::store::StateStore;

impl Sim {
    /// The taker asks; the giver opens its state.
    pub(super) fn open_transfer(
        &mut self,
        from: Peer,
        to: Peer,
        life: u64,
        request: SnapshotRequest,
    ) -> Result<(), Broken> {
        let now = self.ms;
        if self.lives(to) != life || !self.is_up(to) {
            return Ok(());
        }
        let waits = self.nodes.get(&from).filter(|n| n.driver.is_some()).map(|n| (n.is_busy(), n.paused));
        match waits {
            // What it has in memory in the middle of a turn is not sure yet.
            Some((true, _)) => {
                self.network.launch(now + 1, Flight::Opens { from, to, life, request });
                return Ok(());
            }
            Some((_, paused)) if paused > now => {
                self.network.launch(paused, Flight::Opens { from, to, life, request });
                return Ok(());
            }
            _ => (),
        }
        match self.read_state(from, to, &request) {
            Ok(chunks) => {
                *self.streams.entry(from).or_default() += 1;
                let faults = self.network.faults;
                let Some(node) = self.nodes.get_mut(&to) else { return Ok(()) };
                let breaks = faults.break_snapshot > 0 && node.rng.chance(faults.break_snapshot);
                let takes = node.rng.between(self.transfer);
                let (id, from_life) = (request.raft_id, self.lives(from));
                let flight = Flight::Ends { from, from_life, to, life, request, chunks, breaks };
                self.network.launch(now + takes, flight);
                self.note(|| format!("peer {to} begins to fetch the state of peer {from}"));
                self.drive(from, Some(Input::SnapshotStarted(id)))
            }
            Err(error) => self.drive(to, Some(Input::SnapshotFailed(error))),
        }
    }

    fn read_state(&self, from: Peer, to: Peer, request: &SnapshotRequest) -> Result<Vec<Chunk>> {
        let giver = self.nodes.get(&from).ok_or_else(|| Error::not_found("no such peer"))?;
        let driver = giver.driver.as_ref().ok_or_else(|| Error::unavailable("the peer is down"))?;
        if !self.network.is_open(from, to) || !self.network.is_open(to, from) {
            return Err(Error::unavailable("the peer with the snapshot cannot be reached"));
        }
        let known = driver.members().get(&request.raft_id);
        if known.is_none_or(|m| self.number(&m.peer_id) != Some(to)) {
            return Err(Error::forbidden("it asks for a snapshot but is not a member"));
        }
        if self.streams.get(&from).is_some_and(|n| *n >= MAX_STREAMS) {
            return Err(Error::unavailable("enough peers are already being sent the whole state"));
        }
        let source = giver.state.snapshot()?;
        let history = driver.history();
        let at = source.applied().index;
        let conf = history.lock().at(at).ok_or_else(|| Error::internal("no configuration"))?;
        let mut giver = Giver::new(source, conf);
        let mut chunks = Vec::new();
        while let Some(chunk) = giver.next_chunk()? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// The stream ends, well or not.
    pub(super) fn end_transfer(
        &mut self,
        (from, from_life): (Peer, u64),
        (to, life): (Peer, u64),
        request: &SnapshotRequest,
        chunks: Vec<Chunk>,
        breaks: bool,
    ) -> Result<(), Broken> {
        let there = |sim: &Sim, peer, life| sim.lives(peer) == life && sim.is_up(peer);
        let giver = there(self, from, from_life);
        if giver {
            if let Some(streams) = self.streams.get_mut(&from) {
                *streams = streams.saturating_sub(1);
            }
        }
        let taker = there(self, to, life);
        let good = giver && taker && !breaks && self.network.is_open(from, to);
        if giver {
            self.drive(from, Some(Input::SnapshotEnded(request.raft_id, good)))?;
        }
        if !taker {
            return Ok(());
        }
        // It may stand still; the stream waits for it.
        if let Some(paused) = self.nodes.get(&to).map(|n| n.paused).filter(|p| *p > self.ms) {
            let flight = Flight::Ends {
                from,
                from_life: u64::MAX,
                to,
                life,
                request: request.clone(),
                chunks,
                breaks: !good,
            };
            self.network.launch(paused + TICK, flight);
            return Ok(());
        }
        let input = match self.receive(to, request, chunks, good || from_life == u64::MAX && !breaks) {
            Ok(input) => input,
            Err(error) => Input::SnapshotFailed(error),
        };
        self.drive(to, Some(input))
    }

    fn receive(&self, to: Peer, request: &SnapshotRequest, chunks: Vec<Chunk>, whole: bool) -> Result<Input> {
        let taker = self.nodes.get(&to).ok_or_else(|| Error::not_found("no such peer"))?;
        let mut receiver = Receiver::new(&taker.state, request.at_least)?;
        let part = if whole { chunks.len() } else { chunks.len() / 2 };
        for chunk in chunks.into_iter().take(part) {
            receiver.take(chunk)?;
        }
        if !whole {
            return Err(Error::io("the connection broke"));
        }
        Ok(Input::SnapshotFetched(Box::new(receiver.finish()?)))
    }
}
