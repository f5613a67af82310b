//! How far the members' wall clocks are apart, for people.
//!
//! What the cluster itself does about wrong clocks is in [`super::time`]. A board without a battery that starts in 1970 is
//! still worth finding: its log, its certificate and its tokens are off. Each member is asked for its time in whole
//! seconds, and half of the way there and back is taken off.

use super::{rpc, Cluster};
use crate::clock::Timestamp;
use crate::error::Error;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A clock is told at once or not at all.
const LIMIT: Duration = Duration::from_secs(5);

/// `GET /health/clocks` (pinfold's own): one member's clock as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockOf {
    /// Whose.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// Seconds that it is ahead of ours; `null` when it did not answer.
    pub ahead: Option<i64>,
    /// Why it did not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Cluster {
    /// The clocks of all other members, asked at once.
    pub async fn clocks(&self) -> Vec<ClockOf> {
        let me = self.inner.me;
        let others = self.inner.consensus.members().into_iter().filter(|member| member.peer_id != me);
        join_all(others.map(|member| async move {
            let began = Instant::now();
            let answer = self.inner.rpc.call::<_, i64>(member.peer_id, rpc::TIME, &(), LIMIT).await;
            let ahead = answer.map(|theirs| ahead(theirs, Timestamp::now().secs, began.elapsed()));
            ClockOf {
                peer: member.peer_id.to_string(),
                peername: member.name,
                error: ahead.as_ref().err().map(Error::to_string).unwrap_or_default(),
                ahead: ahead.ok(),
            }
        }))
        .await
    }
}

/// How far `theirs` is ahead of `ours`, which was read `round_trip` after asking.
fn ahead(theirs: i64, ours: i64, round_trip: Duration) -> i64 {
    let half = i64::try_from(round_trip.as_secs() / 2).unwrap_or(0);
    theirs.saturating_sub(ours.saturating_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_way_is_taken_off() {
        assert_eq!(ahead(105, 110, Duration::from_secs(10)), 0);
        assert_eq!(ahead(0, 3_600, Duration::ZERO), -3_600);
        assert_eq!(ahead(i64::MAX, i64::MIN, Duration::MAX), i64::MAX, "nonsense is no panic");
    }
}
