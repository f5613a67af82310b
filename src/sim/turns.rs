//! A turn of a simulated peer: inputs in, one turn of the driver, and its effects with the disk's time between them.

use super::check::{broken, Broken};
use super::cluster::{Node, Sim, Work, INBOX, SIMULATED};
use super::disk::{Mark, Recorder};
use super::network::{Flight, Peer, TICK};
use super::schedule::EPOCH;
use crate::consensus::driver::Input;
use crate::error::Result;
use crate::planted;

impl Sim {
    /// Gives a peer an input and lets it turn, unless it works or stands still.
    pub(super) fn drive(&mut self, peer: Peer, input: Option<Input>) -> Result<(), Broken> {
        let now = self.ms;
        let Some(node) = self.nodes.get_mut(&peer) else { return Ok(()) };
        if node.driver.is_none() {
            return Ok(());
        }
        if let Some(input) = input {
            if node.inbox.len() < INBOX || !matches!(input, Input::Frame(..)) {
                node.inbox.push_back(input);
            }
        }
        if node.busy || node.paused > now {
            return Ok(());
        }
        planted::set_clock(EPOCH + (now / 1_000) as i64 + node.clock);
        if let Err(error) = node.turn() {
            let driver = node.driver.take();
            if let Some(mut driver) = driver {
                driver.abandon(&error);
            }
            node.shared.listen(&node.state);
            node.failed = Some(error.to_string());
            if self.strict && !error.to_string().contains(SIMULATED) {
                return Err(broken("a peer stopped", format!("peer {peer} stopped by itself: {error}")));
            }
            self.note(|| format!("peer {peer} stops: {error}"));
        }
        self.play(peer)
    }

    /// Lets what a turn did happen, with the time that the disk takes in between.
    fn play(&mut self, peer: Peer) -> Result<(), Broken> {
        let now = self.ms;
        let Some(node) = self.nodes.get_mut(&peer) else { return Ok(()) };
        let (marks, stamps) = {
            let mut tape = node.shared.tape();
            (std::mem::take(&mut tape.marks), std::mem::take(&mut tape.stamps))
        };
        let (life, mut at) = (node.life, now);
        // What leaves when, and (without a mark) when the disk has finished something.
        let mut plan = Vec::with_capacity(marks.len());
        for mark in marks {
            let (work, takes) = match mark {
                Mark::Append => (Work::Append, node.disk.append),
                Mark::Install => (Work::Install, node.disk.install),
                mark => {
                    plan.push((at, Some(mark)));
                    continue;
                }
            };
            at += node.rng.between(takes);
            node.work.push_back(work);
            plan.push((at, None));
        }
        let (up, doomed) = (node.driver.is_some(), node.doomed && at > now);
        node.busy = at > now && up;
        let moment = if doomed { now + node.rng.below(at - now + 1) } else { 0 };
        for (due, mark) in plan {
            match mark {
                Some(mark) if due == now => self.leave(peer, mark),
                Some(mark) => self.network.launch(due, Flight::Leave { peer, life, mark }),
                None if due == now => self.nodes.get_mut(&peer).into_iter().for_each(Node::settle),
                None => self.network.launch(due, Flight::Settled { peer, life }),
            }
        }
        if doomed {
            self.network.launch(moment, Flight::Crash { peer, life });
        }
        self.checks.stamped(peer, &stamps)?;
        if !up {
            // It died by its own hand, after the disk had answered.
            if let Some(node) = self.nodes.get_mut(&peer) {
                while !node.work.is_empty() {
                    node.settle();
                }
                node.reset();
            }
            return self.forsake(peer);
        }
        if at > now {
            self.network.launch(at, Flight::Free { peer, life });
            return Ok(());
        }
        self.turned(peer)
    }

    /// A turn is over, and its disk work is done.
    pub(super) fn turned(&mut self, peer: Peer) -> Result<(), Broken> {
        let mut checks = std::mem::take(&mut self.checks);
        let seen = match self.nodes.get(&peer) {
            Some(node) => checks.see(peer, node, self).and_then(|()| checks.durable(peer, node)),
            None => Ok(()),
        };
        self.checks = checks;
        if let Some(status) = self.status(peer) {
            self.hash = super::hash(self.hash ^ status.term ^ status.applied << 32, &peer.to_be_bytes());
        }
        seen
    }

    /// Something that a turn did gets on its way.
    pub(super) fn leave(&mut self, peer: Peer, mark: Mark) {
        let now = self.ms;
        match mark {
            Mark::Send { to, raft_id, frame } => {
                if let Some(to) = self.number(&to) {
                    self.network.send(now, peer, to, raft_id, frame);
                }
            }
            Mark::Fetch { from, request } => {
                if let (Some(from), Some(node)) = (self.number(&from), self.nodes.get(&peer)) {
                    let flight = Flight::Opens { from, to: peer, life: node.life, request };
                    self.network.launch(now + TICK, flight);
                }
            }
            Mark::Flush => {
                let Some(node) = self.nodes.get_mut(&peer) else { return };
                let takes = if node.state.begin_flush() { node.rng.between(node.disk.flush) } else { 0 };
                node.flushing = true;
                let flight = Flight::Flushed { peer, life: node.life };
                self.network.launch(now + takes.max(1), flight);
            }
            Mark::Told(all) => all.into_iter().for_each(|told| self.tell(peer, told)),
            // The disk's own work is not something that leaves.
            Mark::Append | Mark::Install => (),
        }
    }

    /// Tells what happens, to whoever follows this run.
    pub(super) fn note(&mut self, words: impl FnOnce() -> String) {
        let ms = self.ms;
        if let Some(trace) = &mut self.trace {
            // A reader that went away is no reason to stop.
            let _ = writeln!(trace, "{:>4}.{:03} {}", ms / 1_000, ms % 1_000, words());
        }
    }
}

impl Node {
    /// Takes all that has arrived, and turns once.
    fn turn(&mut self) -> Result<()> {
        let Some(driver) = &mut self.driver else { return Ok(()) };
        let mut out = Recorder { shared: self.shared.clone() };
        for input in self.inbox.drain(..) {
            driver.input(input, &mut out)?;
        }
        if std::mem::take(&mut self.tick_due) {
            driver.input(Input::Tick, &mut out)?;
        }
        driver.turn(&mut out)?;
        self.shared.listen(&self.state);
        Ok(())
    }

    /// The disk has finished the oldest thing it was at.
    pub(super) fn settle(&mut self) {
        match self.work.pop_front() {
            Some(Work::Append) => self.log.settle(1),
            Some(Work::Install) => self.state.settle(),
            None => (),
        }
    }

    /// Nothing is under way any more.
    pub(super) fn reset(&mut self) {
        self.inbox.clear();
        self.work.clear();
        (self.tick_due, self.busy, self.flushing, self.doomed) = (false, false, false, false);
        self.paused = 0;
    }

    /// Whether it works on a turn.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}
