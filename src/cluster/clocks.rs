//! How far the members' wall clocks are apart.
//!
//! No replicated decision looks at a clock, but people do, and certificates, tokens and expiring pins (see `time`): a
//! board without a battery that starts in 1970 is worth finding. Each member is asked for its time; half of the way there and back
//! is taken off, so that an answer is good to about the round trip.

use super::Cluster;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::net::rpc::{Access, Call, Handler};
use async_trait::async_trait;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is your time: nanoseconds since 1970.
const CLOCK: &str = "cluster.clock";
/// A clock is told at once or not at all.
const LIMIT: Duration = Duration::from_secs(2);

/// `GET /health/clocks` (pinfold's own): one member's clock as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockOf {
    /// Whose.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// Milliseconds that it is ahead of ours; `null` when it did not answer.
    pub ahead_ms: Option<i64>,
    /// Why it did not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

struct Tell;

#[async_trait]
impl Handler for Tell {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        call.send(&Timestamp::now().unix_nanos()).await
    }
}

/// Registers the call.
pub(super) fn register(cluster: &Cluster) {
    cluster.inner.rpc.register(CLOCK, Access::Members, Arc::new(Tell));
}

impl Cluster {
    /// The clocks of all other members, asked at once.
    pub async fn clocks(&self) -> Vec<ClockOf> {
        let me = self.inner.me;
        let others = self.inner.consensus.members().into_iter().filter(|member| member.peer_id != me);
        join_all(others.map(|member| async move {
            let began = Instant::now();
            let answer = self.inner.rpc.call::<_, i64>(member.peer_id, CLOCK, &(), LIMIT).await;
            let ahead = answer.map(|theirs| ahead_ms(theirs, Timestamp::now().unix_nanos(), began.elapsed()));
            ClockOf {
                peer: member.peer_id.to_string(),
                peername: member.name,
                error: ahead.as_ref().err().map(Error::to_string).unwrap_or_default(),
                ahead_ms: ahead.ok(),
            }
        }))
        .await
    }
}

/// How far `theirs` is ahead of `ours`, which was read `round_trip` after asking.
fn ahead_ms(theirs: i64, ours: i64, round_trip: Duration) -> i64 {
    let half = i64::try_from(round_trip.as_nanos() / 2).unwrap_or(0);
    theirs.saturating_sub(ours.saturating_sub(half)) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_way_is_taken_off() {
        let ms = |n: i64| n * 1_000_000;
        assert_eq!(ahead_ms(ms(1_050), ms(1_100), Duration::from_millis(100)), 0);
        assert_eq!(ahead_ms(ms(0), ms(3_600_000), Duration::ZERO), -3_600_000);
        assert_eq!(ahead_ms(i64::MAX, i64::MIN, Duration::MAX), i64::MAX / 1_000_000, "nonsense is no panic");
    }
}
