//! Chance that can be repeated: everything random in a test follows from one printed number.

/// A random sequence (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The sequence of `$PINFOLD_SEED`, else of a new number; prints it, with how to have it again.
    pub fn new(test: &str) -> Dice {
        let given = std::env::var("PINFOLD_SEED").ok();
        let seed = match &given {
            Some(text) => text.parse().expect("PINFOLD_SEED is a number"),
            None => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("random numbers");
                u64::from_le_bytes(bytes) % 1_000_000_000
            }
        };
        eprintln!("{test}: seed {seed} (again with PINFOLD_SEED={seed})");
        Dice::of(seed)
    }

    /// The sequence of this number.
    pub fn of(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// Another sequence that follows from this one.
    pub fn fork(&mut self) -> Dice {
        Dice { state: self.number() }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A duration in milliseconds between the two.
    pub fn millis(&mut self, from: u64, to: u64) -> std::time::Duration {
        std::time::Duration::from_millis(from + self.number() % (to - from + 1))
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Puts them in a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}
