//! A process that does not run for a while, less than the lease, and goes on as if nothing had been.
//!
//! Pushes that came meanwhile wait in its socket. Nothing says that the node reads it first: another
//! of its tasks may write `connected` to a session whose revocation lies there, well within the
//! lease. So a node that finds that it has not run gives up its lease, until Redis has answered a
//! heartbeat with its barrier that was begun after it found out: all that was pushed before comes
//! before that answer.
//!
//! Searches that are not about this have none of it in their state.

use crate::message::Request;
use crate::node::Node;
use crate::rules::Rules;

/// A stall that is not over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stall {
    /// The node does not run.
    Stopped,
    /// It runs again, and has found out. Heartbeats that were sent before prove nothing.
    Found,
    /// A heartbeat has been sent since.
    Asked,
}

impl Node {
    /// False while it is stopped.
    pub(crate) fn runs(&self) -> bool {
        self.stall != Some(Stall::Stopped)
    }

    /// It goes on.
    pub(crate) fn resume(&mut self, rules: &Rules) {
        self.stall = rules.distrust_after_stall.then_some(Stall::Found);
    }

    /// It sends `request`, which may be the heartbeat that a stall waits for.
    pub(crate) fn asks_after_stall(&mut self, request: Request) {
        if request == Request::Heartbeat && self.stall == Some(Stall::Found) {
            self.stall = Some(Stall::Asked);
        }
    }

    /// A heartbeat and its barrier have been answered. `false` when they prove nothing, since they
    /// were sent before the node found that it had not run.
    pub(crate) fn has_caught_up(&mut self, rules: &Rules) -> bool {
        if self.stall == Some(Stall::Found) && rules.prove_after_stall {
            return false;
        }
        self.stall = None;
        true
    }
}
