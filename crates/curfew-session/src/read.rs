//! Reading: bytes go into a buffer of the worker thread, and each frame in them is acted on in
//! order.

use std::task::{Context, Poll, ready};

use curfew_hub::{HeldBack, Opcode, Standing};
use curfew_model::{Disconnect, Message};
use curfew_ws::{Event, Input, Limits, ProtocolError, frame, with_read_buffer};
use tokio::time::Instant;
use tracing::debug;

use crate::open::SessionState;
use crate::run::{End, Step};
use crate::write::Output;
use crate::{Session, SessionSettings};

/// Number of bytes that the session reads before other tasks run. Until those tasks run, the
/// session's publications wait in the subscribers' queues.
const BYTES_IN_A_TURN: usize = 128 * 1024;

/// Number of queued notices at which the session stops reading. While the node holds no lease,
/// commands are not acted on, and each is answered with a notice.
const MAX_NOTICES: usize = 64;

impl Session {
    /// Continues the commands in flight. If there are none, reads from the socket and acts on the
    /// frames. Nothing is read while a command is in flight, because commands take effect in order,
    /// and because the unread socket slows down a fast client.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(end) = ready!(self.state.poll_pipeline(cx)) {
            return Poll::Ready(Step::End(end));
        }
        if self.is_held_back() {
            return Poll::Pending;
        }
        if self.state.pipeline.has_more() {
            return Poll::Ready(match self.state.act_behind(cx) {
                Poll::Ready(Some(end)) => Step::End(end),
                Poll::Ready(None) | Poll::Pending => Step::Again,
            });
        }
        if std::mem::take(&mut self.saved) {
            return Poll::Ready(self.decode(cx, Input::empty()));
        }
        if self.read_in_turn >= BYTES_IN_A_TURN {
            // The wake-up keeps the task ready, so that it continues after other tasks have run.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        with_read_buffer(|buffer| {
            let read = match ready!(self.transport.poll_read(cx, buffer)) {
                Ok(0) | Err(_) => return Poll::Ready(Step::End(End::ConnectionLost)),
                Ok(read) => read,
            };
            self.read_in_turn += read;
            // Every byte counts as a sign of life, because a client cannot send a pong within a
            // long frame.
            self.state.heard();
            self.state
                .context
                .metrics()
                .received_bytes
                .inc_by(read as u64);
            Poll::Ready(self.decode(cx, Input::new(&mut buffer[..read])))
        })
    }

    /// Returns true if nothing is read now. One reason is that the session is suspended, while a
    /// revocation is read that may name the session. Another reason is that the node catches up
    /// after a brief pause of its process. The last reason is that the client does not read the
    /// notices about its commands.
    fn is_held_back(&mut self) -> bool {
        let Some(live) = &self.state.live else {
            return false;
        };
        let outbox = live.attachment.member().outbox();
        if outbox.standing() == Standing::Suspended {
            self.output = Output::Held(HeldBack::Suspended);
            return true;
        }
        if self.state.context.node.hub().lease().is_catching_up() {
            self.output = Output::Held(HeldBack::NoLease);
            return true;
        }
        outbox.notices() >= MAX_NOTICES
    }

    /// Acts on the frames in `input`, up to the first command that blocks the commands after it.
    /// Saves the remaining frames for later.
    fn decode(&mut self, cx: &mut Context<'_>, mut input: Input<'_>) -> Step {
        loop {
            // The limits are read for each message, because the previous message may have opened
            // the session.
            let limits = self.state.message_limits();
            let acted = match self.decoder.next(&mut input, &limits) {
                Ok(Some(event)) => self.state.on_event(event, cx),
                Ok(None) => break,
                Err(error) => {
                    debug!(session = self.state.session_id(), error = %error, "frame refused");
                    let broken = self.state.broken(error);
                    self.state.end_in_turn(broken.into())
                }
            };
            match acted {
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => return Step::End(end),
                Poll::Pending if self.state.pipeline.takes_more() => {}
                Poll::Pending => {
                    self.decoder.save(input);
                    self.saved = true;
                    return Step::Again;
                }
            }
        }
        if !self.decoder.mid_message() {
            self.state.deadlines.message_by = None;
        } else if self.state.deadlines.message_by.is_none() && self.state.pipeline.is_idle() {
            // The deadline is not set while a command is in flight, because the rest of the message
            // is not read then.
            let timeout = self.state.context.settings.load().limits.message_timeout;
            self.state.deadlines.message_by = Instant::now().checked_add(timeout);
        }
        Step::Again
    }
}

impl SessionState {
    /// The disconnect for a protocol error. Its message names the limit that applied.
    fn broken(&self, error: ProtocolError) -> Disconnect {
        match error {
            ProtocolError::MessageTooLarge if self.live.is_none() => Disconnect::MESSAGE_TOO_LARGE
                .because(
                    "a message before authentication is larger than auth.max_token_bytes plus 1 KiB",
                ),
            error => error.disconnect(),
        }
    }

    fn message_limits(&self) -> Limits {
        let settings = self.context.settings.load();
        let SessionSettings { limits, .. } = &**settings;
        let message_bytes = match self.live {
            // In a protocol with batches, commands may follow the token in the same message.
            None if !self.wire().rules().batches => settings.auth_frame_bytes,
            Some(_) | None => limits.message_bytes,
        };
        Limits {
            message_bytes,
            fragments: limits.fragments,
        }
    }

    fn on_event(&mut self, event: Event<'_>, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let metrics = self.context.metrics();
        let end = match event {
            Event::Message(message) => {
                metrics.frames_received.inc(match message {
                    Message::Text(_) => Opcode::Text,
                    Message::Binary(_) => Opcode::Binary,
                });
                self.deadlines.message_by = None;
                return self.on_message(message, cx);
            }
            Event::Ping(payload) => self.on_ping(payload),
            Event::Pong(_) => {
                metrics.frames_received.inc(Opcode::Pong);
                self.on_pong()
            }
            Event::Close { code, .. } => {
                metrics.frames_received.inc(Opcode::Close);
                Some(End::ByClient(code))
            }
        };
        end.map_or(Poll::Ready(None), |end| self.end_in_turn(end))
    }

    /// Records an answer to a ping, and counts the control frame.
    pub(crate) fn on_pong(&mut self) -> Option<End> {
        if let Some(rtt) = self.deadlines.ponged() {
            self.context.metrics().ping_rtt.observe(rtt.as_secs_f64());
        }
        self.take_control()
    }

    fn on_ping(&mut self, payload: &[u8]) -> Option<End> {
        self.context.metrics().frames_received.inc(Opcode::Ping);
        self.send_notice(frame::pong(payload));
        self.take_control()
    }

    /// Counts a control frame. Too many control frames end the session.
    fn take_control(&mut self) -> Option<End> {
        let quota = self.context.settings.load().limits.control_frames();
        let within = self.control.take(quota, Instant::now().into_std());
        (!within).then(|| {
            Disconnect::POLICY
                .because("more control frames than limits.control_frames_per_second")
                .into()
        })
    }
}
