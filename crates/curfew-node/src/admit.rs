//! Admission: from a verified token to a session that revocations can find.
//!
//! The order is the point. The session is registered *before* the revocations are read, so that
//! one written in between finds it in the hub; it is opened last.

use std::sync::Arc;

use curfew_backend::{BackendError, OpenError, Revoked, SessionRecord};
use curfew_hub::Member;
use curfew_model::{Principal, RevocationKey, SessionId};
use curfew_protocol::ProtocolId;
use parking_lot::Mutex;

use crate::{Node, Settings};

/// Why a verified token opens no session.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A revocation covers the token.
    #[error("revoked by {}", .0.key.kind())]
    Revoked(Revoked),
    /// The session was ended by somebody else meanwhile: a revocation, an operator, a drain.
    #[error("ended while it was opening")]
    Ended(curfew_hub::Ending),
    /// The user has as many sessions as are allowed.
    #[error("the user has {limit} sessions already")]
    SessionLimit {
        /// `session.max_per_user`.
        limit: u32,
    },
    /// The node is leaving service.
    #[error("the node is draining")]
    Draining,
    /// The backend failed: not the user's fault.
    #[error("ask the backend")]
    Backend(#[from] BackendError),
}

/// A session's place on this node. Dropping it takes the session out of the hub and has its record
/// removed.
#[derive(Debug)]
pub struct Attachment {
    pub(crate) node: Arc<Node>,
    member: Arc<Member>,
    /// The settings that made the keys the session is found by. The keys themselves are made again
    /// when they are needed: kept, they would be a sixth of an idle session's memory.
    keyed_by: Mutex<Arc<Settings>>,
    connected_at: u64,
    recorded: bool,
}

impl Node {
    /// Admits a session: registers it, checks the revocations, records it. Nothing is delivered to
    /// it before [`Attachment::open`].
    pub async fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        protocol: ProtocolId,
    ) -> Result<Attachment, AdmitError> {
        let settings = self.settings();
        let session = SessionId::new();
        let keys = principal.revocation_keys(session, &settings.revocable_claims);
        // Registered before the revocation check: one written in between must find us.
        let member = self
            .hub
            .register(session, protocol, Arc::clone(&principal), &keys);
        let mut attachment = Attachment {
            node: Arc::clone(self),
            member,
            // From the start: this future may be dropped at any await.
            keyed_by: Mutex::new(Arc::clone(&settings)),
            connected_at: self.clock.unix(),
            recorded: false,
        };
        self.metrics.sessions.inc();
        // Asked once registered: a drain that did not see us has been seen by us.
        if self.is_refusing() {
            return Err(AdmitError::Draining);
        }
        let revoked = self
            .backends
            .revocations
            .check(&keys, principal.issued_at())
            .await?;
        if let Some(revoked) = revoked {
            return Err(AdmitError::Revoked(revoked));
        }
        // Set before the attempt: a failed attempt may have written something.
        attachment.recorded = true;
        let record = attachment.record(principal);
        match self
            .backends
            .sessions
            .open(record, settings.max_per_user)
            .await
        {
            Ok(()) => {}
            Err(OpenError::SessionLimit { limit }) => {
                return Err(AdmitError::SessionLimit { limit });
            }
            Err(OpenError::Backend(error)) => return Err(error.into()),
        }
        match attachment.member.outbox().ending() {
            Some(ending) => Err(AdmitError::Ended(ending)),
            None => Ok(attachment),
        }
    }
}

impl Attachment {
    /// The node the session lives on.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The session in the hub.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Opens the session for frames. False when it was ended meanwhile.
    pub fn open(&self) -> bool {
        self.member.outbox().open()
    }

    pub(crate) fn record(&self, principal: Arc<Principal>) -> SessionRecord {
        SessionRecord {
            session: self.member.session(),
            principal,
            node: self.node.id,
            connected_at: self.connected_at,
            protocol: self.node.hub.protocols().get(self.member.protocol()).name(),
        }
    }

    /// The keys the session is found by.
    pub(crate) fn keys(&self) -> Vec<RevocationKey> {
        let settings = Arc::clone(&self.keyed_by.lock());
        let principal = self.member.principal();
        principal.revocation_keys(self.member.session(), &settings.revocable_claims)
    }

    /// From now on the session is found by keys that `settings` made.
    pub(crate) fn set_keyed_by(&self, settings: Arc<Settings>) {
        *self.keyed_by.lock() = settings;
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.node.hub.unregister(&self.member, &self.keys());
        self.node.metrics.sessions.dec();
        if self.recorded {
            self.node.cleanup.add(self.member.session());
        }
    }
}
