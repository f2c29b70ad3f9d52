//! The span of a session's end: the initiator, the reason, and the undelivered messages.

use std::time::SystemTime;

use curfew_hub::{Ending, Member, Undelivered};
use curfew_model::Disconnect;
use curfew_telemetry::Span;

use crate::open::SessionState;
use crate::run::End;

/// The span's name.
const SPAN: &str = "session end";

/// The recorded reason if the client sent a close frame. The reason within the close frame is never
/// recorded.
const CLIENT_CLOSED: &str = "client_closed";

/// The recorded reason if the connection ended without a close frame.
const CONNECTION_LOST: &str = "connection_lost";

/// The disconnects that are routine: the span of the end is not marked as failed.
const ORDERLY: [Disconnect; 6] = [
    Disconnect::REVOKED,
    Disconnect::REAUTH_REQUIRED,
    Disconnect::DISCONNECTED,
    Disconnect::REPLACED,
    Disconnect::EXPIRED,
    Disconnect::DRAINING,
];

impl SessionState {
    /// Begins the span of a session's end, which started at `began`. The span is recorded if the
    /// upgrade's span was recorded, and otherwise up to a limit per client.
    pub(super) fn end_span(&self, member: &Member, began: SystemTime) -> Span {
        let tracer = self.context.metrics().tracer();
        let principal = member.principal();
        let mut span =
            self.with_whose(|whose| tracer.session_end(SPAN, self.trace.as_deref(), began, whose));
        span.of_session(member.session());
        tracer.name_user(&mut span, principal.user());
        span
    }

    /// If the server ends a connection that has opened no session, records the reason in a span,
    /// unless another span has recorded the reason.
    pub(super) fn trace_unopened(&mut self, end: &End) -> Option<tracing::Span> {
        let End::ByServer(Ending { disconnect, .. }) = end else {
            return None;
        };
        if self.auth_traced {
            return None;
        }
        let span = self.fail_auth((*disconnect).into());
        Some(span.scope())
    }

    /// Adds the facts of a session's end to its span.
    pub(super) fn describe_end(
        &self,
        span: &mut Span,
        end: &End,
        code: u16,
        undelivered: Undelivered,
    ) {
        if !span.is_recorded() {
            return;
        }
        let reason = match end {
            End::ByServer(ending) => ending.disconnect.reason,
            End::ByClient(_) => CLIENT_CLOSED,
            End::ConnectionLost => CONNECTION_LOST,
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        span.set("network.protocol.name", "websocket");
        span.set("curfew.close.code", i64::from(code));
        span.set("curfew.close.reason", reason);
        span.set("curfew.close.by", ended_by(end));
        let lived = self.opened_at.elapsed().as_secs_f64();
        span.set("curfew.session.duration_seconds", lived);
        span.set("curfew.undelivered.messages", count(undelivered.frames));
        span.set("curfew.undelivered.bytes", count(undelivered.bytes));
        if let End::ByServer(Ending { disconnect, .. }) = end {
            span.set("curfew.close.message", disconnect.message);
            if !ORDERLY.contains(disconnect) {
                span.failed(disconnect.reason);
            }
        }
    }
}

/// The value of `curfew.close.by`: the initiator of the end.
fn ended_by(end: &End) -> &'static str {
    match end {
        End::ByClient(_) => "client",
        End::ConnectionLost => "network",
        End::ByServer(ending) if ending.is_revocation() => "revocation",
        End::ByServer(ending) if ending.disconnect == Disconnect::DISCONNECTED => "operator",
        End::ByServer(_) => "server",
    }
}
