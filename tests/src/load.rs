//! Load, and observation of its effects without trust in the test's own clock.
//!
//! A test process that is not scheduled reads late, even if the bytes came in time. So nothing here
//! counts as late because it was read late. The kernels' queues show which bytes a node has written
//! to its clients, read or not: a [`Mark`] in each stream of bytes separates bytes written before a
//! moment from later ones. Publications at Redis are ordered between ticks that Redis also
//! executed, and each tick carries the time of its sending.

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
