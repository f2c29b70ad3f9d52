//! The session's task: one poll function for writing, reading and timers.
//!
//! The task uses no `select!`, so its parts need not be cancel-safe. The task is small, because an
//! idle connection holds neither a buffer nor a partial read.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use curfew_hub::Ending;
use curfew_model::Disconnect;
use tokio::time::{self, Sleep};
use tracing::error;

use crate::{Session, close};

/// Reason why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The server ends the connection.
    ByServer(Ending),
    /// The client sent a close frame.
    ByClient(Option<u16>),
    /// The connection broke, or was closed without a close frame.
    ConnectionLost,
}

impl From<Disconnect> for End {
    fn from(disconnect: Disconnect) -> Self {
        Self::ByServer(Ending::new(disconnect))
    }
}

/// Result of one step of a session.
#[derive(Debug)]
pub(crate) enum Step {
    /// The step did something, and more may follow.
    Again,
    /// The connection is to be closed.
    End(End),
}

/// Runs a session to its end. Then its local state and its record in the backend are removed, and
/// its socket is closed.
///
/// The caller boxes the session, because the future would otherwise reserve the size of a session
/// twice.
pub async fn run(mut session: Box<Session>) {
    let end = {
        let mut sleep = pin!(time::sleep(session.first_wait()));
        poll_fn(|cx| session.poll_caught(cx, sleep.as_mut())).await
    };
    // The closing is on the heap, because it needs more room than an idle session should hold.
    Box::pin(close::close(*session, end)).await;
}

impl Session {
    /// Polls the session and catches a panic: the session closes with 1011, and other sessions are
    /// unaffected.
    fn poll_caught(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<End> {
        catch_unwind(AssertUnwindSafe(|| self.poll(cx, sleep))).unwrap_or_else(|_| {
            error!("a session panicked and was closed");
            Poll::Ready(Disconnect::INTERNAL.into())
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<End> {
        if let Some(refusal) = self.state.refusal.take()
            && let Some(end) = self.state.refuse(None, *refusal)
        {
            return Poll::Ready(end);
        }
        self.claim_socket();
        self.read_in_turn = 0;
        loop {
            // Writing comes first: it notices that access has ended before more commands are acted
            // on.
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            match self.poll_read(cx) {
                Poll::Ready(Step::Again) => continue,
                Poll::Ready(Step::End(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            match self.poll_timers(cx, sleep.as_mut()) {
                Poll::Ready(Step::Again) => continue,
                Poll::Ready(Step::End(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            // The outbox comes last, so that frames queued during this poll do not wake the task
            // again.
            match self.poll_outbox(cx) {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
