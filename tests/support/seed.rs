//! What is random in a test, from one number that repeats it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Numbers that `FJORD_SEED` repeats; a test that fails says which it was.
#[derive(Debug)]
pub(crate) struct Seed {
    number: u64,
    random: StdRng,
}

impl Seed {
    /// The operator's seed, or one of its own.
    pub(crate) fn new() -> Self {
        let given = std::env::vars().find(|(name, _)| name == "FJORD_SEED");
        let given = given.map(|(_, text)| text.parse().expect("FJORD_SEED is a number"));
        let number = given.unwrap_or_else(|| rand::rng().random());
        Self { number, random: StdRng::seed_from_u64(number) }
    }

    /// The number that repeats all of it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// One of so many, from 0.
    pub(crate) fn one_of(&mut self, many: usize) -> usize {
        self.random.random_range(0..many)
    }

    /// A generator of its own, for a task.
    pub(crate) fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.random.random())
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FJORD_SEED={} repeats this sequence", self.number);
        }
    }
}
