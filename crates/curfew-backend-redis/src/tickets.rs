//! Tickets: each ticket is one key, and the first node that reads the key deletes it.

use std::time::Duration;

use curfew_backend::{BackendError, BoxFuture, Tickets};
use curfew_model::TicketId;

use crate::Redis;
use crate::connections::Keyed;
use crate::fault::Fault;

impl Tickets for Redis {
    fn put<'a>(
        &'a self,
        id: &'a TicketId,
        sealed: &'a [u8],
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
            let set = Keyed::new("SET", &self.core.keys.ticket(id))
                .arg(sealed)
                .arg("NX")
                .arg("PX")
                .arg(milliseconds);
            match self.connections.call::<Option<String>>(set).await? {
                Some(_) => Ok(()),
                // A ticket with this id exists already.
                None => Err(Fault::Unexpected("SET").into()),
            }
        })
    }

    /// Asks Redis only once. If the answer is lost, the ticket may be used up, and a second
    /// `GETDEL` would wrongly report that the ticket never existed.
    fn take<'a>(
        &'a self,
        id: &'a TicketId,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let getdel = Keyed::new("GETDEL", &self.core.keys.ticket(id));
            Ok(self.connections.call(getdel).await?)
        })
    }
}
