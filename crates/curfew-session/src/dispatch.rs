//! From a message to what it asks for: decode, check expiry and rate, one line per command.

use std::borrow::Cow;
use std::time::Duration;

use curfew_hub::Standing;
use curfew_model::{Command, Disconnect, ErrorCode, Message, Reply, Request};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::debug;

use crate::SessionSettings;
use crate::commands::{self, Answer, Reaction, RequestInfo};
use crate::open::SessionState;
use crate::rate::CommandRate;
use crate::run::End;

/// A client that is over its rate for this long without a pause is closed.
const SUSTAINED: Duration = Duration::from_secs(10);

/// The name that a request is counted by which is no command.
const OTHER: &str = "other";

/// The span that a command says it comes from.
fn origin(command: &Command<'_>) -> Origin {
    match command {
        Command::Publish { trace, .. } => Origin::client(trace.clone()),
        _ => Origin::Unknown,
    }
}

impl SessionState {
    /// The first request of a message, taken off it.
    pub(crate) fn decode<'a>(&self, message: &mut Message<'a>) -> Result<Request<'a>, DecodeError> {
        self.wire().decode(message)
    }

    /// Acts on a request.
    pub(crate) fn act_on(&mut self, decoded: Result<Request<'_>, DecodeError>) -> Reaction {
        let began = self.is_timed(&decoded).then(Instant::now);
        if self.live.is_none() {
            return commands::auth::first(self, decoded);
        }
        if self.is_expired() {
            return Disconnect::EXPIRED.into();
        }
        // Before the session is looked at: what this allows takes effect in that lease or never.
        let lease = self.context.node.hub().lease().held_until();
        // It may have been ended while an earlier message of the same read was acted on.
        let standing = self.standing();
        if let Standing::Ending(ending) = standing {
            return Reaction::Ends(End::ByServer(ending));
        }
        match decoded {
            Ok(Request {
                command: Command::Pong,
                ..
            }) => self.on_pong().map_or(Reaction::Done(None), Reaction::Ends),
            Ok(Request { id, command }) => {
                let request = RequestInfo {
                    command: command.name(),
                    id,
                    began,
                };
                // One for the whole command: its rate, limits and policy are of one configuration.
                let settings = self.context.settings.load();
                let settings = &**settings;
                if let Err(reaction) = self.check_rate(settings, &request, || origin(&command)) {
                    return reaction;
                }
                match lease {
                    Some(until) if standing != Standing::Suspended => {
                        self.dispatch(settings, request, command, until)
                    }
                    _ => self.hold_off(&request, origin(&command)),
                }
            }
            Err(DecodeError::NotTheProtocol { message }) => {
                debug!(
                    session = self.session_id(),
                    problem = message,
                    "message is not the protocol"
                );
                Disconnect::BAD_REQUEST.because(message).into()
            }
            Err(DecodeError::Form { id, code, message }) => {
                let request = RequestInfo {
                    command: OTHER,
                    id,
                    began,
                };
                self.on_bad_form(&request, code, message)
            }
        }
    }

    fn standing(&self) -> Standing {
        self.live.as_ref().map_or(Standing::Good, |live| {
            live.attachment.member().outbox().standing()
        })
    }

    /// Answers a command that is not acted on, because the node cannot say whether the session
    /// still has access.
    fn hold_off(&self, request: &RequestInfo, origin: Origin) -> Reaction {
        self.reject(
            request,
            origin,
            ErrorCode::Unavailable,
            "temporarily unavailable, try again; the command was not acted on",
        )
    }

    /// Acts on a command under the lease that ends at `until`.
    fn dispatch(
        &mut self,
        settings: &SessionSettings,
        request: RequestInfo,
        command: Command<'_>,
        until: Duration,
    ) -> Reaction {
        match command {
            Command::Auth { .. } => commands::auth::again(self, &request),
            Command::Subscribe { channel } => {
                commands::subscribe::start(self, settings, request, &channel)
            }
            Command::Unsubscribe { channel } => {
                commands::unsubscribe::run(self, &request, &channel)
            }
            Command::Publish {
                channel,
                data,
                trace,
            } => {
                let policy = &settings.policy;
                commands::publish::start(self, policy, request, &channel, data, trace, until)
            }
            Command::Refresh { token } => commands::refresh::start(self, request, token),
            Command::Ping => Reaction::Done(self.reply(&request, &Reply::Pong)),
            Command::Pong => Reaction::Done(None),
        }
    }

    /// `Err` when the command is not to be acted on.
    fn check_rate(
        &mut self,
        settings: &SessionSettings,
        request: &RequestInfo,
        origin: impl FnOnce() -> Origin,
    ) -> Result<(), Reaction> {
        let rate = settings.limits.messages_per_second;
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
            return Err(Disconnect::RATE_LIMITED.into());
        }
        Err(self.reject(
            request,
            origin(),
            ErrorCode::RateLimited,
            "over the rate; the command was not acted on",
        ))
    }

    fn on_bad_form(
        &mut self,
        request: &RequestInfo,
        code: ErrorCode,
        message: Cow<'static, str>,
    ) -> Reaction {
        let settings = self.context.settings.load();
        if let Err(reaction) = self.check_rate(&settings, request, || Origin::Unknown) {
            return reaction;
        }
        let rejected = self.reject(request, Origin::Unknown, code, message);
        self.bad_frames += 1;
        let allowed = settings.limits.bad_frames;
        if self.bad_frames <= allowed {
            return rejected;
        }
        if let Reaction::Done(answer) = rejected {
            self.answer(answer);
        }
        Disconnect::BAD_REQUEST
            .because("more errors of form than limits.bad_frames")
            .into()
    }

    /// The answer to a command, where there is one, and the count of it.
    pub(crate) fn reply(&self, request: &RequestInfo, reply: &Reply<'_>) -> Option<Answer> {
        self.count_command(request, reply);
        let frame = self.wire().reply(request.id.as_ref(), reply)?;
        Some(Answer {
            frame,
            is_error: matches!(reply, Reply::Error { .. }),
        })
    }

    /// Queues an answer whose turn it is.
    pub(crate) fn answer(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer {
                frame,
                is_error: true,
            }) => self.send_notice(frame),
            Some(Answer { frame, .. }) => self.send(frame),
            None => {}
        }
    }

    /// The answer to a command that failed.
    pub(crate) fn error<'a>(
        &self,
        request: &RequestInfo,
        code: ErrorCode,
        message: impl Into<Cow<'a, str>>,
    ) -> Option<Answer> {
        let tracer = self.context.metrics().tracer();
        let trace = tracer.current().filter(|_| code.is_ours());
        self.reply(
            request,
            &Reply::Error {
                code,
                message: message.into(),
                trace,
            },
        )
    }
}
