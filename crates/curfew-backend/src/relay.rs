//! Messages from one node to another.

use std::time::Duration;

use bytes::Bytes;
use curfew_model::NodeId;

use crate::{BackendError, BoxFuture};

/// Time that a node has to take a message of another.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// The answer of a node to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// It has taken the message.
    Taken,
    /// The message is for nothing that is there.
    Unknown,
    /// It cannot or may not take the message. Nothing comes of it.
    Refused,
}

/// Messages to one node.
///
/// Guarantees: a message reaches [`Events::relayed`](crate::Events::relayed) of the node that is named,
/// at most once, and of no other; the answer is what came of it there. A message that is answered is taken before one
/// that is sent after the answer, no matter which node sends them. The backend neither reads nor protects a
/// message: others may read it on its way, and may send the node messages of their own.
pub trait Relay: Send + Sync + 'static {
    /// Sends a message to a node; `None` if there is no such node. After an error the node may have
    /// taken the message.
    fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<Relayed>, BackendError>>;
}
