//! Stalls: a process does not run for a time shorter than the lease, and then continues without
//! notice.
//!
//! Pushes that arrive during the stall wait in a socket of the process. Before the node reads the
//! pushes, another of its tasks may write `connected` to a session whose revocation is in the
//! socket, while the lease still lasts. A node that notices that it did not run therefore gives up
//! its lease. It waits until Redis has answered a heartbeat and a barrier that the node sent after
//! it noticed the stall. Every earlier push arrives before these answers.
//!
//! Only some searches have stalls in their state.

use crate::message::Request;
use crate::node::Node;
use crate::rules::Rules;

/// A stall that is not over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stall {
    /// The node does not run.
    Stopped,
    /// The node runs again, and has noticed the stall. The answer to a heartbeat that was sent
    /// before proves nothing.
    Found,
    /// The node has sent a heartbeat since it noticed the stall.
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

    /// Records that `request` is sent, which may be the heartbeat that ends the stall.
    pub(crate) fn asks_after_stall(&mut self, request: Request) {
        if request == Request::Heartbeat && self.stall == Some(Stall::Found) {
            self.stall = Some(Stall::Asked);
        }
    }

    /// Handles the answers to a heartbeat and its barrier. Returns `false` if the answers prove
    /// nothing, because the requests were sent before the node noticed the stall.
    pub(crate) fn has_caught_up(&mut self, rules: &Rules) -> bool {
        if self.stall == Some(Stall::Found) && rules.prove_after_stall {
            return false;
        }
        self.stall = None;
        true
    }
}
