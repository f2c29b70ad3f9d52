//! The session's task: one poll function that writes, reads and keeps time.
//!
//! Nothing is awaited inside a `select!`, so nothing here needs to be cancel-safe; and the task is
//! small, because an idle connection holds neither a buffer nor a half-finished read.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use curfew_hub::Ending;
use curfew_model::Disconnect;
use tokio::time::{self, Sleep};
use tracing::error;

use crate::{Session, close};

/// Why a connection's live phase is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The server ends it.
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

/// What one step of a session came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something was done; there may be more.
    Again,
    /// The live phase is over.
    End(End),
}

/// Runs a session to its end. All of the session's state, local and recorded, is gone afterwards,
/// and its socket closed.
///
/// Boxed by the caller, because a future holds its argument: an idle session should be held once.
pub async fn run(mut session: Box<Session>) {
    let end = {
        let mut sleep = pin!(time::sleep(session.first_wait()));
        poll_fn(|cx| session.poll_caught(cx, sleep.as_mut())).await
    };
    // Boxed since it needs more room than an idle session should hold.
    Box::pin(close::close(*session, end)).await;
}

impl Session {
    /// A panic is a fault of ours; it ends this session and no other.
    fn poll_caught(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<End> {
        catch_unwind(AssertUnwindSafe(|| self.poll(cx, sleep))).unwrap_or_else(|_| {
            error!("a session panicked and was closed");
            Poll::Ready(Disconnect::INTERNAL.into())
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<End> {
        if let Some(refusal) = self.state.refusal.take() {
            return Poll::Ready(self.state.refuse(None, *refusal));
        }
        self.claim_socket();
        self.read_in_turn = 0;
        loop {
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
            // Last, so that what this very poll queued does not wake it again.
            match self.poll_outbox(cx) {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
