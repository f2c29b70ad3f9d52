//! Tokens that the fuzz targets sign, and the claims of these tokens as `jsonwebtoken` and
//! serde_json read them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_model::Clock;
use curfew_model::json::{Rules, scan};
use jsonwebtoken::crypto::{sign, verify};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::members::Members;

/// The secret of the only issuer, which also signs tokens of the corpus.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The time of every run. It is shortly after the corpus was made.
pub(crate) const NOW: Duration = Duration::from_secs(1_764_000_050);

/// `auth.leeway`.
pub(crate) const LEEWAY: Duration = Duration::from_secs(5);

/// A clock that shows [`NOW`].
#[derive(Debug)]
pub(crate) struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Duration {
        NOW
    }
}

/// The token in the input. An input with a line break consists of a header and claims, which are
/// signed here. The fuzzer could not usefully change a signed token: nearly every change would be
/// refused, because the signature would no longer fit.
pub(crate) fn token(bytes: &[u8]) -> Option<String> {
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

/// The claims; `None` if `jsonwebtoken`, with the algorithm that the header names, does not accept
/// the signature.
pub(crate) fn opinion<T: DeserializeOwned>(token: &str) -> Option<T> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let algorithm = match part::<Members>(header)?.value("alg")?.as_str()? {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        _ => return None,
    };
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let is_good = verify(signature, signed.as_bytes(), &key, algorithm).ok()?;
    is_good.then(|| part(claims)).flatten()
}

/// Parses a part of a token. Strings and numbers that serde_json cannot represent are replaced
/// first.
fn part<T: DeserializeOwned>(part: &str) -> Option<T> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    let rules = Rules {
        max_depth: usize::MAX,
        strict: true,
    };
    let scanned = scan(&text, rules, |_, _| {}).ok()?;
    serde_json::from_str(&scanned.plain(&text)).ok()
}

/// True if the claim `aud` is `name`, or a list that contains `name`.
pub(crate) fn is_for(audience: &Value, name: &str) -> bool {
    let is_in = |all: &Vec<Value>| all.iter().any(|one| one == name);
    audience == name || audience.as_array().is_some_and(is_in)
}
