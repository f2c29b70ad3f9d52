//! Which nodes live.

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
    /// When it started, Unix seconds.
    pub started_at: u64,
    /// How many sessions it has.
    pub sessions: u64,
}

/// How this node stands with the backend. The reasons are one sentence each.
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

    /// Whether this node's wall clock is known to be right enough to say of a token that it is over,
    /// or not good yet. Where there is nothing to compare it with, it is.
    fn clocks_agree(&self) -> bool {
        true
    }

    /// What keeps a primary that was replaced from accepting revocations: `none`, or the setting that
    /// does. `None` where there is nothing that could replace it.
    fn fencing(&self) -> Option<&'static str> {
        None
    }

    /// Leaves the cluster, once no session is left: nothing of this node remains. Nothing can be
    /// asked of the backend afterwards.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether this node can admit sessions, and why not.
    fn standing(&self) -> Standing {
        Standing::InTouch
    }
}
