//! A process that does not run for a while, less than the lease, and then continues without notice.
//!
//! Pushes that arrived meanwhile wait in its socket, and the node may not read them first: another
//! of its tasks may write `connected` to a session whose revocation lies there, well within the
//! lease. So a node that finds that it did not run gives up its lease. It waits until Redis has
//! answered a heartbeat with its barrier that the node began after this finding. Every earlier push
//! comes before that answer.
//!
//! Only some searches have this in their state.

use crate::message::Request;
use crate::node::Node;
use crate::rules::Rules;

/// A stall that is not over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stall {
    /// The node does not run.
    Stopped,
    /// The node runs again, and has noticed the stall. Earlier heartbeats prove nothing.
    Found,
    /// The node has sent a heartbeat since.
    Asked,
}

impl Node {
    /// False while the node is stopped.
    pub(crate) fn runs(&self) -> bool {
        self.stall != Some(Stall::Stopped)
    }

    /// Lets the node run again.
    pub(crate) fn resume(&mut self, rules: &Rules) {
        self.stall = rules.distrust_after_stall.then_some(Stall::Found);
    }

    /// Notes `request`, which may be the heartbeat that the stall waits for.
    pub(crate) fn asks_after_stall(&mut self, request: Request) {
        if request == Request::Heartbeat && self.stall == Some(Stall::Found) {
            self.stall = Some(Stall::Asked);
        }
    }

    /// Handles the answers to a heartbeat and its barrier. Returns `false` if they prove nothing,
    /// because they were sent before the node noticed the stall.
    pub(crate) fn has_caught_up(&mut self, rules: &Rules) -> bool {
        if self.stall == Some(Stall::Found) && rules.prove_after_stall {
            return false;
        }
        self.stall = None;
        true
    }
}
