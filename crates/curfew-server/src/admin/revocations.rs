//! The operations that write, list and lift revocations.

use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{Durability, SessionFilter};
use curfew_model::{Ineffective, Revocation, RevocationKey, RevocationKeyError, setting};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::sessions::{MAX_LIMIT, SessionInfo};
use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// The default duration of a revocation. It is longer than the lifetime of any sensible token.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Maximum duration of a revocation through the API. A revocation without an end can only be
/// written directly to Redis.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Maximum length of a reason, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// The valid values of `before` in a request, in Unix seconds: numbers of 10 or 11 digits, as for a
/// cutoff in seconds in Redis.
const CUTOFFS: std::ops::Range<u64> = 1_000_000_000..100_000_000_000;

/// The end of the range of milliseconds. For a `before` from the end of [`CUTOFFS`] up to this
/// number, the error says that the value looks like milliseconds.
const MILLIS_END: u64 = 100_000_000_000_000;

/// The request to revoke.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    /// `user`, `session`, `token`, `anonymous` (every session without a user), `all`, or a claim
    /// listed in `session.revocable_claims`.
    kind: String,
    /// The user, session id, token id (`jti`) or claim's value; empty for `anonymous`. For `all` it
    /// must be `all`, which prevents revoking everyone by mistake.
    #[serde(default)]
    value: String,
    /// A time in Unix seconds, rounded up. Only tokens issued at or before this time are revoked.
    /// Absent: tokens of any age are revoked.
    before: Option<f64>,
    /// The duration of the revocation, as a number of seconds or as a text such as `24h`. Absent:
    /// 24 hours.
    ttl: Option<Ttl>,
    /// The reason, for operators. It is not sent to clients.
    reason: Option<String>,
    /// Must be `all` if `kind` is `all` and `value` is not. It confirms that everyone is to be
    /// revoked.
    confirm: Option<String>,
    /// If true, nothing is revoked, and the answer lists the sessions that a revocation would
    /// close.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Ttl {
    Seconds(u64),
    Text(String),
}

/// The sessions that a revocation would close.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DryRun {
    /// The key that the revocation would have in Redis.
    key: String,
    dry_run: bool,
    /// The number of sessions in the whole cluster that the revocation would close.
    would_close: u64,
    /// The first 1000 of these sessions.
    sessions: Vec<SessionInfo>,
}

/// One revocation in force. A value may have two keys in Redis: one with the value in plain text,
/// and one with its digest. If both keys exist, both are listed, and lifting either of them lifts
/// both.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RevocationInfo {
    kind: String,
    /// The value as the Redis key contains it: in plain text, or as `~` and the value's SHA-256 in
    /// base64url.
    value: String,
    /// The key in Redis.
    key: String,
    /// A time in Unix seconds. Tokens issued later are not revoked. Null: tokens of any age are
    /// revoked.
    before: Option<u64>,
    reason: Option<String>,
    /// The end of the revocation, in Unix seconds. Null: the revocation stays until it is lifted.
    expires_at: Option<u64>,
    /// The reason that the revocation can match no session: `unknown_kind`, `all_with_value`,
    /// `anonymous_with_value`, `empty_value`, `wrong_digest`, `mixed_case`, `not_a_session`,
    /// `not_utf8` or `missing_braces`. Null if the revocation can match a session.
    ineffective: Option<&'static str>,
}

/// The revocations in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Revocations {
    revocations: Vec<RevocationInfo>,
}

/// The result of lifting a revocation.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Restored {
    restored: bool,
}

pub(super) async fn create(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let body: Revoke = call.json()?;
    let key = admin.key_of(&body.kind, &body.value)?;
    if key == RevocationKey::All && body.value != "all" && body.confirm.as_deref() != Some("all") {
        let detail = "this revokes every session and token: confirm it with \"value\": \"all\"";
        return Err(Problem::bad_request(detail));
    }
    let now = admin.context.node.clock().unix();
    let revocation = Revocation {
        before: body.before.map(check_cutoff).transpose()?,
        reason: body.reason.map(check_reason).transpose()?,
        expires_at: Some(now.saturating_add(ttl(body.ttl)?.as_secs())),
        trace: call.trace.clone(),
    };
    if body.dry_run {
        let dry_run = admin.dry_run(&key, &body.value, &revocation).await?;
        return Ok(json(StatusCode::OK, &dry_run));
    }
    let kind = key.kind().to_owned();
    let node = &admin.context.node;
    let receipt = node.revoke(key.clone(), revocation).await?;
    node.tell_receipt(&key, &receipt);
    // The log line has neither the value nor the reason, because both may identify a person.
    info!(
        kind,
        key = call.key(),
        live = receipt.nodes.live,
        confirmed = receipt.nodes.confirmed,
        missing = ?receipt.nodes.missing,
        names = ?receipt.nodes.names,
        closed = receipt.closed,
        "revoked by the admin API"
    );
    // 202 means that some node has not confirmed the revocation, or that the revocation could still
    // be lost if the primary failed.
    let status = match receipt.durability {
        _ if !receipt.nodes.missing.is_empty() => StatusCode::ACCEPTED,
        None | Some(Durability::Replicated) => StatusCode::OK,
        Some(Durability::PrimaryOnly) => StatusCode::ACCEPTED,
    };
    Ok(json(status, &receipt))
}

pub(super) async fn list(admin: Arc<Admin>) -> Result<Response, Problem> {
    let listed = admin.context.node.backends().revocations.list().await?;
    // A kind of claim counts as known only if the current configuration lists it. A reload may
    // change the list.
    let kinds = admin.context.node.hub().kinds();
    let unknown = |kind: &str| {
        let known = RevocationKey::is_kind(kind, kinds.claims());
        (!known).then_some(Ineffective::UnknownKind)
    };
    let revocations = listed
        .into_iter()
        .map(|listed| RevocationInfo {
            ineffective: listed
                .ineffective
                .or_else(|| unknown(&listed.kind))
                .map(Ineffective::as_str),
            kind: listed.kind,
            value: listed.value,
            key: listed.key,
            before: listed.revocation.before,
            reason: listed.revocation.reason.map(Into::into),
            expires_at: listed.revocation.expires_at,
        })
        .collect();
    Ok(json(StatusCode::OK, &Revocations { revocations }))
}

pub(super) async fn delete(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let (kind, value) = (call.param("kind"), call.param("value"));
    // The kind of the call is passed as a configured kind, so a revocation can be lifted even if
    // its kind is not configured.
    let key = RevocationKey::parse(kind, value, &[kind.to_owned()]).map_err(bad_key)?;
    if !admin
        .context
        .node
        .backends()
        .revocations
        .restore(&key)
        .await?
    {
        // No revocation was lifted. If the kind is not configured, `key_of` fails, and its error is
        // more useful than `not_found`.
        admin.key_of(kind, value)?;
        let detail = "no such revocation is in force";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
    }
    info!(
        kind = key.kind(),
        key = call.key(),
        "revocation lifted by the admin API"
    );
    Ok(json(StatusCode::OK, &Restored { restored: true }))
}

impl Admin {
    /// Finds the sessions that a revocation would close, without closing them.
    async fn dry_run(
        &self,
        key: &RevocationKey,
        value: &str,
        revocation: &Revocation,
    ) -> Result<DryRun, Problem> {
        let node = &self.context.node;
        let kinds = node.hub().kinds();
        let mut filter = SessionFilter {
            user: (key.kind() == "user" && key.value() == value).then(|| value.to_owned()),
            after: None,
            limit: MAX_LIMIT,
        };
        let mut dry_run = DryRun {
            key: key.redis_key(&self.prefix),
            dry_run: true,
            would_close: 0,
            sessions: Vec::new(),
        };
        loop {
            let page = node.backends().sessions.list(&filter).await?;
            for record in &page.sessions {
                let principal = &record.principal;
                let named = principal
                    .revocation_keys(record.session, kinds.claims())
                    .contains(key);
                if named && revocation.covers(principal.issued_at()) {
                    dry_run.would_close += 1;
                    if dry_run.sessions.len() < MAX_LIMIT {
                        dry_run.sessions.push(record.into());
                    }
                }
            }
            filter.after = page.cursor;
            if page.cursor.is_none() {
                return Ok(dry_run);
            }
        }
    }

    fn key_of(&self, kind: &str, value: &str) -> Result<RevocationKey, Problem> {
        let kinds = self.context.node.hub().kinds();
        RevocationKey::parse(kind, value, kinds.claims()).map_err(bad_key)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "map_err passes the error by value"
)]
fn bad_key(error: RevocationKeyError) -> Problem {
    Problem::bad_request(error.to_string())
}

fn check_cutoff(before: f64) -> Result<u64, Problem> {
    // The cast saturates: a number outside the range of `u64` becomes 0 or `u64::MAX`.
    let up = before.ceil() as u64;
    if CUTOFFS.contains(&up) {
        return Ok(up);
    }
    Err(Problem::bad_request(
        match (CUTOFFS.end..MILLIS_END).contains(&up) {
            true => "before must be a Unix time in seconds; the value looks like milliseconds",
            false => "before must be a Unix time in seconds",
        },
    ))
}

fn check_reason(reason: String) -> Result<Box<str>, Problem> {
    if reason.len() <= MAX_REASON_BYTES {
        return Ok(reason.into());
    }
    Err(Problem::bad_request(format!(
        "reason must have at most {MAX_REASON_BYTES} bytes"
    )))
}

fn ttl(ttl: Option<Ttl>) -> Result<Duration, Problem> {
    let ttl = match ttl {
        None => DEFAULT_TTL,
        Some(Ttl::Seconds(seconds)) => Duration::from_secs(seconds),
        Some(Ttl::Text(text)) => setting::duration::parse(&text)
            .map_err(|error| Problem::bad_request(format!("ttl: {error}")))?,
    };
    if (Duration::from_secs(1)..=MAX_TTL).contains(&ttl) {
        return Ok(ttl);
    }
    Err(Problem::bad_request(
        "ttl must be between 1 second and 10 years",
    ))
}
