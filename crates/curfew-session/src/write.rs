//! Writing: what waits in the outbox leaves in vectored writes, with a deadline.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use curfew_hub::Outgoing;
use curfew_model::Disconnect;
use curfew_ws::Transport;
use tokio::time::Instant;

use crate::Session;
use crate::run::Finish;

/// Frames written by one system call. More gain little: at 64 the call is a small part of a frame's
/// cost.
const FRAMES_PER_WRITE: usize = 64;

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
    /// A TLS stream holds written bytes back until it is flushed.
    unflushed: bool,
}

impl Writer {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            in_flight: VecDeque::new(),
            partial: false,
            written: 0,
            uncounted: 0,
            unflushed: false,
        }
    }

    /// Whether the socket, when last asked, did not take all that was to be written.
    fn is_blocked(&self) -> bool {
        self.unflushed || !self.in_flight.is_empty()
    }

    /// Forgets what is not on the wire yet, but for the rest of a frame begun.
    pub(crate) fn discard(&mut self) {
        self.in_flight.truncate(usize::from(self.partial));
    }

    /// Adds a frame behind what is in flight, past the outbox: before the session is open, and
    /// when it closes.
    pub(crate) fn append(&mut self, frame: Bytes) {
        self.uncounted += frame.len();
        self.in_flight.push_back(frame);
    }

    /// Writes until all is written (`Ready(Ok)`) or the socket takes no more (`Pending`).
    /// Returns through `progress` whether anything was written.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.in_flight.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
            let count = self.in_flight.len().min(FRAMES_PER_WRITE);
            for (slice, frame) in slices.iter_mut().zip(&self.in_flight) {
                *slice = IoSlice::new(frame);
            }
            let written = ready!(self.transport.poll_write_vectored(cx, &slices[..count]))?;
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

    fn advance(&mut self, mut written: usize) {
        let uncounted = written.min(self.uncounted);
        self.uncounted -= uncounted;
        self.written += written - uncounted;
        while let Some(front) = self.in_flight.front_mut() {
            if written < front.len() {
                self.partial = self.partial || written > 0;
                front.advance(written);
                return;
            }
            written -= front.len();
            self.in_flight.pop_front();
            self.partial = false;
        }
    }
}

impl Session {
    /// Takes what is queued and writes it until nothing is left or the socket takes no more.
    /// Ready when that ends the session.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        // What an earlier poll left in flight may have been there for long: access may be over.
        if !self.writer.in_flight.is_empty()
            && let Some(finish) = self.interrupted()
        {
            return Poll::Ready(finish);
        }
        loop {
            let mut progress = false;
            let drained = self.writer.poll_drain(cx, &mut progress);
            if progress || drained.is_ready() {
                self.state.deadlines.write_by = None;
            }
            match drained {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Finish::Gone),
                Poll::Pending => {
                    self.start_write_deadline();
                    return Poll::Pending;
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
            match member.take_outgoing(hub, written, &mut self.writer.in_flight) {
                None => return Poll::Pending,
                Some(Outgoing::Frames) => {
                    self.state.count_sent(&self.writer.in_flight);
                    if self.state.is_expired() {
                        return Poll::Ready(Disconnect::EXPIRED.into());
                    }
                }
                Some(Outgoing::Reconsider) => self.state.reconsider(),
                Some(Outgoing::End(ending)) => return Poll::Ready(Finish::Ended(ending)),
            }
        }
    }

    /// Registers to be woken by the outbox. Ready when there is something in it after all.
    pub(crate) fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state.live {
            None => Poll::Pending,
            Some(live) => {
                // While the socket takes no more, only an interruption is worth waking up for.
                let blocked = self.writer.is_blocked();
                live.attachment.member().outbox().poll_wake(cx, blocked)
            }
        }
    }

    /// While frames are in flight: whether access to them is over.
    fn interrupted(&mut self) -> Option<Finish> {
        let live = self.state.live.as_ref()?;
        match live.attachment.member().outbox().interruption() {
            Some(Outgoing::End(ending)) => return Some(Finish::Ended(ending)),
            Some(Outgoing::Reconsider) => self.state.reconsider(),
            Some(Outgoing::Frames) | None => {}
        }
        self.state.is_expired().then(|| Disconnect::EXPIRED.into())
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
