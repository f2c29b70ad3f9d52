//! Publishing: from an authorized publication to the broker.

use curfew_backend::{BackendError, BoxFuture};
use curfew_model::Publication;

use crate::Node;

impl Node {
    /// Hands a publication to the broker, which brings it to every node that listens, this one
    /// included. The caller has authorized it.
    pub fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), BackendError>> {
        self.backends.broker.publish(publication)
    }
}
