//! `POST /events/<issuer>`: security events that an issuer pushes (RFC 8935; Shared Signals Framework
//! 1.0, CAEP 1.0, RISC 1.0).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_auth::{Effect, EventStream, SecurityEvent, StreamStatus, VerifyError};
use curfew_model::AuthFailure;
use curfew_telemetry::Span;
use http::header::{
    AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tracing::{Instrument as _, debug, error, info, warn};

use crate::http::span::Asked;
use crate::http::{Response, json};
use crate::identity::Reports;
use crate::identity::ending::Ending;
use crate::identity::form::{FormError, answer, posted, refused_span};
use crate::metrics::{EventOutcome, Report};

/// The path, for people.
const ROUTE: &str = "/events/{issuer}";

/// The span of a call: always recorded for an event that ends access.
const SPAN: &str = "POST /events/{issuer}";

/// What an event is sent as (RFC 8935 §2.1).
const MEDIA_TYPE: &str = "application/secevent+jwt";

/// What some transmitters call it.
const LENIENT_MEDIA_TYPE: &str = "application/jwt";

/// Our own faults are no ground to drop an event: senders do that on 400 (§2.4).
const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

impl Reports {
    /// Answers the transmitter of the issuer called `name`, which may push.
    pub(crate) async fn security_event(
        self: &Arc<Self>,
        name: &str,
        stream: EventStream,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Response {
        let tracer = self.metrics.tracer();
        let asked = Asked::of(tracer, &request);
        let began = tracer.now();
        let judged = match self.take_event(stream, request, address).await {
            Ok(token) => {
                let authenticator = &self.context.authenticator;
                let verified = authenticator.verify_event(name, token.trim()).await;
                let (reports, asked) = (Arc::clone(self), asked.clone());
                let later = {
                    let (authenticator, name) = (Arc::clone(authenticator), name.to_owned());
                    async move { authenticator.verify_event_later(&name, token.trim()).await }
                };
                let conclude = async move |verified: Result<SecurityEvent, VerifyError>| {
                    let taken = verified.map_err(|error| match error {
                        VerifyError::Refused(error) => FormError {
                            error: code(error.failure()),
                            ..FormError::of_report(&error)
                        },
                        VerifyError::Unknown(why) => FormError::unverified(&why),
                    });
                    reports.conclude_event(taken, &asked, began, address).await
                };
                self.judge_report(Report::SecurityEvent, address, verified, later, conclude)
                    .await
            }
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(response) => response,
            Err(refused) => {
                self.conclude_event(Err(refused), &asked, began, address)
                    .await
            }
        }
    }

    async fn conclude_event(
        self: &Arc<Self>,
        taken: Result<SecurityEvent, FormError>,
        asked: &Asked,
        began: SystemTime,
        address: IpAddr,
    ) -> Response {
        let metrics = &self.metrics;
        let tracer = metrics.tracer();
        let origin = asked.origin.clone();
        let (span, result) = match taken {
            Err(refused) => {
                self.charge(address, &refused);
                let span = refused_span(tracer, &refused, SPAN, asked, began);
                metrics.security_events.inc(refusal(&refused));
                self.note_refused(Report::SecurityEvent, &refused);
                (span, Err(refused))
            }
            Ok(event) => {
                let mut span = match event.effect {
                    Effect::End { .. } => tracer.always(SPAN, origin),
                    _ => tracer.request(SPAN, origin),
                };
                span.began(began);
                asked.describe(&mut span);
                span.set("curfew.event.type", event.event.as_str());
                let acting = self.act(&event, &span).instrument(span.scope());
                let (outcome, result) = match acting.await {
                    Ok(outcome) => (outcome, Ok(())),
                    Err(refused) => (refusal(&refused), Err(refused)),
                };
                metrics.security_events.inc(outcome);
                let authenticator = &self.context.authenticator;
                authenticator.note_report(&event.issuer, event.event.as_str(), outcome.as_str());
                (span, result)
            }
        };
        let result = result.map(|()| accepted());
        answer(span, ROUTE, "security event not accepted", result, refuse)
    }

    /// The body: the event's token.
    async fn take_event(
        &self,
        stream: EventStream,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Result<String, FormError> {
        let lenient = stream.lenient;
        let sent = request.headers().get(AUTHORIZATION).cloned();
        let permitted = self.may_report(address);
        // Otherwise not worth reading a file.
        if permitted.is_ok() {
            authorize(stream, sent).await?;
        }
        let check = |headers: &HeaderMap| match is_event(headers, lenient) {
            true => Ok(()),
            false => Err(FormError::invalid(format!("the body must be {MEDIA_TYPE}"))),
        };
        posted(request, permitted, check).await
    }

    /// Does what follows from an event. The second time it does the same, so nothing is remembered
    /// of it, and one that could not be acted on may be sent again.
    async fn act(&self, event: &SecurityEvent, span: &Span) -> Result<EventOutcome, FormError> {
        let issuer = &*event.issuer;
        let name = event.event.as_str();
        match &event.effect {
            Effect::End { subjects, at } => {
                let ending = Ending {
                    issuer,
                    report: name,
                    subjects,
                    at: *at,
                };
                let ended = self.end_access(ending, span).await;
                ended.map_err(|error| error.into_refused(NOT_NOW))?;
                Ok(EventOutcome::Ended)
            }
            Effect::Nothing => {
                debug!(issuer, event = name, "security event without effect");
                Ok(EventOutcome::NoEffect)
            }
            Effect::NobodyFound(why) => {
                warn!(
                    issuer,
                    event = name,
                    why,
                    "security event about nobody who can be found here"
                );
                Ok(EventOutcome::NobodyFound)
            }
            Effect::Verified => {
                info!(issuer, "event stream verified");
                Ok(EventOutcome::Stream)
            }
            Effect::OtherState => Err(FormError {
                error: "invalid_state",
                ..FormError::invalid("the verification's state is not the one that was asked for")
            }),
            Effect::Stream(status) => {
                match status {
                    StreamStatus::Enabled => info!(issuer, "event stream enabled"),
                    StreamStatus::Paused | StreamStatus::Disabled => {
                        warn!(
                            issuer,
                            ?status,
                            "event stream stopped by its transmitter: its events do not arrive"
                        );
                    }
                }
                self.context.authenticator.note_stream(issuer, *status);
                Ok(EventOutcome::Stream)
            }
        }
    }
}

/// Shared Signals Framework 1.0 §6.1.1: the transmitter sends what it was told to, with every request.
async fn authorize(stream: EventStream, sent: Option<HeaderValue>) -> Result<(), FormError> {
    let read = match stream.authorization_file {
        None => Ok(stream.expected_authorization()),
        Some(_) => tokio::task::spawn_blocking(move || stream.expected_authorization()).await,
    };
    let expected = match read {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(expected))) => expected,
        Ok(Err(error)) => {
            error!(error = %error, "event_stream.authorization_file cannot be read, no event is accepted");
            return Err(FormError::unavailable(NOT_NOW, "not configured completely"));
        }
        Err(_) => return Err(FormError::unavailable(NOT_NOW, "the node is stopping")),
    };
    let sent = sent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
    // Of two texts of different length the comparison tells only that.
    match sent.ct_eq(expected.expose().as_bytes()).into() {
        true => Ok(()),
        false => Err(FormError {
            status: StatusCode::UNAUTHORIZED,
            error: "authentication_failed",
            ..FormError::invalid("the Authorization header is not the one that was agreed on")
        }),
    }
}

fn is_event(headers: &HeaderMap, lenient: bool) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return lenient;
    };
    let media_type = value.to_str().unwrap_or_default().split(';').next();
    let media_type = media_type.unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(MEDIA_TYPE)
        || lenient && media_type.eq_ignore_ascii_case(LENIENT_MEDIA_TYPE)
}

/// The registered error code (RFC 8935 §2.4).
fn code(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::WrongIssuer => "invalid_issuer",
        AuthFailure::WrongAudience => "invalid_audience",
        AuthFailure::BadSignature | AuthFailure::UnknownKey => "invalid_key",
        _ => "invalid_request",
    }
}

fn refusal(refused: &FormError) -> EventOutcome {
    match refused.error {
        FormError::RATE_LIMITED => EventOutcome::RateLimited,
        _ if refused.is_kept => EventOutcome::Kept,
        _ if refused.is_unavailable() => EventOutcome::Unavailable,
        _ => EventOutcome::Refused,
    }
}

/// §2.2: 202 without a body.
fn accepted() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// §2.3.
fn refuse(refused: FormError) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        err: &'a str,
        description: &'a str,
    }
    let body = Body {
        err: refused.error,
        description: &refused.description,
    };
    let mut response = json(refused.status, &body);
    refused.explain(response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    if refused.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
