//! Access tokens and logout tokens. Each accepted token is compared with the claims that
//! `jsonwebtoken` accepts.

use std::sync::{Arc, LazyLock};

use curfew_auth::{AuthConfig, Authenticator, Issuer};
use curfew_model::Secret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::signed::{Fixed, LEEWAY, NOW, SECRET, is_for, opinion, token};

/// Maximum age of a logout token, in seconds: ten minutes, and one second for rounding.
const MAX_AGE_SECONDS: f64 = 601.0;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let config = AuthConfig {
        issuers: vec![Issuer {
            name: "main".to_owned(),
            issuer: Some("https://id.example".to_owned()),
            audience: Some(vec!["curfew".to_owned()]),
            secret: Some(Secret::new(SECRET)),
            backchannel_logout: true,
            logout_audience: Some(vec!["web-app".to_owned()]),
            ..Issuer::default()
        }],
        leeway: LEEWAY,
        ..AuthConfig::default()
    };
    Authenticator::new(&config, Arc::new(Fixed)).expect("the configuration is valid")
});

/// The claims that are checked. All other claims may have values that do not fit into a double or
/// into Unicode text.
#[derive(Debug, Clone, Deserialize)]
struct Claims {
    iss: String,
    sub: Option<String>,
    aud: Value,
    exp: f64,
    iat: Option<f64>,
    nbf: Option<f64>,
    sid: Option<Value>,
    events: Option<Value>,
    nonce: Option<IgnoredAny>,
}

/// Checks that every token that Curfew accepts for a session is signed, is for this audience, has a
/// user, and has not expired.
pub fn check(bytes: &[u8]) -> bool {
    let Some(token) = token(bytes) else {
        return false;
    };
    let principal = match AUTHENTICATOR.authenticate(&token) {
        Ok(principal) => principal,
        Err(error) => {
            let message = error.message();
            assert!(!message.is_empty() && message.len() < 512, "{message:?}");
            assert!(
                token.len() < 32 || !message.contains(&token),
                "the refusal contains the token"
            );
            return false;
        }
    };
    let claims = opinion::<Claims>(&token).expect("`jsonwebtoken` accepts the signature");
    assert_eq!(claims.sub.as_deref(), Some(principal.user()));
    assert_eq!(claims.iss, "https://id.example");
    let audience = &claims.aud;
    assert!(
        is_for(audience, "curfew"),
        "a token for the audience {audience} is accepted"
    );
    let latest = (NOW - LEEWAY).as_secs_f64();
    assert!(
        claims.exp > latest - 1.0,
        "a token that ended at {} is accepted",
        claims.exp
    );
    // Curfew rounds `iat` and `nbf` up to whole seconds, so no difference is allowed here.
    let earliest = (NOW + LEEWAY).as_secs_f64();
    for begins in [claims.iat, claims.nbf].into_iter().flatten() {
        assert!(
            begins <= earliest,
            "a token that begins only at {begins} is accepted"
        );
    }
    let whole = claims.exp.floor().max(0.0) as u64;
    assert_eq!(
        principal.expires_at(),
        whole,
        "the end is `exp` rounded down: {}",
        claims.exp
    );
    let issued_at = claims.iat.map(|at| at.floor().max(0.0) as u64);
    assert_eq!(
        principal.issued_at(),
        issued_at,
        "the time of issue is `iat` rounded down: {:?}",
        claims.iat
    );
    true
}

/// Checks that every logout token that Curfew accepts is signed, has the event, and names a user or
/// a provider's session.
pub fn check_logout(bytes: &[u8]) -> bool {
    let Some(token) = token(bytes) else {
        return false;
    };
    let Ok(logout) = AUTHENTICATOR.judge_logout(&token) else {
        return false;
    };
    let claims = opinion::<Claims>(&token).expect("`jsonwebtoken` accepts the signature");
    assert!(logout.user.is_some() || logout.login.is_some());
    assert_eq!(logout.user, claims.sub);
    let login = claims.sid.as_ref().and_then(Value::as_str);
    assert_eq!(logout.login.as_deref(), login);
    assert_eq!(claims.iss, "https://id.example");
    assert!(is_for(&claims.aud, "web-app"), "{claims:?}");
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let event = claims.events.as_ref().and_then(|events| events.get(event));
    assert!(event.is_some_and(Value::is_object), "{claims:?}");
    assert!(claims.nonce.is_none(), "{claims:?}");
    let issued_at = claims
        .iat
        .expect("an accepted logout token has a time of issue");
    let apart = (NOW.as_secs_f64() - issued_at).abs();
    assert!(
        apart < MAX_AGE_SECONDS,
        "a logout token issued {apart} s before or after now is accepted"
    );
    true
}
