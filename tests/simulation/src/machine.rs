//! The machine under the nodes: time, randomness, and a thread that can be held up.
//!
//! Owns: what the C library's clocks and randomness say on a simulated thread.
//! Knows nothing of: nodes, networks.
//!
//! Virtual time is tokio's paused clock: it moves when every task waits, to the next timer. What
//! asks the C library for the time gets that time, by the clocks of the node whose code runs.

mod libc;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time;

pub use libc::{Child, run_apart};

/// Monotonic clocks begin a run with this.
const UPTIME: Duration = Duration::from_secs(5_000);

/// A right wall clock begins it with this: 2027-01-15.
pub const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// A place in a node's code where it asks something of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A clock is read.
    Clock,
    /// Bytes are handed to a socket.
    Write,
}

/// It decides at each [`Point`].
pub trait Watch {
    /// By how much the running node's wall clock is ahead, in microseconds; negative: behind.
    fn wall_ahead(&self) -> i64;

    /// Called at each point of a node's code. What it does happens while that code stands still.
    fn at(&self, point: Point);
}

thread_local! {
    static WATCH: RefCell<Option<Rc<dyn Watch>>> = const { RefCell::new(None) };
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's randomness comes from the seed.
pub fn seed(seed: u64) {
    RANDOM.set(Some(seed));
    fastrand::seed(seed);
}

/// From here on this thread's clocks are virtual. To be called in a runtime whose clock is paused.
pub fn start(watch: Rc<dyn Watch>) {
    WATCH.set(Some(watch));
}

/// The virtual time since the run began, which is at the first call.
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

/// Lets time pass while the caller stands still.
pub fn pass(time: Duration) {
    let advance = pin!(time::advance(time));
    // The first poll moves the clock; the second would only say so.
    let said = advance.poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(said.is_pending(), "it yields once");
}

/// Asks what holds a node up.
pub fn at(point: Point) {
    let watch = WATCH.with_borrow(Clone::clone);
    if let Some(watch) = watch {
        watch.at(point);
    }
}

/// The time by a clock of this thread; `None` where it is the system's.
fn shows(clock: Clock) -> Option<Duration> {
    // Neither before the run nor while the thread ends.
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

/// Random bytes from the seed; `false` where they are the system's.
fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut state) = RANDOM.try_with(Cell::get).ok().flatten() else {
        return false;
    };
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64 (Steele, Lea, Flood 2014).
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
