//! When to dial a peer that must stay connected: a plan, without I/O.
//!
//! Each lost peer is dialled again after a pause that doubles from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], with
//! jitter, so that peers which lost each other at the same moment do not dial in step for ever. Anything that
//! makes success likely (new addresses, the connection was up) starts over with the short pause.

use libp2p::PeerId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Pause after the first failure.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A peer to keep.
struct Target {
    /// When to dial; `None` while connected or dialling.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// What the last failure said, so that only news is logged.
    said: Option<String>,
}

/// All peers to keep.
#[derive(Default)]
pub(super) struct Keeper {
    targets: HashMap<PeerId, Target>,
}

/// The pause after so many failures; `jitter` is in 0..=1 and takes away up to half.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled =
        FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(1));
    doubled.min(LONGEST_PAUSE).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

impl Keeper {
    /// Keeps exactly these peers. New ones that are not connected are due now.
    pub(super) fn set(&mut self, peers: &[PeerId], now: Instant, connected: impl Fn(&PeerId) -> bool) {
        self.targets.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let due = (!connected(peer)).then_some(now);
            self.targets.entry(*peer).or_insert(Target { due, failures: 0, said: None });
        }
    }

    /// The earliest moment at which a dial is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.due).min()
    }

    /// Takes the peers whose dial is due; each must be reported back as connected or failed.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PeerId> {
        let mut due = Vec::new();
        for (peer, target) in &mut self.targets {
            if target.due.is_some_and(|at| at <= now) {
                target.due = None;
                due.push(*peer);
            }
        }
        due
    }

    /// A connection is up.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer) {
            *target = Target { due: None, failures: 0, said: None };
        }
    }

    /// The last connection is gone: dial soon. Jitter keeps both ends from dialling at once.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.due = Some(now + FIRST_PAUSE.mul_f64(jitter.clamp(0.0, 1.0)));
        }
    }

    /// A dial failed. Returns the sentence if it is news.
    pub(super) fn failed(
        &mut self,
        peer: &PeerId,
        now: Instant,
        jitter: f64,
        sentence: &str,
    ) -> Option<String> {
        let target = self.targets.get_mut(peer)?;
        target.failures = target.failures.saturating_add(1);
        target.due = Some(now + pause(target.failures, jitter));
        if target.said.as_deref() == Some(sentence) {
            return None;
        }
        target.said = Some(sentence.to_owned());
        target.said.clone()
    }

    /// Something makes success likely: forget the failures and, if waiting, dial now.
    pub(super) fn nudge(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.failures = 0;
            if target.due.is_some() {
                target.due = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_jitter_only_shortens_it() {
        assert_eq!(pause(1, 0.0), FIRST_PAUSE);
        assert_eq!(pause(2, 0.0), FIRST_PAUSE * 2);
        assert_eq!(pause(3, 1.0), FIRST_PAUSE * 2);
        for failures in 7..100 {
            assert_eq!(pause(failures, 0.0), LONGEST_PAUSE);
            assert!(pause(failures, 1.0) >= LONGEST_PAUSE / 2);
        }
    }

    #[test]
    fn a_lost_peer_is_dialled_again_until_it_is_up_or_no_longer_wanted() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let start = Instant::now();
        let mut keeper = Keeper::default();
        keeper.set(&[a, b], start, |peer| *peer == b);
        assert_eq!(keeper.take_due(start), [a]);
        assert!(keeper.take_due(start).is_empty(), "a dial under way is not due again");

        assert_eq!(keeper.failed(&a, start, 0.0, "refused").as_deref(), Some("refused"));
        assert_eq!(keeper.next_due(), Some(start + FIRST_PAUSE));
        assert!(keeper.take_due(start).is_empty());
        let later = start + FIRST_PAUSE;
        assert_eq!(keeper.take_due(later), [a]);
        assert_eq!(keeper.failed(&a, later, 0.0, "refused"), None, "told once");
        assert_eq!(keeper.next_due(), Some(later + FIRST_PAUSE * 2));

        keeper.nudge(&a, later);
        assert_eq!(keeper.take_due(later), [a]);
        keeper.failed(&a, later, 0.0, "timeout");
        assert_eq!(keeper.next_due(), Some(later + FIRST_PAUSE), "a nudge forgets the failures");

        keeper.connected(&a);
        assert_eq!(keeper.next_due(), None);
        keeper.disconnected(&b, later, 0.0);
        assert_eq!(keeper.take_due(later), [b]);
        keeper.set(&[a], later, |_| true);
        assert_eq!(keeper.failed(&b, later, 0.0, "refused"), None);
        assert_eq!(keeper.next_due(), None);
    }
}
