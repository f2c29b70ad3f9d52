//! Messages to another node.

use bytes::Bytes;
use curfew_backend::{BackendError, Relayed};
use curfew_model::NodeId;

use crate::Node;

impl Node {
    /// Sends a message to a node, whose [`RelayReceiver`](crate::RelayReceiver) takes it; `None` if there
    /// is no such node.
    ///
    /// # Errors
    ///
    /// This node is out of touch, the backend failed, or the other node did not answer. It may have
    /// taken the message.
    pub async fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> Result<Option<Relayed>, BackendError> {
        self.check_lease()?;
        self.backends.relay.relay(node, message).await
    }
}
