//! Publications between nodes.

use std::time::Duration;

use curfew_model::{Channel, Publication};

use crate::{BackendError, BoxFuture};

/// Carries publications to every node that listens.
///
/// Guarantees: a publication arrives at most once. Publications of one publisher in one channel
/// arrive in the order in which their `publish` futures are first polled. This holds even if a
/// future is first polled before an earlier future is ready. A publication reaches
/// [`Events::publication`](crate::Events::publication) on every node whose `subscribe` for the
/// channel completed before `publish` was called, including the publishing node. A node may also
/// receive publications of channels that it did not subscribe to.
pub trait Broker: Send + Sync + 'static {
    /// Starts listening to a channel. The caller calls this method only for a channel that the node
    /// does not listen to yet.
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Stops listening to a channel.
    fn unsubscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Hands a publication to every listening node. The future is ready once the backend has the
    /// publication. The future is also ready, with [`BackendError::UnknownOutcome`], once the
    /// outcome can no longer become known.
    ///
    /// `until`, a time of [`boottime`](curfew_model::boottime), is the end of the lease under which
    /// the publication was accepted. The caller reads the end of the lease before it checks the
    /// publisher's access for the last time. The backend does not carry out the publication after
    /// `until`. This holds even if this node or its connection to the backend stops between the
    /// call and `until`.
    fn publish(
        &self,
        publication: Publication,
        until: Duration,
    ) -> BoxFuture<'_, Result<(), BackendError>>;
}
