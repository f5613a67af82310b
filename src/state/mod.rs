//! The replicated state machine: what must stay pinned, and who the members are.
//!
//! [`Command`]s come out of the Raft log in the same order on every peer; [`Machine::apply`] turns each
//! into writes on a [`StateStore`](crate::store::StateStore). Applying is pure: no clock, no randomness,
//! no network, no disk but the store that is handed in. Two peers with the same applied index have the
//! same state, which the rolling [`digest`](Machine::digest) lets anybody check.
//!
//! It must never: read a clock, look at local configuration, depend on iteration order of a hash map,
//! or let an error that another peer might not meet become a command's result.

pub mod codec;
pub mod digest;
mod machine;
mod moves;
pub mod pin;
mod query;
mod seed;
#[cfg(test)]
mod tests;
pub mod transfer;
mod types;
pub mod version;

#[cfg(test)]
pub(crate) use machine::DIGEST_KEY;
pub use machine::{recoveries, Machine, MemberChange, Recovery, MAX_REMOVED};
pub use moves::{Move, MAX_MENTIONS};
pub use pin::{Pin, PinMode, PinType};
pub use query::{Iter, Pins, PAGE};
pub use seed::seed;
pub use types::{Applied, Command, Event, Member, Outcome, RaftId, Role};
