//! Messages from one node to another.

use std::time::Duration;

use bytes::Bytes;
use curfew_model::NodeId;

use crate::{BackendError, BoxFuture};

/// Time that a node has to accept a message from another node.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// The answer of a node to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// The node has accepted the message.
    Taken,
    /// The node has nothing that the message is for.
    Unknown,
    /// The node cannot or may not accept the message, and does nothing.
    Refused,
}

/// Messages to one node.
///
/// Guarantees: a message reaches [`Events::relayed`](crate::Events::relayed) of the named node, at
/// most once, and no other node. The answer is the result on that node. A message that was answered
/// is accepted before any message that is sent after the answer, no matter which nodes send them.
/// The backend neither reads nor protects a message: others may read it in transit, and may send
/// messages of their own to the node.
pub trait Relay: Send + Sync + 'static {
    /// Sends a message to a node; `None` if there is no such node. After an error the node may have
    /// accepted the message.
    fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<Relayed>, BackendError>>;
}
