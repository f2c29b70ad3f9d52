//! Session records: the inventory of who is connected, over all nodes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{NodeId, Principal, SessionId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackendError, BoxFuture};

/// Time that a client has to give a sign of life for which it is asked.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Sessions of one user that are asked for a sign of life in one go, the oldest of them.
pub const MAX_PROBED: usize = 256;

/// The fate of one session more than a user may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverLimit {
    /// It is refused, after the others were asked for a sign of life.
    #[default]
    Refuse,
    /// It takes the place of the user's oldest.
    CloseOldest,
}

/// The record of a session.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its id.
    pub session: SessionId,
    /// Who, with the token's claims and times.
    pub principal: Arc<Principal>,
    /// The node it lives on.
    pub node: NodeId,
    /// The time of its opening, in Unix seconds.
    pub connected_at: u64,
    /// Its protocol's name, for example `curfew.v1`.
    pub protocol: Cow<'static, str>,
    /// The address of its client; `None` where that is not known.
    pub address: Option<IpAddr>,
}

/// A session that has ended, and whose record is to go.
#[derive(Debug, Clone)]
pub struct ClosedSession {
    /// Its id.
    pub session: SessionId,
    /// Its owner, by the token last in force.
    pub principal: Arc<Principal>,
}

/// The sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only this user's.
    pub user: Option<String>,
    /// Only sessions after this one: a page's [`cursor`](SessionPage::cursor).
    pub after: Option<SessionId>,
    /// At most this many; at least 1.
    pub limit: usize,
}

/// Some of the sessions, ordered by id (hence by age).
#[derive(Debug, Clone)]
pub struct SessionPage {
    /// The records.
    pub sessions: Vec<SessionRecord>,
    /// The start of the next page; `None` if this was the last.
    pub cursor: Option<SessionId>,
}

/// The reason why a session may not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The user has as many as are allowed.
    #[error("the user has {limit} sessions already")]
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
/// Guarantees: a record is seen by `get` and `list` on every node from the moment `open` returned
/// until `close` was called or access has ended, at the token's `exp` and the leeway. `open` counts and records in one step: of
/// concurrent calls for one user never more than `max_per_user` succeed.
pub trait Sessions: Send + Sync + 'static {
    /// Records a session. `max_per_user` of 0 is no limit.
    fn open(
        &self,
        record: SessionRecord,
        max_per_user: u32,
    ) -> BoxFuture<'_, Result<(), OpenError>>;

    /// Makes room for one more session of a user, if that is possible, and removes the records of those
    /// that went. To refuse: gives those up whose clients, on any node, give no sign of life
    /// within [`PROBE_PATIENCE`]. To close the oldest: ends it, or the next one if its node does not
    /// answer. Sessions of nodes that do not answer go on counting.
    fn make_room<'a>(
        &'a self,
        user: &'a str,
        over: OverLimit,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Replaces a session's record after a refresh. A record that is gone stays gone, unless the
    /// session lives on this node.
    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Removes records; sessions without one are passed over.
    fn close<'a>(
        &'a self,
        sessions: &'a [ClosedSession],
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// One session's record.
    fn get(&self, session: SessionId)
    -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>>;

    /// Records, filtered and paged.
    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>>;

    /// Ends one session (close 4404) wherever it lives; says whether it was found. Fails when its
    /// node does not answer.
    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>>;
}
