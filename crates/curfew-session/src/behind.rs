//! Publications that are under way together.
//!
//! A command that has to wait lets those behind it wait, for commands act in order. Of publications
//! that is too much: the broker takes them in the order in which it is asked, and a client that
//! sends many at once would be held to one for each round trip. So those that were read together are
//! handed on together, and answered in order. Whatever else comes behind them, be it a close, waits
//! until the last has been answered; and nothing is read from the socket meanwhile.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use curfew_model::{Command, Message, Request};
use tokio::task::coop::{cooperative, has_budget_remaining};
use tokio::time::Instant;

use crate::commands::span::CommandSpan;
use crate::commands::{Operation, Outcome};
use crate::open::State;
use crate::run::Finish;

/// Most publications of a session that are under way at once.
const MAX_UNDER_WAY: usize = 64;

/// What waits behind the command in `State::operation`.
#[derive(Default)]
pub(crate) struct Behind {
    waiting: VecDeque<Waiting>,
    /// What comes after all of them.
    then: Option<Then>,
}

enum Waiting {
    /// A publication that is under way, and when it was read, if it is timed.
    Operation(Operation, Option<Instant>),
    /// One that the broker has answered before those in front of it.
    Done((Outcome, CommandSpan), Option<Instant>),
    /// To one that was not handed on: an error.
    Answer(Bytes),
}

enum Then {
    Text(Box<str>),
    Binary(Box<[u8]>),
    Finish(Finish),
}

impl Behind {
    /// Takes an answer that is not its command's turn yet.
    pub(crate) fn answer(&mut self, frame: Bytes) {
        self.waiting.push_back(Waiting::Answer(frame));
    }
}

impl State {
    /// Whether a message can be looked at although a command waits. Not where that waits only for
    /// others to have their turn.
    pub(crate) fn takes_more(&self) -> bool {
        let has_room =
            |behind: &Behind| behind.then.is_none() && behind.waiting.len() < MAX_UNDER_WAY;
        self.publishes && self.behind.as_deref().is_none_or(has_room) && has_budget_remaining()
    }

    /// Acts on a message behind publications that are under way: another one at once, anything else
    /// after them. `Some` ends the session.
    pub(crate) fn on_message_behind(
        &mut self,
        message: Message<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Finish> {
        let decoded = self.decode(message);
        let behind = self.behind.get_or_insert_default();
        let Ok(Request {
            command: Command::Publish { .. },
            ..
        }) = decoded
        else {
            behind.then = Some(match message {
                Message::Text(text) => Then::Text(text.into()),
                Message::Binary(bytes) => Then::Binary(bytes.into()),
            });
            return None;
        };
        let (first, first_at) = (self.operation.take(), self.command_at);
        let finish = self.act_on(decoded);
        let operation = std::mem::replace(&mut self.operation, first);
        let at = std::mem::replace(&mut self.command_at, first_at);
        if let (Some(mut operation), Some(behind)) = (operation, &mut self.behind) {
            // The broker is asked by the first poll, which must not be put off; later ones are for
            // the first in the queue.
            let waiting = match operation.as_mut().poll(cx) {
                Poll::Ready(done) => Waiting::Done(done, at),
                Poll::Pending => Waiting::Operation(operation, at),
            };
            behind.waiting.push_back(waiting);
        }
        finish
    }

    /// Has the session end after the publications that are under way.
    pub(crate) fn finish_behind(&mut self, finish: Finish) {
        self.behind.get_or_insert_default().then = Some(Then::Finish(finish));
    }

    /// Drives the command that waits, if one does, and what is behind it. `Ready(Some)` ends the
    /// session. A session whose commands never have to wait gives way to others all the same.
    pub(crate) fn poll_operation(&mut self, cx: &mut Context<'_>) -> Poll<Option<Finish>> {
        while let Some(operation) = &mut self.operation {
            let (outcome, span) = ready!(pin!(cooperative(operation.as_mut())).poll(cx));
            self.operation = None;
            // Not there while the command is answered: it is its turn.
            let behind = self.behind.take();
            if let Some(finish) = self.on_outcome(outcome, span) {
                return Poll::Ready(Some(finish));
            }
            self.publishes = false;
            if let Some(behind) = behind
                && let Some(finish) = self.advance(behind)
            {
                return Poll::Ready(Some(finish));
            }
        }
        Poll::Ready(None)
    }

    /// Acts on what comes after publications, once all have been answered. `Some` ends the session.
    pub(crate) fn act_behind(&mut self, behind: Behind) -> Option<Finish> {
        match behind.then? {
            Then::Text(text) => self.on_message(Message::Text(&text)),
            Then::Binary(bytes) => self.on_message(Message::Binary(&bytes)),
            Then::Finish(finish) => Some(finish),
        }
    }

    /// Lets go of the command that waits and of what is behind it. From the back: of publications
    /// that were not sent yet none may leave without those before it.
    pub(crate) fn give_up(&mut self) {
        if let Some(mut behind) = self.behind.take() {
            while behind.waiting.pop_back().is_some() {}
        }
        self.operation = None;
    }

    /// Goes on with what was behind a command: up to the next that waits, or to what comes after
    /// all of them.
    fn advance(&mut self, mut behind: Box<Behind>) -> Option<Finish> {
        while let Some(next) = behind.waiting.pop_front() {
            match next {
                Waiting::Operation(operation, at) => {
                    self.operation = Some(operation);
                    self.command_at = at;
                    self.publishes = true;
                    self.behind = Some(behind);
                    return None;
                }
                Waiting::Done((outcome, span), at) => {
                    self.command_at = at;
                    if let Some(finish) = self.on_outcome(outcome, span) {
                        return Some(finish);
                    }
                }
                Waiting::Answer(frame) => self.send_notice(frame),
            }
        }
        if behind.then.is_some() {
            self.behind = Some(behind);
        }
        None
    }
}
