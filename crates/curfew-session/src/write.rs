//! Writing: what waits in the outbox leaves in as few writes as possible, with a deadline.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use curfew_hub::{Outgoing, Sent, Standing};
use curfew_model::Disconnect;
use curfew_ws::{Front, Transport};
use tokio::time::Instant;

use crate::Session;
use crate::run::Finish;

/// The socket and the frames on their way into it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) transport: Transport,
    /// Taken from the outbox, not yet written. The front frame may be written in part.
    in_flight: VecDeque<Bytes>,
    /// Whether part of the front frame has been written.
    partial: bool,
    /// Bytes written that the outbox has not been told of yet.
    written: usize,
    /// Bytes in front that the outbox never knew of.
    uncounted: usize,
    /// Bytes in front that answer the upgrade request, without which no frame means anything.
    answer: usize,
    /// A TLS stream holds written bytes back until it is flushed.
    unflushed: bool,
    /// What may not be written as long as the node cannot vouch for the session.
    aside: Option<Box<Aside>>,
}

/// Frames that wait until the node can vouch for the session again. Those written meanwhile go
/// past them.
#[derive(Debug)]
struct Aside {
    frames: VecDeque<Bytes>,
    /// A frame was begun and cannot be completed now: nothing can go past it.
    stuck: bool,
}

/// Why a session waits although there may be something to write or to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldBack {
    /// A revocation that may name it is being read.
    Suspended,
    /// The node cannot vouch for its sessions.
    Unvouched,
}

impl Writer {
    /// `answer` is written first, whatever becomes of the session.
    pub(crate) fn new(transport: Transport, answer: Bytes) -> Self {
        Self {
            transport,
            partial: false,
            written: 0,
            uncounted: answer.len(),
            answer: answer.len(),
            in_flight: Some(answer)
                .filter(|answer| !answer.is_empty())
                .into_iter()
                .collect(),
            unflushed: false,
            aside: None,
        }
    }

    /// Whether the socket, when last asked, did not take all that was to be written.
    fn is_blocked(&self) -> bool {
        self.unflushed || !self.in_flight.is_empty()
    }

    /// Whether frames are in flight, the answer to the upgrade request aside.
    fn has_frames(&self) -> bool {
        self.in_flight.len() > usize::from(self.answer > 0)
    }

    /// Takes the answer to the upgrade request back if it is all there is and nothing of it is
    /// written: it can leave together with frames.
    fn take_lone_answer(&mut self) -> Option<Bytes> {
        let is_lone = self.answer > 0 && !self.partial && self.in_flight.len() == 1;
        is_lone.then(|| self.in_flight.pop_front()).flatten()
    }

    /// How many frames wait for the socket.
    pub(crate) fn waiting(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether a frame was begun and is not complete.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial && self.answer == 0
    }

    /// How many in front stay there in any case: the answer to the upgrade request, or the rest of
    /// a frame begun.
    fn fixed(&self) -> usize {
        usize::from(self.partial || self.answer > 0)
    }

    /// Forgets what is not on the wire yet, but for the answer to the upgrade request and the rest
    /// of a frame begun.
    pub(crate) fn discard(&mut self) {
        self.aside = None;
        self.in_flight.truncate(self.fixed());
    }

    /// Adds a frame behind what is in flight, past the outbox: before the session is open, while
    /// the node cannot vouch for it, and when it closes.
    pub(crate) fn append(&mut self, frame: Bytes) {
        self.uncounted += frame.len();
        self.in_flight.push_back(frame);
    }

    /// Puts aside what is in flight, but for the rest of a frame begun. Returns whether other
    /// frames can be written now.
    fn set_aside(&mut self) -> bool {
        let (fixed, stuck) = (self.fixed(), self.is_partial());
        let aside = self.aside.get_or_insert_with(|| {
            let frames = self.in_flight.split_off(fixed);
            Box::new(Aside { frames, stuck })
        });
        !aside.stuck
    }

    /// Takes back what was put aside.
    fn restore(&mut self) {
        if let Some(mut aside) = self.aside.take() {
            self.in_flight.append(&mut aside.frames);
        }
    }

    /// Writes until all is written (`Ready(Ok)`) or the socket takes no more (`Pending`).
    /// Returns through `progress` whether anything was written.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.in_flight.is_empty() {
            let written = ready!(self.poll_write_some(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *progress = true;
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(self.transport.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// One write of what is in front.
    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Front::of(&self.in_flight, |front| {
            self.transport.poll_write(cx, front)
        })
    }

    fn advance(&mut self, written: usize) {
        let uncounted = written.min(self.uncounted);
        self.uncounted -= uncounted;
        self.answer = self.answer.saturating_sub(written);
        self.written += written - uncounted;
        Front::advance(&mut self.in_flight, written, &mut self.partial);
    }
}

impl Session {
    /// Takes the socket over from the flushers, for this poll.
    pub(crate) fn claim_socket(&mut self) {
        let Some(live) = &self.state.live else { return };
        // Flushers write only when nothing is in flight here.
        if let Some(rest) = live.attachment.member().outbox().claim() {
            self.writer.in_flight.push_front(rest);
            self.writer.partial = true;
        }
    }

    /// Takes what is queued and writes it until nothing is left or the socket takes no more.
    /// Ready when that ends the session.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        self.held_back = None;
        // What an earlier poll left in flight may have been there for long: access may be over.
        if self.writer.has_frames()
            && let Some(finish) = ready_some(self.interrupted())
        {
            return finish;
        }
        loop {
            // Asked before anything is handed to the socket: the lease may have ended since it was
            // queued, and so may this process have been stopped.
            if self.has_something_to_write() && !self.state.is_vouched() {
                return self.poll_write_unvouched(cx);
            }
            self.writer.restore();
            self.append_urgent();
            let answer = match &self.state.live {
                Some(_) => self.writer.take_lone_answer(),
                None => None,
            };
            if answer.is_none() {
                match self.poll_socket(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Finish::Gone),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let Some(live) = &self.state.live else {
                return Poll::Pending;
            };
            let member = live.attachment.member();
            let written = std::mem::take(&mut self.writer.written);
            self.state
                .context
                .metrics()
                .sent_bytes
                .inc_by(written as u64);
            let hub = self.state.context.node.hub();
            let outgoing = member.take_outgoing(hub, written, &mut self.writer.in_flight);
            if outgoing == Some(Outgoing::Frames) {
                let mut sent = Sent::default();
                sent.add(&self.writer.in_flight);
                sent.count(self.state.context.metrics());
            }
            let had_answer = answer.is_some();
            if let Some(answer) = answer {
                self.writer.in_flight.push_front(answer);
            }
            match outgoing {
                None if had_answer => return self.poll_write_alone(cx),
                None => return Poll::Pending,
                Some(Outgoing::Frames) if self.state.is_expired() => {
                    return Poll::Ready(Disconnect::EXPIRED.into());
                }
                Some(Outgoing::Frames) => {}
                Some(Outgoing::Reconsider) => self.state.reconsider(),
                Some(Outgoing::End(ending)) => return Poll::Ready(Finish::Ended(ending)),
            }
        }
    }

    /// Writes what is in flight, which is all there is to write.
    fn poll_write_alone(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        match self.poll_socket(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Finish::Gone),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn has_something_to_write(&self) -> bool {
        !self.writer.in_flight.is_empty()
            || self.writer.aside.is_some()
            || !self.state.urgent.is_empty()
    }

    /// While the node cannot vouch for the session, only what the session's own task has to say
    /// leaves: that commands are not acted on, pings, and the close. The rest waits.
    fn poll_write_unvouched(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        self.held_back = Some(HeldBack::Unvouched);
        let can_write = self.writer.set_aside();
        if let Some(live) = &self.state.live
            && let Some(ending) = live.attachment.member().outbox().ending()
        {
            return Poll::Ready(Finish::Ended(ending));
        }
        if !can_write {
            // The peer is not to blame.
            self.state.deadlines.write_by = None;
            return Poll::Pending;
        }
        self.append_urgent();
        self.poll_write_alone(cx)
    }

    /// Puts what is to be told at once in flight.
    fn append_urgent(&mut self) {
        for frame in std::mem::take(&mut self.state.urgent) {
            self.writer.append(frame);
        }
    }

    /// Writes what is in flight, and keeps the deadline for it.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut progress = false;
        let drained = self.writer.poll_drain(cx, &mut progress);
        if progress || drained.is_ready() {
            self.state.deadlines.write_by = None;
        }
        if drained.is_pending() {
            self.start_write_deadline();
        }
        drained
    }

    /// Registers to be woken by the outbox. Ready when there is something in it after all.
    pub(crate) fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(live) = &self.state.live else {
            return Poll::Pending;
        };
        let outbox = live.attachment.member().outbox();
        // While the socket takes no more, or may be given no more, only an interruption is worth
        // waking up for.
        let blocked = self.writer.is_blocked() || self.held_back.is_some();
        ready_or(outbox.poll_wake(cx, blocked), || match self.held_back {
            None => false,
            // Looked at once more, now that whoever ends it wakes this task.
            Some(HeldBack::Suspended) => outbox.standing() != Standing::Suspended,
            Some(HeldBack::Unvouched) => self.state.is_vouched(),
        })
    }

    /// While frames are in flight: `Ready` when access to them is over, `Pending` when they have
    /// to wait.
    fn interrupted(&mut self) -> Poll<Option<Finish>> {
        let Some(live) = &self.state.live else {
            return Poll::Ready(None);
        };
        let outbox = live.attachment.member().outbox();
        match outbox.interruption() {
            Some(Outgoing::End(ending)) => return Poll::Ready(Some(Finish::Ended(ending))),
            Some(Outgoing::Reconsider) => self.state.reconsider(),
            Some(Outgoing::Frames) | None if outbox.standing() == Standing::Suspended => {
                self.held_back = Some(HeldBack::Suspended);
                return Poll::Pending;
            }
            Some(Outgoing::Frames) | None => {}
        }
        let expired = self.state.is_expired();
        Poll::Ready(expired.then(|| Disconnect::EXPIRED.into()))
    }

    fn start_write_deadline(&mut self) {
        // The ping that is to be answered may wait as well: the write deadline judges the peer.
        self.state.deadlines.heard();
        if self.state.deadlines.write_by.is_none() {
            let timeout = self.state.context.settings.load().session.write_timeout;
            self.state.deadlines.write_by = Instant::now().checked_add(timeout);
        }
    }
}

/// What ends a poll early: `Pending`, or `Ready` with something in it.
fn ready_some<T>(poll: Poll<Option<T>>) -> Option<Poll<T>> {
    match poll {
        Poll::Pending => Some(Poll::Pending),
        Poll::Ready(Some(value)) => Some(Poll::Ready(value)),
        Poll::Ready(None) => None,
    }
}

/// `poll`, or ready when `otherwise` holds.
fn ready_or(poll: Poll<()>, otherwise: impl FnOnce() -> bool) -> Poll<()> {
    match poll {
        Poll::Pending if otherwise() => Poll::Ready(()),
        poll => poll,
    }
}
