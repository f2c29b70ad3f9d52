//! Chance that can be had again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::{Flow, Link};

/// Chooses a run again: its number is printed when it fails.
const SEED: &str = "CURFEW_TEST_SEED";

/// Marsaglia's xorshift: enough to choose by, and the same everywhere.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of the seed in `CURFEW_TEST_SEED`, or of a new one. It is printed.
    pub fn new() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one(0) | 1);
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    /// Dice of this seed, which is not 0.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 on, smaller than `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).expect("smaller than a usize")
    }

    /// A time shorter than `most`, in milliseconds.
    pub fn time_below(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_millis()).expect("a short time");
        Duration::from_millis(self.below(most.max(1)) as u64)
    }

    /// A link of any quality.
    pub fn link(&mut self) -> Link {
        let late = Flow::Delay(Duration::from_millis(self.below(900) as u64));
        let links = [
            Link::PASS,
            Link::CUT,
            Link::BLACK_HOLE,
            Link::STALLED,
            Link::DEAF,
            Link::MUTE,
            Link::only_up(Flow::Stall),
            Link::only_down(Flow::Stall),
            Link::only_up(late),
            Link::only_down(late),
        ];
        links[self.below(links.len())]
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
