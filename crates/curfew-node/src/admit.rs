//! Admission: from a verified token to a session that revocations can find.
//!
//! The order is the point. The session is registered *before* the revocations are read, so that
//! one written in between finds it in the hub; it is opened last.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use curfew_backend::{BackendError, ClosedSession, OpenError, OverLimit, SessionRecord};
use curfew_hub::{Lanes, Member, WireId};
use curfew_model::{Disconnect, Principal, RevocationKey, SessionId};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time;

use crate::Node;
use crate::closes::SessionIdentity;

/// Longest wait for a place among `backend.max_admissions`.
const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// Times that room is made for a session by closing the oldest: one that comes meanwhile, or asks another
/// node, may take it.
const MOST_ROUNDS: u32 = 20;

/// Why a verified token opens no session.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A revocation covers the token: by what it ends sessions.
    #[error("{}", .0.reason)]
    Revoked(Disconnect),
    /// The session was ended by somebody else meanwhile: a revocation, an operator, a drain.
    #[error("ended while it was opening")]
    Ended(curfew_hub::Ending),
    /// The user has as many sessions as are allowed.
    #[error("the user has {limit} sessions already")]
    SessionLimit {
        /// `session.max_per_user`.
        limit: u32,
        /// The session that is refused.
        whose: Box<SessionIdentity>,
    },
    /// The node is leaving service.
    #[error("the node is draining")]
    Draining,
    /// The backend failed: not the user's fault.
    #[error("ask the backend")]
    Backend(#[from] BackendError),
}

impl AdmitError {
    /// Its name in spans.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Revoked(disconnect) => disconnect.reason,
            Self::Ended(ending) => ending.disconnect.reason,
            Self::SessionLimit { .. } => "session_limit",
            Self::Draining => "draining",
            Self::Backend(error) => error.error_type(),
        }
    }
}

/// A session's place on this node. Dropping it takes the session out of the hub and has its record
/// removed.
#[derive(Debug)]
pub struct Attachment {
    pub(crate) node: Arc<Node>,
    member: Arc<Member>,
    recorded: bool,
}

/// How many admissions may ask the backend at once. More wait for a place, but not for long: a
/// backend that answers slowly must not be asked ever more.
#[derive(Debug)]
pub(crate) struct Admissions(Option<Semaphore>);

impl Admissions {
    pub(crate) fn new(max: usize) -> Self {
        Self((max > 0).then(|| Semaphore::new(max.min(Semaphore::MAX_PERMITS))))
    }

    pub(crate) async fn enter(&self) -> Result<Option<SemaphorePermit<'_>>, BackendError> {
        let Some(places) = &self.0 else {
            return Ok(None);
        };
        match time::timeout(ADMISSION_WAIT, places.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(BackendError::unavailable(
                "too many sessions are being admitted",
            )),
        }
    }
}

/// Users for whose sessions room is being made, each with whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Box<str>, Arc<AsyncMutex<()>>>>);

/// A turn: no other admission makes room for sessions of this user meanwhile.
struct Turn<'a> {
    turns: &'a Turns,
    user: Box<str>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn; with whether it had to be waited for.
    async fn enter(&self, user: &str) -> (Turn<'_>, bool) {
        let lock = Arc::clone(self.0.lock().entry(user.into()).or_default());
        let mut turn = Turn {
            turns: self,
            user: user.into(),
            held: None,
        };
        let at_once = Arc::clone(&lock).try_lock_owned().ok();
        let waited = at_once.is_none();
        turn.held = match at_once {
            Some(held) => Some(held),
            None => Some(lock.lock_owned().await),
        };
        (turn, waited)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        self.held = None;
        // The map's is the last.
        if turns
            .get(&self.user)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            turns.remove(&self.user);
        }
    }
}

/// How many sessions one user may have, by the settings that an admission goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimit {
    /// `session.max_per_user`; 0 is no limit.
    pub max_per_user: u32,
    /// `session.over_limit`.
    pub over_limit: OverLimit,
}

impl Node {
    /// Admits a session: registers it, checks the revocations, records it. Nothing is delivered to
    /// it before [`Attachment::open`]. It is spoken to by `wire`; `address` is where its client is, as far
    /// as that is known. Its user may have as many as `limit` says.
    pub async fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        wire: WireId,
        address: Option<IpAddr>,
        limit: UserLimit,
    ) -> Result<Attachment, AdmitError> {
        // For a moment it is as good as open: the end of this waits for what comes of it.
        if !self.hub.lease().is_catching_up() {
            self.check_lease()?;
        }
        let session = SessionId::new();
        self.metrics.tracer().of_session(session);
        // Registered before the revocation check: one written in between must find us.
        let (member, keys) = self
            .hub
            .register(session, wire, &*self.clock, Arc::clone(&principal));
        if let Some(address) = address {
            member.set_address(address);
        }
        let mut attachment = Attachment {
            node: Arc::clone(self),
            member,
            recorded: false,
        };
        self.metrics.sessions.inc();
        let admitted = attachment
            .admit(Arc::clone(&principal), &keys, limit.max_per_user)
            .await;
        let admitted = match admitted {
            Err(AdmitError::SessionLimit { .. }) => {
                self.admit_over_limit(&mut attachment, principal, &keys, limit)
                    .await
            }
            admitted => admitted,
        };
        match admitted {
            Ok(()) => Ok(attachment),
            Err(error) => Err(attachment.why_refused(error).await),
        }
    }

    /// Admits a session of a user who has as many as are allowed, if some of them give way. Those of
    /// one user come one after the other, so that one question is asked for all that wait.
    async fn admit_over_limit(
        &self,
        attachment: &mut Attachment,
        principal: Arc<Principal>,
        keys: &[RevocationKey],
        limit: UserLimit,
    ) -> Result<(), AdmitError> {
        let user = principal.user();
        let (turn, waited) = self.turns.enter(user).await;
        if waited {
            // Room may have been made meanwhile; if not, the sessions that are there have just been asked.
            let admitted = attachment
                .admit(Arc::clone(&principal), keys, limit.max_per_user)
                .await;
            let is_over = matches!(admitted, Err(AdmitError::SessionLimit { .. }));
            if !is_over || limit.over_limit == OverLimit::Refuse {
                return admitted;
            }
        }
        let sessions = &self.backends.sessions;
        let mut rounds = match limit.over_limit {
            OverLimit::Refuse => 1,
            OverLimit::CloseOldest => MOST_ROUNDS,
        };
        let admitted = loop {
            sessions.make_room(user, limit.over_limit).await?;
            rounds -= 1;
            let admitted = attachment
                .admit(Arc::clone(&principal), keys, limit.max_per_user)
                .await;
            let is_over = matches!(admitted, Err(AdmitError::SessionLimit { .. }));
            if !is_over || rounds == 0 {
                break admitted;
            }
        };
        drop(turn);
        admitted
    }

    /// Looks for a revocation that covers the token, among those that are written and those that are
    /// yet to be.
    ///
    /// # Errors
    ///
    /// [`AdmitError::Revoked`] by the first there is, and [`AdmitError::Backend`].
    pub(crate) async fn check_revoked(
        &self,
        keys: &[RevocationKey],
        principal: &Principal,
    ) -> Result<(), AdmitError> {
        let issued_at = principal.issued_at();
        let revoked = self.backends.revocations.check(keys, issued_at).await?;
        let unwritten = || self.pending_revocations.check(keys, issued_at);
        match revoked.or_else(unwritten) {
            Some(revoked) => Err(AdmitError::Revoked(revoked.disconnect(issued_at))),
            None => Ok(()),
        }
    }

    /// True where the node holds its delivery lease.
    pub(crate) fn check_lease(&self) -> Result<(), BackendError> {
        if self.hub.lease().is_held() {
            return Ok(());
        }
        Err(BackendError::unavailable(
            "the node is out of touch with its backend",
        ))
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

    /// Opens the session for frames, behind those in `before`. False when it was ended meanwhile.
    pub fn open(&self, before: Lanes) -> bool {
        self.member.outbox().open(before)
    }

    /// Everything from the registration to the record.
    async fn admit(
        &mut self,
        principal: Arc<Principal>,
        keys: &[RevocationKey],
        max_per_user: u32,
    ) -> Result<(), AdmitError> {
        let node = Arc::clone(&self.node);
        // Asked once registered: a drain that did not see us has been seen by us.
        if node.is_refusing() {
            return Err(AdmitError::Draining);
        }
        let _place = node.admissions.enter().await?;
        node.check_revoked(keys, &principal).await?;
        // Set before the attempt: a failed attempt may have written something.
        self.recorded = true;
        let record = self.record(Arc::clone(&principal));
        match node.backends.sessions.open(record, max_per_user).await {
            Ok(()) => {}
            Err(OpenError::SessionLimit { limit }) => {
                let whose = Box::new(SessionIdentity {
                    session: self.member.session(),
                    principal,
                });
                return Err(AdmitError::SessionLimit { limit, whose });
            }
            Err(OpenError::Backend(error)) => return Err(error.into()),
        }
        self.settle().await;
        if let Some(ending) = self.member.outbox().ending() {
            return Err(AdmitError::Ended(ending));
        }
        node.check_lease()?;
        Ok(())
    }

    /// Why the session is not admitted, after `error`. The node may have lost its backend over a
    /// revocation, or have been stopped: what it then learns of the session is the better answer.
    async fn why_refused(&self, error: AdmitError) -> AdmitError {
        if matches!(error, AdmitError::Backend(_)) {
            self.settle().await;
        }
        match self.member.outbox().ending() {
            Some(ending) if ending.is_revocation() => AdmitError::Ended(ending),
            _ => error,
        }
    }

    /// Waits while it shows in a moment if the session is revoked: a key that may name it is being
    /// read, or the node looks at what it missed while it was stopped.
    async fn settle(&self) {
        let outbox = self.member.outbox();
        let is_open = || !outbox.is_suspended() && !self.node.hub.lease().is_catching_up();
        poll_fn(|cx| {
            if is_open() {
                return Poll::Ready(());
            }
            // Looked at once more, now that what ends it wakes this task.
            match outbox.poll_wake(cx, true) {
                Poll::Pending if is_open() => Poll::Ready(()),
                polled => polled,
            }
        })
        .await;
    }

    pub(crate) fn record(&self, principal: Arc<Principal>) -> SessionRecord {
        SessionRecord {
            session: self.member.session(),
            principal,
            node: self.node.id,
            connected_at: self.member.registered_at(),
            protocol: self.node.hub.wires().get(self.member.wire()).name().into(),
            address: self.member.address(),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.node.hub.unregister(&self.member);
        self.node.metrics.sessions.dec();
        if self.recorded {
            self.node.cleanup.add(ClosedSession {
                session: self.member.session(),
                principal: self.member.principal(),
            });
        }
    }
}
