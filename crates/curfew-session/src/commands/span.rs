//! The span of a command. It is recorded for sampled commands and for commands answered with an
//! error.

use std::time::SystemTime;

use curfew_hub::{DeliveryPath, Joined};
use curfew_model::{Channel, ErrorCode, SessionId, TraceContext};
use curfew_telemetry::{Origin, Span, SpanKind, Whose};

use crate::admission::Failure;
use crate::metrics::Decision as Verdict;
use crate::open::SessionState;

/// Prefix of the names of commands' spans.
const PREFIX: &str = "curfew.";

/// The name of a command's span, for the name under which the command is counted.
pub(crate) fn name_of(command: &'static str) -> &'static str {
    match command {
        "auth" => "curfew.auth",
        "subscribe" => "curfew.subscribe",
        "unsubscribe" => "curfew.unsubscribe",
        "publish" => "curfew.publish",
        "history" => "curfew.history",
        "presence" => "curfew.presence",
        "refresh" => "curfew.refresh",
        "ping" => "curfew.ping",
        _ => "curfew.other",
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unavailable | ErrorCode::UnknownOutcome | ErrorCode::Internal => {
                Self::of_ours(code.as_str())
            }
            _ => Self::of_client(code.as_str()),
        }
    }
}

/// A command's span. It is recorded if it is sampled, or as soon as the command is refused or
/// fails. It ends on drop.
#[derive(Debug)]
pub(crate) struct CommandSpan {
    name: &'static str,
    origin: Origin,
    began: SystemTime,
    span: Span,
}

impl SessionState {
    /// Begins the span of a command. `command` is the name under which the command is counted.
    pub(crate) fn begin_span(&self, command: &'static str, origin: Origin) -> CommandSpan {
        let tracer = self.context.metrics().tracer();
        let name = name_of(command);
        let mut span = CommandSpan {
            name,
            span: tracer.request(name, origin.clone()),
            origin,
            began: tracer.now(),
        };
        span.describe(self);
        span
    }

    /// Passes the client's address and user to `then`, because the tracer limits some spans per
    /// client.
    pub(crate) fn with_whose<T>(&self, then: impl FnOnce(Whose<'_>) -> T) -> T {
        let principal = self.live.as_ref().map(|live| {
            let member = live.attachment.member();
            member.principal()
        });
        then(Whose {
            address: self.address,
            user: principal.as_deref().map(curfew_model::Principal::user),
        })
    }
}

impl CommandSpan {
    fn describe(&mut self, state: &SessionState) {
        if !self.span.is_recorded() {
            return;
        }
        self.span.set("network.protocol.name", "websocket");
        let command = self.name.strip_prefix(PREFIX).unwrap_or(self.name);
        self.span.set("curfew.command", command);
        if let Some(upgrade) = &state.trace {
            self.span.link(upgrade);
        }
        if let Some(live) = &state.live {
            let member = live.attachment.member();
            self.span.of_session(member.session());
            let tracer = state.context.metrics().tracer();
            tracer.name_user(&mut self.span, member.principal().user());
        }
    }

    /// Adds the channel's name to the span, if spans may contain names of users and channels.
    pub(crate) fn name(&mut self, state: &SessionState, channel: &Channel) {
        let tracer = state.context.metrics().tracer();
        if self.span.is_recorded() && tracer.names_users() {
            let channel = channel.as_str().to_owned();
            self.span.set("messaging.destination.name", channel);
        }
    }

    /// Adds to the span the session that the command has opened, and the session's user.
    pub(crate) fn opens(&mut self, state: &SessionState, session: SessionId, user: &str) {
        self.span.of_session(session);
        self.is_of(state, user);
    }

    /// Adds the user to the span, if spans may contain names of users and channels.
    pub(crate) fn is_of(&mut self, state: &SessionState, user: &str) {
        let tracer = state.context.metrics().tracer();
        tracer.name_user(&mut self.span, user);
    }

    /// Adds the result of a recovery to the span and, if the missed publications were recovered,
    /// their source.
    pub(crate) fn joined(&mut self, state: &SessionState, joined: Joined) {
        let Some(recovered) = joined.recovered else {
            return;
        };
        self.span.set("curfew.stream.recovered", recovered);
        let source = match (joined.was_read, state.context.node.hub().path()) {
            (false, _) => "window",
            (true, DeliveryPath::Broker) => "redis",
            (true, DeliveryPath::Local) => "memory",
        };
        if recovered {
            self.span.set("curfew.stream.source", source);
        }
    }

    /// Marks the command as forbidden by the policy.
    pub(crate) fn forbidden(&mut self, state: &SessionState, channel: &Channel) {
        let was_recorded = self.span.is_recorded();
        self.failed(state, ErrorCode::Forbidden);
        if !was_recorded {
            self.name(state, channel);
        }
    }

    /// Returns true if the span is recorded already.
    pub(crate) fn is_recorded(&self) -> bool {
        self.span.is_recorded()
    }

    /// The trace context for children of the span and for the command's publication.
    pub(crate) fn context(&self) -> Option<Box<TraceContext>> {
        self.span.context()
    }

    /// See [`Span::scope`].
    pub(crate) fn scope(&self) -> tracing::Span {
        self.span.scope()
    }

    /// The span, as parent of the command's parts.
    pub(crate) fn whole(&self) -> &Span {
        &self.span
    }

    /// Begins the span of a part of the command, as a child of the command's span.
    pub(crate) fn part(&self, name: &'static str) -> Span {
        self.span.child(name, SpanKind::Internal)
    }

    /// Ends `part`, the span of an authorization, with the policy's decision.
    pub(crate) fn decided(mut part: Span, decision: &curfew_policy::Decision) {
        let verdict = match decision.allowed {
            true => Verdict::Allowed,
            false => Verdict::Denied,
        };
        part.set("curfew.authz.decision", verdict.as_str());
        if let Some(rule) = &decision.rule {
            part.set("curfew.authz.rule", rule.to_string());
        }
    }

    /// Moves the span's start to `time` before now, so that the span covers the client's wait.
    pub(crate) fn waited(&mut self, state: &SessionState, time: std::time::Duration) {
        let now = state.context.metrics().tracer().now();
        self.began = now.checked_sub(time).unwrap_or(now);
        self.span.began(self.began);
    }

    /// Marks the command as failed. From now on the command's span is recorded regardless of the
    /// sampling ratio, up to a limit per client.
    pub(crate) fn failed(&mut self, state: &SessionState, failure: impl Into<Failure>) {
        let failure = failure.into();
        if !self.span.is_recorded() {
            let tracer = state.context.metrics().tracer();
            self.span = state.with_whose(|whose| {
                let (origin, began) = (self.origin.clone(), self.began);
                tracer.fault(failure.is_ours, self.name, origin, began, whose)
            });
            self.describe(state);
        }
        self.span.failed(failure.error_type);
    }
}
