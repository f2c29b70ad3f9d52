//! The machine under the nodes: time, randomness, and a thread that can be stopped.
//!
//! Owns: the results of the C library's clocks and randomness on a simulated thread.
//! Knows nothing of: nodes, networks.
//!
//! Virtual time is tokio's paused clock, which moves to the next timer when every task waits. Code
//! that asks the C library for the time gets the virtual time, as the clocks of the running node
//! show it.

mod libc;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time;

pub use libc::{Child, run_apart};

/// Reading of monotonic clocks at the beginning of a run.
const UPTIME: Duration = Duration::from_secs(5_000);

/// Reading of a correct wall clock at the beginning of a run: 2027-01-15.
pub const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// A point in a node's code at which the code uses its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The code reads a clock.
    Clock,
    /// The code writes bytes to a socket.
    Write,
}

/// Decides about a pause at each [`Point`].
pub trait Watch {
    /// Microseconds by which the running node's wall clock is ahead; negative if it is behind.
    fn wall_ahead(&self) -> i64;

    /// Called at each point of a node's code. The node's code stands still until the call returns.
    fn at(&self, point: Point);
}

thread_local! {
    static WATCH: RefCell<Option<Rc<dyn Watch>>> = const { RefCell::new(None) };
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on, derives this thread's randomness from the seed.
pub fn seed(seed: u64) {
    RANDOM.set(Some(seed));
    fastrand::seed(seed);
}

/// From now on, makes this thread's clocks virtual. The caller must be in a runtime whose clock is
/// paused.
pub fn start(watch: Rc<dyn Watch>) {
    WATCH.set(Some(watch));
}

/// The virtual time since the run began. The run begins at the first call.
pub fn elapsed() -> Duration {
    thread_local! {
        static START: Cell<Option<time::Instant>> = const { Cell::new(None) };
    }
    let now = time::Instant::now();
    let start = START.get().unwrap_or_else(|| {
        START.set(Some(now));
        now
    });
    now - start
}

/// Advances the virtual time while the caller does not run.
pub fn pass(time: Duration) {
    let advance = pin!(time::advance(time));
    // The first poll moves the clock. A second poll would only report completion.
    let said = advance.poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(
        said.is_pending(),
        "the first poll of `advance` does not complete"
    );
}

/// Calls the watch, which may stop the running node.
pub fn at(point: Point) {
    let watch = WATCH.with_borrow(Clone::clone);
    if let Some(watch) = watch {
        watch.at(point);
    }
}

/// The virtual time on a clock of this thread; `None` if the system's clock applies.
fn shows(clock: Clock) -> Option<Duration> {
    // There is no watch before the run and while the thread ends.
    let watch = WATCH.try_with(|watch| watch.try_borrow().ok()?.clone());
    let watch = watch.ok().flatten()?;
    watch.at(Point::Clock);
    let elapsed = elapsed();
    Some(match clock {
        Clock::Monotonic => UPTIME + elapsed,
        Clock::Wall => {
            let right = i64::try_from((EPOCH + elapsed).as_micros()).unwrap_or(i64::MAX);
            let shown = right.saturating_add(watch.wall_ahead()).max(0);
            Duration::from_micros(shown.unsigned_abs())
        }
    })
}

#[derive(Debug, Clone, Copy)]
enum Clock {
    Monotonic,
    Wall,
}

/// Fills `bytes` from the seed. Returns `false` if the system's randomness applies.
fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut state) = RANDOM.try_with(Cell::get).ok().flatten() else {
        return false;
    };
    for chunk in bytes.chunks_mut(8) {
        // The generator is SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    RANDOM.set(Some(state));
    true
}
