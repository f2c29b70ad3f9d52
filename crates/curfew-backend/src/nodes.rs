//! The nodes that live.

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
    /// Its name, from `server.node_name` or the machine; empty of a node of an older version.
    pub name: String,
    /// The address of its public listener: `server.node_address`, or as the node itself sees it.
    pub address: String,
    /// Curfew's version.
    pub version: String,
    /// The time of its start, in Unix seconds.
    pub started_at: u64,
    /// The number of its sessions.
    pub sessions: u64,
    /// A digest of its `[[channels]]`: nodes with the same one keep the same streams. Absent if it has
    /// no entry, or is of an older version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<String>,
}

/// The standing of this node with the backend. The reasons are one sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Sessions can be admitted.
    InTouch,
    /// They cannot, and never could since the start.
    Starting(Cow<'static, str>),
    /// They could, and cannot at the moment.
    OutOfTouch(Cow<'static, str>),
}

/// The cluster's members.
pub trait Nodes: Send + Sync + 'static {
    /// Every live node, this one included.
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>>;

    /// True if this node's wall clock is known to be right enough to tell that a token is expired or
    /// not yet valid. It is right if there is no other clock to compare it with.
    fn clocks_agree(&self) -> bool {
        true
    }

    /// The setting that keeps a replaced primary from accepting revocations, or `none`. `None` if no
    /// server could replace the primary.
    fn fencing(&self) -> Option<&'static str> {
        None
    }

    /// Tells other nodes the digest of the `[[channels]]` in force; `None` if there is no entry.
    fn note_channels(&self, digest: Option<String>);

    /// Leaves the cluster, once no session is left: nothing of this node remains. Nothing can be
    /// asked of the backend afterwards.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The ability of this node to admit sessions, with the reason if it cannot.
    fn standing(&self) -> Standing {
        Standing::InTouch
    }
}
