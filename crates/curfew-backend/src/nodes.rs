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
    /// Its name, from `server.node_name` or the machine; empty if the node's version has no names.
    pub name: String,
    /// The address of its public listener: `server.node_address`, or the address that it sees
    /// itself.
    pub address: String,
    /// Curfew's version.
    pub version: String,
    /// The time of its start, in Unix seconds.
    pub started_at: u64,
    /// The number of its sessions.
    pub sessions: u64,
    /// A digest of its `[[channels]]`: nodes with the same digest store the same streams. Absent if
    /// it has no `[[channels]]`, or if the node's version has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<String>,
}

/// The state of this node's connection to the backend. Each reason is one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Sessions can be admitted.
    InTouch,
    /// Sessions cannot be admitted, and could not at any time since the start.
    Starting(Cow<'static, str>),
    /// Sessions cannot be admitted at the moment, but could before.
    OutOfTouch(Cow<'static, str>),
}

/// The cluster's members.
pub trait Nodes: Send + Sync + 'static {
    /// Every live node, this one included.
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>>;

    /// True if this node's wall clock is accurate enough to decide that a token has expired or is
    /// not yet valid. Without another clock to compare it with, it counts as accurate.
    fn clocks_agree(&self) -> bool {
        true
    }

    /// The setting that keeps a replaced primary from accepting revocations, or `none`. `None` if
    /// no server could replace the primary.
    fn fencing(&self) -> Option<&'static str> {
        None
    }

    /// Announces the digest of the `[[channels]]` in force to other nodes; `None` without
    /// `[[channels]]`.
    fn note_channels(&self, digest: Option<String>);

    /// Leaves the cluster, and removes every record of this node. Call it once no session is left.
    /// The backend cannot be used afterwards.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The ability of this node to admit sessions, with the reason if it has none.
    fn standing(&self) -> Standing {
        Standing::InTouch
    }
}
