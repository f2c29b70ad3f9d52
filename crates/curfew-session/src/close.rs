//! The single way out: leave the hub, tell the client, close the socket.

mod span;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use curfew_hub::{Ending, Lanes, Member, Progress, Undelivered};
use curfew_model::{CommandId, Disconnect, Push, Reply, TraceId};
use curfew_node::SessionIdentity;
use curfew_telemetry::Span;
use curfew_ws::{Polled, Transport};
use tokio::time::{self, Instant};
use tracing::debug;
use tracing::field::display;

use crate::Session;
use crate::metrics::Initiator;
use crate::open::{Refusal, SessionState};
use crate::run::End;

/// Most a client may still send while its close is waited for; what it sends is thrown away.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// RFC 6455 §7.4.1: what a close frame says that only answers the client's own.
const NORMAL: u16 = 1000;

/// RFC 6455 §7.4.1: counted where the client's close frame has no code.
const NO_CODE: u16 = 1005;

/// RFC 6455 §7.4.1: counted where there is no close frame.
const NO_CLOSE: u16 = 1006;

impl SessionState {
    /// A token was refused, which came with the command of this id or with the request: the client is
    /// told why, then the connection closes.
    pub(crate) fn refuse(&mut self, id: Option<&CommandId>, refusal: Refusal) -> End {
        if let Some((reason, message)) = refusal.failure {
            let reply = Reply::AuthFailed {
                reason,
                message: &message,
                trace: self.trace_id(),
            };
            if let Some(frame) = self.wire().reply(id, &reply) {
                self.notify(frame);
            }
        }
        self.refused = refusal.whose;
        End::ByServer(refusal.ending)
    }
}

/// The way a connection ends, once nothing more is queued for it.
struct Ended {
    end: End,
    /// The session that has left the hub, where one was open.
    whose: Option<SessionIdentity>,
    undelivered: Undelivered,
    /// Until the socket is closed.
    span: Span,
}

/// The time that an end may take.
struct Patience {
    /// `session.close_timeout`, also for the client to close its side.
    timeout: Duration,
    /// All that is queued has left by then, or never does.
    deadline: Instant,
}

/// Ends a connection. The session leaves the hub once nothing is left that a
/// revocation could still withhold, and within the timeout.
pub(crate) async fn close(session: Session, end: End) {
    let Session {
        mut transport,
        mut state,
        ..
    } = session;
    let timeout = state.context.settings.load().session.close_timeout;
    let patience = Patience {
        timeout,
        deadline: Instant::now() + timeout,
    };
    let mut ended = leave(&mut state, &mut transport, end, &patience).await;
    let trace = record(&mut state, &mut ended);
    tell(&mut state, transport, &ended.end, trace, &patience).await;
    drop(state.guards);
}

/// Takes the session out of the hub, which decides the reason of its end.
async fn leave(
    state: &mut SessionState,
    transport: &mut Transport,
    mut end: End,
    patience: &Patience,
) -> Ended {
    state.pipeline.give_up();
    let Some(live) = &state.live else {
        return Ended {
            end,
            whose: None,
            undelivered: Undelivered::default(),
            span: Span::NONE,
        };
    };
    let member = Arc::clone(live.attachment.member());
    let whose = SessionIdentity {
        session: member.session(),
        principal: member.principal(),
    };
    let span = state.end_span(&member, state.context.metrics().tracer().now());
    // Replies to what the client sent before its own close are told as well.
    let ending = match &end {
        End::ByServer(ending) => Some(*ending),
        End::ByClient(_) => Some(Ending::new(Disconnect::DISCONNECTED)),
        End::ConnectionLost => None,
    };
    if let Some(ending) = ending {
        let node = &state.context.node;
        // Nothing is queued from here on, however it ends.
        node.hub().end(&member, ending);
        let last = poll_fn(|cx| {
            let mut socket = Polled(transport, cx);
            match member.write_last(node.hub(), node.clock().as_ref(), &mut socket) {
                Progress::Blocked { .. } => {
                    member.outbox().wake_on_end(cx);
                    Poll::Pending
                }
                // If the socket is broken, so it is for the close frame.
                _ => Poll::Ready(()),
            }
        });
        time::timeout_at(patience.deadline, last).await.ok();
    }
    let undelivered = member.outbox().undelivered();
    state.lanes = member.outbox().take_notices();
    // Before any other reason.
    if let (End::ByServer(ending), Some(revoked)) = (&mut end, revocation(&member)) {
        *ending = revoked;
    }
    drop(member);
    state.live = None;
    Ended {
        end,
        whose: Some(whose),
        undelivered,
        span,
    }
}

/// Counts, traces and logs an end. Names the trace that tells of it.
fn record(state: &mut SessionState, ended: &mut Ended) -> Option<TraceId> {
    let (code, initiator) = match &ended.end {
        End::ByServer(ending) => (ending.disconnect.code, Initiator::Server),
        End::ByClient(code) => (code.unwrap_or(NO_CODE), Initiator::Client),
        End::ConnectionLost => (NO_CLOSE, Initiator::Network),
    };
    let metrics = state.context.metrics();
    metrics.connections_closed.inc(code, initiator);
    metrics
        .connection_duration
        .observe(state.opened_at.elapsed().as_secs_f64());
    state.describe_end(&mut ended.span, &ended.end, code, ended.undelivered);
    let session = ended.whose.as_ref().map(|whose| display(whose.session));
    let scope = match session.is_some() {
        true => ended.span.scope(),
        false => state
            .trace_unopened(&ended.end)
            .unwrap_or_else(tracing::Span::none),
    };
    let _entered = scope.enter();
    debug!(session, code, initiator = ?initiator, "connection closed");
    if let End::ByServer(ending) = &ended.end {
        let refused = || state.refused.take().map(|whose| *whose);
        let whose = ended.whose.take().or_else(refused);
        state.context.node.note_close(ending.disconnect, whose);
    }
    state.trace_id()
}

/// Tells the client, where it still can be told, and closes the socket.
async fn tell(
    state: &mut SessionState,
    transport: Transport,
    end: &End,
    trace: Option<TraceId>,
    patience: &Patience,
) {
    let await_peer = match end {
        End::ConnectionLost => return,
        // It may not be completed any more, and nothing can follow it.
        _ if state.lanes.is_amid_frame() => return transport.abort(),
        End::ByClient(code) => {
            // The answer to a close repeats its code (RFC 6455 §5.5.1).
            state.notify(state.wire().close_reply(code.unwrap_or(NORMAL)));
            None
        }
        End::ByServer(ending) => {
            let closing = state.wire().push(&Push::Closing {
                disconnect: ending.disconnect,
                retry_after_ms: ending.retry_after_ms,
                trace,
            });
            if let Some(closing) = closing {
                state.notify(closing);
            }
            state.notify(state.wire().close(&ending.disconnect));
            Some(patience.timeout)
        }
    };
    let lanes = &mut state.lanes;
    finish_socket(transport, lanes, patience.deadline, await_peer).await;
}

/// The revocation that the session ends by, if it is one.
fn revocation(member: &Member) -> Option<Ending> {
    member
        .outbox()
        .ending()
        .filter(|ending| ending.is_revocation())
}

/// Writes what is left until `deadline`, waits for the client to close its side, and closes. A
/// client that takes too long is reset, so that its socket does not linger with data that may not be
/// seen any more.
async fn finish_socket(
    mut transport: Transport,
    lanes: &mut Lanes,
    deadline: Instant,
    await_peer: Option<Duration>,
) {
    let written = time::timeout_at(deadline, async {
        poll_fn(|cx| match lanes.write(&mut Polled(&mut transport, cx)) {
            Progress::Blocked { .. } => Poll::Pending,
            Progress::Broken(error) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        })
        .await?;
        poll_fn(|cx| transport.poll_shutdown(cx)).await
    })
    .await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return,
        Err(_) => {
            transport.abort();
            return;
        }
    }
    if let Some(timeout) = await_peer {
        // Closing with unread input would reset the connection and could destroy the close frame
        // on its way to the client.
        let emptied = time::timeout(timeout, discard_input(&mut transport)).await;
        if !matches!(emptied, Ok(Ok(()))) {
            transport.abort();
        }
    }
}

async fn discard_input(transport: &mut Transport) -> io::Result<()> {
    let mut discarded = 0;
    loop {
        let read =
            poll_fn(|cx| curfew_ws::with_read_buffer(|buffer| transport.poll_read(cx, buffer)))
                .await?;
        if read == 0 {
            return Ok(());
        }
        discarded += read;
        if discarded > MAX_DISCARDED_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
