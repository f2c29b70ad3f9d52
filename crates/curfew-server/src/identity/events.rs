//! `POST /events/<issuer>`: security events that an issuer pushes (RFC 8935; Shared Signals
//! Framework 1.0, CAEP 1.0, RISC 1.0).

use std::sync::Arc;

use curfew_auth::{
    Authenticator, Effect, EventStream, KeyWait, SecurityEvent, StreamStatus, VerifyError,
};
use curfew_model::AuthFailure;
use curfew_telemetry::{Counters, Span};
use http::header::{
    AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tracing::{debug, error, info, warn};

use super::Reports;
use super::end_access::{AccessEnd, not_ended};
use super::form::{media_type, posted};
use super::refusal::ReportRefusal;
use super::report::{Delivery, OrderName, Report};
use crate::config::Snapshot;
use crate::http::{Response, json};
use crate::metrics::{EventOutcome, ReportKind, ServerMetrics};

/// The media type of an event (RFC 8935 §2.1).
const MEDIA_TYPE: &str = "application/secevent+jwt";

/// The media type that some transmitters send instead.
const LENIENT_MEDIA_TYPE: &str = "application/jwt";

/// The status for faults of this node or its backend. It is not 400, because a transmitter does not
/// send an event again after 400 (§2.4).
const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// A pushed event. `name` is the configured name of its issuer, and `token` is the event's token.
struct PushedEvent {
    name: String,
    token: String,
}

impl Report for PushedEvent {
    const KIND: ReportKind = ReportKind::SecurityEvent;
    const ROUTE: &'static str = "/events/{issuer}";
    const SPAN: &'static str = "POST /events/{issuer}";
    const REFUSED: &'static str = "security event not accepted";

    type Verified = SecurityEvent;
    type Order = SecurityEvent;
    type Outcome = EventOutcome;

    async fn verify(
        &self,
        authenticator: &Authenticator,
        wait: KeyWait,
    ) -> Result<SecurityEvent, VerifyError> {
        let verify = authenticator.verify_event(&self.name, &self.token, wait);
        verify.await
    }

    fn order(
        self,
        _: &Reports,
        verified: Result<SecurityEvent, VerifyError>,
    ) -> Result<SecurityEvent, ReportRefusal> {
        verified.map_err(|error| {
            let refused = ReportRefusal::not_verified(&error);
            match error {
                VerifyError::Refused(error) => ReportRefusal {
                    error: code(error.failure()),
                    ..refused
                },
                VerifyError::Unknown(_) => refused,
            }
        })
    }

    fn name(event: &SecurityEvent) -> OrderName<'_> {
        OrderName {
            issuer: &event.issuer,
            event: Some(event.event.as_str()),
            ends_access: matches!(event.effect, Effect::End { .. }),
        }
    }

    /// Carries out the effect of an event. Carrying out the same event twice does no harm, so
    /// received events are not recorded.
    async fn carry_out(
        event: &SecurityEvent,
        reports: &Reports,
        settings: &Snapshot,
        span: &Span,
    ) -> Result<EventOutcome, ReportRefusal> {
        let issuer = &*event.issuer;
        let name = event.event.as_str();
        match &event.effect {
            Effect::End { subjects, at } => {
                let end = AccessEnd {
                    issuer,
                    report: name,
                    subjects,
                    at: *at,
                };
                let found = reports.end_access(end, settings, span).await;
                found.map_err(|error| not_ended(&error, NOT_NOW))?;
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
                    "no session can be found by the subject of a security event"
                );
                Ok(EventOutcome::NobodyFound)
            }
            Effect::Verified => {
                info!(issuer, "event stream verified");
                Ok(EventOutcome::Stream)
            }
            Effect::OtherState => Err(ReportRefusal {
                error: "invalid_state",
                ..ReportRefusal::invalid(
                    "the state in the verification event is not the requested state",
                )
            }),
            Effect::Stream(status) => {
                match status {
                    StreamStatus::Enabled => info!(issuer, "event stream enabled"),
                    StreamStatus::Paused | StreamStatus::Disabled => {
                        warn!(
                            issuer,
                            ?status,
                            "event stream stopped by its transmitter: no events of the stream arrive"
                        );
                    }
                }
                reports.context.authenticator.note_stream(issuer, *status);
                Ok(EventOutcome::Stream)
            }
        }
    }

    fn counter(metrics: &ServerMetrics) -> &Counters<EventOutcome> {
        &metrics.security_events
    }

    /// Returns the answer with status 202 and no body (§2.2).
    fn done() -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::ACCEPTED;
        response
    }

    /// Returns the answer with an error code and its description (§2.3).
    fn refuse(refused: ReportRefusal) -> Response {
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
}

impl Reports {
    /// Answers a request that pushes an event. `name` is the configured name of the issuer, and
    /// `stream` is the configuration of its event stream.
    pub(super) async fn security_event(
        self: &Arc<Self>,
        name: String,
        stream: EventStream,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Response {
        let received = self.receive_event(name, stream, request, delivery).await;
        self.take_report(received, delivery).await
    }

    /// Receives an event. The request's body is the event's token.
    async fn receive_event(
        &self,
        name: String,
        stream: EventStream,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Result<PushedEvent, ReportRefusal> {
        let lenient = stream.lenient;
        let sent = request.headers().get(AUTHORIZATION).cloned();
        let permitted = self.may_report(delivery);
        // A request over the limit of unverified reports is not authorized, because authorization
        // may read a file.
        if permitted.is_ok() {
            authorize(stream, sent).await?;
        }
        let is_event = |headers: &HeaderMap| is_event(headers, lenient);
        let body = posted(request, permitted, MEDIA_TYPE, is_event).await?;
        let token = body.trim().to_owned();
        Ok(PushedEvent { name, token })
    }
}

/// Compares the request's `Authorization` header, `sent`, with the value in the configuration of
/// the stream. Without a configured value, every request is authorized. A transmitter sends the
/// header with every request (Shared Signals Framework 1.0 §6.1.1).
async fn authorize(stream: EventStream, sent: Option<HeaderValue>) -> Result<(), ReportRefusal> {
    let read = match stream.authorization_file {
        None => Ok(stream.expected_authorization()),
        Some(_) => tokio::task::spawn_blocking(move || stream.expected_authorization()).await,
    };
    let expected = match read {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(expected))) => expected,
        Ok(Err(error)) => {
            error!(error = %error, "event_stream.authorization_file cannot be read, so no event is accepted");
            return Err(ReportRefusal::unavailable(
                NOT_NOW,
                "the event endpoint is not configured completely",
            ));
        }
        Err(_) => return Err(ReportRefusal::unavailable(NOT_NOW, "the node is stopping")),
    };
    let sent = sent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
    // The time of the comparison depends only on the length of the values, not on their bytes.
    match sent.ct_eq(expected.expose().as_bytes()).into() {
        true => Ok(()),
        false => Err(ReportRefusal {
            status: StatusCode::UNAUTHORIZED,
            error: "authentication_failed",
            ..ReportRefusal::invalid("the Authorization header does not have the agreed value")
        }),
    }
}

fn is_event(headers: &HeaderMap, lenient: bool) -> bool {
    let is = |known| media_type(headers).eq_ignore_ascii_case(known);
    is(MEDIA_TYPE) || lenient && (is(LENIENT_MEDIA_TYPE) || !headers.contains_key(CONTENT_TYPE))
}

/// Returns the registered error code for a failure (RFC 8935 §2.4).
fn code(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::WrongIssuer => "invalid_issuer",
        AuthFailure::WrongAudience => "invalid_audience",
        AuthFailure::BadSignature | AuthFailure::UnknownKey => "invalid_key",
        _ => "invalid_request",
    }
}
