//! HTTP answers that refuse a request because of its token, or because of the origin of the web
//! page that sent it. Upgrades and requests for tickets get these answers.

use curfew_auth::AuthError;
use curfew_backend::BackendError;
use curfew_model::AuthFailure;
use curfew_node::AdmitError;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{Problem, Response, json};

/// The detail of the answer to a page whose origin may not connect.
pub(crate) const NOT_ALLOWED: &str = "the Origin is not in server.allowed_origins";

/// Returns the error for a token that a revocation covers; `None` if `error` is not about a
/// revocation.
pub(crate) fn revoked(error: &AdmitError) -> Option<AuthError> {
    let disconnect = match error {
        AdmitError::Revoked(disconnect) => *disconnect,
        AdmitError::Ended(ending) if ending.is_revocation() => ending.disconnect,
        _ => return None,
    };
    let (failure, message) = curfew_session::revoked(disconnect);
    Some(AuthError::new(failure, message))
}

/// Returns the answer while the backend is unavailable. If the backend has given an unusable
/// answer, also logs the error.
pub(crate) fn backend_away(error: &BackendError) -> Problem {
    if matches!(error, BackendError::Unusable(_)) {
        tracing::warn!(error = %error, "the backend gave an unusable answer");
    }
    Problem::unavailable("the service is temporarily unavailable, try again")
}

/// Returns the answer with status 401. Its JSON is that of the native protocol's `auth_failed`
/// frame.
pub(crate) fn unauthorized(error: &AuthError) -> Response {
    #[derive(Serialize)]
    struct AuthFailed<'a> {
        r#type: &'static str,
        reason: AuthFailure,
        message: &'a str,
    }
    let body = AuthFailed {
        r#type: "auth_failed",
        reason: error.failure(),
        message: error.message(),
    };
    let mut response = json(StatusCode::UNAUTHORIZED, &body);
    if let Ok(value) = HeaderValue::from_str(&error.www_authenticate()) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// Returns the answer with status 403 to a page whose origin may not make this request.
pub(crate) fn forbidden_origin(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", detail)
}
