//! The only way to end a connection: the session leaves the hub, the client receives the reason,
//! and the socket is closed.

mod span;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use curfew_hub::{Ending, Lanes, Member, Progress, Undelivered};
use curfew_model::{AuthFailure, CommandId, Disconnect, Push, Reply, TraceId};
use curfew_node::{Departure, SessionIdentity};
use curfew_telemetry::Span;
use curfew_ws::{Polled, Transport};
use tokio::time::{self, Instant};
use tracing::debug;
use tracing::field::display;

use crate::Session;
use crate::metrics::Initiator;
use crate::open::{Refusal, SessionState};
use crate::run::End;

/// Maximum number of a client's bytes that are read and discarded after the close frame.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// RFC 6455 §7.4.1: the code of our close frame if the client's close frame has none.
const NORMAL: u16 = 1000;

/// RFC 6455 §7.4.1: the code counted for a client's close frame without a code.
const NO_CODE: u16 = 1005;

/// RFC 6455 §7.4.1: the code counted if the connection ended without a close frame.
const NO_CLOSE: u16 = 1006;

impl SessionState {
    /// Refuses the token of the command `id` or of the upgrade request. Queues the reason for the
    /// client and returns the end of the connection; `None` if the client is expected to close the
    /// connection itself.
    pub(crate) fn refuse(&mut self, id: Option<&CommandId>, refusal: Refusal) -> Option<End> {
        let reply = match &refusal.failure {
            Some((reason, message)) => Reply::AuthFailed {
                reason: *reason,
                message,
                trace: self.trace_id(),
            },
            None => Reply::NotOpened {
                disconnect: refusal.ending.disconnect,
            },
        };
        let told = self.wire().reply(id, &reply);
        let leave_time = self.wire().rules().leave_time.filter(|_| told.is_some());
        if let Some(frame) = told {
            self.notify(frame);
        }
        self.refused = refusal.whose;
        match leave_time {
            None => Some(End::ByServer(refusal.ending)),
            Some(time) => {
                let failure = refusal.failure.as_ref().map(|(failure, _)| *failure);
                let ending = match failure {
                    // The client knows the reason. If the client does not close the connection,
                    // this disconnect asks the client to reconnect with another token.
                    Some(AuthFailure::Expired | AuthFailure::NotYetValid) => {
                        Ending::new(Disconnect::EXPIRED)
                    }
                    _ => refusal.ending,
                };
                self.leaving = Some(Box::new(ending));
                self.deadlines.auth_by = Instant::now().checked_add(time);
                None
            }
        }
    }
}

/// The end of a connection after `leave`, when the hub queues nothing more for the connection.
struct Ended {
    end: End,
    /// The session that has left the hub; `None` if no session was open.
    whose: Option<SessionIdentity>,
    undelivered: Undelivered,
    /// The removals of the session's presence entries, which have begun.
    departures: Vec<Departure>,
    /// The span of the end, open until the socket is closed.
    span: Span,
}

/// The time limits of closing a connection.
struct Patience {
    /// `session.close_timeout`, as the limit of the wait for the client to close.
    timeout: Duration,
    /// The time at which writing the queued frames is given up.
    deadline: Instant,
}

/// Ends a connection. While frames still wait, the session stays in the hub, so that a revocation
/// can withhold these frames. The session waits for these frames at most `session.close_timeout`.
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
    depart(&mut ended, &patience).await;
    // The end is recorded before the client is notified, because the message `closing` contains the
    // trace of the end.
    let trace = record(&mut state, &mut ended);
    tell(&mut state, transport, &ended.end, trace, &patience).await;
    // The guards are released last, because the connection counts toward the limits of connections
    // until its socket is closed.
    drop(state.guards);
}

/// Removes the session from the hub and determines the final reason of its end.
async fn leave(
    state: &mut SessionState,
    transport: &mut Transport,
    mut end: End,
    patience: &Patience,
) -> Ended {
    // Commands in flight may hold the attachment, which is released below.
    state.pipeline.give_up();
    // Without an open session, nothing of this connection is in the hub.
    let Some(live) = &state.live else {
        return Ended {
            end,
            whose: None,
            undelivered: Undelivered::default(),
            departures: Vec::new(),
            span: Span::NONE,
        };
    };
    let member = Arc::clone(live.attachment.member());
    let whose = SessionIdentity {
        session: member.session(),
        principal: member.principal(),
    };
    let span = state.end_span(&member, state.context.metrics().tracer().now());
    // A client that sent a close frame still receives the replies to its earlier commands.
    let node = &state.context.node;
    let ending = match &end {
        End::ByServer(ending) => Some(*ending),
        End::ByClient(_) => Some(Ending::new(Disconnect::DISCONNECTED)),
        End::ConnectionLost => None,
    };
    if let Some(ending) = ending {
        // The hub ends the session first, so that nothing more is queued even if the writes below
        // fail.
        state.context.node.hub().end(&member, ending);
    }
    // The removals begin before the last frames are written, because a slow client may take long to
    // read them.
    let departures = node.depart_from_all(&member);
    if ending.is_some() {
        let last = poll_fn(|cx| {
            // The task is registered first, because a revocation during the write must wake the
            // task.
            member.outbox().wake_on_end(cx);
            // A reload may still end the subscription that a queued frame belongs to.
            if member.outbox().take_reconsider() {
                state.reconsider();
            }
            let node = &state.context.node;
            let mut socket = Polled(transport, cx);
            match member.write_last(node.hub(), node.clock().as_ref(), &mut socket) {
                Progress::Blocked { .. } => Poll::Pending,
                // If the socket is broken, writing the close frame fails too, and `tell` handles
                // that failure.
                _ => Poll::Ready(()),
            }
        });
        time::timeout_at(patience.deadline, last).await.ok();
    }
    let undelivered = member.outbox().undelivered();
    state.lanes = member.outbox().take_notices();
    // A revocation takes precedence over any other reason for which the server ends the session.
    if let (End::ByServer(ending), Some(revoked)) = (&mut end, revocation(&member)) {
        *ending = revoked;
    }
    drop(member);
    // Dropping the live state unsubscribes the channels and removes the session from the hub.
    state.live = None;
    Ended {
        end,
        whose: Some(whose),
        undelivered,
        departures,
        span,
    }
}

/// Waits until the session's presence entries are removed, so that presence lists no longer show
/// the session when the client is notified of the close. The wait takes at most half of the
/// remaining time; the rest is for notifying the client.
async fn depart(ended: &mut Ended, patience: &Patience) {
    let departures = mem::take(&mut ended.departures);
    if departures.is_empty() || matches!(ended.end, End::ConnectionLost) {
        return;
    }
    let left = patience.deadline.saturating_duration_since(Instant::now());
    let all = async {
        for departure in departures {
            departure.wait().await;
        }
    };
    // The wait is on the heap. Otherwise the future of every session would reserve memory for it,
    // although few sessions have presence entries.
    let waiting = Box::pin(time::timeout(left / 2, all));
    waiting.await.ok();
}

/// Counts, traces and logs the end of a connection. Returns the id of the end's trace or, failing
/// that, of the upgrade's trace; `None` if neither is recorded.
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

/// Tells the client the reason if possible, and closes the socket.
async fn tell(
    state: &mut SessionState,
    transport: Transport,
    end: &End,
    trace: Option<TraceId>,
    patience: &Patience,
) {
    let await_peer = match end {
        End::ConnectionLost => return,
        // A frame that is partly written must not be completed any more, and no other frame can
        // follow it.
        _ if state.lanes.is_amid_frame() => return transport.abort(),
        End::ByClient(code) => {
            // The close frame that answers the client's close frame repeats the client's code (RFC
            // 6455 §5.5.1).
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

/// The revocation that ended the session; `None` if the session ended for another reason.
fn revocation(member: &Member) -> Option<Ending> {
    member
        .outbox()
        .ending()
        .filter(|ending| ending.is_revocation())
}

/// Writes the remaining frames until `deadline`, then shuts down the sending side. If `await_peer`
/// is set, waits at most that time for the client to close. The connection of a slow client is
/// reset, so that data that may no longer be sent does not stay in the socket's buffer.
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
