//! Tickets: any node stores a ticket, and any node redeems the ticket, but only once.

use std::time::Duration;

use curfew_model::TicketId;

use crate::{BackendError, BoxFuture};

/// The store of tickets.
///
/// Guarantees: until the lifetime is over, `take` returns on any node what `put` has stored. If
/// several callers take the ticket concurrently, only one of them gets the data. A backend that
/// loses its latest writes, for example in a failover, may return the data a second time within the
/// lifetime, or not at all.
pub trait Tickets: Send + Sync + 'static {
    /// Stores the sealed data of a new ticket. If the id already exists, the call fails and the
    /// stored data stays.
    fn put<'a>(
        &'a self,
        id: &'a TicketId,
        sealed: &'a [u8],
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Removes the data stored for a ticket, and returns it; `None` if no data is stored. A call
    /// that fails or is cancelled may nevertheless have removed the data, so the caller must not
    /// try again.
    fn take<'a>(&'a self, id: &'a TicketId)
    -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>>;
}
