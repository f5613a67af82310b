//! From a person's settings to raft-rs's: durations become ticks, limits get their values.
//!
//! A tick is a quarter of a heartbeat: fine enough that two peers rarely draw the same election timeout, and
//! rare enough that an idle board sleeps.

use super::ConsensusConfig;
use crate::state::RaftId;
use raft::{Config, ReadOnlyOption};
use slog::{Drain, Never, OwnedKVList, Record};
use std::time::Duration;

/// Ticks in one heartbeat interval.
const TICKS_PER_HEARTBEAT: u32 = 4;
/// The shortest tick.
const MIN_TICK: Duration = Duration::from_millis(2);
/// Bytes of entries in one append message.
const MAX_APPEND_BYTES: u64 = 512 << 10;
/// Append messages to one follower that may be without an answer.
const MAX_INFLIGHT: usize = 128;
/// Bytes of entries that a leader takes before they are committed.
const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Bytes of committed entries that are applied in one go.
const MAX_COMMITTED_BYTES: u64 = 4 << 20;
/// The state is flushed this long after the first change since the last flush.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// … or when nothing was applied for this long.
const IDLE_AFTER: Duration = Duration::from_millis(300);
/// A peer that heard of no leader for so many election timeouts asks whether it was removed.
const ASK_AFTER_ELECTIONS: u64 = 5;

/// What the driver needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our Raft id.
    pub raft_id: RaftId,
    /// Our cluster.
    pub cluster_id: u64,
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// The least ticks without a leader before an election; the most are twice as many.
    pub election_ticks: usize,
    /// Ticks from the first unflushed change to a flush.
    pub flush_ticks: u64,
    /// Ticks without a change that end in a flush.
    pub idle_ticks: u64,
    /// Ticks after which an unanswered ReadIndex is repeated.
    pub read_ticks: u64,
    /// Ticks that a proposal, a read or a membership change may take.
    pub commit_ticks: u64,
    /// Ticks in which an offered snapshot must be fetched.
    pub start_ticks: u64,
    /// Ticks in which a fetched snapshot should be installed.
    pub install_ticks: u64,
    /// Ticks without a leader after which a peer asks whether it was removed.
    pub ask_ticks: u64,
    /// Ticks after which followers that do not know of a commit are told again.
    pub tell_ticks: u64,
    /// Ticks without a majority after which a leader gives up its office.
    pub lease_ticks: u64,
    /// Ticks between two looks at the log for a truncation.
    pub look_ticks: u64,
    /// Most entries in one append message.
    pub max_append_entries: usize,
    /// Log entries kept behind the durable state.
    pub trailing_logs: u64,
    /// Log entries that must be superfluous before a truncation.
    pub snapshot_threshold: u64,
    /// Most voters.
    pub max_voters: usize,
    /// Source of everything random.
    pub seed: u64,
}

impl Settings {
    /// Settings for one peer; `seed` is the only source of randomness.
    pub fn new(config: &ConsensusConfig, raft_id: RaftId, cluster_id: u64, seed: u64) -> Self {
        let tick = (config.heartbeat / TICKS_PER_HEARTBEAT).max(MIN_TICK);
        let ticks =
            |d: Duration| d.as_nanos().div_ceil(tick.as_nanos()).max(1).min(u128::from(u32::MAX)) as u64;
        let heartbeat_ticks = ticks(config.heartbeat) as usize;
        let election_ticks = (ticks(config.election) as usize).max(2 * heartbeat_ticks);
        Settings {
            raft_id,
            cluster_id,
            tick,
            heartbeat_ticks,
            election_ticks,
            flush_ticks: ticks(FLUSH_AFTER),
            idle_ticks: ticks(IDLE_AFTER),
            read_ticks: election_ticks as u64,
            commit_ticks: ticks(config.network_timeout),
            start_ticks: ticks(super::snapshot::START_WITHIN),
            install_ticks: ticks(super::snapshot::INSTALL_WITHIN),
            ask_ticks: ASK_AFTER_ELECTIONS * election_ticks as u64,
            tell_ticks: ticks(config.commit_timeout),
            lease_ticks: ticks(config.lease).max(election_ticks as u64),
            look_ticks: ticks(config.snapshot_interval),
            max_append_entries: config.max_append_entries.max(1),
            trailing_logs: config.trailing_logs,
            snapshot_threshold: config.snapshot_threshold,
            max_voters: config.max_voters,
            seed,
        }
    }

    /// raft-rs's settings for a state that is applied up to `applied`.
    pub fn raft(&self, applied: u64) -> Config {
        Config {
            id: self.raft_id,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_INFLIGHT,
            check_quorum: true,
            pre_vote: true,
            read_only_option: match crate::planted::is(crate::planted::Bug::ReadByLease) {
                false => ReadOnlyOption::Safe,
                true => ReadOnlyOption::LeaseBased,
            },
            // raft-rs would add entries to an append that has none and stands elsewhere in the log: the receiver cannot
            // read the whole frame then. What goes to one peer shares a frame anyway.
            batch_append: false,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            ..Config::default()
        }
    }

    /// A number that follows from the seed, our id and `n` alone.
    pub fn mix(&self, n: u64) -> u64 {
        mix(self.seed ^ self.raft_id.rotate_left(32), n)
    }
}

/// SplitMix64: spreads two numbers over all bits.
pub fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// raft-rs's own words, at debug level: they are for those who look for a defect.
pub fn logger() -> slog::Logger {
    slog::Logger::root(ToLog, slog::o!())
}

struct ToLog;

impl Drain for ToLog {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            slog::Level::Critical | slog::Level::Error => log::Level::Error,
            slog::Level::Warning => log::Level::Warn,
            slog::Level::Info | slog::Level::Debug => log::Level::Debug,
            slog::Level::Trace => log::Level::Trace,
        };
        log::log!(target: super::LOG, level, "raft-rs: {}", record.msg());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_become_ticks_that_raft_rs_accepts() {
        for (heartbeat, election) in [(100, 300), (1_000, 1_000), (1, 1), (50, 10_000)] {
            let config = ConsensusConfig {
                heartbeat: Duration::from_millis(heartbeat),
                election: Duration::from_millis(election),
                ..super::super::tests::config(libp2p::PeerId::random())
            };
            let settings = Settings::new(&config, 1, 2, 3);
            settings.raft(0).validate().unwrap();
            assert!(settings.tick * settings.election_ticks as u32 >= Duration::from_millis(election));
        }
    }
}
