//! One registered session.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use curfew_model::{Clock, Disconnect, Principal, Revocation, RevocationKey, SessionId};
use curfew_ws::Socket;
use parking_lot::Mutex;

use crate::index::Index;
use crate::kinds::{Kinds, keys_by_claims};
use crate::outbox::Tally;
use crate::{Hub, Outbox, Progress, WireId};

/// A session as the hub knows it: who it is and where its frames go.
#[derive(Debug)]
pub struct Member {
    /// Distinguishes members cheaply; unique within the hub.
    pub(crate) slot: u64,
    session: SessionId,
    wire: WireId,
    registered_at: u64,
    address: OnceLock<IpAddr>,
    principals: Mutex<Principals>,
    end: TokenEnd,
    outbox: Outbox,
}

/// The token in force and, during a refresh, the one that is to replace it. A revocation of either
/// ends the session.
#[derive(Debug)]
struct Principals {
    current: Arc<Principal>,
    incoming: Option<Arc<Principal>>,
    /// The kinds by whose keys the index has both of them; `None` while it has neither, before the
    /// session is keyed and after it has left. The keys themselves are made again when they are
    /// needed: kept, they would be a sixth of an idle session's memory.
    keyed_by: Option<Arc<Kinds>>,
}

impl Principals {
    fn both(&self) -> impl Iterator<Item = &Arc<Principal>> {
        [Some(&self.current), self.incoming.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// When the token in force is over: by the wall clock, and by what was left of it then on the clock
/// that nobody sets, whichever comes first. A wall clock that is set back gives no token more time.
#[derive(Debug)]
struct TokenEnd {
    /// Microseconds since the Unix epoch.
    wall: AtomicU64,
    /// Microseconds of [`Clock::boottime`].
    boot: AtomicU64,
}

impl TokenEnd {
    fn of(principal: &Principal, clock: &dyn Clock) -> Self {
        let end = Self {
            wall: AtomicU64::default(),
            boot: AtomicU64::default(),
        };
        end.set(principal, clock);
        end
    }

    /// Readers may see one of the two new and the other old: then the earlier end counts, once.
    fn set(&self, principal: &Principal, clock: &dyn Clock) {
        // In this order: a process that is stopped in between gives no time away.
        let boot = clock.boottime();
        let left = principal.ends_at().saturating_sub(clock.now());
        let boot = micros(boot.saturating_add(left));
        self.wall
            .store(micros(principal.ends_at()), Ordering::Relaxed);
        self.boot.store(boot, Ordering::Relaxed);
    }

    fn left_at(&self, wall: Duration, boot: Duration) -> Duration {
        let until = |end: &AtomicU64, now: Duration| {
            Duration::from_micros(end.load(Ordering::Relaxed)).saturating_sub(now)
        };
        until(&self.wall, wall).min(until(&self.boot, boot))
    }
}

impl Member {
    pub(crate) fn new(
        slot: u64,
        session: SessionId,
        wire: WireId,
        clock: &dyn Clock,
        principal: Arc<Principal>,
    ) -> Self {
        Self {
            slot,
            session,
            wire,
            registered_at: clock.unix(),
            address: OnceLock::new(),
            end: TokenEnd::of(&principal, clock),
            principals: Mutex::new(Principals {
                current: principal,
                incoming: None,
                keyed_by: None,
            }),
            outbox: Outbox::new(),
        }
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The wire that it is spoken to by.
    pub fn wire(&self) -> WireId {
        self.wire
    }

    /// When it was registered, in Unix seconds.
    pub fn registered_at(&self) -> u64 {
        self.registered_at
    }

    /// The address of its client; `None` where that is not known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address.get().copied()
    }

    /// Notes the address of its client, once.
    pub fn set_address(&self, address: IpAddr) {
        // It does not move.
        self.address.set(address).ok();
    }

    /// Its outbound queue.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The token in force.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principals.lock().current)
    }

    /// Whether the token in force is over: nothing is delivered or accepted any more. It is at its
    /// `exp` and the leeway by the wall clock, and at the latest when as much time has passed as was
    /// left of it when the session was registered or last refreshed.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.token_left(clock).is_zero()
    }

    /// As [`Member::is_over`], at a time of the wall clock and one of [`Clock::boottime`].
    pub(crate) fn is_over_at(&self, wall: Duration, boot: Duration) -> bool {
        self.end.left_at(wall, boot).is_zero()
    }

    /// How long it is until then, as far as is known now: a wall clock that is set forward makes it
    /// less.
    pub fn token_left(&self, clock: &dyn Clock) -> Duration {
        self.end.left_at(clock.now(), clock.boottime())
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

    /// For the session's task: writes what is queued to its socket, as far as it may leave.
    pub fn write(&self, hub: &Hub, clock: &dyn Clock, socket: &mut impl Socket) -> Progress {
        let mut tally = Tally::default();
        let access = hub.access(self, clock, None);
        let progress = self.outbox.write_live(access, socket, &mut tally);
        hub.count_written(&tally);
        progress
    }

    /// For the session's task, once it was told to end: writes what may still leave, likewise.
    pub fn write_last(&self, hub: &Hub, clock: &dyn Clock, socket: &mut impl Socket) -> Progress {
        let mut tally = Tally::default();
        let access = hub.access(self, clock, None);
        let progress = self.outbox.write_last(access, socket, &mut tally);
        hub.count_written(&tally);
        progress
    }

    /// The session's end if a revocation of `key` covers its token or the one about to replace it.
    pub(crate) fn covered(
        &self,
        key: &RevocationKey,
        revocation: &Revocation,
    ) -> Option<Disconnect> {
        let principals = self.principals.lock();
        let covered = |principal: &Arc<Principal>| {
            let issued_at = principal.issued_at();
            let covers = revocation.covers(issued_at) && self.is_named(principal, key);
            covers.then(|| revocation.disconnect(key, issued_at))
        };
        let current = covered(&principals.current);
        // An incoming token replaces the current one: it is what may have to be renewed.
        principals.incoming.as_ref().and_then(covered).or(current)
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
}

#[cfg(test)]
impl Member {
    pub(crate) fn end_token(&self) {
        self.end.wall.store(0, Ordering::Relaxed);
    }
}

/// How the index finds it. All of it is done under the lock of the session's tokens, so that the
/// index has exactly the keys that these have by the kinds they are keyed by.
impl Member {
    /// Has the index find it. `kinds` is asked under the lock: what [`Member::rekey`] was not made
    /// to see is seen here.
    pub(crate) fn key(
        self: &Arc<Self>,
        index: &Index,
        kinds: impl FnOnce() -> Arc<Kinds>,
    ) -> Vec<RevocationKey> {
        let mut principals = self.principals.lock();
        let kinds = kinds();
        let keys = self.keys_of(&principals.current, &kinds);
        for key in &keys {
            index.add(key, self);
        }
        principals.keyed_by = Some(kinds);
        keys
    }

    /// Has the index find it by other kinds: by those that come before those that go are gone.
    pub(crate) fn rekey(self: &Arc<Self>, index: &Index, kinds: &Arc<Kinds>) {
        let mut principals = self.principals.lock();
        let Some(old) = &principals.keyed_by else {
            return;
        };
        if old.generation() >= kinds.generation() {
            return;
        }
        let (coming, going) = (kinds.beyond(old), old.beyond(kinds));
        for principal in principals.both() {
            for key in keys_by_claims(principal, self.session, &coming) {
                index.add(&key, self);
            }
            for key in keys_by_claims(principal, self.session, &going) {
                index.remove(&key, self);
            }
        }
        principals.keyed_by = Some(Arc::clone(kinds));
    }

    /// Has the index forget it for good.
    pub(crate) fn unkey(&self, index: &Index) {
        let mut principals = self.principals.lock();
        let Some(kinds) = principals.keyed_by.take() else {
            return;
        };
        for principal in principals.both() {
            for key in self.keys_of(principal, &kinds) {
                index.remove(&key, self);
            }
        }
    }

    /// The session is found by the keys of `principal` too, which is to replace its token. Returns
    /// those.
    pub(crate) fn begin_refresh(
        self: &Arc<Self>,
        index: &Index,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        let mut principals = self.principals.lock();
        let keys = match &principals.keyed_by {
            Some(kinds) => self.keys_of(&principal, kinds),
            None => Vec::new(),
        };
        for key in &keys {
            index.add(key, self);
        }
        principals.incoming = Some(principal);
        keys
    }

    /// Puts the incoming token in force; the one before it names the session no more.
    pub(crate) fn finish_refresh(&self, index: &Index, clock: &dyn Clock) {
        let mut principals = self.principals.lock();
        let Some(incoming) = principals.incoming.take() else {
            return;
        };
        self.end.set(&incoming, clock);
        let before = std::mem::replace(&mut principals.current, incoming);
        self.remove_keys(index, &principals, &before);
    }

    /// The incoming token names the session no more.
    pub(crate) fn abandon_refresh(&self, index: &Index) {
        let mut principals = self.principals.lock();
        if let Some(incoming) = principals.incoming.take() {
            self.remove_keys(index, &principals, &incoming);
        }
    }

    fn remove_keys(&self, index: &Index, principals: &Principals, principal: &Principal) {
        if let Some(kinds) = &principals.keyed_by {
            for key in self.keys_of(principal, kinds) {
                index.remove(&key, self);
            }
        }
    }

    fn keys_of(&self, principal: &Principal, kinds: &Kinds) -> Vec<RevocationKey> {
        principal.revocation_keys(self.session, kinds.claims())
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
