//! A control connection, from the node to the primary and back.

use crate::message::{Message, Primary, Request};

/// Maximum number of unread messages on a connection. States with more unread messages are not
/// searched.
const MOST_UNREAD: usize = 4;

/// A control connection. Redis executes requests one by one. At the end of an iteration of its
/// event loop it sends the collected output: first the answers, then the pushes (K5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The primary at the other end.
    pub primary: Primary,
    /// True if Redis sends pushes on the connection.
    pub tracking: bool,
    /// Requests that were sent and are not yet executed.
    pub requests: Vec<Request>,
    /// Answers that Redis sends when this iteration of its event loop ends.
    pub answers: Vec<Message>,
    /// Messages on the way to the node, or in its socket.
    pub unread: Vec<Message>,
    /// True if this iteration ends with a push.
    pub push_due: bool,
    /// True if this iteration ends with a null push.
    pub null_push_due: bool,
    /// Number of ticks since Redis sent its time, if the node has not read that time yet; only in
    /// searches with a publication.
    pub told_time_for: Option<u8>,
}

impl Connection {
    /// A new connection on which the request `first` has been sent, if there is one.
    pub(crate) fn new(primary: Primary, first: Option<Request>) -> Self {
        Self {
            primary,
            tracking: false,
            requests: first.into_iter().collect(),
            answers: Vec::new(),
            unread: Vec::new(),
            push_due: false,
            null_push_due: false,
            told_time_for: None,
        }
    }

    /// The requests to which the node has no answer yet.
    pub(crate) fn awaited(&self) -> Vec<Request> {
        let answered = self.unread.iter().chain(&self.answers);
        let answered = answered.filter_map(|message| message.answers());
        answered.chain(self.requests.iter().copied()).collect()
    }

    /// True if Redis has output to send when the iteration of its event loop ends.
    pub(crate) fn has_output(&self) -> bool {
        self.push_due || self.null_push_due || !self.answers.is_empty()
    }

    /// True if no message to the node and no request of the node is under way.
    pub(crate) fn is_drained(&self) -> bool {
        self.unread.is_empty() && self.requests.is_empty() && !self.has_output()
    }

    /// True if a null push is on its way.
    pub(crate) fn brings_null_push(&self) -> bool {
        self.null_push_due || self.unread.contains(&Message::NullPush)
    }

    /// Ends the iteration of the event loop. Returns `false` if more than `MOST_UNREAD` messages
    /// are then unread.
    pub(crate) fn end_iteration(&mut self) -> bool {
        self.unread.append(&mut self.answers);
        if self.push_due {
            self.unread.push(Message::Push);
            self.push_due = false;
        }
        if self.null_push_due {
            self.unread.push(Message::NullPush);
            self.null_push_due = false;
        }
        self.unread.len() <= MOST_UNREAD
    }
}
