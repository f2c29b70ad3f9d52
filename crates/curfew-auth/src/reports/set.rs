//! Security event tokens: RFC 8417, as the Shared Signals Framework 1.0 profiles them (§4.1).

use std::sync::Arc;
use std::time::Duration;

use curfew_model::AuthFailure;
use serde_json::{Map, Value};

use super::StreamStatus;
use super::event::EventType;
use super::signed::{MAX_ID_BYTES, ReportClaims, SignedClaims};
use super::subject::{ReportSubject, SubjectMatch};
use crate::ask::{KeyWait, NoKey};
use crate::authenticate::Authenticator;
use crate::issuers::{LoadedIssuer, ReportRules};
use crate::token::TokenType;
use crate::token::json::{self, Date, Flaw};
use crate::{AuthError, EventStream, VerifyError};

/// Earliest time of an event, in Unix seconds. It is the first time with ten digits, and a number
/// in a revocation's value is read as a time only if it has at least ten digits. A revocation with
/// an earlier time would therefore count as a revocation without a time, and would end newer access
/// too. Only a transmitter whose clock was never set sends an earlier time.
const EARLIEST: u64 = 1_000_000_000;

/// The content of a good security event token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityEvent {
    /// The configured name of the issuer that sent the token.
    pub issuer: Arc<str>,
    /// The type of the event.
    pub event: EventType,
    /// The consequence of the event.
    pub effect: Effect,
}

/// Consequence of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Access ends.
    End {
        /// The subjects, which all name the same user, token or login.
        subjects: Vec<ReportSubject>,
        /// The time of the event in Unix seconds. Newer tokens stay valid if the subject can return
        /// ([`ReportSubject::can_return`]).
        at: u64,
    },
    /// The event ends no access, because of its type or its content.
    Nothing,
    /// No session can be found by the event's subject. The reason is for operators.
    NobodyFound(&'static str),
    /// The verification event has the expected state, or no state.
    Verified,
    /// The transmitter changes the state of the stream.
    Stream(StreamStatus),
    /// The verification event has another state than the expected one (§8.1.4.1).
    OtherState,
}

impl Authenticator {
    /// The event stream of the issuer named `name`; `None` if this issuer may push no events.
    pub fn event_stream(&self, name: &str) -> Option<EventStream> {
        let issuers = self.snapshot();
        let mut all = issuers.all.iter();
        let named = all.find(|issuer| *issuer.name == *name)?;
        named.reports.as_ref()?.stream.clone()
    }

    /// Returns true if some issuer may push events.
    pub fn accepts_events(&self) -> bool {
        let issuers = self.snapshot();
        let mut reports = issuers
            .all
            .iter()
            .filter_map(|issuer| issuer.reports.as_ref());
        reports.any(|rules| rules.stream.is_some())
    }

    /// Validates a security event token from the stream of the issuer named `name`. The token's
    /// `jti` is not remembered, because every event is idempotent.
    ///
    /// # Errors
    ///
    /// The fault of the token, or [`VerifyError::Unknown`] if the issuer's keys are unavailable.
    pub async fn verify_event(
        &self,
        name: &str,
        token: &str,
        wait: KeyWait,
    ) -> Result<SecurityEvent, VerifyError> {
        let attempt = |now| self.attempt_event(name, token, now);
        wait.run(self.clock(), attempt).await
    }

    fn attempt_event(
        &self,
        name: &str,
        token: &str,
        now: Duration,
    ) -> Result<SecurityEvent, NoKey> {
        let issuers = self.snapshot();
        let latest = now + issuers.leeway;
        issuers.signed_report(
            token,
            TokenType::Event,
            |issuer| {
                let rules = issuer.reports.as_ref()?;
                let stream = rules.stream.as_ref()?;
                // §4.1.6: only the issuer of this stream may sign.
                (*issuer.name == *name).then_some((rules, stream))
            },
            |claims, issuer, (rules, stream)| judge(claims, issuer, rules, stream, latest),
        )
    }
}

/// The claims of a security event token, beyond the common claims of all reports.
#[derive(Debug, Default)]
struct SecurityEventClaims {
    happened_at: Option<Date>,
    subject: Option<Value>,
    events: Option<Map<String, Value>>,
    /// A claim that only other types of tokens have.
    foreign: Option<&'static str>,
}

/// Judges the claims. `latest` is the current time plus the leeway.
fn judge(
    signed: SignedClaims<SecurityEventClaims>,
    issuer: &LoadedIssuer,
    rules: &ReportRules,
    stream: &EventStream,
    latest: Duration,
) -> Result<SecurityEvent, AuthError> {
    signed.check_audience(&stream.audience)?;
    let claims = &signed.own;
    if let Some(name) = claims.foreign {
        return Err(AuthError::malformed(format!(
            "the token has the claim {name}, which an event token must not have"
        )));
    }
    // RFC 8417 §2.2 sets no oldest `iat`, because senders repeat events for as long as they
    // like.
    let issued_at = signed.issued_at.ok_or_else(|| missing("iat"))?.up();
    if Duration::from_secs(issued_at) > latest {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the event token's iat is in the future",
        ));
    }
    if !signed.has_token_id(MAX_ID_BYTES) {
        return Err(missing("jti"));
    }
    let events = claims.events.as_ref().ok_or_else(|| missing("events"))?;
    let (event, members) = only_event(events)?;
    // Older RISC events contain the subject inside the event.
    let subject = claims.subject.as_ref().or_else(|| members.get("subject"));
    let at = || {
        let happened_at = claims.happened_at.map(Date::up);
        let told = seconds(members.get("event_timestamp")).or(happened_at);
        // The time is at least `EARLIEST`. It is at most `latest`, so that tokens issued after
        // `latest` stay valid.
        told.unwrap_or(issued_at)
            .max(EARLIEST)
            .min(latest.as_secs())
    };
    let effect = match event {
        EventType::Verification => verification(members, stream),
        EventType::StreamUpdated => Effect::Stream(stream_status(members)?),
        EventType::Other => Effect::Nothing,
        event => {
            let subject = subject.ok_or_else(|| missing("sub_id"))?;
            let found = rules.find(subject, &stream.critical_members)?;
            match found {
                _ if !event.ends_access(members, &stream.revoke_on) => Effect::Nothing,
                SubjectMatch::Subjects(subjects) => Effect::End { subjects, at: at() },
                SubjectMatch::Nowhere(why) => Effect::NobodyFound(why),
                SubjectMatch::Foreign => Effect::NobodyFound(
                    "the user belongs to an issuer that the sender does not report on",
                ),
            }
        }
    };
    Ok(SecurityEvent {
        issuer: Arc::clone(&issuer.name),
        event,
        effect,
    })
}

/// Finds the type and members of the token's event. If `events` has several members, they must
/// describe the same event (§4.2.1), so their types must be equal.
fn only_event(events: &Map<String, Value>) -> Result<(EventType, &Map<String, Value>), AuthError> {
    let mut only: Option<(EventType, &Map<String, Value>)> = None;
    for (uri, members) in events {
        let event = EventType::of(uri);
        let members = members
            .as_object()
            .ok_or_else(|| AuthError::malformed("a member of events is not an object"))?;
        if only.is_some_and(|(known, _)| known != event) {
            return Err(AuthError::malformed(
                "the event token has several events of different types",
            ));
        }
        only = Some((event, members));
    }
    only.ok_or_else(|| AuthError::malformed("the event token's events claim is empty"))
}

fn verification(members: &Map<String, Value>, stream: &EventStream) -> Effect {
    match members.get("state") {
        None | Some(Value::Null) => Effect::Verified,
        Some(Value::String(state)) if stream.verification_state.as_ref() == Some(state) => {
            Effect::Verified
        }
        Some(_) => Effect::OtherState,
    }
}

/// Reads the new state of a stream (§8.1.5).
fn stream_status(members: &Map<String, Value>) -> Result<StreamStatus, AuthError> {
    match members.get("status").and_then(Value::as_str) {
        Some("enabled") => Ok(StreamStatus::Enabled),
        Some("paused") => Ok(StreamStatus::Paused),
        Some("disabled") => Ok(StreamStatus::Disabled),
        _ => Err(AuthError::malformed(
            "the stream's status must be enabled, paused or disabled",
        )),
    }
}

/// Reads a time: CAEP 1.0 §2 allows any JSON number of seconds. The time is rounded up, so that no
/// token from before the event stays valid.
fn seconds(value: Option<&Value>) -> Option<u64> {
    let seconds = value?.as_f64()?;
    // The cast clamps numbers beyond the range of `u64`.
    (seconds >= 0.0).then_some(seconds.ceil() as u64)
}

fn missing(name: &str) -> AuthError {
    AuthError::malformed(format!("the event token has no {name}"))
}

impl ReportClaims for SecurityEventClaims {
    const UNREADABLE: &'static str = "the event token's payload is not a JSON object, repeats a name or has a claim of the wrong type";

    fn member(&mut self, name: &str, value: json::Value<'_>) -> Result<(), Flaw> {
        match name {
            "toe" => self.happened_at = Some(Date::read(name, value)?),
            "sub_id" => self.subject = Some(json::exact(name, value)?),
            "events" => self.events = Some(json::object(name, value)?),
            // An event token has neither `sub` nor `exp` (§4.1.2, §4.1.7). A token with one of
            // these claims is of another type, and is refused.
            "sub" => self.foreign = Some("sub"),
            "exp" => self.foreign = Some("exp"),
            _ => {}
        }
        Ok(())
    }
}
