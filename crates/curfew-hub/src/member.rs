//! One registered session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Principal, Revocation, RevocationKey, SessionId};
use curfew_protocol::ProtocolId;
use parking_lot::Mutex;

use crate::{Hub, Outbox, Outgoing};

/// A session as the hub knows it: who it is and where its frames go.
#[derive(Debug)]
pub struct Member {
    /// Distinguishes members cheaply; unique within the hub.
    pub(crate) slot: u64,
    session: SessionId,
    protocol: ProtocolId,
    registered_at: u64,
    principals: Mutex<Principals>,
    /// When the token in force is over, in microseconds since the Unix epoch.
    ends_at: AtomicU64,
    outbox: Outbox,
}

/// The token in force and, during a refresh, the one that is to replace it. A revocation of either
/// ends the session.
#[derive(Debug)]
struct Principals {
    current: Arc<Principal>,
    incoming: Option<Arc<Principal>>,
}

impl Member {
    pub(crate) fn new(
        slot: u64,
        session: SessionId,
        protocol: ProtocolId,
        registered_at: u64,
        principal: Arc<Principal>,
    ) -> Self {
        Self {
            slot,
            session,
            protocol,
            registered_at,
            ends_at: AtomicU64::new(micros(principal.ends_at())),
            principals: Mutex::new(Principals {
                current: principal,
                incoming: None,
            }),
            outbox: Outbox::new(),
        }
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The protocol it speaks.
    pub fn protocol(&self) -> ProtocolId {
        self.protocol
    }

    /// When it was registered, in Unix seconds.
    pub fn registered_at(&self) -> u64 {
        self.registered_at
    }

    /// Its outbound queue.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The token in force.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principals.lock().current)
    }

    /// When the token in force is over, since the Unix epoch: from then on nothing is delivered or
    /// accepted.
    pub fn ends_at(&self) -> Duration {
        Duration::from_micros(self.ends_at.load(Ordering::Relaxed))
    }

    /// The token in force and, during a refresh, the one that is to replace it.
    pub fn principals(&self) -> impl Iterator<Item = Arc<Principal>> + use<> {
        let principals = self.principals.lock();
        [
            Some(Arc::clone(&principals.current)),
            principals.incoming.clone(),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether it is open: neither opening nor ending.
    pub fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    /// Whether its task has let go of it: nothing more is delivered or accepted.
    pub fn has_left(&self) -> bool {
        self.outbox.has_left()
    }

    /// For the session's task: takes what is queued into `taken`, which must be empty, and says
    /// what is to be done. `written` of the bytes taken before have been written since.
    pub fn take_outgoing(
        &self,
        hub: &Hub,
        written: usize,
        taken: &mut VecDeque<Bytes>,
    ) -> Option<Outgoing> {
        if written > 0 {
            hub.give_back(written);
        }
        let mut delivered = None;
        let outgoing = self.outbox.take(written, taken, &mut delivered);
        if let Some(arrival) = delivered {
            hub.observe_delivery(&arrival);
        }
        outgoing
    }

    /// Whether a revocation of `key` covers this session's token or the one about to replace it.
    pub(crate) fn is_covered(&self, key: &RevocationKey, revocation: &Revocation) -> bool {
        let principals = self.principals.lock();
        let covers = |principal: &Arc<Principal>| {
            revocation.covers(principal.issued_at()) && self.is_named(principal, key)
        };
        covers(&principals.current) || principals.incoming.as_ref().is_some_and(covers)
    }

    fn is_named(&self, principal: &Principal, key: &RevocationKey) -> bool {
        match key.kind() {
            "all" => true,
            "session" => key.names(&self.session.to_string()),
            "user" => key.names(principal.user()),
            "token" => principal.token_id().is_some_and(|id| key.names(id)),
            claim => principal.claim_keys(claim).contains(key),
        }
    }

    /// Whether a revocation of `key` names this session, whichever tokens it covers.
    pub(crate) fn is_named_by(&self, key: &RevocationKey) -> bool {
        self.principals()
            .any(|principal| self.is_named(&principal, key))
    }

    pub(crate) fn set_incoming(&self, principal: Option<Arc<Principal>>) {
        self.principals.lock().incoming = principal;
    }

    /// Puts the incoming token in force; returns the one before it.
    pub(crate) fn promote(&self) -> Option<Arc<Principal>> {
        let mut principals = self.principals.lock();
        let incoming = principals.incoming.take()?;
        let ends_at = micros(incoming.ends_at());
        self.ends_at.store(ends_at, Ordering::Relaxed);
        Some(std::mem::replace(&mut principals.current, incoming))
    }
}

fn micros(time: Duration) -> u64 {
    // 584,542 years.
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Sessions held back while a revocation that may name them is read; dropping it lets them go on.
#[derive(Debug)]
pub struct Suspension(Vec<Arc<Member>>);

impl Suspension {
    pub(crate) fn new(members: Vec<Arc<Member>>) -> Self {
        for member in &members {
            member.outbox.suspend();
        }
        Self(members)
    }
}

impl Drop for Suspension {
    fn drop(&mut self) {
        for member in &self.0 {
            member.outbox.resume();
        }
    }
}
