//! One registered session.

mod bound;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Channel, Clock, Disconnect, Principal, Revocation, RevocationKey, SessionId};
use curfew_ws::Socket;
use parking_lot::Mutex;

use crate::index::Index;
use crate::kinds::{Kinds, keys_by_claims};
use crate::outbox::Tally;
use crate::{Hub, Outbox, Progress, WireId};
use bound::Bound;

/// A session as the hub knows it: its tokens and its outbound queue.
#[derive(Debug)]
pub struct Member {
    /// A number that identifies the member within the hub. It is cheaper to compare than the
    /// session's id.
    pub(crate) slot: u64,
    session: SessionId,
    wire: WireId,
    registered_at: u64,
    address: OnceLock<IpAddr>,
    /// The lock is also held while the index changes, so that tokens and index agree.
    principals: Mutex<Principals>,
    /// True if a subscription has a token of its own. Each delivery reads this flag without the
    /// lock of `principals`.
    is_bound: AtomicBool,
    /// The end of the token in force. Each write reads it without the lock of `principals`.
    end: TokenEnd,
    outbox: Outbox,
}

/// The session's tokens: the token in force and, during a refresh, the token that replaces it. A
/// revocation of either token ends the session.
#[expect(
    clippy::box_collection,
    reason = "nearly every session has no token of a subscription, and holds a pointer for them"
)]
#[derive(Debug)]
struct Principals {
    /// The token in force.
    current: Arc<Principal>,
    /// The token that replaces the token in force; `None` while no refresh is in progress.
    incoming: Option<Arc<Principal>>,
    /// Tokens of single subscriptions. A revocation of such a token ends only its subscription.
    bound: Option<Box<Vec<Bound>>>,
    /// The kinds whose keys the index holds for these tokens. `None` while the index holds no key
    /// of the session: before the session is added to the index, and after it is removed.
    ///
    /// The keys are computed again when they are needed. Stored keys would take a sixth of an idle
    /// session's memory.
    keyed_by: Option<Arc<Kinds>>,
}

impl Principals {
    /// Every token of the session.
    fn all(&self) -> impl Iterator<Item = &Arc<Principal>> {
        let bound = self.bound.iter().flat_map(|bound| bound.iter());
        let own = [Some(&self.current), self.incoming.as_ref()];
        own.into_iter()
            .flatten()
            .chain(bound.map(|bound| &bound.principal))
    }
}

/// The end of the token in force, on the wall clock and on the monotonic clock. The end on the
/// monotonic clock is computed from the time left at registration or refresh. The earlier of the
/// two ends counts, so that a wall clock set back does not extend a token.
#[derive(Debug)]
struct TokenEnd {
    /// Microseconds since the Unix epoch.
    wall: AtomicU64,
    /// Microseconds of [`Clock::boottime`].
    boot: AtomicU64,
}

impl TokenEnd {
    /// The end of the token of `principal`, by the present readings of `clock`.
    fn of(principal: &Principal, clock: &dyn Clock) -> Self {
        let end = Self {
            wall: AtomicU64::default(),
            boot: AtomicU64::default(),
        };
        end.set(principal, clock);
        end
    }

    /// Sets both ends. A concurrent reader may see one new and one old value; the earlier of the
    /// two counts for that read.
    fn set(&self, principal: &Principal, clock: &dyn Clock) {
        // The monotonic clock is read first: a pause between the two reads shortens the token and
        // never extends it.
        let boot = clock.boottime();
        let left = principal.ends_at().saturating_sub(clock.now());
        let boot = micros(boot.saturating_add(left));
        self.wall
            .store(micros(principal.ends_at()), Ordering::Relaxed);
        self.boot.store(boot, Ordering::Relaxed);
    }

    /// The time left at these readings of the wall clock and the monotonic clock.
    fn left_at(&self, wall: Duration, boot: Duration) -> Duration {
        let until = |end: &AtomicU64, now: Duration| {
            Duration::from_micros(end.load(Ordering::Relaxed)).saturating_sub(now)
        };
        until(&self.wall, wall).min(until(&self.boot, boot))
    }
}

impl Member {
    /// Creates a member that is not in the index yet.
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
                bound: None,
                keyed_by: None,
            }),
            is_bound: AtomicBool::new(false),
            outbox: Outbox::new(),
        }
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The wire that the session speaks.
    pub fn wire(&self) -> WireId {
        self.wire
    }

    /// The time of registration, in Unix seconds.
    pub fn registered_at(&self) -> u64 {
        self.registered_at
    }

    /// The address of the session's client, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address.get().copied()
    }

    /// Notes the address of the session's client. Only the first call has an effect.
    pub fn set_address(&self, address: IpAddr) {
        // A connection's address never changes.
        self.address.set(address).ok();
    }

    /// The session's outbound queue.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The token in force.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principals.lock().current)
    }

    /// True if the token in force has expired: nothing is delivered or accepted any more. The token
    /// expires at its `exp` plus the leeway by the wall clock, and at the latest when the time left
    /// at registration or the last refresh has passed.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.token_left(clock).is_zero()
    }

    /// Like [`Member::is_over`], at the given readings of the wall clock and [`Clock::boottime`].
    pub(crate) fn is_over_at(&self, wall: Duration, boot: Duration) -> bool {
        self.end.left_at(wall, boot).is_zero()
    }

    /// The time until the token in force expires. A wall clock set forward shortens this time.
    pub fn token_left(&self, clock: &dyn Clock) -> Duration {
        self.end.left_at(clock.now(), clock.boottime())
    }

    /// The session's tokens: the token in force, the incoming token during a refresh, and the
    /// tokens of subscriptions.
    pub fn principals(&self) -> Vec<Arc<Principal>> {
        self.principals.lock().all().cloned().collect()
    }

    /// True if the session is open: neither opening nor ending.
    pub fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    /// True if the session has left the hub: nothing more is delivered or accepted.
    pub fn has_left(&self) -> bool {
        self.outbox.has_left()
    }

    /// For the session's task, before its first write: queues a frame ahead of all others. The
    /// frame is the answer that opens the session. The answer is complete only after other frames
    /// are queued, but must be sent before them. `of` lists the channels whose publications the
    /// answer contains.
    pub fn send_first(&self, hub: &Hub, frame: Bytes, of: Vec<Channel>) {
        hub.count_queued(self.outbox.push_first(frame, of));
    }

    /// For the session's task: writes queued frames to the session's socket, as far as they may be
    /// sent.
    pub fn write(&self, hub: &Hub, clock: &dyn Clock, socket: &mut impl Socket) -> Progress {
        let mut tally = Tally::default();
        let access = hub.access(self, clock, None);
        let progress = self.outbox.write_live(access, socket, &mut tally);
        hub.count_written(&tally);
        progress
    }

    /// For the session's task, once the session is told to end: writes the frames that may still be
    /// sent.
    pub fn write_last(&self, hub: &Hub, clock: &dyn Clock, socket: &mut impl Socket) -> Progress {
        let mut tally = Tally::default();
        let access = hub.access(self, clock, None);
        let progress = self.outbox.write_last(access, socket, &mut tally);
        hub.count_written(&tally);
        progress
    }

    /// The reason to end the session if a revocation of `key` covers the token in force or the
    /// incoming token.
    pub(crate) fn covered(
        &self,
        key: &RevocationKey,
        revocation: &Revocation,
    ) -> Option<Disconnect> {
        // The token in force and the incoming token are read under one lock: a refresh that ends
        // meanwhile must not hide the covered token.
        let principals = self.principals.lock();
        let covered = |principal: &Arc<Principal>| self.covered_by(principal, key, revocation);
        let current = covered(&principals.current);
        // The reason for the incoming token is preferred, because the client must renew that token.
        principals.incoming.as_ref().and_then(covered).or(current)
    }

    /// `principal` is one of the session's tokens. Returns the reason to end the access that this
    /// token grants, if a revocation of `key` covers the token.
    pub(crate) fn covered_by(
        &self,
        principal: &Principal,
        key: &RevocationKey,
        revocation: &Revocation,
    ) -> Option<Disconnect> {
        let issued_at = principal.issued_at();
        let covers = revocation.covers(issued_at) && self.is_named(principal, key);
        covers.then(|| revocation.disconnect(key, issued_at))
    }

    /// True if `key` names the session, given that the session has this token.
    fn is_named(&self, principal: &Principal, key: &RevocationKey) -> bool {
        match key.kind() {
            "all" => true,
            "anonymous" => principal.is_anonymous(),
            "session" => key.names(&self.session.to_string()),
            "user" => !principal.is_anonymous() && key.names(principal.user()),
            "token" => principal.token_id().is_some_and(|id| key.names(id)),
            claim => principal.claim_keys(claim).contains(key),
        }
    }

    /// True if a revocation of `key` names this session, regardless of the tokens that the
    /// revocation covers.
    pub(crate) fn is_named_by(&self, key: &RevocationKey) -> bool {
        let principals = self.principals.lock();
        principals
            .all()
            .any(|principal| self.is_named(principal, key))
    }
}

#[cfg(test)]
impl Member {
    pub(crate) fn end_token(&self) {
        self.end.wall.store(0, Ordering::Relaxed);
    }
}

/// Registration in the index. Every change is made under the lock of the session's tokens, so that
/// the index holds exactly the keys of those tokens under the kinds in `keyed_by`.
impl Member {
    /// Registers the session in the index, and returns its keys. `kinds` is called under the lock.
    /// If the kinds change meanwhile, either this call uses the new kinds, or a later
    /// [`rekey`](Member::rekey) finds the session registered.
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

    /// Registers the session under other kinds. For each token, new keys are added before old keys
    /// are removed, so that the index always finds the session.
    pub(crate) fn rekey(self: &Arc<Self>, index: &Index, kinds: &Arc<Kinds>) {
        let mut principals = self.principals.lock();
        // The session has been removed, or is not registered yet. If it is not registered yet,
        // `key` will read the new kinds itself.
        let Some(old) = &principals.keyed_by else {
            return;
        };
        // These kinds, or the kinds of a later reload, are applied already.
        if old.generation() >= kinds.generation() {
            return;
        }
        let (coming, going) = (kinds.beyond(old), old.beyond(kinds));
        for principal in principals.all() {
            for key in keys_by_claims(principal, self.session, &coming) {
                index.add(&key, self);
            }
            for key in keys_by_claims(principal, self.session, &going) {
                index.remove(&key, self);
            }
        }
        principals.keyed_by = Some(Arc::clone(kinds));
    }

    /// Removes the session from the index for good.
    pub(crate) fn unkey(&self, index: &Index) {
        let mut principals = self.principals.lock();
        let Some(kinds) = principals.keyed_by.take() else {
            // The session is not in the index yet, or was removed already.
            return;
        };
        for principal in principals.all() {
            for key in self.keys_of(principal, &kinds) {
                index.remove(&key, self);
            }
        }
    }

    /// Registers the session under the keys of `principal` as well, before that token replaces the
    /// token in force. Returns those keys.
    pub(crate) fn begin_refresh(
        self: &Arc<Self>,
        index: &Index,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        let mut principals = self.principals.lock();
        let keys = self.add_keys(index, &principals, &principal);
        principals.incoming = Some(principal);
        keys
    }

    /// Registers the session under the keys of `principal`, if the session is in the index. Returns
    /// those keys.
    fn add_keys(
        self: &Arc<Self>,
        index: &Index,
        principals: &Principals,
        principal: &Principal,
    ) -> Vec<RevocationKey> {
        let keys = match &principals.keyed_by {
            Some(kinds) => self.keys_of(principal, kinds),
            None => Vec::new(),
        };
        for key in &keys {
            index.add(key, self);
        }
        keys
    }

    /// Puts the incoming token in force, and removes the keys of the previous token.
    pub(crate) fn finish_refresh(&self, index: &Index, clock: &dyn Clock) {
        let mut principals = self.principals.lock();
        let Some(incoming) = principals.incoming.take() else {
            // The refresh was abandoned.
            return;
        };
        self.end.set(&incoming, clock);
        let before = std::mem::replace(&mut principals.current, incoming);
        self.remove_keys(index, &principals, &before);
    }

    /// Removes the keys of the incoming token.
    pub(crate) fn abandon_refresh(&self, index: &Index) {
        let mut principals = self.principals.lock();
        if let Some(incoming) = principals.incoming.take() {
            self.remove_keys(index, &principals, &incoming);
        }
    }

    /// Removes one registration of each key of `principal`. A key that another token of the session
    /// has too was added twice, so one registration stays.
    fn remove_keys(&self, index: &Index, principals: &Principals, principal: &Principal) {
        if let Some(kinds) = &principals.keyed_by {
            for key in self.keys_of(principal, kinds) {
                index.remove(&key, self);
            }
        }
    }

    /// The keys of `principal` under these kinds.
    fn keys_of(&self, principal: &Principal, kinds: &Kinds) -> Vec<RevocationKey> {
        principal.revocation_keys(self.session, kinds.claims())
    }
}

/// Converts a duration to whole microseconds.
fn micros(time: Duration) -> u64 {
    // 64 bits of microseconds suffice for 584,542 years.
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Sessions held back while a revocation that may name them is read. Dropping the value releases
/// them.
#[derive(Debug)]
pub struct Suspension(Vec<Arc<Member>>);

impl Suspension {
    /// Holds the members back.
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
