//! From a message to what it asks for: decode, check expiry and rate, one line per command.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use curfew_hub::Standing;
use curfew_model::{Command, CommandId, Disconnect, ErrorCode, Message, Reply, Request};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use curfew_ws::frame::{self, Opcode};
use tokio::time::Instant;
use tracing::debug;

use crate::commands;
use crate::open::State;
use crate::rate::CommandRate;
use crate::run::Finish;

/// A client that is over its rate for this long without a pause is closed.
const SUSTAINED: Duration = Duration::from_secs(10);

/// The span that a command says it comes from.
fn origin(command: &Command<'_>) -> Origin {
    match command {
        Command::Publish { trace, .. } => Origin::client(trace.clone()),
        _ => Origin::Unknown,
    }
}

impl State {
    /// Acts on a message. `Some` ends the session. A command that has to wait is left in
    /// `self.operation`.
    pub(crate) fn on_message(&mut self, message: Message<'_>) -> Option<Finish> {
        let decoded = self.decode(message);
        self.act_on(decoded)
    }

    /// A message as its protocol has it.
    pub(crate) fn decode<'a>(&self, message: Message<'a>) -> Result<Request<'a>, DecodeError> {
        let protocol = self.context.node.hub().protocols().get(self.protocol);
        protocol.decode(message)
    }

    /// Acts on a decoded message, likewise.
    pub(crate) fn act_on(&mut self, decoded: Result<Request<'_>, DecodeError>) -> Option<Finish> {
        self.command_at = self.is_timed(&decoded).then(Instant::now);
        if self.live.is_none() {
            return commands::auth::first(self, decoded);
        }
        if self.is_expired() {
            return Some(Disconnect::EXPIRED.into());
        }
        // Before the session is looked at: what this allows takes effect in that lease or never.
        let lease = self.context.node.hub().lease().held_until();
        // It may have been ended while an earlier message of the same read was acted on.
        let standing = self.standing();
        if let Standing::Ending(ending) = standing {
            return Some(Finish::Ended(ending));
        }
        match decoded {
            Ok(request) => match lease {
                Some(until) if standing != Standing::Suspended => self.dispatch(request, until),
                _ => self.hold_off(request),
            },
            Err(DecodeError::NotTheProtocol { message }) => {
                debug!(
                    session = self.session_id(),
                    problem = message,
                    "message is not the protocol"
                );
                Some(Disconnect::BAD_REQUEST.because(message).into())
            }
            Err(DecodeError::Form { id, code, message }) => self.on_bad_form(id, code, message),
        }
    }

    fn standing(&self) -> Standing {
        self.live.as_ref().map_or(Standing::Good, |live| {
            live.attachment.member().outbox().standing()
        })
    }

    /// Answers a command that is not acted on, because the node cannot say whether the session
    /// still has access.
    fn hold_off(&mut self, request: Request<'_>) -> Option<Finish> {
        let Request { id, command } = request;
        let (name, origin) = (command.name(), origin(&command));
        if let Err(finish) = self.check_rate(id.as_ref(), name, origin.clone()) {
            return finish;
        }
        self.reject(
            name,
            id.as_ref(),
            origin,
            ErrorCode::Unavailable,
            "temporarily unavailable, try again; the command was not acted on",
        );
        None
    }

    /// Acts on a command under the lease that ends at `until`.
    fn dispatch(&mut self, request: Request<'_>, until: Duration) -> Option<Finish> {
        let Request { id, command } = request;
        let name = command.name();
        if let Err(finish) = self.check_rate(id.as_ref(), name, origin(&command)) {
            return finish;
        }
        match command {
            Command::Auth { .. } => commands::auth::again(self, id),
            Command::Subscribe { channel } => commands::subscribe::start(self, id, &channel),
            Command::Unsubscribe { channel } => commands::unsubscribe::run(self, id, &channel),
            Command::Publish {
                channel,
                data,
                trace,
            } => commands::publish::start(self, id, &channel, data, trace, until),
            Command::Refresh { token } => commands::refresh::start(self, id, token),
            Command::Ping => self.reply(name, id.as_ref(), &Reply::Pong),
        }
        None
    }

    /// `Err` when the command is not to be acted on; with a finish when the session is over.
    fn check_rate(
        &mut self,
        id: Option<&CommandId>,
        name: &'static str,
        origin: Origin,
    ) -> Result<(), Option<Finish>> {
        let rate = self.context.settings.load().limits.messages_per_second;
        if rate == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let kept = self
            .rate
            .get_or_insert_with(|| Box::new(CommandRate::new(rate, now)));
        if kept.bucket.take(rate, rate, now) {
            return Ok(());
        }
        if kept.excess.note(now) >= SUSTAINED {
            return Err(Some(Disconnect::RATE_LIMITED.into()));
        }
        self.reject(
            name,
            id,
            origin,
            ErrorCode::RateLimited,
            "over the rate; the command was not acted on",
        );
        Err(None)
    }

    fn on_bad_form(
        &mut self,
        id: Option<CommandId>,
        code: ErrorCode,
        message: Cow<'static, str>,
    ) -> Option<Finish> {
        if let Err(finish) = self.check_rate(id.as_ref(), "other", Origin::Unknown) {
            return finish;
        }
        self.reject("other", id.as_ref(), Origin::Unknown, code, message);
        self.bad_frames += 1;
        let allowed = self.context.settings.load().limits.bad_frames;
        (self.bad_frames > allowed).then(|| {
            Disconnect::BAD_REQUEST
                .because("more errors of form than limits.bad_frames")
                .into()
        })
    }

    /// Answers a command, in its turn.
    pub(crate) fn reply(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        reply: &Reply<'_>,
    ) {
        if let Some(frame) = self.encode_reply(command, id, reply) {
            match &mut self.behind {
                Some(behind) => behind.answer(frame),
                None if matches!(reply, Reply::Error { .. }) => self.send_notice(frame),
                None => self.send(frame),
            }
        }
    }

    /// The frame of an answer, where there is one, and the count of it.
    pub(crate) fn encode_reply(
        &self,
        command: &'static str,
        id: Option<&CommandId>,
        reply: &Reply<'_>,
    ) -> Option<Bytes> {
        self.count_command(command, reply);
        let protocol = self.context.node.hub().protocols().get(self.protocol);
        let mut answered = false;
        let frame = frame::encode(Opcode::Text, |out| {
            answered = protocol.encode_reply(id, reply, out)
        });
        answered.then_some(frame)
    }

    /// Answers a command with an error.
    pub(crate) fn error<'a>(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        code: ErrorCode,
        message: impl Into<Cow<'a, str>>,
    ) {
        let tracer = self.context.metrics().tracer();
        let trace = tracer.current().filter(|_| code.is_ours());
        self.reply(
            command,
            id,
            &Reply::Error {
                code,
                message: message.into(),
                trace,
            },
        );
    }
}
