//! The operations that list, show and close the sessions of the cluster.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use curfew_backend::{SessionFilter, SessionRecord};
use curfew_model::{NodeId, SessionId};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::info;

use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// Maximum number of sessions on a page if the call has no parameter `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Maximum number of sessions on a page.
pub(super) const MAX_LIMIT: usize = 1000;

/// One session.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SessionInfo {
    session: SessionId,
    user: String,
    node: NodeId,
    /// The beginning of the session, in Unix seconds.
    connected_at: u64,
    /// The token's `exp`, in Unix seconds.
    expires_at: u64,
    /// The token's `iat`, in Unix seconds.
    issued_at: Option<u64>,
    /// The token's `jti`.
    token_id: Option<String>,
    /// The configured name of the issuer.
    issuer: String,
    protocol: Cow<'static, str>,
    /// The client's address: the socket's address, or the address that a trusted proxy reports.
    address: Option<IpAddr>,
}

/// A page of sessions.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Sessions {
    sessions: Vec<SessionInfo>,
    /// The cursor of the next page; null on the last page.
    cursor: Option<SessionId>,
}

/// One session with its claims.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SessionDetails {
    #[serde(flatten)]
    session: SessionInfo,
    /// The token's claims.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    claims: Option<Box<RawValue>>,
}

/// The result of closing a session.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Closed {
    session: SessionId,
    closed: bool,
}

impl From<&SessionRecord> for SessionInfo {
    fn from(record: &SessionRecord) -> Self {
        let principal = &record.principal;
        Self {
            session: record.session,
            user: principal.user().to_owned(),
            node: record.node,
            connected_at: record.connected_at,
            expires_at: principal.expires_at(),
            issued_at: principal.issued_at(),
            token_id: principal.token_id().map(str::to_owned),
            issuer: principal.issuer().to_owned(),
            protocol: record.protocol.clone(),
            address: record.address,
        }
    }
}

pub(super) async fn list(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let limit = match call.query("limit")? {
        None => DEFAULT_LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| Problem::bad_request(format!("limit must be 1 to {MAX_LIMIT}")))?,
    };
    let after = match call.query("cursor")?.filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Problem::bad_request("cursor must be the previous page's cursor"))?,
        ),
    };
    let user = call.query("user")?.filter(|user| !user.is_empty());
    let filter = SessionFilter { user, after, limit };
    let page = admin.context.node.backends().sessions.list(&filter).await?;
    let sessions = page.sessions.iter().map(SessionInfo::from).collect();
    Ok(json(
        StatusCode::OK,
        &Sessions {
            sessions,
            cursor: page.cursor,
        },
    ))
}

pub(super) async fn get(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let id = parse_id(&call)?;
    let record = admin
        .context
        .node
        .backends()
        .sessions
        .get(id)
        .await?
        .ok_or_else(no_session)?;
    let details = SessionDetails {
        session: (&record).into(),
        claims: record.principal.claims().to_raw(),
    };
    Ok(json(StatusCode::OK, &details))
}

pub(super) async fn delete(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let session = parse_id(&call)?;
    if !admin
        .context
        .node
        .backends()
        .sessions
        .disconnect(session)
        .await?
    {
        return Err(no_session());
    }
    info!(%session, key = call.key(), "session closed by the admin API");
    Ok(json(
        StatusCode::OK,
        &Closed {
            session,
            closed: true,
        },
    ))
}

fn parse_id(call: &Call) -> Result<SessionId, Problem> {
    call.param("id").parse().map_err(|_| no_session())
}

fn no_session() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "no such session")
}
