//! Load on gateways, and observations that stay correct if the test process is not scheduled in
//! time.
//!
//! A test process that is not scheduled reads late, even if the bytes arrived in time. A frame that
//! was read late therefore does not yet count as late. The kernel's queues show which bytes a node
//! has written to its clients, even if the test has not read them. A [`Mark`] in each stream of
//! bytes separates bytes that were written before a moment from later bytes. The test also
//! publishes ticks: messages with the time at which they were sent. Redis executes ticks and
//! publications in one order, so the times of the ticks bound the times of the publications.

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
