//! The demo page and the few routes that it needs, on the public listener of `curfew dev` only.
//!
//! Some routes make tokens and revoke without a key. They therefore answer only requests that carry
//! a secret value from the page. Other sites cannot read this value. The `Host` of a request must
//! also be `localhost` or a loopback address. This excludes a foreign site whose name resolves to
//! this machine (DNS rebinding). The page also contains the admin key, in a command to paste into a
//! terminal.

use std::net::IpAddr;
use std::sync::Arc;

use curfew_backend::SessionFilter;
use curfew_model::{Revocation, RevocationKey};
use curfew_server::{Extra, Listen, Problem, Response};
use curfew_session::Context;
use curfew_telemetry::Origin;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Dev, sdk};

/// The page. Its placeholders `{{nonce}}` and `{{config}}` are filled in for each answer, the other
/// placeholders once.
const PAGE: &str = include_str!("../../assets/demo.html");

/// The page's style, which replaces `{{demo.css}}`.
const STYLE: &str = include_str!("../../assets/demo.css");

/// The page's scripts, which replace `{{scripts}}` as one module.
const SCRIPTS: &str = concat!(
    include_str!("../../assets/node.js"),
    include_str!("../../assets/log.js"),
    include_str!("../../assets/pane.js"),
    include_str!("../../assets/curfew.js"),
    include_str!("../../assets/centrifuge.js"),
    include_str!("../../assets/page.js"),
);

/// The header that carries the page's secret value.
const GUARD_HEADER: &str = "x-curfew-dev";

/// Largest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Longest lifetime of a token made by the page, in seconds.
const MAX_TTL_SECS: u64 = 24 * 3600;

/// Lifetime of a revocation by the page, in seconds.
const REVOCATION_SECS: u64 = 24 * 3600;

/// Maximum number of sessions shown.
const MAX_SESSIONS: usize = 100;

/// The state of the page's routes.
#[derive(Debug)]
struct Page {
    dev: Arc<Dev>,
    context: Arc<Context>,
    public: Listen,
    admin: Listen,
    guard: String,
    html: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenWish {
    user: String,
    #[serde(default)]
    roles: Vec<String>,
    ttl: u64,
    #[serde(default)]
    claims: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyWish {
    kind: String,
    value: String,
}

/// The routes that `curfew dev` adds to the public listener.
pub(crate) fn routes(
    dev: Arc<Dev>,
    context: Arc<Context>,
    public: Listen,
    admin: Listen,
) -> anyhow::Result<Extra> {
    let guard = super::random_key()?.expose().to_owned();
    let html = PAGE
        .replace("{{demo.css}}", STYLE)
        .replace("{{scripts}}", SCRIPTS);
    let page = Arc::new(Page {
        dev,
        context,
        public,
        admin,
        guard,
        html,
    });
    Ok(Extra::new(move |request| {
        let page = Arc::clone(&page);
        async move { page.answer(request).await }
    }))
}

impl Page {
    async fn answer(&self, request: Request<Incoming>) -> Option<Response> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if !["/", sdk::PATH].contains(&path) && !path.starts_with("/dev/") {
            return None;
        }
        if !is_local_host(&parts.headers) {
            return Some(forbidden(
                "open the page by an IP address, such as 127.0.0.1",
            ));
        }
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        match path {
            "/" => return is_read.then(|| self.html()),
            sdk::PATH => return self.dev.sdk.response().filter(|_| is_read),
            _ => {}
        }
        if parts
            .headers
            .get(GUARD_HEADER)
            .and_then(|v| v.to_str().ok())
            != Some(&self.guard)
        {
            return Some(forbidden("only the demo page may use this endpoint"));
        }
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return Some(Problem::bad_request("the body is too large").into_response());
        };
        let body = body.to_bytes();
        let result = match (&parts.method, path) {
            (&Method::POST, "/dev/token") => self.token(&body),
            (&Method::POST, "/dev/revoke") => self.revoke(&body).await,
            (&Method::POST, "/dev/restore") => self.restore(&body).await,
            (&Method::GET | &Method::HEAD, "/dev/sessions") => self.sessions().await,
            _ => return None,
        };
        Some(result.map_or_else(Problem::into_response, |value| answer(&value)))
    }

    fn html(&self) -> Response {
        let nonce = curfew_model::SessionId::new().to_string();
        let config = json!({
            "ws": "/ws",
            "centrifuge": "/connection/websocket",
            "sdk": self.dev.sdk.config(),
            "csrf": self.guard,
            "program": super::program(),
            "admin_key": self.dev.admin_key.expose(),
            "expiring_notice": self.dev.config.session.expiring_notice.as_secs(),
            "leeway": self.dev.config.auth.leeway.as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "trace_url": self.dev.config.telemetry.trace_url,
            "address": self.public.to_string(),
            "admin": self.admin.to_string(),
        });
        // The nonce also permits the script of the SDK, so that the Content-Security-Policy need
        // not allow the script's host.
        let html = self
            .html
            .replace("{{nonce}}", &nonce)
            .replace("{{config}}", &config.to_string().replace('<', "\\u003c"));
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let mut response = Response::new(Full::new(html.into()));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    fn token(&self, body: &[u8]) -> Result<Value, Problem> {
        let wish: TokenWish = parse(body)?;
        if wish.user.is_empty() || !(1..=MAX_TTL_SECS).contains(&wish.ttl) {
            let detail = format!("a token needs a user and a ttl of 1 to {MAX_TTL_SECS} seconds");
            return Err(Problem::bad_request(detail));
        }
        let now = self.context.node.clock().unix();
        let (token, token_id) = self
            .dev
            .mint_with(&wish.user, wish.roles, wish.ttl, wish.claims, now)
            .map_err(|error| Problem::bad_request(format!("{error:#}")))?;
        Ok(json!({ "token": token, "expires_at": now + wish.ttl, "token_id": token_id }))
    }

    async fn revoke(&self, body: &[u8]) -> Result<Value, Problem> {
        let key = key(body)?;
        let expires_at = self.context.node.clock().unix() + REVOCATION_SECS;
        let tracer = self.context.node.metrics().tracer();
        let span = tracer.always("POST /dev/revoke", Origin::Unknown);
        let revocation = Revocation {
            expires_at: Some(expires_at),
            trace: span.context(),
            ..Revocation::default()
        };
        let revocations = &self.context.node.backends().revocations;
        let receipt = revocations.revoke(key, revocation).await?;
        let mut receipt = serde_json::to_value(receipt)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        if let Some(trace) = span.trace() {
            receipt["trace"] = trace.to_string().into();
        }
        Ok(receipt)
    }

    async fn restore(&self, body: &[u8]) -> Result<Value, Problem> {
        let key = key(body)?;
        let restored = self
            .context
            .node
            .backends()
            .revocations
            .restore(&key)
            .await?;
        Ok(json!({ "restored": restored }))
    }

    async fn sessions(&self) -> Result<Value, Problem> {
        let filter = SessionFilter {
            limit: MAX_SESSIONS,
            ..SessionFilter::default()
        };
        let page = self.context.node.backends().sessions.list(&filter).await?;
        let sessions: Vec<Value> = page
            .sessions
            .iter()
            .map(|record| {
                json!({
                    "session": record.session,
                    "user": record.principal.user(),
                    "node": record.node,
                    "connected_at": record.connected_at,
                    "expires_at": record.principal.expires_at(),
                })
            })
            .collect();
        Ok(json!({ "sessions": sessions }))
    }
}

fn key(body: &[u8]) -> Result<RevocationKey, Problem> {
    let KeyWish { kind, value } = parse(body)?;
    RevocationKey::parse(&kind, &value, &[])
        .map_err(|error| Problem::bad_request(error.to_string()))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body is not as expected: {error}")))
}

fn answer(value: &Value) -> Response {
    let mut response = Response::new(Full::new(value.to_string().into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn forbidden(detail: &str) -> Response {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response()
}

/// True if `Host` is `localhost` or a loopback address, with any port.
fn is_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for (host, local) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("[::1]:8080", true),
            ("127.0.0.1.evil.example", false),
            ("evil.example:8080", false),
            ("192.0.2.1", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_local_host(&headers), local, "{host}");
        }
    }
}
