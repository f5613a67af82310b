//! What one seed turns: how large its cluster is and how bad its days are.
//!
//! Swarm testing: each seed draws its own mixture, and leaves whole kinds of misfortune out, because what is always
//! on can hide what it always interrupts.

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Knobs {}

impl Knobs {
    /// The knobs of this seed.
    #[must_use]
    pub fn draw(_seed: u64) -> Self {
        Knobs {}
    }
}
