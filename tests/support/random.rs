//! Random numbers for tests, reproducible from a seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A generator of random numbers. A failed test prints the seed, and `FJORD_SEED` sets it.
#[derive(Debug)]
pub(crate) struct SeededRandom {
    number: u64,
    random: StdRng,
}

impl SeededRandom {
    /// Creates a generator with the seed in `FJORD_SEED`, or a random one.
    pub(crate) fn new() -> Self {
        let given = std::env::vars().find(|(name, _)| name == "FJORD_SEED");
        let given = given.map(|(_, text)| text.parse().expect("FJORD_SEED is a number"));
        let number = given.unwrap_or_else(|| rand::rng().random());
        Self { number, random: StdRng::seed_from_u64(number) }
    }

    /// Returns the seed.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns a random index below `count`.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    /// Returns an independent generator for a task.
    pub(crate) fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.random.random())
    }
}

impl Drop for SeededRandom {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FJORD_SEED={} repeats this sequence", self.number);
        }
    }
}
