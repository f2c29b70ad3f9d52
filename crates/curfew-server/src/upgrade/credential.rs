//! Finds the credential of an upgrade request, and checks the origin of the page that sends the
//! request.

use curfew_auth::{AuthError, Credential};
use curfew_ws::Handshake;
use http::Request;
use hyper::body::Incoming;

use super::refused::UpgradeRefusal;
use crate::config::ServerSettings;
use crate::http::refusal::NOT_ALLOWED;

/// The refusal of a request whose token is in a cookie, if no cookie is accepted from its origin.
const NO_COOKIE: &str = "a token in a cookie is accepted only from a page whose Origin is listed in server.allowed_origins, not without an Origin and not from null or file://: send the token in another way";

/// Returns the credential of a request. A browser adds a cookie even if the page sends another
/// credential. If no cookie is accepted from the page's origin, the page's own credential takes
/// precedence over the cookie.
pub(super) fn of(
    settings: &ServerSettings,
    request: &Request<Incoming>,
    offer: &Handshake,
) -> Result<Option<Credential>, AuthError> {
    let (headers, query) = (request.headers(), request.uri().query());
    let (subprotocols, auth) = (&offer.subprotocols, &settings.auth);
    // A client that sends no `Origin` is not a browser, so its cookie is its own credential.
    if auth.uses_cookie()
        && let Some(origin) = offer.origin.as_deref()
        && !settings.origins.allows(Some(origin), true)
    {
        let own = curfew_auth::extract_beside_cookies(headers, query, subprotocols, auth);
        if !matches!(own, Ok(None)) {
            return own;
        }
    }
    curfew_auth::extract(headers, query, subprotocols, auth)
}

/// Checks the origin of a request. A browser adds cookies to the requests of every page, so a
/// request whose credential is a cookie must have an origin that `server.allowed_origins` lists
/// (CWE-1385).
pub(super) fn check_origin(
    settings: &ServerSettings,
    offer: &Handshake,
    credential: Result<&Option<Credential>, &AuthError>,
) -> Result<(), UpgradeRefusal> {
    let by_cookie = matches!(credential, Ok(Some(credential)) if credential.from_cookie());
    let origin = offer.origin.as_deref();
    if settings.origins.allows(origin, by_cookie) {
        return Ok(());
    }
    Err(UpgradeRefusal::forbidden_origin(
        match settings.origins.allows(origin, false) {
            true => NO_COOKIE,
            false => NOT_ALLOWED,
        },
    ))
}
