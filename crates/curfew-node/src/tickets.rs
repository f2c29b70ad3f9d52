//! Tickets. A ticket is issued for a token that could open a session, and can be used for one
//! upgrade request.

use std::time::Duration;

use curfew_backend::BackendError;
use curfew_model::{Principal, SessionId, TicketId};

use crate::{AdmitError, Node};

impl Node {
    /// Stores the sealed record of a new ticket of `principal`, unless a revocation covers the
    /// token. The revocations are checked again when the ticket is used.
    ///
    /// # Errors
    ///
    /// [`AdmitError::Revoked`]: the record is not stored. [`AdmitError::Backend`]: the record may
    /// or may not be stored.
    pub async fn keep_ticket(
        &self,
        principal: &Principal,
        id: &TicketId,
        sealed: &[u8],
        lifetime: Duration,
    ) -> Result<(), AdmitError> {
        self.check_lease()?;
        let _place = self.admissions.enter().await?;
        let kinds = self.hub.kinds();
        // A new session id stands in for the session, because no session exists yet.
        let keys = principal.revocation_keys(SessionId::new(), kinds.claims());
        self.check_revoked(&keys, principal).await?;
        self.backends.tickets.put(id, sealed, lifetime).await?;
        Ok(())
    }

    /// Takes a ticket's record, stored by any node. Returns `None` if the record was taken before,
    /// has expired, or never existed.
    ///
    /// # Errors
    ///
    /// The backend failed. The ticket may be used up, unless the error precedes the request.
    pub async fn take_ticket(&self, id: &TicketId) -> Result<Option<Vec<u8>>, BackendError> {
        // Without the lease no session is admitted, so the ticket would be used up for nothing.
        self.check_lease()?;
        let _place = self.admissions.enter().await?;
        self.backends.tickets.take(id).await
    }
}
