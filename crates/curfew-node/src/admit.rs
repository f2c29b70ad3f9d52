//! Admission: a verified token becomes a session that revocations can find.
//!
//! The order matters. The session is registered *before* the revocations are read, so that a
//! revocation written in between finds the session in the hub. The session is opened last.

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
use crate::anonymous::AnonymousPlace;
use crate::closes::SessionIdentity;

/// Longest wait for a permit of `backend.max_admissions`.
const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// Maximum number of attempts to make room for a session by closing the user's oldest session. One
/// attempt may not suffice, because another new session, on any node, may take the freed slot
/// first.
const MOST_ROUNDS: u32 = 20;

/// Reason why a verified token opens no session.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A revocation covers the token. This revocation ends sessions with the given [`Disconnect`].
    #[error("{}", .0.reason)]
    Revoked(Disconnect),
    /// A revocation, an operator or a drain ended the session while it opened.
    #[error("the session ended while it was opening")]
    Ended(curfew_hub::Ending),
    /// The user has as many sessions as `session.max_per_user` allows. For a session without a
    /// user, the client's address has as many sessions as `limits.anonymous_per_address` allows.
    #[error(
        "the user, or for a session without a user the client's address, already has {limit} sessions, as many as are allowed"
    )]
    SessionLimit {
        /// The value of the setting.
        limit: u32,
        /// The refused session.
        whose: Box<SessionIdentity>,
    },
    /// The node is leaving service.
    #[error("the node is draining")]
    Draining,
    /// The backend failed, which is not the user's fault.
    #[error("ask the backend")]
    Backend(#[from] BackendError),
}

impl AdmitError {
    /// The error's name in spans.
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

/// A session's registration on this node. Dropping the attachment removes the session from the hub
/// at once, and the session's record later.
#[derive(Debug)]
pub struct Attachment {
    pub(crate) node: Arc<Node>,
    member: Arc<Member>,
    recorded: bool,
    /// The permit of an anonymous session whose address is known.
    _place: Option<AnonymousPlace>,
}

/// Limits the number of admissions that ask the backend at once (`backend.max_admissions`). Further
/// admissions wait for a permit, but only for [`ADMISSION_WAIT`], so that a slow backend does not
/// accumulate requests.
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
                "too many sessions are being admitted at once",
            )),
        }
    }
}

/// Users at their session limit, each with a lock by which the user's admissions take turns.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Box<str>, Arc<AsyncMutex<()>>>>);

/// One admission's turn. Until it is dropped, no other admission makes room for this user.
struct Turn<'a> {
    turns: &'a Turns,
    user: Box<str>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until no other admission has the user's turn. The returned flag is true if another
    /// admission had the turn at the time of the call.
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
        // The map is locked while the turn is released, so that `enter` cannot clone the user's
        // lock between the check of its reference count and its removal.
        let mut turns = self.turns.0.lock();
        self.held = None;
        // If only the map refers to the lock, no admission has the turn or waits for it.
        if turns
            .get(&self.user)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            turns.remove(&self.user);
        }
    }
}

/// The limits on sessions of one user or one address, taken from the settings of one admission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimit {
    /// `session.max_per_user`; 0 is no limit.
    pub max_per_user: u32,
    /// `session.over_limit`.
    pub over_limit: OverLimit,
    /// `limits.anonymous_per_address`, which limits sessions without a user; 0 is no limit.
    pub anonymous_per_address: u32,
}

impl UserLimit {
    /// The limits that apply to this principal. An anonymous principal has no user, so
    /// `max_per_user` does not apply to it.
    fn of(self, principal: &Principal) -> Self {
        Self {
            max_per_user: match principal.is_anonymous() {
                true => 0,
                false => self.max_per_user,
            },
            ..self
        }
    }
}

impl Node {
    /// Admits a session: registers it, checks the revocations, and writes its record. Nothing is
    /// delivered to the session before [`Attachment::open`]. `wire` is the encoding of the
    /// session's frames. `address` is the client's address, if it is known.
    pub async fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        wire: WireId,
        address: Option<IpAddr>,
        limit: UserLimit,
    ) -> Result<Attachment, AdmitError> {
        // A node that catches up after a pause of its process regains its lease soon, so the
        // session is admitted and `settle` waits for the lease.
        if !self.hub.lease().is_catching_up() {
            self.check_lease()?;
        }
        let session = SessionId::new();
        let limit = limit.of(&principal);
        let place = self.anonymous_place(session, &principal, address, limit)?;
        self.metrics.tracer().of_session(session);
        // The session is registered before the revocations are checked, so that a revocation
        // written in between finds the session.
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
            _place: place,
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

    /// Takes one of the permits of `address` for an anonymous session. Sessions with a user, and
    /// sessions whose address is not known, need no permit.
    fn anonymous_place(
        &self,
        session: SessionId,
        principal: &Arc<Principal>,
        address: Option<IpAddr>,
        limit: UserLimit,
    ) -> Result<Option<AnonymousPlace>, AdmitError> {
        let (true, Some(address)) = (principal.is_anonymous(), address) else {
            return Ok(None);
        };
        let limit = limit.anonymous_per_address;
        match self.anonymous.enter(address, limit) {
            Some(place) => Ok(Some(place)),
            None => Err(AdmitError::SessionLimit {
                limit,
                whose: Box::new(SessionIdentity {
                    session,
                    principal: Arc::clone(principal),
                }),
            }),
        }
    }

    /// Admits a session of a user who is at the session limit, if
    /// [`Sessions::make_room`](curfew_backend::Sessions::make_room) can make room for the session.
    /// Admissions of one user take turns, so that one probe of the user's sessions serves all
    /// waiting admissions.
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
            // The admission that had the turn before may have made room. If not, it has just probed
            // the user's sessions, so [`OverLimit::Refuse`] needs no second probe.
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

    /// Fails if a revocation covers the token.
    ///
    /// # Errors
    ///
    /// [`AdmitError::Revoked`] for the first revocation found, or [`AdmitError::Backend`].
    pub(crate) async fn check_revoked(
        &self,
        keys: &[RevocationKey],
        principal: &Principal,
    ) -> Result<(), AdmitError> {
        match self.find_revocation(keys, principal).await? {
            Some(disconnect) => Err(AdmitError::Revoked(disconnect)),
            None => Ok(()),
        }
    }

    /// Looks for a revocation that covers the token, among the written revocations and the
    /// revocations that wait to be written. Returns the disconnect with which the revocation ends
    /// access.
    pub(crate) async fn find_revocation(
        &self,
        keys: &[RevocationKey],
        principal: &Principal,
    ) -> Result<Option<Disconnect>, BackendError> {
        let issued_at = principal.issued_at();
        let revoked = self.backends.revocations.check(keys, issued_at).await?;
        let unwritten = || self.pending_revocations.check(keys, issued_at);
        let revoked = revoked.or_else(unwritten);
        Ok(revoked.map(|revoked| revoked.disconnect(issued_at)))
    }

    /// Fails unless the node holds its delivery lease.
    pub(crate) fn check_lease(&self) -> Result<(), BackendError> {
        if self.hub.lease().is_held() {
            return Ok(());
        }
        Err(BackendError::unavailable(
            "the node is disconnected from its backend",
        ))
    }
}

impl Attachment {
    /// The node of the session.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The session in the hub.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Opens the session for frames. The frames in `before` are sent first. Returns false if the
    /// session has ended meanwhile.
    pub fn open(&self, before: Lanes) -> bool {
        self.member.outbox().open(before)
    }

    /// Performs the steps that follow the registration, up to the writing of the session's record.
    async fn admit(
        &mut self,
        principal: Arc<Principal>,
        keys: &[RevocationKey],
        max_per_user: u32,
    ) -> Result<(), AdmitError> {
        let node = Arc::clone(&self.node);
        // The node is checked for a drain after the registration. A drain that began before the
        // registration, and so does not see the session, is visible here.
        if node.is_refusing() {
            return Err(AdmitError::Draining);
        }
        let _place = node.admissions.enter().await?;
        node.check_revoked(keys, &principal).await?;
        // `recorded` is set before the attempt, because a failed attempt may have written the
        // record.
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

    /// Chooses the reason of a refusal after `error`. If the backend failed, the node first waits
    /// until it knows if the session is revoked: a revocation may have caused the failure, and is
    /// then the reason to report.
    async fn why_refused(&self, error: AdmitError) -> AdmitError {
        if matches!(error, AdmitError::Backend(_)) {
            self.settle().await;
        }
        match self.member.outbox().ending() {
            Some(ending) if ending.is_revocation() => AdmitError::Ended(ending),
            _ => error,
        }
    }

    /// Waits while the node may be about to learn of a revocation of the session: while it reads a
    /// key that may name the session, and while it catches up after a pause of its process.
    async fn settle(&self) {
        let outbox = self.member.outbox();
        let is_open = || !outbox.is_suspended() && !self.node.hub.lease().is_catching_up();
        poll_fn(|cx| {
            if is_open() {
                return Poll::Ready(());
            }
            // The state is checked again after the waker is registered, so that a change in between
            // is not missed.
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
