//! Dispatch: decodes a message, checks expiry and rate, and calls the command's function.

use std::borrow::Cow;
use std::time::Duration;

use curfew_hub::Standing;
use curfew_model::{ClientRequest, Command, Disconnect, ErrorCode, Message, Quota, Reply};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::debug;

use crate::SessionSettings;
use crate::commands::{self, AnswerFrame, Reaction, RequestInfo};
use crate::metrics::CommandOutcome;
use crate::open::SessionState;
use crate::rate::CommandRate;
use crate::run::End;

/// A session is closed after it has exceeded its rate for this long without a pause.
const SUSTAINED: Duration = Duration::from_secs(10);

/// The name under which malformed requests are counted.
const OTHER: &str = "other";

/// The trace context that a command carries.
fn origin(command: &Command<'_>) -> Origin {
    match command {
        Command::Publish { trace, .. } => Origin::client(trace.clone()),
        _ => Origin::Unknown,
    }
}

impl SessionState {
    /// Decodes the first request of a message and removes it from the message.
    pub(crate) fn decode<'a>(
        &self,
        message: &mut Message<'a>,
    ) -> Result<ClientRequest<'a>, DecodeError> {
        self.wire().decode(message)
    }

    /// Acts on a decoded request, or on the error of its decoding.
    pub(crate) fn act_on(&mut self, decoded: Result<ClientRequest<'_>, DecodeError>) -> Reaction {
        let began = self.is_timed(&decoded).then(Instant::now);
        if self.leaving.is_some() {
            // The client has already received the reason why it has no session.
            return Reaction::Done(None);
        }
        if self.live.is_none() {
            return commands::auth::first(self, decoded);
        }
        if self.is_expired() {
            return Disconnect::EXPIRED.into();
        }
        // The lease is read before the session's standing. Therefore a command allowed here takes
        // effect within this lease, or not at all.
        let lease = self.context.node.hub().lease().held_until();
        // An earlier message of the same read may have ended the session.
        let standing = self.standing();
        if let Standing::Ending(ending) = standing {
            return Reaction::Ends(End::ByServer(ending));
        }
        match decoded {
            Ok(ClientRequest::Pong) => self.on_pong_message(),
            Ok(ClientRequest::Command {
                id,
                command: Command::Unsubscribe { channel },
            }) if self.wire().rules().unsubscribes_always => {
                let request = RequestInfo {
                    command: "unsubscribe",
                    id,
                    began,
                };
                // A session over its rate may still unsubscribe, until the excess has lasted for
                // `SUSTAINED`. The command counts against the rate like any other command.
                let settings = self.context.settings.load();
                match self.over_rate(&settings) {
                    Some(excess) if excess >= SUSTAINED => Disconnect::RATE_LIMITED.into(),
                    _ => commands::unsubscribe::run(self, request, &channel),
                }
            }
            Ok(ClientRequest::Command { id, command }) => {
                let request = RequestInfo {
                    command: command.name(),
                    id,
                    began,
                };
                // The settings are loaded once for the whole command, so that its rate, limits and
                // policy agree.
                let settings = self.context.settings.load();
                let settings = &**settings;
                let is_in_batch =
                    matches!(command, Command::Subscribe { .. }) && self.batch_left > 0;
                if is_in_batch {
                    self.batch_left -= 1;
                } else if let Err(reaction) =
                    self.check_rate(settings, &request, || origin(&command))
                {
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
                    "the message does not follow the protocol"
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

    fn on_pong_message(&mut self) -> Reaction {
        if !self.deadlines.answered() && self.wire().rules().counts_pongs {
            let message = "the client sent a pong without a ping before it";
            return Disconnect::BAD_REQUEST.because(message).into();
        }
        self.on_pong().map_or(Reaction::Done(None), Reaction::Ends)
    }

    fn standing(&self) -> Standing {
        self.live.as_ref().map_or(Standing::Good, |live| {
            live.attachment.member().outbox().standing()
        })
    }

    /// Rejects a command without acting on it, because the node cannot tell if the session still
    /// has access.
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
            Command::Subscribe { channel, options } => {
                commands::subscribe::start(self, settings, request, &channel, options)
            }
            Command::Presence { channel, is_count } => {
                commands::presence::start(self, settings, request, &channel, is_count)
            }
            Command::History {
                channel,
                limit,
                range,
                epoch,
            } => {
                let wanted = commands::history::Wanted {
                    limit,
                    range,
                    epoch,
                };
                commands::history::start(self, settings, request, &channel, wanted)
            }
            Command::Unsubscribe { channel } => commands::unsubscribe::run(self, request, &channel),
            Command::Publish {
                channel,
                data,
                trace,
                key,
            } => {
                let what = commands::publish::Asked {
                    data,
                    key: key.as_deref(),
                    trace,
                };
                commands::publish::start(self, settings, request, &channel, what, until)
            }
            Command::Refresh { token } => commands::refresh::start(self, request, token),
            Command::RefreshSubscription { channel, token } => {
                commands::subscribe_token::refresh(self, request, &channel, token)
            }
            Command::Call => {
                let message = "the server has no remote procedures";
                self.reject(&request, Origin::Unknown, ErrorCode::NotAvailable, message)
            }
            Command::Send => {
                debug!(session = self.session_id(), "message to the server ignored");
                self.count_outcome(&request, CommandOutcome::Ok);
                Reaction::Done(None)
            }
            Command::Ping => Reaction::Done(self.reply(&request, &Reply::Pong)),
        }
    }

    /// Counts a command against the session's rate. The `Err` is the reaction to a command over the
    /// rate.
    fn check_rate(
        &mut self,
        settings: &SessionSettings,
        request: &RequestInfo,
        origin: impl FnOnce() -> Origin,
    ) -> Result<(), Reaction> {
        match self.over_rate(settings) {
            None => Ok(()),
            Some(excess) if excess >= SUSTAINED => Err(Disconnect::RATE_LIMITED.into()),
            Some(_) => Err(self.reject(
                request,
                origin(),
                ErrorCode::RateLimited,
                "too many commands per second; the command was not acted on",
            )),
        }
    }

    /// Counts a command against the session's rate. If the session is over the rate, returns the
    /// duration of the excess.
    fn over_rate(&mut self, settings: &SessionSettings) -> Option<Duration> {
        let rate = settings.limits.messages_per_second;
        if rate == 0 {
            return None;
        }
        let (quota, now) = (Quota::of_a_second(rate), Instant::now());
        let kept = self
            .rate
            .get_or_insert_with(|| Box::new(CommandRate::new(quota, now)));
        match kept.bucket.take(quota, now.into_std()) {
            true => None,
            false => Some(kept.excess.note(now)),
        }
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
        if self.wire().rules().forgives_form {
            return rejected;
        }
        self.bad_frames += 1;
        let allowed = settings.limits.bad_frames;
        if self.bad_frames <= allowed {
            return rejected;
        }
        if let Reaction::Done(answer) = rejected {
            self.answer(answer);
        }
        Disconnect::BAD_REQUEST
            .because("more malformed commands than limits.bad_frames allows")
            .into()
    }

    /// Encodes and counts the answer to a command; `None` if the command has no answer.
    pub(crate) fn reply(&self, request: &RequestInfo, reply: &Reply<'_>) -> Option<AnswerFrame> {
        self.count_command(request, reply);
        let frame = self.wire().reply(request.id.as_ref(), reply)?;
        Some(AnswerFrame {
            frame,
            is_error: matches!(reply, Reply::Error { .. }),
        })
    }

    /// Queues an answer. The answers to all earlier commands are queued already.
    pub(crate) fn answer(&mut self, answer: Option<AnswerFrame>) {
        match answer {
            Some(AnswerFrame {
                frame,
                is_error: true,
            }) => self.send_notice(frame),
            Some(AnswerFrame { frame, .. }) => self.send(frame),
            None => {}
        }
    }

    /// Encodes the answer to a failed command.
    pub(crate) fn error<'a>(
        &self,
        request: &RequestInfo,
        code: ErrorCode,
        message: impl Into<Cow<'a, str>>,
    ) -> Option<AnswerFrame> {
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
