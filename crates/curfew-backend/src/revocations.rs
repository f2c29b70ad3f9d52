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
    /// The key that it names.
    pub key: RevocationKey,
    /// The tokens that it covers, and its end.
    pub revocation: Revocation,
}

impl Revoked {
    /// The end of a session that it covers, whose token was issued at `issued_at`.
    pub fn disconnect(&self, issued_at: Option<u64>) -> Disconnect {
        self.revocation.disconnect(&self.key, issued_at)
    }
}

/// A revocation as the backend holds it: what is written in two ways is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key in Redis, as it is written; what is not UTF-8 in it is shown as U+FFFD.
    pub key: String,
    /// The kind.
    pub kind: String,
    /// The value as it is written; empty for the kinds without one.
    pub value: String,
    /// The tokens that it covers, and its end.
    pub revocation: Revocation,
    /// The reason why it can match no session, with any setting of revocable claims.
    pub ineffective: Option<Ineffective>,
}

impl Listed {
    /// In the order of lists.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        (&self.kind, &self.value, &self.key).cmp(&(&other.kind, &other.value, &other.key))
    }
}

/// The effect of a revocation. True when given: a node counted as confirmed has closed its sessions and
/// delivers nothing to them from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Receipt {
    /// The key written.
    pub key: String,
    /// Nodes asked and nodes that confirmed.
    pub nodes: ReceiptNodes,
    /// Sessions closed on the confirming nodes.
    pub closed: u64,
    /// Its safety from a loss of the primary; left out if there are no replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Replicas that have it; left out where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// The time it took, in milliseconds.
    pub took_ms: u64,
}

/// The safety of a revocation from a failure of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A replica has it.
    Replicated,
    /// No replica had it in time: should the primary fail now, it is lost unless a node that lives
    /// on has seen it.
    PrimaryOnly,
}

/// The nodes of a [`Receipt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReceiptNodes {
    /// Nodes alive.
    pub live: u64,
    /// Nodes that have closed their sessions.
    pub confirmed: u64,
    /// The others, in order of their ids: out of touch, too slow, in the middle of a reload, or with
    /// settings that lack the kind.
    pub missing: Vec<NodeId>,
    /// The names of those that are missing, by their ids, as far as they are known; left out where none is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<NodeId, String>,
}

impl ReceiptNodes {
    /// The nodes of a receipt: the `live` ones, of which those in `confirmed` have confirmed.
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

    /// Notes the names of those that are missing.
    pub fn name(&mut self, known: &[NodeInfo]) {
        let named = known.iter().filter(|info| !info.name.is_empty());
        let missing = named.filter(|info| self.missing.contains(&info.node));
        self.names = missing.map(|info| (info.node, info.name.clone())).collect();
    }
}

/// Revocations.
///
/// Guarantees: after `revoke` has returned, every `check` that begins names the revocation until it
/// expires or is lifted; [`Events::revoked`](crate::Events::revoked) is called on every node.
/// A later revocation of the same key replaces the earlier one but never covers fewer tokens: the
/// higher `before` stays, and covering all tokens is the highest. Likewise the later end stays, and
/// no end is the latest; `restore` first to shorten one.
pub trait Revocations: Send + Sync + 'static {
    /// The first of `keys` under which a revocation covers a token issued at `issued_at`.
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

    /// Lifts the revocation of a key in all its spellings. Returns true if there was one.
    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>>;

    /// Compares every session of this node with the revocations in force, by the keys that it is
    /// found by now, and ends those that one covers. Traffic goes on meanwhile. While the backend is
    /// away this waits: when it is back every session is compared anyway.
    ///
    /// # Errors
    ///
    /// The backend has been stopped.
    fn compare(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// The time since the Unix epoch by the backend's clock, one for all nodes. It is between the
    /// begin and the end of the call, so that a cutoff set before the call is not later.
    fn time(&self) -> BoxFuture<'_, Result<Duration, BackendError>>;

    /// Every revocation in force, ordered by kind and value.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, BackendError>>;
}
