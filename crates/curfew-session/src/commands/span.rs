//! The span of a command: one for each that is sampled, and for each that is answered with an error.

use std::time::SystemTime;

use curfew_hub::Joined;
use curfew_model::{Channel, ErrorCode, SessionId, TraceContext};
use curfew_telemetry::{Origin, Span, SpanKind, Whose};

use crate::admission::Failure;
use crate::metrics::Decision as Verdict;
use crate::open::SessionState;

/// Before the name of a command in that of its span.
const PREFIX: &str = "curfew.";

/// The name of a command's span, for each name that a command is counted by.
pub(crate) fn name_of(command: &'static str) -> &'static str {
    match command {
        "auth" => "curfew.auth",
        "subscribe" => "curfew.subscribe",
        "unsubscribe" => "curfew.unsubscribe",
        "publish" => "curfew.publish",
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

/// A command's span: recorded by the configured share, and whatever that is once the command is
/// refused or fails. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct CommandSpan {
    name: &'static str,
    origin: Origin,
    began: SystemTime,
    span: Span,
}

impl SessionState {
    /// Begins the span of a command, by the name that it is counted by.
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

    /// The client and its user, for what is recorded of them.
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

    /// Says where, where spans may say so.
    pub(crate) fn name(&mut self, state: &SessionState, channel: &Channel) {
        let tracer = state.context.metrics().tracer();
        if self.span.is_recorded() && tracer.names_users() {
            let channel = channel.as_str().to_owned();
            self.span.set("messaging.destination.name", channel);
        }
    }

    /// The session that it has opened, and whose that is.
    pub(crate) fn opens(&mut self, state: &SessionState, session: SessionId, user: &str) {
        self.span.of_session(session);
        self.is_of(state, user);
    }

    /// Says by whom, where spans may say so.
    pub(crate) fn is_of(&mut self, state: &SessionState, user: &str) {
        let tracer = state.context.metrics().tracer();
        tracer.name_user(&mut self.span, user);
    }

    /// Tells of the place at which the session has joined a channel's stream.
    pub(crate) fn joined(&mut self, joined: Joined) {
        if let Some(recovered) = joined.recovered {
            self.span.set("curfew.stream.recovered", recovered);
        }
    }

    /// The policy forbids the command.
    pub(crate) fn forbidden(&mut self, state: &SessionState, channel: &Channel) {
        let was_recorded = self.span.is_recorded();
        self.failed(state, ErrorCode::Forbidden);
        if !was_recorded {
            self.name(state, channel);
        }
    }

    /// Whether it is recorded so far.
    pub(crate) fn is_recorded(&self) -> bool {
        self.span.is_recorded()
    }

    /// What the command's parts and its publication are below.
    pub(crate) fn context(&self) -> Option<Box<TraceContext>> {
        self.span.context()
    }

    /// See [`Span::scope`].
    pub(crate) fn scope(&self) -> tracing::Span {
        self.span.scope()
    }

    /// What the command's parts are parts of.
    pub(crate) fn whole(&self) -> &Span {
        &self.span
    }

    /// A part of the command.
    pub(crate) fn part(&self, name: &'static str) -> Span {
        self.span.child(name, SpanKind::Internal)
    }

    /// The policy's answer, as a part of the command that has begun with `part`.
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

    /// It began when this much time was over before now: what was waited for is its length.
    pub(crate) fn waited(&mut self, state: &SessionState, time: std::time::Duration) {
        let now = state.context.metrics().tracer().now();
        self.began = now.checked_sub(time).unwrap_or(now);
        self.span.began(self.began);
    }

    /// The command failed: from now on it is recorded at any share, within the budget of its client.
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
