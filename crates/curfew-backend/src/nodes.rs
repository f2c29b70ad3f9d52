//! The live nodes.

use std::borrow::Cow;

use curfew_model::NodeId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{BackendError, BoxFuture};

/// One live node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeInfo {
    /// The node's id, new at every start.
    pub node: NodeId,
    /// The node's name, from `server.node_name` or the machine's host name. It is empty if the node
    /// runs an older version of Curfew that does not report a name.
    pub name: String,
    /// The address of the node's public listener: `server.node_address`, or the address that the
    /// node itself finds.
    pub address: String,
    /// Curfew's version.
    pub version: String,
    /// The time of the node's start, in Unix seconds.
    pub started_at: u64,
    /// The number of the node's sessions.
    pub sessions: u64,
    /// A digest of the node's `[[channels]]`. Nodes with the same digest store the same streams.
    /// Absent if the node has no `[[channels]]`, or if its version has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<String>,
}

/// The state of this node's connection to the backend. `Starting` and `OutOfTouch` hold the reason,
/// as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Sessions can be admitted.
    InTouch,
    /// Sessions cannot be admitted, and could not be admitted at any time since the start.
    Starting(Cow<'static, str>),
    /// Sessions cannot be admitted at the moment, but could be admitted earlier.
    OutOfTouch(Cow<'static, str>),
}

/// The cluster's members.
pub trait Nodes: Send + Sync + 'static {
    /// Every live node, including this node.
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>>;

    /// True if this node's wall clock is accurate enough to decide that a token has expired or is
    /// not yet valid. The clock counts as accurate if there is no other clock to compare it with.
    fn clocks_agree(&self) -> bool {
        true
    }

    /// The primary's setting that makes the primary refuse revocations after it was replaced. The
    /// result is `Some("none")` if there is no such setting, and `None` if no server could replace
    /// the primary.
    fn fencing(&self) -> Option<&'static str> {
        None
    }

    /// Announces the digest of the `[[channels]]` in force to other nodes. `digest` is `None` if
    /// the node has no `[[channels]]`.
    fn note_channels(&self, digest: Option<String>);

    /// Leaves the cluster, and removes every record of this node. The caller closes every session
    /// first. The backend cannot be used afterwards.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// This node's ability to admit sessions, with the reason if the node cannot admit sessions.
    fn standing(&self) -> Standing {
        Standing::InTouch
    }
}
