//! Bugs on purpose: each is a mistake that a program like this could make, and that a check must find.
//!
//! A check that has never found anything may be one that cannot. So the code asks, at the places where a mistake would
//! cost a pin, whether just that mistake is to be made ([`is`]). In the program that ships the answer is the
//! constant *no* and the compiler leaves nothing of the question; with the feature `planted`, which only the tests
//! set and which no optimised release can have (see the end of this page), the answer is what `with` says for the
//! present thread. `tests/planted.rs` plants one after the other, lets the simulator and the other random tests run
//! on them, and prints after how many seeds each was found. One that is not found fails the build: it is a hole in
//! the checks.
//!
//! Rules: a hook is one line, at the very place that the bug would be at, and does what an author who had not thought
//! of it would have written; it never helps the check along. Nothing but tests may plant.

/// Makes the list of bugs, with their sentences at hand for the table.
macro_rules! bugs {
    ($($(#[doc = $line:literal])+ $name:ident,)+) => {
        /// One mistake. The sentence says what the code then does.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $line])+ $name,)+
        }

        #[cfg(feature = "planted")]
        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$name),+];

            /// Its name, as it is written in the code.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$name => stringify!($name),)+ }
            }

            /// What the code then does.
            pub fn sentence(self) -> &'static str {
                match self { $(Bug::$name => concat!($($line),+).trim(),)+ }
            }
        }
    };
}

bugs! {
    // --- what is durable before it is said (consensus/driver.rs)
    /// The term is written with the log, the vote is not: after a power cut the peer votes again.
    VoteNotFlushed,
    /// The hard state is written only after the answers that follow from it have left.
    HardStateAfterAnswers,
    /// Votes and acknowledgements leave before the entries they promise are written.
    AnswersBeforeFlush,
    /// A change is answered when the leader has it in its log, not when a majority has.
    AnsweredBeforeCommit,

    // --- elections, logs, reads (consensus/driver, reads.rs, settings.rs)
    /// A follower takes entries without comparing the term of the entry before them.
    TermNotChecked,
    /// A leader calls committed what is on its own disk, whoever else has it.
    LeaderCommitsAlone,
    /// A leader answers a read by itself, without asking whether it still leads.
    ReadWithoutQuorum,
    /// A leader trusts its lease for reads, whatever its clock did meanwhile.
    ReadByLease,
    /// A read is answered as soon as it is confirmed, though this peer has not applied so far.
    ReadBeforeApplied,
    /// A late reader is served by a confirmation that was asked for before it came.
    ReadJoinsEarlierRound,
    /// The leader forgets that it offered a snapshot, and waits for ever for the peer to have it.
    SnapshotOfferForgotten,

    // --- membership (consensus/membership.rs, driver/commands.rs)
    /// A configuration entry counts as soon as it is appended, and once more when it is committed.
    ConfChangeAtAppend,
    /// A new member votes and counts for the majority from its first moment on, with an empty log.
    LearnerCounts,
    /// A removed Raft id may come back with what it had.
    RemovedComesBack,
    /// A peer that comes under a new Raft id is added, and its old id keeps its vote.
    OldIdStays,
    /// A peer that lost its disk comes back, and votes, under the Raft id it had.
    WipedKeepsItsId,
    /// The configuration is stored in the order of a hash table.
    HashOrder,

    // --- snapshots and truncation (consensus/snapshot.rs, driver.rs, store)
    /// The rows of a snapshot are put on top of the old ones, which stay.
    SnapshotOnTop,
    /// The configuration that travels with a snapshot is the one before.
    SnapshotConfOfBefore,
    /// After a snapshot the log goes on after its old entries instead of empty.
    LogKeptBehindSnapshot,
    /// The log is truncated as far as the state in memory goes, not as far as the one on disk.
    TruncatedTooFar,
    /// A flush of the state counts as done when it is asked for.
    FlushCountedEarly,

    // --- the stores (store/memory.rs and its twin store/lmdb, store/overlay.rs)
    /// The rows of the state and the mark how far it goes are two commits.
    MarkInOtherCommit,
    /// A deletion that is not on disk yet is not seen by reads.
    DeletionNotSeen,
    /// Entries that replace others leave those behind them standing.
    ConflictingTailStays,

    // --- applying (state/machine.rs)
    /// The digest forgets to subtract a row that is deleted.
    DigestKeepsDeleted,
    /// A move is done whatever the allocations are by now.
    MoveWithoutCompare,
    /// An expiry removes a pin that was prolonged meanwhile.
    ExpiryWithoutCompare,
    /// Whether a pin has expired is asked of the clock of the peer that applies.
    ExpiryByLocalClock,
    /// What a refused command had done until it was refused stays.
    RefusedHalfDone,

    // --- the founding (consensus/founding)
    /// A promise is made and not saved: after a power cut the peer makes another.
    PromiseNotSaved,
    /// A proposer prefers its own plan to the one that may have been chosen.
    AcceptedIgnored,
    /// Half of the listed peers are enough to decide.
    HalfIsEnough,
}

/// Whether this bug is to be made here.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// The clock of whoever is at work, for [`Bug::ExpiryByLocalClock`]; without the feature nobody asks.
#[cfg(not(feature = "planted"))]
pub const fn now() -> crate::clock::Timestamp {
    crate::clock::Timestamp::ZERO
}

/// The simulator says whose turn it is, by the seconds on that peer's clock.
#[cfg(not(feature = "planted"))]
pub const fn set_clock(_: i64) {}

#[cfg(feature = "planted")]
mod planting {
    use super::Bug;
    use crate::clock::Timestamp;
    use std::cell::Cell;

    thread_local! {
        /// The bug of this thread: a simulation is one thread, so that several can run at a time.
        static HERE: Cell<Option<Bug>> = const { Cell::new(None) };
        /// The clock of the simulated peer that is at work on this thread.
        static CLOCK: Cell<i64> = const { Cell::new(0) };
    }

    /// The clock of whoever is at work.
    pub fn now() -> Timestamp {
        Timestamp::from_secs(CLOCK.get())
    }

    /// The simulator says whose turn it is, by the seconds on that peer's clock.
    pub fn set_clock(secs: i64) {
        CLOCK.set(secs);
    }

    /// Whether this bug is to be made here.
    pub fn is(bug: Bug) -> bool {
        HERE.get() == Some(bug)
    }

    /// Does something with a bug planted, or with none.
    pub fn with<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
        struct Pull;
        impl Drop for Pull {
            fn drop(&mut self) {
                HERE.set(None);
            }
        }
        HERE.set(bug);
        let _pull = Pull;
        work()
    }
}

#[cfg(feature = "planted")]
pub use planting::{is, now, set_clock, with};

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` puts bugs into the program on purpose: a release cannot have it");
