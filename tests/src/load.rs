//! Load, and observation of its effects without trust in the test's own clock.
//!
//! A test process that is not scheduled reads late, even if the bytes arrived in time. Nothing here
//! therefore counts as late only because it was read late. The kernel's queues show which bytes a
//! node has written to its clients, even if the test has not read them. A [`Mark`] in each stream
//! of bytes separates bytes that were written before a moment from later bytes. Publications at
//! Redis are ordered relative to ticks, which Redis executes too. Each tick carries the time at
//! which it was sent.

mod audience;
mod flood;
mod moment;
mod queues;
mod witness;

pub use audience::{Audience, Late, Mark};
pub use flood::Flood;
pub use moment::Moment;
pub use queues::Queues;
pub use witness::{Executed, WITNESS, Witness};
