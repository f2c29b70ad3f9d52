//! Commands in flight, and the requests that wait for them.
//!
//! Commands take effect in order, so a command in flight blocks the commands after it. For
//! publications, this would be too strict: a client that sends many publications could publish only
//! one per round trip to the broker. The broker preserves the order of the publications that it
//! receives. Publications that were read together are therefore in flight together, and are
//! answered in order. Every other request after these publications, a close included, waits until
//! the last publication is answered. Nothing is read from the socket meanwhile.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use curfew_backend::BoxFuture;
use curfew_model::{ClientRequest, Command, Message};
use curfew_protocol::DecodeError;
use tokio::task::coop::{cooperative, has_budget_remaining};

use crate::commands::span::CommandSpan;
use crate::commands::{AnswerFrame, Outcome, Reaction, RequestInfo};
use crate::open::SessionState;
use crate::run::End;

/// Maximum number of publications queued behind the command that is answered next.
const MAX_UNDER_WAY: usize = 64;

/// A command that waits for the backend.
pub(crate) struct InFlight {
    pub(crate) operation: BoxFuture<'static, Finished>,
    /// True for a publication: further publications may be sent to the broker before this one is
    /// answered.
    pub(crate) is_publication: bool,
}

/// A command that waited, with its outcome.
pub(crate) struct Finished {
    pub(crate) request: RequestInfo,
    pub(crate) outcome: Outcome,
    pub(crate) span: CommandSpan,
}

/// The commands of a session that are in flight, in the order in which they were read.
#[derive(Default)]
pub(crate) struct Pipeline {
    /// The command to be answered next. It is stored apart from later commands, because later
    /// commands are rarely present.
    front: Option<InFlight>,
    behind: Option<Box<Behind>>,
}

#[derive(Default)]
struct Behind {
    slots: VecDeque<Slot>,
    /// The request or end to act on once every slot is answered.
    then: Option<Then>,
}

enum Slot {
    /// A publication in flight.
    InFlight(InFlight),
    /// A publication that the broker answered before the publications ahead of it.
    Finished(Box<Finished>),
    /// The answer to a publication that was not handed to the broker.
    Answer(AnswerFrame),
}

/// A request or an end that waits until nothing is in flight.
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
    /// Returns true if no command is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.front.is_none()
    }

    /// Returns true if something is stored behind a command in flight. The result stays true after
    /// all commands are answered, until `act_behind` acts on the request or end in `Behind::then`.
    pub(crate) fn has_more(&self) -> bool {
        self.behind.is_some()
    }

    /// Returns true if another message can be decoded while publications are in flight. No other
    /// command may be in flight, the queue must have room, and this task must not have used up the
    /// budget that the tokio runtime gives it.
    pub(crate) fn takes_more(&self) -> bool {
        let has_room =
            |behind: &Behind| behind.then.is_none() && behind.slots.len() < MAX_UNDER_WAY;
        self.front
            .as_ref()
            .is_some_and(|front| front.is_publication)
            && self.behind.as_deref().is_none_or(has_room)
            && has_budget_remaining()
    }

    /// Returns true if a request can be acted on now: nothing is in flight, or the request is a
    /// publication behind other publications.
    fn takes(&self, request: &Result<ClientRequest<'_>, DecodeError>) -> bool {
        let is_publication = matches!(
            request,
            Ok(ClientRequest::Command {
                command: Command::Publish { .. },
                ..
            })
        );
        self.is_idle() || (is_publication && self.takes_more())
    }

    /// Adds a command that waits. A publication behind other publications is polled at once, so
    /// that the broker is asked in order. The broker's answer may come later.
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

    /// Drops all commands, starting from the back: a publication must not be sent without the
    /// publications before it.
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
    /// Acts on the requests of a message one by one. `Ready(Some)` ends the session. `Pending`
    /// while a command is in flight. The requests that cannot be acted on meanwhile are stored
    /// until that command is answered.
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
            // The pipeline is polled before the next request is decoded, so that the broker is
            // asked in order.
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

    /// Ends the session after the commands in flight.
    pub(crate) fn end_in_turn(&mut self, end: End) -> Poll<Option<End>> {
        if self.pipeline.is_idle() {
            return Poll::Ready(Some(end));
        }
        self.pipeline.then(Then::End(end));
        Poll::Pending
    }

    /// Polls the commands in flight and completes them in order. `Ready(Some)` ends the session.
    /// Yields regularly, even if no command ever waits.
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

    /// Acts on the request stored behind the commands that were in flight. `Ready(Some)` ends the
    /// session.
    pub(crate) fn act_behind(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let behind = self.pipeline.behind.take();
        match behind.and_then(|behind| behind.then) {
            // The client has been told that no session opens, so the rest of its message is
            // ignored.
            Some(Then::Text(_) | Then::Binary(_)) if self.leaving.is_some() => Poll::Ready(None),
            Some(Then::Text(text)) => self.on_message(Message::Text(&text), cx),
            Some(Then::Binary(bytes)) => self.on_message(Message::Binary(&bytes), cx),
            Some(Then::End(end)) => Poll::Ready(Some(end)),
            None => Poll::Ready(None),
        }
    }

    /// Answers finished commands, up to the next command in flight.
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
        // Frees an empty queue, so that an idle session holds no queue.
        self.pipeline.behind.take_if(|behind| behind.then.is_none());
        None
    }
}
