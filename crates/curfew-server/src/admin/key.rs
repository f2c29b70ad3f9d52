//! The check of admin keys.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::time::{Duration, Instant};
use tracing::warn;

use crate::config::AdminKey;
use crate::http::{Problem, Response, bearer};

/// Maximum number of wrong keys in one [`WINDOW`] that are answered with 401. Further wrong keys in
/// this window are answered with 429.
const MAX_GUESSES: u32 = 20;

/// The window in which wrong keys are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Checks the keys of requests and counts wrong keys.
#[derive(Debug)]
pub(super) struct Key {
    guesses: Mutex<(Instant, u32)>,
}

impl Key {
    pub(super) fn new() -> Self {
        Self {
            guesses: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Returns the configured key that equals the key in the request's headers. If there is no such
    /// key, the error is the answer to the request. The number of wrong keys does not affect a
    /// request with a configured key.
    pub(super) fn check(
        &self,
        keys: &[Arc<AdminKey>],
        headers: &HeaderMap,
    ) -> Result<Arc<AdminKey>, Box<Response>> {
        if keys.is_empty() {
            let detail =
                "no admin key is configured: set admin.key_file to a file with at least 32 bytes";
            let problem = Problem::new(StatusCode::FORBIDDEN, "no_admin_key", detail);
            return Err(Box::new(problem.into_response()));
        }
        let sent = bearer(headers);
        // The time of a comparison does not depend on the bytes of the sent key, only on its
        // length. All keys are compared, so that the total time does not reveal the key that
        // matched.
        let is_sent = |key: &AdminKey| {
            let key = key.key().expose().as_bytes();
            sent.is_some_and(|sent| sent.as_bytes().ct_eq(key).into())
        };
        let found = keys.iter().fold(None, |found, key| match is_sent(key) {
            true => Some(key),
            false => found,
        });
        if let Some(key) = found {
            return Ok(Arc::clone(key));
        }
        if sent.is_some() && self.is_guessing() {
            let detail = "too many wrong keys, try again later";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
            return Err(Box::new(problem.into_response()));
        }
        let detail = "send the admin key as Authorization: Bearer <key>";
        let mut response =
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(Box::new(response))
    }

    /// Counts a wrong key. Returns true if more than [`MAX_GUESSES`] wrong keys have been counted
    /// in the current window.
    fn is_guessing(&self) -> bool {
        let mut guesses = self.guesses.lock();
        let now = Instant::now();
        if now.saturating_duration_since(guesses.0) >= WINDOW {
            *guesses = (now, 0);
        }
        guesses.1 += 1;
        if guesses.1 == MAX_GUESSES {
            warn!("many wrong admin keys");
        }
        guesses.1 > MAX_GUESSES
    }
}
