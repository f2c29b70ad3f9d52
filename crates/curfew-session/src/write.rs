//! Writing: queued frames are sent in as few writes as possible. A session whose socket accepts no
//! byte for too long ends.

use std::task::{Context, Poll};

use curfew_hub::{HeldBack, Progress, Standing};
use curfew_model::Disconnect;
use curfew_ws::Polled;
use tokio::time::Instant;

use crate::Session;
use crate::run::End;

/// State of a session's output after its task has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Output {
    /// Everything is written.
    #[default]
    Idle,
    /// The socket accepts no more bytes.
    Blocked,
    /// The remaining frames may not be sent now.
    Held(HeldBack),
}

impl Session {
    /// Until the next `poll_outbox`, only this task writes to the socket.
    pub(crate) fn claim_socket(&mut self) {
        if let Some(live) = &self.state.live {
            live.attachment.member().outbox().claim();
        }
    }

    /// Writes queued frames until none is left, the socket accepts no more, or nothing may be sent.
    /// Ready when the session ends.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let progress = self.write(cx);
            // The write deadline runs only while the socket accepts none of the bytes offered to
            // it.
            if !matches!(progress, Progress::Blocked { wrote: false }) {
                self.state.deadlines.write_by = None;
            }
            self.output = match progress {
                Progress::Done => Output::Idle,
                Progress::Blocked { .. } => {
                    self.start_write_deadline();
                    Output::Blocked
                }
                Progress::Held(why) => Output::Held(why),
                Progress::Reconsider => {
                    if let Some(end) = self.state.drop_lost() {
                        return Poll::Ready(end);
                    }
                    self.state.reconsider();
                    continue;
                }
                Progress::Probe => {
                    self.state.probe();
                    continue;
                }
                Progress::End(ending) => return Poll::Ready(End::ByServer(ending)),
                Progress::Expired => return Poll::Ready(Disconnect::EXPIRED.into()),
                Progress::Broken(_) => return Poll::Ready(End::ConnectionLost),
            };
            return Poll::Pending;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut socket = Polled(&mut self.transport, cx);
        match &self.state.live {
            Some(live) => {
                let node = &self.state.context.node;
                let member = live.attachment.member();
                member.write(node.hub(), node.clock().as_ref(), &mut socket)
            }
            None => self.state.lanes.write(&mut socket),
        }
    }

    fn start_write_deadline(&mut self) {
        // The ping may still wait in the queue, because the socket is full. So the write deadline
        // applies instead of the deadline for the pong.
        self.state.deadlines.heard();
        if self.state.deadlines.write_by.is_none() {
            let timeout = self.state.context.settings.load().session.write_timeout;
            self.state.deadlines.write_by = Instant::now().checked_add(timeout);
        }
    }

    /// Registers the task with the outbox. Ready if the outbox already has work.
    pub(crate) fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(live) = &self.state.live else {
            return Poll::Pending;
        };
        let outbox = live.attachment.member().outbox();
        // If the socket is full, or the remaining frames may not be sent, more queued frames do not
        // wake the task.
        let polled = outbox.poll_wake(cx, self.output != Output::Idle);
        let goes_on = || match self.output {
            Output::Idle | Output::Blocked => false,
            // The reason for the held output is checked again after the registration, so that a
            // change in between is not missed.
            Output::Held(HeldBack::Suspended) => outbox.standing() != Standing::Suspended,
            Output::Held(HeldBack::NoLease) => self.state.holds_lease(),
        };
        match polled {
            Poll::Pending if goes_on() => Poll::Ready(()),
            polled => polled,
        }
    }
}
