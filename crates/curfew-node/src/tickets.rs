//! Tickets: given for a token that opens sessions, taken by one upgrade.

use std::time::Duration;

use curfew_backend::BackendError;
use curfew_model::{Principal, SessionId, TicketId};

use crate::{AdmitError, Node};

impl Node {
    /// Keeps what was sealed for a new ticket of `principal`, whose token no revocation may cover. It is
    /// looked for again, with all else, when the ticket is used.
    ///
    /// # Errors
    ///
    /// [`AdmitError::Revoked`] and [`AdmitError::Backend`]; nothing was kept.
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
        // There is no session yet; nothing names this one.
        let keys = principal.revocation_keys(SessionId::new(), kinds.claims());
        self.check_revoked(&keys, principal).await?;
        self.backends.tickets.put(id, sealed, lifetime).await?;
        Ok(())
    }

    /// Takes what was kept for a ticket, on whichever node; `None` when it was taken before, or was
    /// never there, or not for as long.
    ///
    /// # Errors
    ///
    /// The backend failed. It may have been taken all the same, unless the node knew before it asked.
    pub async fn take_ticket(&self, id: &TicketId) -> Result<Option<Vec<u8>>, BackendError> {
        // Nobody could be admitted now, and the ticket would be used up for nothing.
        self.check_lease()?;
        let _place = self.admissions.enter().await?;
        self.backends.tickets.take(id).await
    }
}
