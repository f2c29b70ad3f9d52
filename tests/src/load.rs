//! Load, and looking at what comes of it without trusting the test's own clock.
//!
//! A test that is not scheduled reads late what came in time. So nothing here is late because it was
//! read late. What a node has written to its clients is known from the kernels' queues, read or not:
//! a [`Mark`] in each stream of bytes divides what was written before a moment from what was written
//! after it. What Redis has executed is placed between ticks that it executed as well, and a tick
//! knows when it was sent.

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
