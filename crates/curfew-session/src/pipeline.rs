//! Commands under way, and what waits for them.
//!
//! A command that has to wait lets those behind it wait, for commands act in order. Of publications
//! that is too much: the broker takes them in the order in which it is asked, and a client that
//! sends many at once would be held to one for each round trip. So those that were read together are
//! handed on together, and answered in order. All else that comes behind them, a close included, waits
//! until the last has been answered; and nothing is read from the socket meanwhile.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use curfew_backend::BoxFuture;
use curfew_model::{Command, Message, Request};
use curfew_protocol::DecodeError;
use tokio::task::coop::{cooperative, has_budget_remaining};

use crate::commands::span::CommandSpan;
use crate::commands::{AnswerFrame, Outcome, Reaction, RequestInfo};
use crate::open::SessionState;
use crate::run::End;

/// Most publications of a session that are under way at once.
const MAX_UNDER_WAY: usize = 64;

/// A command that waits for the backend; in the end its outcome.
pub(crate) struct InFlight {
    pub(crate) operation: BoxFuture<'static, Finished>,
    /// Others of its kind may follow before it is answered.
    pub(crate) is_publication: bool,
}

/// A command that waited, and its outcome.
pub(crate) struct Finished {
    pub(crate) request: RequestInfo,
    pub(crate) outcome: Outcome,
    pub(crate) span: CommandSpan,
}

/// The commands of a session that are under way, in the order in which they were read.
#[derive(Default)]
pub(crate) struct Pipeline {
    /// The one whose turn it is to be answered. Apart from the others, since there are nearly never
    /// any.
    front: Option<InFlight>,
    behind: Option<Box<Behind>>,
}

#[derive(Default)]
struct Behind {
    slots: VecDeque<Slot>,
    /// Looked at after all of them.
    then: Option<Then>,
}

enum Slot {
    /// A publication that is under way.
    InFlight(InFlight),
    /// One that the broker has answered before those in front of it.
    Finished(Box<Finished>),
    /// The answer to one that was not handed on.
    Answer(AnswerFrame),
}

/// Looked at once nothing is under way.
enum Then {
    Text(Box<str>),
    Binary(Box<[u8]>),
    End(End),
}

impl From<Message<'_>> for Then {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(bytes.into()),
        }
    }
}

impl Pipeline {
    /// No command is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.front.is_none()
    }

    /// Something comes after all that is under way, or was.
    pub(crate) fn has_more(&self) -> bool {
        self.behind.is_some()
    }

    /// A message can be looked at although a command is under way. Not where that waits only for others
    /// to have their turn.
    pub(crate) fn takes_more(&self) -> bool {
        let has_room =
            |behind: &Behind| behind.then.is_none() && behind.slots.len() < MAX_UNDER_WAY;
        self.front
            .as_ref()
            .is_some_and(|front| front.is_publication)
            && self.behind.as_deref().is_none_or(has_room)
            && has_budget_remaining()
    }

    /// A request can be acted on now: nothing is under way, or it is a publication behind others.
    fn takes(&self, request: &Result<Request<'_>, DecodeError>) -> bool {
        let is_publication = matches!(
            request,
            Ok(Request::Command {
                command: Command::Publish { .. },
                ..
            })
        );
        self.is_idle() || (is_publication && self.takes_more())
    }

    /// Adds a command that waits. One behind others is polled at once: that asks the broker, in the
    /// order of the publications, and its answer can wait.
    fn add(&mut self, mut waits: InFlight, cx: &mut Context<'_>) {
        if self.front.is_none() {
            self.front = Some(waits);
            return;
        }
        let slot = match waits.operation.as_mut().poll(cx) {
            Poll::Ready(finished) => Slot::Finished(Box::new(finished)),
            Poll::Pending => Slot::InFlight(waits),
        };
        self.behind.get_or_insert_default().slots.push_back(slot);
    }

    fn next(&mut self) -> Option<Slot> {
        self.behind.as_mut()?.slots.pop_front()
    }

    /// Lets go of all of them. From the back: of publications that were not sent yet none may leave
    /// without those before it.
    pub(crate) fn give_up(&mut self) {
        if let Some(mut behind) = self.behind.take() {
            while behind.slots.pop_back().is_some() {}
        }
        self.front = None;
    }

    fn then(&mut self, then: Then) {
        self.behind.get_or_insert_default().then = Some(then);
    }
}

impl SessionState {
    /// Acts on a message, one request after another. `Ready(Some)` ends the session. Pending while a
    /// command is under way; what may not be acted on before its end is kept.
    pub(crate) fn on_message(
        &mut self,
        message: Message<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<End>> {
        let mut rest = message;
        loop {
            let message = rest;
            let request = self.decode(&mut rest);
            if !self.pipeline.takes(&request) {
                self.pipeline.then(message.into());
                return Poll::Pending;
            }
            match self.act_on(request) {
                Reaction::Done(answer) if self.pipeline.is_idle() => self.answer(answer),
                Reaction::Done(None) => {}
                Reaction::Done(Some(answer)) => {
                    let behind = self.pipeline.behind.get_or_insert_default();
                    behind.slots.push_back(Slot::Answer(answer));
                }
                Reaction::Waits(waits) => self.pipeline.add(waits, cx),
                Reaction::Ends(end) => return self.end_in_turn(end),
            }
            // The broker is asked for each before the next is looked at.
            match self.poll_pipeline(cx) {
                Poll::Ready(Some(finish)) => return Poll::Ready(Some(finish)),
                Poll::Ready(None) | Poll::Pending if rest.is_empty() => break,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        match self.pipeline.is_idle() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// Has the session end after the commands that are under way.
    pub(crate) fn end_in_turn(&mut self, end: End) -> Poll<Option<End>> {
        if self.pipeline.is_idle() {
            return Poll::Ready(Some(end));
        }
        self.pipeline.then(Then::End(end));
        Poll::Pending
    }

    /// Drives the commands that are under way. `Ready(Some)` ends the session. A session whose commands
    /// never have to wait gives way to others all the same.
    pub(crate) fn poll_pipeline(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        while let Some(front) = &mut self.pipeline.front {
            let finished = ready!(pin!(cooperative(front.operation.as_mut())).poll(cx));
            self.pipeline.front = None;
            if let Some(end) = self.on_finished(finished).or_else(|| self.advance()) {
                return Poll::Ready(Some(end));
            }
        }
        Poll::Ready(None)
    }

    /// Acts on what comes after the commands that were under way. `Ready(Some)` ends the session.
    pub(crate) fn act_behind(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let behind = self.pipeline.behind.take();
        match behind.and_then(|behind| behind.then) {
            Some(Then::Text(text)) => self.on_message(Message::Text(&text), cx),
            Some(Then::Binary(bytes)) => self.on_message(Message::Binary(&bytes), cx),
            Some(Then::End(end)) => Poll::Ready(Some(end)),
            None => Poll::Ready(None),
        }
    }

    /// Answers what is finished, up to the next command that waits.
    fn advance(&mut self) -> Option<End> {
        while let Some(slot) = self.pipeline.next() {
            match slot {
                Slot::InFlight(waits) => {
                    self.pipeline.front = Some(waits);
                    return None;
                }
                Slot::Finished(finished) => {
                    if let Some(end) = self.on_finished(*finished) {
                        return Some(end);
                    }
                }
                Slot::Answer(answer) => self.answer(Some(answer)),
            }
        }
        // A session without any holds no queue.
        self.pipeline.behind.take_if(|behind| behind.then.is_none());
        None
    }
}
