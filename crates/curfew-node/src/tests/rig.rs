//! A backend in memory that fails, waits or runs hooks at a test's request, and a wall clock tied
//! to the runtime's time. The tests of `curfew-session` use it too.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{
    BackendError, Backends, BoxFuture, Broker, ClosedSession, Listed, OpenError, OverLimit,
    Presence, PresenceList, Receipt, Revocations, Revoked, SessionFilter, SessionPage,
    SessionRecord, Sessions, StreamBounds, StreamPage, StreamRange, Streams,
};
use curfew_model::{
    Channel, Clock, Position, PresenceEntry, Publication, PublicationKey, Revocation,
    RevocationKey, SessionId,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Start of the wall clock, in Unix seconds.
pub(crate) const START: u64 = 1_800_000_000;

/// A wall clock tied to the runtime's time, so that paused time pauses the wall clock as well.
/// Tests can also shift the wall clock alone.
#[derive(Debug)]
pub(crate) struct RigClock {
    start: Instant,
    /// The lead of the wall clock over the runtime's time.
    pub(crate) ahead: Mutex<Duration>,
    /// The lag of the wall clock behind the runtime's time.
    pub(crate) behind: Mutex<Duration>,
    /// The time for which the machine was suspended and the runtime's time stood still.
    pub(crate) suspended: Mutex<Duration>,
}

impl RigClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            ahead: Mutex::default(),
            behind: Mutex::default(),
            suspended: Mutex::default(),
        })
    }
}

impl Clock for RigClock {
    fn now(&self) -> Duration {
        Duration::from_secs(START) + self.boottime() + *self.ahead.lock() - *self.behind.lock()
    }

    fn boottime(&self) -> Duration {
        self.start.elapsed() + *self.suspended.lock()
    }
}

/// A call to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Check,
    Compare,
    Open,
    Refresh,
    Close,
    Subscribe,
    Unsubscribe,
    Publish,
    Append,
    Read,
    Enter,
    Leave,
    Revoke,
}

/// The point at which a hook runs: before or after the call of the real backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

type Hook = Box<dyn FnOnce() + Send>;

/// The backend of the tests, around a real backend in memory.
pub(crate) struct Rig {
    inner: Backends,
    failing: Mutex<HashMap<Call, fn() -> BackendError>>,
    gates: Mutex<HashMap<Call, Arc<Semaphore>>>,
    hooks: Mutex<HashMap<(When, Call), Hook>>,
    /// The calls so far, each with its channel if it has one.
    asked: Mutex<Vec<(Call, String)>>,
    /// The channel whose position cannot be read. A call for several channels fails if this channel
    /// is among them.
    pub(crate) refused: Mutex<Option<Channel>>,
}

impl Rig {
    pub(crate) fn new(inner: Backends) -> Arc<Self> {
        Arc::new(Self {
            inner,
            failing: Mutex::default(),
            gates: Mutex::default(),
            hooks: Mutex::default(),
            asked: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    pub(crate) fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            broker: Arc::clone(self) as _,
            streams: Arc::clone(self) as _,
            presence: Arc::clone(self) as _,
            sessions: Arc::clone(self) as _,
            revocations: Arc::clone(self) as _,
            nodes: Arc::clone(&self.inner.nodes),
            tickets: Arc::clone(&self.inner.tickets),
            relay: Arc::clone(&self.inner.relay),
        }
    }

    /// The real backend, which never fails.
    pub(crate) fn inner(&self) -> &Backends {
        &self.inner
    }

    /// Makes `call` fail before it reaches the real backend.
    pub(crate) fn fail(&self, call: Call, error: fn() -> BackendError) {
        self.failing.lock().insert(call, error);
    }

    pub(crate) fn heal(&self, call: Call) {
        self.failing.lock().remove(&call);
    }

    /// Makes `call` wait before it reaches the real backend, until `release`.
    pub(crate) fn hold(&self, call: Call) {
        self.gates.lock().insert(call, Arc::new(Semaphore::new(0)));
    }

    pub(crate) fn release(&self, call: Call) {
        if let Some(gate) = self.gates.lock().remove(&call) {
            gate.close();
        }
    }

    /// Runs `hook` once, at the next `call`.
    pub(crate) fn hook(&self, when: When, call: Call, hook: impl FnOnce() + Send + 'static) {
        self.hooks.lock().insert((when, call), Box::new(hook));
    }

    /// The number of calls of `call`. If `detail` is not empty, only calls for the channel `detail`
    /// are counted.
    pub(crate) fn asked(&self, call: Call, detail: &str) -> usize {
        let asked = self.asked.lock();
        let of = |(other, about): &&(Call, String)| {
            *other == call && (detail.is_empty() || about == detail)
        };
        asked.iter().filter(of).count()
    }

    /// Puts a revocation of all tokens in force at once.
    pub(crate) fn revoke(&self, key: RevocationKey) {
        // The embedded backend acts before it returns the future.
        drop(self.inner.revocations.revoke(key, Revocation::default()));
    }

    fn run_hook(&self, when: When, call: Call) {
        let hook = self.hooks.lock().remove(&(when, call));
        if let Some(hook) = hook {
            hook();
        }
    }

    async fn ask<T, E: From<BackendError>>(
        &self,
        call: Call,
        detail: &str,
        inner: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.asked.lock().push((call, detail.to_owned()));
        self.run_hook(When::Before, call);
        let gate = self.gates.lock().get(&call).map(Arc::clone);
        if let Some(gate) = gate {
            assert!(
                gate.acquire().await.is_err(),
                "a call acquired a permit of a gate, although gates have no permits"
            );
        }
        let failing = self.failing.lock().get(&call).copied();
        if let Some(error) = failing {
            return Err(error().into());
        }
        let result = inner().await;
        self.run_hook(When::After, call);
        result
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").finish_non_exhaustive()
    }
}

pub(crate) fn unavailable() -> BackendError {
    BackendError::unavailable("switched off by the test")
}

pub(crate) fn unusable() -> BackendError {
    BackendError::Unusable("garbled by the test".into())
}

impl Broker for Rig {
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(self.ask(Call::Subscribe, channel.as_str(), || {
            self.inner.broker.subscribe(channel)
        }))
    }

    fn unsubscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        let inner = || self.inner.broker.unsubscribe(channel);
        Box::pin(self.ask(Call::Unsubscribe, channel.as_str(), inner))
    }

    fn publish(
        &self,
        publication: Publication,
        until: Duration,
    ) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            let channel = publication.channel.clone();
            let inner = || self.inner.broker.publish(publication, until);
            self.ask(Call::Publish, channel.as_str(), inner).await
        })
    }
}

impl Sessions for Rig {
    fn open(&self, record: SessionRecord, max: u32) -> BoxFuture<'_, Result<(), OpenError>> {
        Box::pin(self.ask(Call::Open, "", move || {
            self.inner.sessions.open(record, max)
        }))
    }

    fn make_room<'a>(
        &'a self,
        user: &'a str,
        over: OverLimit,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.sessions.make_room(user, over)
    }

    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.ask(Call::Refresh, "", move || {
            self.inner.sessions.refresh(record)
        }))
    }

    fn close<'a>(
        &'a self,
        sessions: &'a [ClosedSession],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(self.ask(Call::Close, "", || self.inner.sessions.close(sessions)))
    }

    fn get(
        &self,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>> {
        self.inner.sessions.get(session)
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>> {
        self.inner.sessions.list(filter)
    }

    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>> {
        self.inner.sessions.disconnect(session)
    }
}

impl Revocations for Rig {
    fn check<'a>(
        &'a self,
        keys: &'a [RevocationKey],
        issued_at: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Revoked>, BackendError>> {
        Box::pin(self.ask(Call::Check, "", move || {
            self.inner.revocations.check(keys, issued_at)
        }))
    }

    fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> BoxFuture<'_, Result<Receipt, BackendError>> {
        Box::pin(self.ask(Call::Revoke, "", async || {
            self.inner.revocations.revoke(key, revocation).await
        }))
    }

    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>> {
        self.inner.revocations.restore(key)
    }

    fn time(&self) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.inner.revocations.time()
    }

    fn compare(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.ask(Call::Compare, "", || self.inner.revocations.compare()))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, BackendError>> {
        self.inner.revocations.list()
    }
}

impl Presence for Rig {
    fn enter<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let inner = move || self.inner.presence.enter(entries);
        Box::pin(self.ask(Call::Enter, "", inner))
    }

    fn leave<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let inner = move || self.inner.presence.leave(entries);
        Box::pin(self.ask(Call::Leave, "", inner))
    }

    fn list<'a>(
        &'a self,
        channel: &'a Channel,
        limit: usize,
    ) -> BoxFuture<'a, Result<PresenceList, BackendError>> {
        self.inner.presence.list(channel, limit)
    }
}

impl Streams for Rig {
    fn append(
        &self,
        publication: Publication,
        until: Duration,
        bounds: StreamBounds,
        key: Option<PublicationKey>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        Box::pin(async move {
            let channel = publication.channel.clone();
            let streams = &self.inner.streams;
            let inner = || streams.append(publication, until, bounds, key);
            self.ask(Call::Append, channel.as_str(), inner).await
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<StreamPage, BackendError>> {
        let inner = move || self.inner.streams.read(channel, range);
        Box::pin(self.ask(Call::Read, channel.as_str(), inner))
    }

    fn positions<'a>(
        &'a self,
        channels: &'a [Channel],
    ) -> BoxFuture<'a, Result<Vec<Position>, BackendError>> {
        let refused = self.refused.lock().clone();
        match refused.is_some_and(|refused| channels.contains(&refused)) {
            true => Box::pin(std::future::ready(Err(unavailable()))),
            false => self.inner.streams.positions(channels),
        }
    }

    fn clear<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.streams.clear(channel)
    }
}
