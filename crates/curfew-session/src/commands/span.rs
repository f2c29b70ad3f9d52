//! The span of a command.

use std::time::SystemTime;

use curfew_auth::VerifyError;
use curfew_model::{Channel, ErrorCode, TraceContext};
use curfew_node::AdmitError;
use curfew_telemetry::{Decision as Verdict, Origin, Span, SpanKind, Tracer};

use crate::open::State;

/// Before the name of a command in that of its span.
const PREFIX: &str = "curfew.";

/// A command's span: recorded by the configured share, and whatever that is once the command is
/// refused or fails. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct CommandSpan {
    name: &'static str,
    origin: Origin,
    began: SystemTime,
    /// The span of the connection's upgrade, where that is recorded.
    upgrade: Option<TraceContext>,
    span: Span,
}

impl State {
    /// Begins the span `name`, which is `curfew.` and the command's name.
    pub(crate) fn begin_span(&self, name: &'static str, origin: Origin) -> CommandSpan {
        let tracer = self.context.metrics().tracer();
        let mut span = CommandSpan {
            name,
            span: tracer.request(name, origin.clone()),
            origin,
            began: tracer.now(),
            upgrade: self.trace.as_deref().cloned(),
        };
        span.describe();
        span
    }
}

impl CommandSpan {
    fn describe(&mut self) {
        if !self.span.is_recorded() {
            return;
        }
        self.span.set("network.protocol.name", "websocket");
        let command = self.name.strip_prefix(PREFIX).unwrap_or(self.name);
        self.span.set("curfew.command", command);
        if let Some(upgrade) = &self.upgrade {
            self.span.link(upgrade);
        }
    }

    /// Says where, and by whom, where spans may say so.
    pub(crate) fn name(&mut self, state: &State, channel: &Channel) {
        if !self.span.is_recorded() || !state.context.metrics().tracer().names_users() {
            return;
        }
        let channel = channel.as_str().to_owned();
        self.span.set("messaging.destination.name", channel);
        if let Some(live) = &state.live {
            let user = live.attachment.member().principal().user().to_owned();
            self.span.set("user.id", user);
        }
    }

    /// The policy forbids the command.
    pub(crate) fn forbidden(&mut self, state: &State, channel: &Channel) {
        let was_recorded = self.span.is_recorded();
        let tracer = state.context.metrics().tracer();
        self.refused(tracer, ErrorCode::Forbidden.as_str());
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

    /// The command is refused, through no fault of ours.
    pub(crate) fn refused(&mut self, tracer: &Tracer, error_type: &'static str) {
        self.insist(|span| tracer.refusal(span.name, span.origin.clone(), span.began));
        self.span.refused(error_type);
    }

    /// The command failed, through a fault of ours or of what we depend on.
    pub(crate) fn failed(&mut self, tracer: &Tracer, error_type: &'static str) {
        self.insist(|span| tracer.failure(span.name, span.origin.clone(), span.began));
        self.span.failed(error_type);
    }

    /// Records it although the share said no, if `begin` does.
    fn insist(&mut self, begin: impl FnOnce(&Self) -> Span) {
        if !self.span.is_recorded() {
            self.span = begin(self);
            self.describe();
        }
    }

    /// The session was not admitted, or not with this token.
    pub(crate) fn not_admitted(&mut self, tracer: &Tracer, error: &AdmitError) {
        match error {
            AdmitError::Backend(_) => self.failed(tracer, error.error_type()),
            _ => self.refused(tracer, error.error_type()),
        }
    }

    /// The token was not verified.
    pub(crate) fn not_verified(&mut self, tracer: &Tracer, error: &VerifyError) {
        match error {
            VerifyError::Refused(error) => self.refused(tracer, error.failure().as_str()),
            VerifyError::Unknown(why) => self.failed(tracer, why.error_type()),
        }
    }
}
