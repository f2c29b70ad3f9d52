//! The credential of an upgrade request, and the check of the page that sends it.

use curfew_auth::{AuthError, Credential};
use curfew_ws::Handshake;
use http::Request;
use hyper::body::Incoming;

use super::refused::UpgradeRefusal;
use crate::config::ServerSettings;
use crate::http::refusal::NOT_ALLOWED;

/// The refusal of a request whose cookie is not accepted from its page.
const NO_COOKIE: &str = "a token in a cookie is accepted only from a page whose Origin is listed in server.allowed_origins, not without an Origin and not from null or file://: send the token in another way";

/// The credential of a request. A browser adds cookies on its own. If cookies are not accepted from
/// this page, the credential that the page itself has sent counts instead.
pub(super) fn of(
    settings: &ServerSettings,
    request: &Request<Incoming>,
    offer: &Handshake,
) -> Result<Option<Credential>, AuthError> {
    let (headers, query) = (request.headers(), request.uri().query());
    let (subprotocols, auth) = (&offer.subprotocols, &settings.auth);
    // A client without an `Origin` is not a browser, and sends its cookie on purpose.
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

/// Checks the origin of a request. A browser sends cookies with the requests of every page, so a
/// request that uses a cookie must have a listed origin (CWE-1385).
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
