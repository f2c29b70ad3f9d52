//! A control connection, from the node to the primary and back.

use crate::message::{Message, Primary, Request};

/// Messages that a node has not read yet, at most; longer queues are not searched.
const MOST_UNREAD: usize = 4;

/// A control connection. Redis executes requests one by one, and hands out what has gathered at
/// the end of an iteration of its event loop: first the answers, then the pushes (K5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The primary it leads to.
    pub primary: Primary,
    /// True if pushes come on it.
    pub tracking: bool,
    /// Sent and not yet executed.
    pub requests: Vec<Request>,
    /// Answers of this iteration of the event loop.
    pub answers: Vec<Message>,
    /// On the way to the node, or in its socket.
    pub unread: Vec<Message>,
    /// True if this iteration ends with a push.
    pub push_due: bool,
    /// True if it ends with a null push.
    pub null_push_due: bool,
    /// Ticks since Redis told its time on it; only where something is published.
    pub told_time_for: Option<u8>,
}

impl Connection {
    /// A new one, on which this has been sent.
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

    /// The requests the node has no answer to yet.
    pub(crate) fn awaited(&self) -> Vec<Request> {
        let answered = self.unread.iter().chain(&self.answers);
        let answered = answered.filter_map(|message| message.answers());
        answered.chain(self.requests.iter().copied()).collect()
    }

    /// True if the end of the event loop's iteration changes anything.
    pub(crate) fn has_output(&self) -> bool {
        self.push_due || self.null_push_due || !self.answers.is_empty()
    }

    /// True if the node knows all there is to know, and has asked nothing more.
    pub(crate) fn is_drained(&self) -> bool {
        self.unread.is_empty() && self.requests.is_empty() && !self.has_output()
    }

    /// True if a null push is on its way.
    pub(crate) fn brings_null_push(&self) -> bool {
        self.null_push_due || self.unread.contains(&Message::NullPush)
    }

    /// The event loop's iteration ends. `false` when too much would be unread.
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
