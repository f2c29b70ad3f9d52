//! Publications between nodes.

use std::time::Duration;

use curfew_model::{Channel, Publication};

use crate::{BackendError, BoxFuture};

/// Carries publications to every node that listens.
///
/// Guarantees: at most once; publications of one publisher in one channel arrive in the order in
/// which their `publish` futures are first polled, whether or not one is ready before the next is
/// polled. A publication reaches [`Events::publication`](crate::Events::publication)
/// on every node whose `subscribe` for the channel completed before `publish` was called, the
/// publishing node included. A node may also see channels that it did not subscribe to.
pub trait Broker: Send + Sync + 'static {
    /// Starts listening to a channel. The caller asks once while it listens.
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Stops listening.
    fn unsubscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Hands a publication to every listening node; ready once the backend has it, or once it is
    /// clear that it cannot be said whether the backend has it
    /// ([`BackendError::UnknownOutcome`]).
    ///
    /// `until`, of [`boottime`](curfew_model::boottime), is the end of the lease under which it was
    /// accepted, read before its publisher was last checked. It is not carried out later,
    /// even if this node or its connection to the backend stops in between.
    fn publish(
        &self,
        publication: Publication,
        until: Duration,
    ) -> BoxFuture<'_, Result<(), BackendError>>;
}
