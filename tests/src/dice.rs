//! Random choices that are repeatable by a seed.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::{Flow, Link};

/// Environment variable with the seed of a run that is to be repeated. A failing test prints its
/// seed.
const SEED: &str = "CURFEW_TEST_SEED";

/// Marsaglia's xorshift. It is random enough for these choices, and gives the same numbers on every
/// machine.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Creates dice with the seed in `CURFEW_TEST_SEED`, or with a new seed. Prints the seed.
    pub fn new() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one(0) | 1);
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    /// Creates dice with this seed, which must not be 0.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Creates other dice, for a task that runs at the same time.
    pub fn more(&mut self) -> Self {
        self.below(1);
        // The seed is mixed, so that the throws of these dice do not predict the throws of the new
        // dice.
        Self(self.0.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number from 0 to `count` - 1.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).expect("the number fits into a usize")
    }

    /// A whole number of milliseconds that is shorter than `most`.
    pub fn time_below(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_millis()).expect("the time fits into a usize");
        Duration::from_millis(self.below(most.max(1)) as u64)
    }

    /// A link with randomly chosen faults.
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
