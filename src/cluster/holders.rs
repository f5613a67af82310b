//! Who keeps its copy when a pin is to have fewer: those that really have it.
//!
//! The shared state says who shall hold a pin, not who does. When copies are to be dropped, the holders are asked, so
//! that the copies that stay are copies: dropping the good ones and keeping the one in error would lose content that
//! nobody else may have. It is asked once and not for long; who does not answer in time counts as not having it.

use super::rpc;
use super::Cluster;
use crate::state::Pin;
use crate::tracker::{Row, Status};
use libp2p::PeerId;
use std::time::Duration;

/// How long a holder may take to say whether it has a pin.
const ASK_HOLDER: Duration = Duration::from_secs(3);

impl Cluster {
    /// The present holders of a pin in the order in which they should keep it, at most `max` of them (-1: all) being
    /// allowed to. For a pin that is everywhere, those that have it, when that is more than may.
    pub(super) async fn holders_to_keep(&self, pin: &Pin, max: i32) -> Vec<PeerId> {
        let everywhere = pin.replication_min < 0;
        let named = if everywhere { self.holder_ids() } else { pin.allocations.clone() };
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        if named.len() <= most {
            return pin.allocations.clone();
        }
        let key = pin.cid.to_bytes();
        let asked =
            named.iter().map(|peer| self.inner.rpc.call::<_, Row>(*peer, rpc::STATUS_ONE, &key, ASK_HOLDER));
        let rows = futures::future::join_all(asked).await;
        let has =
            |row: &crate::error::Result<Row>| row.as_ref().is_ok_and(|row| row.status == Status::Pinned);
        let (have, have_not): (Vec<_>, Vec<_>) = named.into_iter().zip(&rows).partition(|(_, row)| has(row));
        let peers = |list: Vec<(PeerId, _)>| list.into_iter().map(|(peer, _)| peer);
        match everywhere {
            // Then none of them is named: the allocator chooses among all, unless that could miss the copies.
            true if have.len() == rows.len() => Vec::new(),
            true => peers(have).collect(),
            false => peers(have).chain(peers(have_not)).collect(),
        }
    }
}
