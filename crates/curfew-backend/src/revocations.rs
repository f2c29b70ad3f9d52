//! Revocations, shared by all nodes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use curfew_model::{Disconnect, Ineffective, NodeId, Revocation, RevocationKey};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{BackendError, BoxFuture, NodeInfo};

/// A revocation that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The key of the revocation.
    pub key: RevocationKey,
    /// The tokens that the revocation covers, and the end of the revocation.
    pub revocation: Revocation,
}

impl Revoked {
    /// The disconnect of a session that the revocation covers. The session's token was issued at
    /// `issued_at`.
    pub fn disconnect(&self, issued_at: Option<u64>) -> Disconnect {
        self.revocation.disconnect(&self.key, issued_at)
    }
}

/// A revocation as the backend stores it. A key written in two spellings is listed twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key in Redis, as written. Bytes that are not UTF-8 are shown as U+FFFD.
    pub key: String,
    /// The kind of the key.
    pub kind: String,
    /// The value as written; empty for a kind without a value.
    pub value: String,
    /// The tokens that the revocation covers, and the end of the revocation.
    pub revocation: Revocation,
    /// The reason why the key can match no session under any setting of revocable claims; `None` if
    /// it can match a session.
    pub ineffective: Option<Ineffective>,
}

impl Listed {
    /// The order of two revocations in a list: by kind, then by value, then by key.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        (&self.kind, &self.value, &self.key).cmp(&(&other.kind, &other.value, &other.key))
    }
}

/// The effect of a revocation. It describes what has happened already: a node that counts as
/// confirmed has closed the revoked sessions, and delivers nothing more to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Receipt {
    /// The key written.
    pub key: String,
    /// The live nodes, and the nodes that confirmed the revocation.
    pub nodes: ReceiptNodes,
    /// Sessions closed on the confirming nodes.
    pub closed: u64,
    /// The durability of the revocation if the primary is lost; absent without replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// The number of replicas that have the revocation; absent without replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// The time from the request to this receipt, in milliseconds.
    pub took_ms: u64,
}

/// The durability of a revocation if the primary fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A replica has the revocation.
    Replicated,
    /// No replica had the revocation in time. If the primary fails now, the revocation is lost
    /// unless a surviving node has received it.
    PrimaryOnly,
}

/// The nodes of a [`Receipt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReceiptNodes {
    /// The number of live nodes.
    pub live: u64,
    /// The number of nodes that have closed the revoked sessions.
    pub confirmed: u64,
    /// The live nodes that have not confirmed, ordered by id. They are disconnected from the
    /// backend, too slow, in the middle of a reload, or without the kind in their settings.
    pub missing: Vec<NodeId>,
    /// The known names of the missing nodes, by id; absent if no name is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<NodeId, String>,
}

impl ReceiptNodes {
    /// Creates the nodes of a receipt from the `live` nodes and the nodes that have confirmed.
    pub fn new(live: impl IntoIterator<Item = NodeId>, confirmed: &HashSet<NodeId>) -> Self {
        let live: BTreeSet<NodeId> = live.into_iter().collect();
        let missing = live.iter().filter(|node| !confirmed.contains(node));
        let missing: Vec<NodeId> = missing.copied().collect();
        Self {
            live: live.len() as u64,
            confirmed: (live.len() - missing.len()) as u64,
            missing,
            names: BTreeMap::new(),
        }
    }

    /// Adds the names of the missing nodes.
    pub fn name(&mut self, known: &[NodeInfo]) {
        let named = known.iter().filter(|info| !info.name.is_empty());
        let missing = named.filter(|info| self.missing.contains(&info.node));
        self.names = missing.map(|info| (info.node, info.name.clone())).collect();
    }
}

/// Revocations.
///
/// Guarantees: every `check` that begins after `revoke` has returned finds the revocation, until
/// the revocation expires or is lifted. [`Events::revoked`](crate::Events::revoked) is called on
/// every node. A later revocation of the same key replaces the earlier revocation but never covers
/// fewer tokens: the higher `before` of the two is kept. A revocation without `before` covers all
/// tokens, so it counts as the highest. The later expiry of the two is kept as well, and no expiry
/// counts as the latest. To shorten a revocation, call `restore` first.
pub trait Revocations: Send + Sync + 'static {
    /// Finds the first of `keys` whose revocation covers a token issued at `issued_at`.
    fn check<'a>(
        &'a self,
        keys: &'a [RevocationKey],
        issued_at: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Revoked>, BackendError>>;

    /// Puts a revocation in force.
    fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> BoxFuture<'_, Result<Receipt, BackendError>>;

    /// Lifts the revocation of a key in all the key's spellings. Returns true if there was a
    /// revocation.
    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>>;

    /// Compares every session of this node with the revocations in force, and ends the covered
    /// sessions. The comparison uses each session's current keys. Other traffic continues
    /// meanwhile. While the backend is unreachable, the call waits. Each reconnection to the
    /// backend compares every session, and then the call returns.
    ///
    /// # Errors
    ///
    /// The backend has been stopped.
    fn compare(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// The time since the Unix epoch by the backend's clock, the same for all nodes. The returned
    /// time lies between the begin and the end of the call. A cutoff that was read from the
    /// backend's clock before the call is thus not later than the returned time.
    fn time(&self) -> BoxFuture<'_, Result<Duration, BackendError>>;

    /// Every revocation in force, ordered by kind and value.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, BackendError>>;
}
