//! The single way out: leave the hub, tell the client, close the socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use curfew_hub::{Ending, Hub, Member};
use curfew_model::{Disconnect, Push};
use curfew_telemetry::Initiator;
use curfew_ws::frame;
use tokio::time::{self, Instant};
use tracing::{debug, info};

use crate::Session;
use crate::open::{Refusal, State};
use crate::run::Finish;
use crate::write::Writer;

/// Most a client may still send while its close is waited for; what it sends is thrown away.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// RFC 6455 §7.4.1: what a close frame says that only answers the client's own.
const NORMAL: u16 = 1000;

impl State {
    /// A token was refused: the client is told why, then the connection closes.
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Finish {
        if let Some((reason, message)) = refusal.failure {
            let frame = self.encode(&Push::AuthFailed {
                reason,
                message: &message,
            });
            self.last_words = Some(frame);
        }
        Finish::Ended(refusal.ending)
    }
}

/// Ends a connection, whatever the reason. The session leaves the hub once nothing is left that a
/// revocation could still withhold, and within the timeout.
pub(crate) async fn close(session: Session, mut finish: Finish) {
    let Session {
        mut writer,
        mut state,
        ..
    } = session;
    let timeout = state.context.settings.load().session.close_timeout;
    let deadline = Instant::now() + timeout;
    let member = state
        .live
        .as_ref()
        .map(|live| Arc::clone(live.attachment.member()));
    let session_id = member.as_ref().map(|member| member.session());
    state.give_up();
    // Whether what was meant for the client may not reach it.
    let mut withheld = false;
    if let Some(member) = member {
        // Replies to what the client sent before its own close are told as well.
        let ending = match &finish {
            Finish::Ended(ending) => Some(*ending),
            Finish::PeerClosed(_) => Some(Ending::new(Disconnect::DISCONNECTED)),
            Finish::Gone => None,
        };
        if let Some(ending) = ending {
            let hub = state.context.node.hub();
            leave(&mut writer, hub, &member, ending, deadline).await;
        }
        withheld = is_withheld(state.context.node.hub(), &member);
        // Before any other reason, and last words or not.
        if let (Finish::Ended(ending), Some(revoked)) = (&mut finish, revocation(&member)) {
            *ending = revoked;
        }
    }
    state.live = None;

    let (code, initiator) = match &finish {
        Finish::Ended(ending) => (ending.disconnect.code, Initiator::Server),
        Finish::PeerClosed(code) => (code.unwrap_or(1005), Initiator::Client),
        Finish::Gone => (1006, Initiator::Network),
    };
    let metrics = state.context.metrics();
    metrics.connections_closed.inc(code, initiator);
    metrics
        .connection_duration
        .observe(state.opened_at.elapsed().as_secs_f64());
    match &finish {
        Finish::Ended(Ending { disconnect: d, .. }) if is_notable(*d) => {
            info!(
                session = session_id.map(tracing::field::display),
                code,
                reason = d.reason,
                "connection closed"
            );
        }
        _ => {
            debug!(session = session_id.map(tracing::field::display), code, initiator = ?initiator, "connection closed");
        }
    }

    match finish {
        Finish::Gone => {}
        Finish::PeerClosed(code) => {
            if withheld {
                let Some(left) = discard(writer) else { return };
                writer = left;
            }
            // The answer to a close repeats its code (RFC 6455 §5.5.1).
            writer.append(frame::close(code.unwrap_or(NORMAL), ""));
            finish_socket(writer, deadline, None).await;
        }
        Finish::Ended(ending) => {
            if ending.disconnect.withdraws_access() || withheld {
                let Some(left) = discard(writer) else { return };
                writer = left;
            } else if !ending.flushes() {
                writer.discard();
            }
            if let Some(frame) = state.last_words.take() {
                writer.append(frame);
            }
            writer.append(state.encode(&Push::Closing {
                disconnect: ending.disconnect,
                retry_after_ms: ending.retry_after_ms,
            }));
            writer.append(frame::close(
                ending.disconnect.code,
                ending.disconnect.reason,
            ));
            finish_socket(writer, deadline, Some(timeout)).await;
        }
    }
    drop(state.guards);
}

/// Takes what is queued, for the last time, and writes it where it may still be told.
async fn leave(writer: &mut Writer, hub: &Hub, member: &Member, ending: Ending, deadline: Instant) {
    // Nothing is queued from here on, whoever ends it.
    hub.end(member, ending);
    let mut rest = VecDeque::new();
    member.take_outgoing(hub, 0, &mut rest);
    rest.into_iter().for_each(|frame| writer.append(frame));
    if ending.flushes() {
        let flushed = poll_fn(|cx| {
            if is_withheld(hub, member) {
                Poll::Ready(Ok(()))
            } else {
                writer.poll_drain(cx, &mut false)
            }
        });
        // If it fails, so will the close frame.
        time::timeout_at(deadline, flushed).await.ok();
    }
}

/// Whether what is queued for the session may not reach it: it is revoked, or may be.
fn is_withheld(hub: &Hub, member: &Member) -> bool {
    revocation(member).is_some() || member.outbox().is_suspended() || !hub.gate().is_open()
}

/// Forgets what is not on the wire yet. `None` when that leaves a frame half written: it may not be
/// completed, and nothing can follow it, so the connection is reset.
fn discard(mut writer: Writer) -> Option<Writer> {
    writer.discard();
    if writer.is_partial() {
        writer.transport.abort();
        return None;
    }
    Some(writer)
}

/// Closes that an operator looks for; the rest is everyday.
fn is_notable(disconnect: Disconnect) -> bool {
    [
        Disconnect::SLOW_CONSUMER,
        Disconnect::INTERNAL,
        Disconnect::SESSION_LIMIT,
        Disconnect::RATE_LIMITED,
    ]
    .contains(&disconnect)
}

/// The revocation that the session ends by, if it is one.
fn revocation(member: &Member) -> Option<Ending> {
    member
        .outbox()
        .ending()
        .filter(|ending| ending.is_revocation())
}

/// Writes what is left until `deadline`, waits for the client to close its side, and closes. A
/// client that takes too long is reset, so that its socket does not linger with data nobody may
/// see.
async fn finish_socket(mut writer: Writer, deadline: Instant, await_peer: Option<Duration>) {
    let written = time::timeout_at(deadline, async {
        poll_fn(|cx| writer.poll_drain(cx, &mut false)).await?;
        poll_fn(|cx| writer.transport.poll_shutdown(cx)).await
    })
    .await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return,
        Err(_) => {
            writer.transport.abort();
            return;
        }
    }
    if let Some(timeout) = await_peer {
        // Closing with unread input would reset the connection and could destroy the close frame
        // on its way to the client.
        let emptied = time::timeout(timeout, discard_input(&mut writer)).await;
        if !matches!(emptied, Ok(Ok(()))) {
            writer.transport.abort();
        }
    }
}

async fn discard_input(writer: &mut Writer) -> io::Result<()> {
    let mut discarded = 0;
    loop {
        let read = poll_fn(|cx| {
            curfew_ws::with_read_buffer(|buffer| writer.transport.poll_read(cx, buffer))
        })
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
