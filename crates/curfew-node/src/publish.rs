//! Publishing: from an authorized publication to the broker.

use std::time::Instant;

use curfew_backend::BackendError;
use curfew_model::Publication;

use crate::Node;

impl Node {
    /// Hands a publication to the broker, which brings it to every node that listens, this one
    /// included. The caller has authorized it.
    pub async fn publish(&self, publication: Publication) -> Result<(), BackendError> {
        let began = Instant::now();
        let trace = publication.trace.clone();
        self.backends.broker.publish(publication).await?;
        self.metrics
            .publish_duration
            .observe_traced(began.elapsed().as_secs_f64(), trace.as_deref());
        Ok(())
    }
}
