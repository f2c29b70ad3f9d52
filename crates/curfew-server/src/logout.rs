//! `POST /logout/backchannel`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, §2.5 to §2.8).

use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{Logout, VerifyError};
use curfew_model::{ISSUER_USER, Revocation, RevocationKey, issuer_user};
use curfew_telemetry::{LogoutOutcome, Origin, Span};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use tracing::{Instrument as _, info, warn};

use crate::Public;
use crate::respond::{self, Response};
use crate::upgrade::traceparent;

/// The path.
pub(crate) const PATH: &str = "/logout/backchannel";

/// The span of a call, always recorded: it ends sessions.
const SPAN: &str = "POST /logout/backchannel";

/// Largest body.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a logout is remembered where `auth.max_token_lifetime` does not say for how long tokens
/// from before it may come back.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why a logout was not done, as the provider is told (§2.8).
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refused {
    fn invalid(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: "invalid_request",
            description: description.into(),
        }
    }

    /// It is our fault. §2.8 knows no other status than 400.
    fn unavailable(description: impl Into<String>) -> Self {
        Self {
            error: "temporarily_unavailable",
            ..Self::invalid(description)
        }
    }
}

impl Public {
    /// Answers a provider.
    pub(crate) async fn backchannel_logout(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Response {
        let metrics = self.context.node.metrics();
        let origin = Origin::client(traceparent(request.headers()));
        let mut span = metrics.tracer().always(SPAN, origin);
        let scope = span.scope();
        let result = self
            .take_logout(request, &span)
            .instrument(scope.clone())
            .await;
        let _entered = scope.entered();
        let outcome = match &result {
            Ok(()) => LogoutOutcome::Accepted,
            Err(refused) if refused.error == "temporarily_unavailable" => {
                span.failed(refused.error);
                LogoutOutcome::Unavailable
            }
            Err(refused) => {
                span.refused(refused.error);
                LogoutOutcome::Refused
            }
        };
        metrics.logouts.inc(outcome);
        let response = match result {
            Ok(()) => done(),
            Err(refused) => {
                warn!(error = refused.error, why = %refused.description, "logout not done");
                refused.into_response()
            }
        };
        span.set("http.request.method", "POST");
        span.set("http.route", PATH);
        span.set(
            "http.response.status_code",
            i64::from(response.status().as_u16()),
        );
        response
    }

    async fn take_logout(&self, request: Request<Incoming>, span: &Span) -> Result<(), Refused> {
        if request.method() != Method::POST {
            return Err(Refused {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..Refused::invalid("logout tokens are posted")
            });
        }
        // A stranger must not make us verify signatures without end.
        if !self.permits.handshake() {
            return Err(Refused::unavailable("too many requests at the moment"));
        }
        if !is_form(request.headers()) {
            return Err(Refused::invalid(
                "the body must be application/x-www-form-urlencoded",
            ));
        }
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
            .collect()
            .await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Refused {
                    status: StatusCode::PAYLOAD_TOO_LARGE,
                    ..Refused::invalid("the body is over 64 KiB")
                });
            }
            Err(_) => return Err(Refused::invalid("the body broke off")),
        };
        let token = the_token(&body)?;
        let logout = match self.context.authenticator.verify_logout(&token).await {
            Ok(logout) => logout,
            Err(VerifyError::Refused(error)) => return Err(Refused::invalid(error.message())),
            Err(error @ VerifyError::KeysUnavailable(_)) => {
                return Err(Refused::unavailable(error.to_string()));
            }
        };
        self.log_out(logout, span).await
    }

    /// §2.7: a login's sessions, or all of the user's at the issuer that began before. Nobody being
    /// logged in is a success.
    async fn log_out(&self, logout: Logout, span: &Span) -> Result<(), Refused> {
        let node = &self.context.node;
        let settings = self.settings.load_full();
        let lifetime = match settings.auth.max_token_lifetime {
            Duration::ZERO => LONG,
            lifetime => lifetime + settings.auth.leeway,
        };
        let mut revocation = Revocation {
            before: None,
            reason: Some("backchannel_logout".into()),
            expires_at: Some(node.clock().unix().saturating_add(lifetime.as_secs())),
            trace: span.context(),
        };
        let login = logout.login.as_ref().filter(|_| !logout.login_is_unknown);
        let key = match (login, &logout.user) {
            // A new login has a new name: nothing is to be let in again.
            (Some(login), _) => RevocationKey::claim(&settings.auth.login_claim, login),
            // Rather too much than nothing, where tokens do not say which login they are of.
            (None, Some(user)) => {
                revocation.before = Some(logout.issued_at);
                user_key(settings.auth.issuers.len(), &logout.issuer, user)
            }
            (None, None) => {
                let claim = &settings.auth.login_claim;
                return Err(Refused {
                    error: "sid_unknown_here",
                    ..Refused::invalid(format!(
                        "access tokens of this issuer have no claim {claim}, by which the session could be found"
                    ))
                });
            }
        };
        let kind = key.kind().to_owned();
        let receipt = node.revoke_reported(key, revocation).await.map_err(|_| {
            Refused::unavailable(
                "sessions here are closed; those of other nodes as soon as the backend is back",
            )
        })?;
        // Neither the user nor the login: both name a person.
        info!(
            issuer = %logout.issuer,
            kind,
            live = receipt.nodes.live,
            confirmed = receipt.nodes.confirmed,
            closed = receipt.closed,
            "logged out by the identity provider"
        );
        Ok(())
    }
}

/// A user of one issuer, where there are several: others may have a user of the same name.
fn user_key(issuers: usize, issuer: &str, user: &str) -> RevocationKey {
    match issuers {
        1 => RevocationKey::user(user),
        _ => RevocationKey::claim(ISSUER_USER, &issuer_user(issuer, user)),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| {
        media_type
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// The one `logout_token` of the form; other fields are passed over (§2.5). A token has only
/// characters that a form leaves as they are, so an escaped one is none.
fn the_token(body: &[u8]) -> Result<String, Refused> {
    let body = std::str::from_utf8(body).map_err(|_| Refused::invalid("the body is not UTF-8"))?;
    let mut tokens = body
        .split('&')
        .filter_map(|field| field.strip_prefix("logout_token="));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token.to_owned()),
        (None, _) => Err(Refused::invalid("the form has no logout_token")),
        (Some(_), Some(_)) => Err(Refused::invalid("the form has several logout_token")),
    }
}

fn done() -> Response {
    let mut response = Response::new(Full::default());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            error_description: &'a str,
        }
        let body = Body {
            error: self.error,
            error_description: &self.description,
        };
        let mut response = respond::json(self.status, &body);
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
