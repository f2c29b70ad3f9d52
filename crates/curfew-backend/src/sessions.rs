//! Session records: the list of connected sessions over all nodes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{NodeId, Principal, SessionId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackendError, BoxFuture};

/// Time within which a client must respond to a probe.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of one user's sessions that are probed at once. The oldest sessions are probed.
pub const MAX_PROBED: usize = 256;

/// The treatment of a session beyond the user's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverLimit {
    /// The new session is refused, unless the client of another session of the user fails to
    /// respond to a probe.
    #[default]
    Refuse,
    /// The new session replaces the user's oldest session.
    CloseOldest,
}

/// The record of a session.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// The session's id.
    pub session: SessionId,
    /// The user, with the token's claims and times.
    pub principal: Arc<Principal>,
    /// The node that has the session.
    pub node: NodeId,
    /// The time when the session opened, in Unix seconds.
    pub connected_at: u64,
    /// The name of the session's protocol, for example `curfew.v1`.
    pub protocol: Cow<'static, str>,
    /// The address of the session's client; `None` if it is not known.
    pub address: Option<IpAddr>,
}

/// A session that has ended, and whose record is to be removed.
#[derive(Debug, Clone)]
pub struct ClosedSession {
    /// The session's id.
    pub session: SessionId,
    /// The principal of the last token in force.
    pub principal: Arc<Principal>,
}

/// The sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only sessions of this user; `None` for all users.
    pub user: Option<String>,
    /// Only sessions after this session, which is the [`cursor`](SessionPage::cursor) of the
    /// previous page.
    pub after: Option<SessionId>,
    /// Maximum number of sessions; at least 1.
    pub limit: usize,
}

/// Some of the sessions, ordered by id (hence by age).
#[derive(Debug, Clone)]
pub struct SessionPage {
    /// The records.
    pub sessions: Vec<SessionRecord>,
    /// The position at which the next page starts; `None` if this page is the last.
    pub cursor: Option<SessionId>,
}

/// The reason why a session cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The user has as many sessions as are allowed.
    #[error("the user already has {limit} sessions, as many as are allowed")]
    SessionLimit {
        /// `session.max_per_user`.
        limit: u32,
    },
    /// The backend failed.
    #[error("record the session")]
    Backend(#[from] BackendError),
}

/// Session records.
///
/// Guarantees: every node sees a record by `get` and `list` from the moment `open` has returned
/// until `close` is called or the session's access ends. The access ends at the token's `exp` plus
/// the leeway. `open` counts and records in one step, so concurrent calls never give a user more
/// than `max_per_user` sessions.
pub trait Sessions: Send + Sync + 'static {
    /// Records a session. A `max_per_user` of 0 means no limit.
    fn open(
        &self,
        record: SessionRecord,
        max_per_user: u32,
    ) -> BoxFuture<'_, Result<(), OpenError>>;

    /// Makes room for one more session of a user, if possible. Removes the records of the sessions
    /// that the call ends. [`OverLimit::Refuse`] probes the user's sessions on every node, and ends
    /// each session whose client does not respond within [`PROBE_PATIENCE`].
    /// [`OverLimit::CloseOldest`] ends the oldest session whose node answers, and gives up if
    /// several nodes do not answer. Sessions of nodes that do not answer still count towards the
    /// limit.
    fn make_room<'a>(
        &'a self,
        user: &'a str,
        over: OverLimit,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Replaces a session's record after a refresh. A removed record is written again only if the
    /// session is on this node.
    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Removes records. Sessions without a record are skipped.
    fn close<'a>(
        &'a self,
        sessions: &'a [ClosedSession],
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// One session's record.
    fn get(&self, session: SessionId)
    -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>>;

    /// Lists the records that `filter` selects, one page per call.
    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>>;

    /// Ends one session (close 4404) on any node. Returns true if the session was found. Fails if
    /// the session's node does not answer.
    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>>;
}
