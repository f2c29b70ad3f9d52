//! Publishing: an authorized publication is passed to the broker.

use std::time::{Duration, Instant};

use curfew_backend::{BackendError, StreamBounds};
use curfew_model::{Position, Publication, PublicationKey};

use crate::Node;

/// The parameters for appending a publication to its channel's stream.
#[derive(Debug, Clone, Copy)]
pub struct Append {
    /// The bounds of the channel's stream.
    pub bounds: StreamBounds,
    /// The idempotency key, if the publisher gave one.
    pub key: Option<PublicationKey>,
}

impl Node {
    /// Hands a publication to the broker, which delivers it to every listening node, including this
    /// node. The caller has authorized the publication under the lease that ends at `until`
    /// ([`DeliveryLease::held_until`](curfew_model::DeliveryLease::held_until)). After `until`, the
    /// publication takes no effect. The metric `publish_duration` is measured from `began`. Without
    /// `began`, the metric is measured only for traced publications, from the call of this method.
    pub async fn publish(
        &self,
        publication: Publication,
        until: Duration,
        began: Option<Instant>,
        stream: Option<Append>,
    ) -> Result<Option<Position>, BackendError> {
        let trace = publication.trace.clone();
        let began = began.or_else(|| trace.is_some().then(Instant::now));
        let position = match stream {
            None => {
                self.backends.broker.publish(publication, until).await?;
                None
            }
            Some(Append { bounds, key }) => {
                let append = self
                    .backends
                    .streams
                    .append(publication, until, bounds, key);
                Some(append.await?)
            }
        };
        if let Some(began) = began {
            let duration = &self.metrics.publish_duration;
            duration.observe_traced(began.elapsed().as_secs_f64(), trace.as_deref());
        }
        Ok(position)
    }
}
