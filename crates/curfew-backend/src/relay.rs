//! Messages from one node to another.

use std::time::Duration;

use bytes::Bytes;
use curfew_model::NodeId;

use crate::{BackendError, BoxFuture};

/// Time within which a node must answer a message from another node.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// The answer of a node to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// The node has accepted the message.
    Taken,
    /// The session that the message is for is not on the node.
    Unknown,
    /// The node cannot or may not accept the message, and does nothing.
    Refused,
}

/// Messages to one node.
///
/// Guarantees: a message reaches [`Events::relayed`](crate::Events::relayed) of the node that
/// [`Relay::relay`] names, at most once, and reaches no other node. The answer is the result on
/// that node. If a second message is sent after the answer to a first message, then the node
/// accepts the first message before it receives the second, even if the two senders are different
/// nodes. The backend neither reads nor protects messages: other users of the store may read a
/// message in transit, and may send messages of their own to the node.
pub trait Relay: Send + Sync + 'static {
    /// Sends a message to a node. Returns `None` if no live node has this id. If the call fails,
    /// the node may nevertheless have accepted the message.
    fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<Relayed>, BackendError>>;
}
