//! What time it is, by the clocks of the members: small boards have no battery, and one of them may be a year off.
//!
//! Nothing replicated depends on a clock; but the leader decides *when* to propose that a pin has expired, and a
//! contacted peer turns "in 24 hours" into a date. Both go by the median of all clocks in reach, so that one
//! wrong clock decides nothing alone. Of an even number the earlier of the two in the middle counts: a pin that
//! stays too long is a smaller harm than one that goes too soon.

use super::Cluster;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// A clock that is off by more than this does not set expiries: beyond what drifts between two synchronisations.
const TOLERANCE: i64 = 600;

/// The median; the earlier one of two. Zero without any.
fn median(mut clocks: Vec<i64>) -> i64 {
    clocks.sort_unstable();
    let middle = clocks.len().saturating_sub(1) / 2;
    clocks.get(middle).copied().unwrap_or_default()
}

impl Cluster {
    /// The time as the members have it. Those out of reach do not count.
    pub(super) async fn time(&self) -> Timestamp {
        let ahead = self.clocks().await.into_iter().filter_map(|clock| clock.ahead_ms);
        let offsets = ahead.map(|ms| ms / 1_000).chain([0]).collect();
        let now = Timestamp::now();
        Timestamp { secs: now.secs.saturating_add(median(offsets)), ..now }
    }

    /// Refuses an expiry that is set by a wrong clock.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] saying both times.
    pub(super) async fn check_clock(&self, expire_at: Option<Timestamp>) -> Result<()> {
        if expire_at.is_none_or(Timestamp::is_zero) {
            return Ok(());
        }
        let (theirs, ours) = (self.time().await, Timestamp::now());
        if theirs.secs.abs_diff(ours.secs) <= TOLERANCE.unsigned_abs() {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "the clocks of the peers disagree: this one says {}, most of them {}; a pin with an expiry would end at the wrong time, so set the wrong clock first (timedatectl)",
            ours.plain(),
            theirs.plain()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_decides_nothing() {
        const YEAR: i64 = 31_536_000;
        assert_eq!(median(vec![0]), 0);
        assert_eq!(median(vec![0, YEAR]), 0, "of two the earlier");
        assert_eq!(median(vec![0, -YEAR]), -YEAR);
        assert_eq!(median(vec![YEAR, 1, 0]), 1);
        assert_eq!(median(vec![-YEAR, 1, 0]), 0);
        assert_eq!(median(vec![YEAR, YEAR, 1, 0]), 1);
        assert_eq!(median(vec![]), 0);
    }
}
