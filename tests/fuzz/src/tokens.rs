//! Tokens: jsonwebtoken has the second opinion on every one that is accepted.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_auth::{Authenticator, Config, Issuer};
use curfew_model::{Clock, Secret};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, decode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The secret of the one issuer; tokens of the corpus are signed by it.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The time of every run: a moment after that of the corpus.
const NOW: Duration = Duration::from_secs(1_764_000_050);

/// `auth.leeway`.
const LEEWAY: Duration = Duration::from_secs(5);

/// A logout token is no older than ten minutes, give or take a second.
const MAX_AGE_SECONDS: f64 = 601.0;

/// A clock that shows [`NOW`].
#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Duration {
        NOW
    }
}

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let config = Config {
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
        ..Config::default()
    };
    Authenticator::new(&config, Arc::new(Fixed)).expect("it is a good one")
});

/// Bytes with a line break are a header and claims, which are signed here: changes of a signed token would
/// all be refused for their signature.
fn token(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let Some((header, claims)) = text.split_once('\n') else {
        return Some(text.to_owned());
    };
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = sign(signed.as_bytes(), &key, Algorithm::HS256).ok()?;
    Some(format!("{signed}.{signature}"))
}

/// Claims that are judged. Others may hold what no double and no Unicode text can.
#[derive(Debug, Deserialize)]
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

/// The claims, if the signature is good for another library.
fn opinion(token: &str) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    decode::<Claims>(token, &key, &validation)
        .ok()
        .map(|data| data.claims)
}

/// True if an `aud` is, or has, a name.
fn is_for(audience: &Value, name: &str) -> bool {
    let is_in = |all: &Vec<Value>| all.iter().any(|one| one == name);
    audience == name || audience.as_array().is_some_and(is_in)
}

/// A token that opens a session is signed, for us, of a user, and not over.
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
                "the token is told"
            );
            return false;
        }
    };
    let claims = opinion(&token).expect("another library accepts the signature");
    assert_eq!(claims.sub.as_deref(), Some(principal.user()));
    assert_eq!(claims.iss, "https://id.example");
    let audience = &claims.aud;
    assert!(is_for(audience, "curfew"), "{audience} is another's");
    let latest = (NOW - LEEWAY).as_secs_f64();
    assert!(claims.exp > latest - 1.0, "it ended at {}", claims.exp);
    // A fraction of a second is rounded up.
    let earliest = (NOW + LEEWAY).as_secs_f64();
    for begins in [claims.iat, claims.nbf].into_iter().flatten() {
        assert!(begins <= earliest, "it begins at {begins}");
    }
    let whole = claims.exp.floor().max(0.0) as u64;
    assert_eq!(principal.expires_at(), whole, "the end of {}", claims.exp);
    let issued_at = claims.iat.map(|at| at.floor().max(0.0) as u64);
    assert_eq!(
        principal.issued_at(),
        issued_at,
        "the time of {:?}",
        claims.iat
    );
    true
}

/// A token that logs out is signed, has the event, and names a user or a login.
pub fn check_logout(bytes: &[u8]) -> bool {
    let Some(token) = token(bytes) else {
        return false;
    };
    let Ok(logout) = AUTHENTICATOR.judge_logout(&token) else {
        return false;
    };
    let claims = opinion(&token).expect("another library accepts the signature");
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
    let issued_at = claims.iat.expect("a time");
    let apart = (NOW.as_secs_f64() - issued_at).abs();
    assert!(apart < MAX_AGE_SECONDS, "issued {apart} s away");
    true
}
