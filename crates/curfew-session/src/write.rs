//! Writing: what waits leaves in as few writes as possible, with a deadline.

use std::task::{Context, Poll};

use curfew_hub::{HeldBack, Progress, Standing};
use curfew_model::Disconnect;
use curfew_ws::Polled;
use tokio::time::Instant;

use crate::Session;
use crate::run::End;

/// The state of a session's output when its task has written what it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Output {
    /// All is written.
    #[default]
    Idle,
    /// The socket takes no more.
    Blocked,
    /// The rest may not leave now.
    Held(HeldBack),
}

impl Session {
    /// Takes the socket over from the flushers, for this poll.
    pub(crate) fn claim_socket(&mut self) {
        if let Some(live) = &self.state.live {
            live.attachment.member().outbox().claim();
        }
    }

    /// Writes what is queued until nothing is left, the socket takes no more, or the session may not
    /// be written to. Ready when that ends the session.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let progress = self.write(cx);
            // The deadline judges the peer: only while the socket is asked to take something.
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
        // The ping that is to be answered may wait as well: the write deadline judges the peer.
        self.state.deadlines.heard();
        if self.state.deadlines.write_by.is_none() {
            let timeout = self.state.context.settings.load().session.write_timeout;
            self.state.deadlines.write_by = Instant::now().checked_add(timeout);
        }
    }

    /// Registers to be woken by the outbox. Ready when there is something in it after all.
    pub(crate) fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(live) = &self.state.live else {
            return Poll::Pending;
        };
        let outbox = live.attachment.member().outbox();
        // While the socket takes no more, or may be given no more, only an interruption is worth
        // waking up for.
        let polled = outbox.poll_wake(cx, self.output != Output::Idle);
        let goes_on = || match self.output {
            Output::Idle | Output::Blocked => false,
            // Looked at once more, now that what ends it wakes this task.
            Output::Held(HeldBack::Suspended) => outbox.standing() != Standing::Suspended,
            Output::Held(HeldBack::NoLease) => self.state.holds_lease(),
        };
        match polled {
            Poll::Pending if goes_on() => Poll::Ready(()),
            polled => polled,
        }
    }
}
