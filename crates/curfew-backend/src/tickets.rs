//! Tickets: kept on one node, used on any, once.

use std::time::Duration;

use curfew_model::TicketId;

use crate::{BackendError, BoxFuture};

/// The store of tickets.
///
/// Guarantees: `take` gives what `put` has kept, on any node, until its lifetime is over, and to
/// one caller only, however many ask at once. A backend that loses the latest writes, as a failover
/// does, may give it a second time within its lifetime, or not at all.
pub trait Tickets: Send + Sync + 'static {
    /// Keeps what was sealed for a new ticket. An id is given once; it is an error to be given it
    /// again, and what is there stays.
    fn put<'a>(
        &'a self,
        id: &'a TicketId,
        sealed: &'a [u8],
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Takes what is kept for a ticket away, and gives it; `None` when there is nothing, or nothing any
    /// more. A call that fails, or is not waited for, may have taken it all the same: the ticket is not
    /// to be used again.
    fn take<'a>(&'a self, id: &'a TicketId)
    -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>>;
}
