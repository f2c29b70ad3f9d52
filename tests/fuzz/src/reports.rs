//! Reports of identity providers: security events, and global token revocations.

use std::sync::{Arc, LazyLock};

use curfew_auth::{
    AuthConfig, Authenticator, Effect, EventStream, Issuer, KeyWait, ReportSubject,
    ReportedSubjects, Signal,
};
use curfew_model::Secret;
use futures_util::FutureExt as _;
use serde_json::Value;

use crate::members::Members;
use crate::signed::{Fixed, LEEWAY, NOW, SECRET, is_for, opinion, token};

const ISSUER: &str = "https://id.example";
const EVENTS_AUDIENCE: &str = "curfew-events";
const REVOCATION_AUDIENCE: &str = "https://gateway.example/v1/global-token-revocation";

/// The only member of complex subjects that the configuration names as critical.
const CRITICAL: &str = "group";

/// Longest validity of an assertion, in seconds: an hour.
const MOST_REMAINING: f64 = 3600.0;

/// Earliest time of an event, in Unix seconds.
const EARLIEST: f64 = 1e9;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let claim = |name: &str| Some(name.to_owned());
    let config = AuthConfig {
        issuers: vec![Issuer {
            name: "main".to_owned(),
            issuer: Some(ISSUER.to_owned()),
            audience: Some(vec!["curfew".to_owned()]),
            secret: Some(Secret::new(SECRET)),
            event_stream: Some(EventStream {
                audience: vec![EVENTS_AUDIENCE.to_owned()],
                revoke_on: vec![Signal::HighRisk, Signal::DeviceNotCompliant],
                critical_members: vec![CRITICAL.to_owned()],
                verification_state: Some("asked".to_owned()),
                ..EventStream::default()
            }),
            global_token_revocation: Some(vec![REVOCATION_AUDIENCE.to_owned()]),
            subjects: ReportedSubjects {
                user: None,
                email: claim("email"),
                opaque: claim("ext_id"),
                session: claim("sid"),
                tenant: claim("tenant"),
            },
            ..Issuer::default()
        }],
        leeway: LEEWAY,
        ..AuthConfig::default()
    };
    Authenticator::new(&config, Arc::new(Fixed)).expect("the configuration is valid")
});

/// Checks that an accepted event is signed, is for this audience, and is not a token of another
/// type. The subject, the type and the times of the event must determine whose access ends, and for
/// which tokens.
///
/// # Panics
///
/// Curfew disagrees with the claims that `jsonwebtoken` accepts, or with the tables in this file.
pub fn check_event(bytes: &[u8]) -> bool {
    let Some(token) = token(bytes) else {
        return false;
    };
    let verified = AUTHENTICATOR
        .verify_event("main", &token, KeyWait::Brief)
        .now_or_never();
    let Ok(event) = verified.expect("a token signed with a secret is verified at once") else {
        return false;
    };
    let claims: Members = opinion(&token).expect("`jsonwebtoken` accepts the signature");
    let claim = |name: &str| claims.value(name).expect("no member is repeated");
    assert_eq!(claim("iss"), ISSUER);
    assert!(is_for(&claim("aud"), EVENTS_AUDIENCE), "{claims:?}");
    for foreign in ["sub", "exp"] {
        assert_eq!(
            claims.raw(foreign),
            Some(None),
            "an event with the claim {foreign} is accepted"
        );
    }
    let id = claim("jti");
    assert!(id.as_str().is_some_and(|id| (1..=256).contains(&id.len())));
    // In `claims`, a number that does not fit into a double is replaced by null. Curfew accepts a
    // time that does not fit into a double only if the time is negative, and then takes it for 0.
    let issued_at = seconds(&claims, "iat").unwrap_or(0.0);
    let latest = (NOW + LEEWAY).as_secs_f64();
    assert!(
        issued_at <= latest,
        "an event that is issued in the future, at {issued_at}, is accepted"
    );

    let Some(Value::Object(events)) = plain(claims.raw("events")) else {
        panic!("an event without the claim `events` is accepted: {claims:?}");
    };
    // Several event types in one token describe the same event. The effect is checked only if there
    // is a single type.
    let [(uri, members)] = events.iter().collect::<Vec<_>>()[..] else {
        return true;
    };
    let ends = ends_access(uri, members);
    let subject = claims.value("sub_id").filter(|subject| !subject.is_null());
    let subject = subject.as_ref().or_else(|| members.get("subject"));
    let named = subject.and_then(named);
    match event.effect {
        Effect::End { mut subjects, at } => {
            assert!(
                ends,
                "{uri} {members} ends access, contrary to the table of types"
            );
            let mut named =
                named.unwrap_or_else(|| panic!("access ends, but {subject:?} names no subject"));
            let order = |one: &ReportSubject| format!("{one:?}");
            subjects.sort_by_key(order);
            named.sort_by_key(order);
            assert_eq!(subjects, named, "{subject:?}");
            let happened_at = members["event_timestamp"].as_f64().filter(|at| *at >= 0.0);
            let happened_at = happened_at
                .or_else(|| seconds(&claims, "toe"))
                .unwrap_or(issued_at);
            let expect = happened_at.ceil().max(EARLIEST).min(latest.floor());
            // Curfew's time `at` may be one second higher than `expect`, because Curfew also rounds
            // up a fraction that is too small for a double.
            let differs = at as f64 - expect;
            assert!(
                (0.0..=1.0).contains(&differs),
                "the cutoff is {at} instead of {expect}"
            );
        }
        Effect::NobodyFound(_) => assert_eq!(named, None, "{subject:?}"),
        Effect::Nothing => assert!(
            !ends,
            "{uri} {members} ends no access, contrary to the table of types"
        ),
        Effect::Verified | Effect::OtherState | Effect::Stream(_) => {
            let name = uri.rsplit('/').next();
            assert!(
                !ends,
                "{uri} ends no access, contrary to the table of types"
            );
            assert!(
                matches!(name, Some("verification" | "stream-updated")),
                "{uri}"
            );
        }
    }
    true
}

/// The member as a [`Value`]; `None` if it is missing or repeated, or if the strict scanner refuses
/// it.
fn plain(member: Option<Option<&str>>) -> Option<Value> {
    use curfew_model::json::{Rules, scan};
    let raw = member??;
    let rules = Rules {
        max_depth: 16,
        strict: true,
    };
    let scanned = scan(raw, rules, |_, _| {}).ok()?;
    serde_json::from_str(&scanned.plain(raw)).ok()
}

/// True if an event of the type `uri` with these members ends access.
fn ends_access(uri: &str, members: &Value) -> bool {
    let says = |name: &str| {
        members[name]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let is_known = ["password", "pin"].contains(&says("credential_type").as_str());
    match uri.strip_prefix("https://schemas.openid.net/secevent/") {
        Some(
            "caep/event-type/session-revoked"
            | "caep/event-type/token-claims-change"
            | "risc/event-type/sessions-revoked"
            | "risc/event-type/account-credential-change-required"
            | "risc/event-type/account-purged"
            | "risc/event-type/account-disabled"
            | "oauth/event-type/tokens-revoked",
        ) => true,
        Some("caep/event-type/credential-change") => {
            is_known
                && says("change_type") != "create"
                && ["revoke", "update", "delete"].contains(&says("change_type").as_str())
        }
        Some("risc/event-type/credential-compromise") => is_known,
        Some("caep/event-type/device-compliance-change") => {
            says("current_status") == "not-compliant"
        }
        Some("caep/event-type/risk-level-change") => says("current_level") == "high",
        _ => false,
    }
}

/// The subjects that a subject member names, by the tables of RFC 9493 and of Shared Signals
/// Framework 1.0 §3.3; `None` if it names none.
fn named(subject: &Value) -> Option<Vec<ReportSubject>> {
    let identifiers = subject["identifiers"].as_array();
    match format(subject).as_deref() {
        Some("aliases") => {
            let named: Vec<ReportSubject> =
                identifiers?.iter().filter_map(simple).flatten().collect();
            (!named.is_empty()).then_some(named)
        }
        None | Some("complex") => {
            let members = subject.as_object()?;
            let has = |name: &str| members.contains_key(name);
            let session = &subject["session"];
            if format(session).as_deref() == Some("opaque") {
                let value = text(session, "id")?;
                let claim = "sid".to_owned();
                return (!has(CRITICAL)).then_some(vec![ReportSubject::Login { claim, value }]);
            }
            let narrower = ["session", "device", "application", "group", "org_unit"];
            let tenant = || match format(&subject["tenant"]).as_deref() {
                Some("opaque") => text(&subject["tenant"], "id"),
                Some("iss_sub") if subject["tenant"]["iss"] == ISSUER => {
                    text(&subject["tenant"], "sub")
                }
                _ => None,
            };
            let claim = "tenant".to_owned();
            match has("user") {
                _ if has(CRITICAL) => None,
                true => simple(&subject["user"]),
                false if narrower.into_iter().any(has) => None,
                false => tenant().map(|value| vec![ReportSubject::Claim { claim, value }]),
            }
        }
        Some(_) => simple(subject),
    }
}

fn simple(subject: &Value) -> Option<Vec<ReportSubject>> {
    let issuer = Arc::from("main");
    let is_ours = subject["iss"] == ISSUER;
    let by = |claim: &str, value| ReportSubject::Claim {
        claim: claim.to_owned(),
        value,
    };
    Some(match format(subject)?.as_str() {
        "iss_sub" if is_ours => vec![ReportSubject::User {
            issuer,
            user: text(subject, "sub")?,
        }],
        "jwt_id" if is_ours => vec![ReportSubject::Token {
            issuer,
            id: text(subject, "jti")?,
        }],
        "opaque" => vec![by("ext_id", text(subject, "id")?)],
        "email" => {
            let email = text(subject, "email")?;
            let mut all = vec![by("email", email.to_lowercase()), by("email", email)];
            all.dedup();
            all
        }
        _ => return None,
    })
}

/// The time in a claim, in Unix seconds. A negative number counts as 0, even if it does not fit
/// into a double.
fn seconds(claims: &Members, name: &str) -> Option<f64> {
    let raw = claims.raw(name).flatten()?;
    match raw.strip_prefix('-') {
        Some(_) => Some(0.0),
        None => raw.parse().ok(),
    }
}

/// True if `seconds` is `written` rounded up. One second more is allowed, because a fraction that
/// is too small for a double also rounds up.
fn is_rounded_up(written: f64, raw: &str, seconds: u64) -> bool {
    let least = written.ceil() as u64;
    let may_have_fraction = raw.contains(['.', 'e', 'E']) && !raw.starts_with('-');
    seconds == least || (may_have_fraction && seconds == least + 1)
}

fn format(subject: &Value) -> Option<String> {
    let format = subject.get("format").or(subject.get("subject_type"));
    Some(format?.as_str()?.replace('-', "_"))
}

fn text(subject: &Value, name: &str) -> Option<String> {
    let text = subject[name].as_str()?;
    (!text.is_empty() && text.len() <= 1024).then(|| text.to_owned())
}

/// Checks that an accepted assertion is signed, is for this audience, is valid for at most an hour,
/// and is not an event. The text after the last line break of the input is the subject that the
/// assertion revokes.
///
/// # Panics
///
/// Curfew disagrees with the claims that `jsonwebtoken` accepts, or with the tables in this file.
pub fn check_assertion(bytes: &[u8]) -> bool {
    let at = bytes.iter().rposition(|byte| *byte == b'\n');
    let (signed, subject) = bytes.split_at(at.unwrap_or(bytes.len()));
    let Some(token) = token(signed) else {
        return false;
    };
    let verified = AUTHENTICATOR
        .verify_revoker(&token, KeyWait::Brief)
        .now_or_never();
    let Ok(revoker) = verified.expect("a token signed with a secret is verified at once") else {
        return false;
    };
    let claims: Members = opinion(&token).expect("`jsonwebtoken` accepts the signature");
    let claim = |name: &str| claims.value(name).expect("no member is repeated");
    assert_eq!(claim("iss"), ISSUER);
    assert!(is_for(&claim("aud"), REVOCATION_AUDIENCE), "{claims:?}");
    assert_eq!(
        claims.raw("events"),
        Some(None),
        "an assertion with the claim `events` is accepted"
    );
    assert!(claim("jti").as_str().is_some_and(|id| !id.is_empty()));
    let (now, leeway) = (NOW.as_secs_f64(), LEEWAY.as_secs_f64());
    let end = seconds(&claims, "exp").expect("an accepted assertion has an end");
    assert!(
        end > now - leeway - 1.0,
        "an assertion that ended at {end} is accepted"
    );
    assert!(
        end < now + MOST_REMAINING + 1.0,
        "an assertion that ends only at {end} is accepted"
    );
    for begins in ["iat", "nbf"] {
        let begins = seconds(&claims, begins).unwrap_or(0.0);
        assert!(
            begins <= now + leeway,
            "an assertion that begins only at {begins} is accepted"
        );
    }
    match (revoker.issued_at, seconds(&claims, "iat")) {
        (Some(at), Some(written)) => {
            let raw = claims.raw("iat").flatten().unwrap_or_default();
            assert!(
                is_rounded_up(written, raw, at),
                "the time of issue is {at}, but the claim is {raw}"
            );
        }
        // A negative number that does not fit into a double is 0 for Curfew, and null in `claims`.
        (Some(0), None) => {}
        (read, written) => assert_eq!((read, written), (None, None)),
    }

    let subject = str::from_utf8(subject).unwrap_or_default();
    if let Ok(subject) = serde_json::from_str::<Value>(subject) {
        let users = ["iss_sub", "email", "opaque"];
        let may = format(&subject).is_some_and(|format| users.contains(&format.as_str()));
        let named = simple(&subject).filter(|_| may);
        let mut named = named.unwrap_or_default();
        let mut revoked = AUTHENTICATOR
            .revoked_subjects(&revoker, &subject)
            .unwrap_or_default();
        let order = |one: &ReportSubject| format!("{one:?}");
        named.sort_by_key(order);
        revoked.sort_by_key(order);
        assert_eq!(revoked, named, "{subject}");
    }
    true
}
