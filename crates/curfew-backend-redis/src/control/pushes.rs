//! What Redis tells without being asked: which revocation keys were touched.
//!
//! The connection's own task calls [`Pushes::take`] for each push, before any reply that came after
//! it is seen. Sessions that a key may name are held back at once, until the control task has read
//! what became of it. A key that waits to be read already holds them back already: however often it
//! is written meanwhile, it costs no more.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use curfew_backend::{Revoked, Suspension};
use curfew_model::RevocationKey;
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use super::read::SpelledKey;
use super::{Control, Generation};
use crate::core::Core;
use crate::fault::Fault;

/// Keys that may wait to be read. More, and every session is compared with Redis instead.
const MAX_KEYS: usize = 1_000_000;

/// Keys read in one go.
pub(super) const BATCH: usize = 1024;

/// Keys that name nobody and may wait to be looked at. More are not noticed: they change nothing.
const MAX_NAMELESS: usize = 10_000;

/// What follows the tracked prefix in the name of the epoch.
const EPOCH: &str = "epoch";

/// What was pushed and has not been seen to.
pub(super) struct Pushes {
    core: Arc<Core>,
    prefix: String,
    unbraced_prefix: String,
    state: Mutex<PendingPushes>,
    arrived: Notify,
}

#[derive(Default)]
struct PendingPushes {
    keys: HashMap<RevocationKey, Touched>,
    /// The names of keys that name nobody, whatever becomes of them.
    nameless: HashSet<Vec<u8>>,
    /// Everything may have changed: the whole database was emptied, or more keys were touched than
    /// can wait.
    lost_track: bool,
    epoch: bool,
    gone: bool,
}

/// A key that waits to be read.
struct Touched {
    /// When Redis first told of it.
    at: Instant,
    /// The sessions that are held back for it.
    suspensions: Vec<Suspension>,
}

/// The meaning of the name of a key that was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A revocation's.
    Key(RevocationKey),
    /// That of the epoch.
    Epoch,
    /// It is written like a revocation's, and names no session.
    Nameless,
    /// Another's.
    Foreign,
}

impl Told {
    /// Reads a name. `prefix` is what revocations' keys begin with, `unbraced` what they begin with where
    /// the braces were forgotten.
    pub(crate) fn of(name: &[u8], prefix: &str, unbraced: &str) -> Self {
        let Some(written) = name.strip_prefix(prefix.as_bytes()) else {
            return match name.starts_with(unbraced.as_bytes()) {
                true => Self::Nameless,
                false => Self::Foreign,
            };
        };
        if written == EPOCH.as_bytes() {
            return Self::Epoch;
        }
        match RevocationKey::parse_written(written) {
            Ok((key, _)) => Self::Key(key),
            Err(_) => Self::Nameless,
        }
    }
}

/// Keys taken to be read. Sessions are held back for them until this is dropped.
struct Taken {
    keys: Vec<RevocationKey>,
    /// When Redis first told of each.
    touched_at: Vec<Instant>,
    epoch: bool,
    nameless: Vec<Vec<u8>>,
    suspensions: Vec<Suspension>,
}

impl Pushes {
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            prefix: core.keys.revoked_prefix(),
            unbraced_prefix: core.keys.unbraced_prefix(),
            core,
            state: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    /// Takes a push. Never waits.
    pub(super) fn take(&self, push: PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.into_iter().next() {
                Some(Value::Array(keys)) => self.touched(keys),
                _ => self.lose_track(),
            },
            PushKind::Disconnection => {
                self.state.lock().gone = true;
                self.arrived.notify_one();
            }
            _ => {}
        }
    }

    fn touched(&self, names: Vec<Value>) {
        let at = Instant::now();
        for name in names {
            let Value::BulkString(name) = name else {
                continue;
            };
            match Told::of(&name, &self.prefix, &self.unbraced_prefix) {
                Told::Key(key) => self.named(key, at),
                Told::Epoch => self.state.lock().epoch = true,
                Told::Nameless => self.nameless(name),
                Told::Foreign => {}
            }
        }
        self.arrived.notify_one();
    }

    fn nameless(&self, name: Vec<u8>) {
        let mut state = self.state.lock();
        if state.nameless.len() < MAX_NAMELESS {
            state.nameless.insert(name);
        }
    }

    fn named(&self, key: RevocationKey, at: Instant) {
        let mut state = self.state.lock();
        if let Some((waiting, touched)) = state.keys.remove_entry(&key) {
            // Its sessions are held back until it is read, which is after this. A session that was
            // registered since is as well: see [`Pushes::hold`]. One of the two may know the value.
            let known = waiting.plain_value().is_some();
            state
                .keys
                .insert(if known { waiting } else { key }, touched);
            return;
        }
        drop(state);
        // Before anything else: a heartbeat on its way must not let them go on.
        let suspension = self.core.events.suspend(&key);
        let mut state = self.state.lock();
        // Nobody else adds keys.
        let suspensions = suspension.into_iter().collect();
        state.keys.insert(key, Touched { at, suspensions });
        if state.keys.len() > MAX_KEYS {
            // Their sessions are compared; those without a session here are not known.
            let forgotten = std::mem::take(&mut state.keys);
            drop(state);
            // Shut before the sessions that are held back for them go on.
            self.lose_track();
            drop(forgotten);
        }
    }

    /// Holds a session back that was registered a moment ago, until whichever of its keys wait to be
    /// read have been.
    ///
    /// A key that waits was pushed before the session was there to be held back, and a later push
    /// of it holds nobody back. The session's own look at Redis does not suffice: the key may be
    /// written once more after it, with another value, and heartbeats renew the lease while keys
    /// wait. A key that does not wait now holds the session back when it is pushed.
    pub(super) fn hold(&self, keys: &[RevocationKey]) {
        if self.state.lock().keys.is_empty() {
            return;
        }
        let Some(session) = keys.iter().find(|key| key.kind() == "session") else {
            return;
        };
        for key in keys {
            if !self.state.lock().keys.contains_key(key) {
                continue;
            }
            let suspension = self.core.events.suspend(session);
            if let Some(touched) = self.state.lock().keys.get_mut(key) {
                touched.suspensions.extend(suspension);
            }
        }
    }

    /// The lease ends. Keys that wait still do: they are read once every session was compared.
    pub(super) fn lose_track(&self) {
        let mut state = self.state.lock();
        state.lost_track = true;
        self.core.lease.expire();
        drop(state);
        self.arrived.notify_one();
    }

    /// Does what may only be done while nothing is lost; nothing is lost in the middle of it.
    pub(super) fn unless_lost<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let state = self.state.lock();
        (!state.lost_track).then(act)
    }

    /// Waits for something to see to.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    pub(super) fn has_lost_track(&self) -> bool {
        self.state.lock().lost_track
    }

    /// From here on every session is compared with Redis.
    pub(super) fn find_track(&self) {
        self.state.lock().lost_track = false;
    }

    pub(super) fn has_any(&self) -> bool {
        let state = self.state.lock();
        state.epoch || !state.keys.is_empty() || !state.nameless.is_empty()
    }

    /// Whether a key waits to be read.
    pub(super) fn has(&self, key: &RevocationKey) -> bool {
        self.state.lock().keys.contains_key(key)
    }

    fn batch(&self) -> Taken {
        let mut state = self.state.lock();
        let mut taken = Taken {
            keys: Vec::new(),
            touched_at: Vec::new(),
            epoch: std::mem::take(&mut state.epoch),
            nameless: std::mem::take(&mut state.nameless).into_iter().collect(),
            suspensions: Vec::new(),
        };
        if state.keys.len() <= BATCH {
            for (key, touched) in std::mem::take(&mut state.keys) {
                taken.add(key, touched);
            }
        } else {
            let keys: Vec<_> = state.keys.keys().take(BATCH).cloned().collect();
            for key in keys {
                if let Some(touched) = state.keys.remove(&key) {
                    taken.add(key, touched);
                }
            }
        }
        taken
    }
}

impl Taken {
    fn add(&mut self, key: RevocationKey, touched: Touched) {
        self.keys.push(key);
        self.touched_at.push(touched.at);
        self.suspensions.extend(touched.suspensions);
    }
}

impl Control {
    /// Reads what became of the keys that were pushed, ends the sessions they cover, and lets the
    /// others go on.
    pub(super) async fn read_pushed(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let taken = generation.pushes.batch();
        let Taken {
            keys,
            touched_at,
            epoch,
            nameless,
            suspensions,
        } = taken;
        let read = self.read_taken(generation, &keys, &touched_at, epoch).await;
        if read.is_err() {
            // Before the sessions that are held back for them go on.
            self.core.lease.expire();
        }
        read?;
        drop(suspensions);
        self.look_at_nameless(generation, nameless).await
    }

    async fn read_taken(
        &mut self,
        generation: &mut Generation,
        keys: &[RevocationKey],
        touched_at: &[Instant],
        epoch: bool,
    ) -> Result<(), Fault> {
        if epoch {
            let epoch = self.read_epoch(generation).await?;
            if epoch != self.epoch {
                debug!("the epoch is another");
                generation.pushes.lose_track();
                return Ok(());
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.step("push").count(keys.len()).log();
        // In every way they may be written, whichever was touched.
        let mut written = Vec::with_capacity(keys.len() * 2);
        let mut learned_at = Vec::with_capacity(keys.len() * 2);
        for (key, at) in keys.iter().zip(touched_at) {
            written.extend(SpelledKey::all(&self.known_revocations.complete(key)));
            learned_at.resize(written.len(), *at);
        }
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        let read = self.read(&generation.connection, &written).await?;
        let mut ended = 0;
        for ((written, value), learned) in written.into_iter().zip(read).zip(learned_at) {
            let Some(known) = value else {
                gone.push(written);
                continue;
            };
            let revoked = written.revoked(&known);
            let sessions = self.apply(&revoked, learned);
            if sessions.count() == 0 {
                let Revoked { key, revocation } = &revoked;
                self.core.events.revoked_nobody(key, revocation);
            }
            ended += sessions.count();
            if let Some(id) = known.id() {
                self.count_for(id, sessions);
            }
            found.push((written, known));
        }
        self.step("get").count(keys.len()).revoked(ended).log();
        // A key that is there in one way need not have been there in another.
        let there: HashSet<&RevocationKey> = found.iter().map(|(there, _)| &there.key).collect();
        gone.retain(|gone| !there.contains(&gone.key) || self.known_revocations.has(gone));
        self.note_found(generation, &found).await?;
        self.note_gone(generation, gone).await
    }
}

impl fmt::Debug for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}
