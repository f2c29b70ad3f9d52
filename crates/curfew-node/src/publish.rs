//! Publishing: from an authorized publication to the broker.

use std::time::{Duration, Instant};

use curfew_backend::BackendError;
use curfew_model::Publication;

use crate::Node;

impl Node {
    /// Hands a publication to the broker, which delivers it to every listening node, this one
    /// included. The caller has authorized it under the lease that ends at `until`
    /// ([`DeliveryLease::held_until`](curfew_model::DeliveryLease::held_until)), after which it
    /// takes no effect. The duration is measured from `began`; without `began`, only for traced
    /// publications.
    pub async fn publish(
        &self,
        publication: Publication,
        until: Duration,
        began: Option<Instant>,
    ) -> Result<(), BackendError> {
        let trace = publication.trace.clone();
        let began = began.or_else(|| trace.is_some().then(Instant::now));
        self.backends.broker.publish(publication, until).await?;
        if let Some(began) = began {
            let duration = &self.metrics.publish_duration;
            duration.observe_traced(began.elapsed().as_secs_f64(), trace.as_deref());
        }
        Ok(())
    }
}
