//! Pushes: the revocation keys that Redis reports as touched. A key is touched when it is written,
//! removed or expires.
//!
//! The connection's own task calls [`Pushes::take`] for each push, before it delivers any later
//! reply. The sessions that a key may name are held back at once, until the control task has read
//! the key. A further push of a waiting key costs nothing, because the key's sessions are held back
//! already.

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

/// Maximum number of keys that wait to be read. Above this number, every session is compared with
/// Redis instead.
const MAX_KEYS: usize = 1_000_000;

/// Maximum number of keys read in one step.
pub(super) const BATCH: usize = 1024;

/// Maximum number of ineffective keys that wait to be looked at. Further ineffective keys are
/// ignored, because they end no session.
const MAX_NAMELESS: usize = 10_000;

/// The epoch's key name, after the tracked prefix.
const EPOCH: &str = "epoch";

/// The pushes that the control task has not handled yet.
pub(super) struct Pushes {
    core: Arc<Core>,
    /// The prefix of the keys of revocations.
    prefix: String,
    /// The prefix of the key of a revocation that was written without the braces.
    unbraced_prefix: String,
    state: Mutex<PendingPushes>,
    /// Notified by each push, and when the node loses track.
    arrived: Notify,
}

/// The state of the pushes under their lock.
#[derive(Default)]
struct PendingPushes {
    /// The keys that wait to be read.
    keys: HashMap<RevocationKey, Touched>,
    /// Names of ineffective keys that wait to be checked.
    nameless: HashSet<Vec<u8>>,
    /// True if the node lost track of the revocations: any revocation may have changed, for example
    /// because the database was emptied, or because more than [`MAX_KEYS`] keys waited.
    lost_track: bool,
    /// True if the key of the epoch was touched.
    epoch: bool,
    /// True if the connection is lost.
    gone: bool,
}

/// A key that waits to be read.
struct Touched {
    /// The time of the first push of the key.
    at: Instant,
    /// The sessions held back for the key.
    suspensions: Vec<Suspension>,
}

/// The kind of a touched key, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TouchedKey {
    /// The key of a revocation.
    Key(RevocationKey),
    /// The key of the epoch.
    Epoch,
    /// A key that looks like the key of a revocation but names no session.
    Nameless,
    /// Any other key.
    Foreign,
}

impl TouchedKey {
    /// Parses a name. `prefix` is the prefix of the keys of revocations, and `unbraced` is this
    /// prefix without the braces.
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

/// Keys that were taken from the queue to be read. Dropping the value releases the sessions that
/// are held back for these keys.
struct Taken {
    keys: Vec<RevocationKey>,
    /// The time of the first push of each key.
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

    /// Handles a push. Never waits.
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

    /// Handles a push of touched keys.
    fn touched(&self, names: Vec<Value>) {
        let at = Instant::now();
        for name in names {
            let Value::BulkString(name) = name else {
                continue;
            };
            match TouchedKey::of(&name, &self.prefix, &self.unbraced_prefix) {
                TouchedKey::Key(key) => self.named(key, at),
                TouchedKey::Epoch => self.state.lock().epoch = true,
                TouchedKey::Nameless => self.nameless(name),
                TouchedKey::Foreign => {}
            }
        }
        self.arrived.notify_one();
    }

    /// Queues an ineffective key to be checked.
    fn nameless(&self, name: Vec<u8>) {
        let mut state = self.state.lock();
        if state.nameless.len() < MAX_NAMELESS {
            state.nameless.insert(name);
        }
    }

    /// Holds back the sessions that the key may name, and queues the key to be read.
    fn named(&self, key: RevocationKey, at: Instant) {
        let mut state = self.state.lock();
        if let Some((waiting, touched)) = state.keys.remove_entry(&key) {
            // The key's sessions are held back already, including sessions registered after the
            // earlier push: see [`Pushes::hold`]. They stay held back until the key is read. If
            // only one of the two spellings shows the plain value, the key is stored in this
            // spelling.
            let known = waiting.plain_value().is_some();
            state
                .keys
                .insert(if known { waiting } else { key }, touched);
            return;
        }
        // The lock is released here, because `suspend` takes the locks of the hub.
        drop(state);
        // The sessions are held back before the key is queued. If the key were queued first, a
        // heartbeat on its way could let messages through to these sessions.
        let suspension = self.core.events.suspend(&key);
        let mut state = self.state.lock();
        // Only this task adds keys, so the key is still not queued.
        let suspensions = suspension.into_iter().collect();
        state.keys.insert(key, Touched { at, suspensions });
        if state.keys.len() > MAX_KEYS {
            // All sessions are compared instead. The touched keys are dropped, even the keys
            // without a session on this node.
            let forgotten = std::mem::take(&mut state.keys);
            drop(state);
            // The lease ends before the sessions that are held back for these keys are released.
            self.lose_track();
            drop(forgotten);
        }
    }

    /// Holds back a session that was just registered until all its waiting keys have been read.
    ///
    /// A waiting key may have been pushed before this session was registered, and a later push of
    /// the key would not hold the session back. The session's own check at Redis is not enough,
    /// because the key may be written with another value after the check while heartbeats renew the
    /// lease. Keys that do not wait need no action: their next push holds the session back.
    pub(super) fn hold(&self, keys: &[RevocationKey]) {
        // Nearly every call returns here, because keys rarely wait.
        if self.state.lock().keys.is_empty() {
            return;
        }
        let Some(session) = keys.iter().find(|key| key.kind() == "session") else {
            // The list of keys contains no key that identifies the session, so no session can be
            // held back.
            return;
        };
        for key in keys {
            // The lock is released before `suspend`, which takes the locks of the hub.
            if !self.state.lock().keys.contains_key(key) {
                continue;
            }
            let suspension = self.core.events.suspend(session);
            // If the key was read meanwhile, the suspension is dropped here and releases the
            // session.
            if let Some(touched) = self.state.lock().keys.get_mut(key) {
                touched.suspensions.extend(suspension);
            }
        }
    }

    /// Ends the lease, because any revocation may have changed. Waiting keys stay queued, and are
    /// read after every session was compared.
    pub(super) fn lose_track(&self) {
        let mut state = self.state.lock();
        state.lost_track = true;
        self.core.lease.expire();
        drop(state);
        self.arrived.notify_one();
    }

    /// Runs `act` unless the node has lost track. The node cannot lose track while `act` runs.
    pub(super) fn unless_lost<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        // The lock is held during `act`. `lose_track` ends the lease under the same lock, so the
        // renewal in `act` cannot undo that end.
        let state = self.state.lock();
        (!state.lost_track).then(act)
    }

    /// Waits for something to handle.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// True if the connection is lost.
    pub(super) fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// True if the node has lost track.
    pub(super) fn has_lost_track(&self) -> bool {
        self.state.lock().lost_track
    }

    /// Clears the loss of track. The caller must call this function before it compares every
    /// session.
    pub(super) fn find_track(&self) {
        self.state.lock().lost_track = false;
    }

    /// True if a push waits to be handled.
    pub(super) fn has_any(&self) -> bool {
        let state = self.state.lock();
        state.epoch || !state.keys.is_empty() || !state.nameless.is_empty()
    }

    /// True if the key waits to be read.
    pub(super) fn has(&self, key: &RevocationKey) -> bool {
        self.state.lock().keys.contains_key(key)
    }

    /// Takes at most [`BATCH`] keys, and every other waiting push.
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
    /// Adds a key with the sessions held back for it.
    fn add(&mut self, key: RevocationKey, touched: Touched) {
        self.keys.push(key);
        self.touched_at.push(touched.at);
        self.suspensions.extend(touched.suspensions);
    }
}

impl Control {
    /// Reads the keys that were pushed, ends the sessions that the revocations cover, and releases
    /// the other sessions.
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
            // The lease ends before the sessions that are held back for these keys are released.
            self.core.lease.expire();
        }
        read?;
        drop(suspensions);
        self.look_at_nameless(generation, nameless).await
    }

    /// Reads the taken keys, and ends the sessions that their revocations cover. Meanwhile the
    /// caller keeps the suspensions of the keys' sessions.
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
                debug!("the epoch in redis has changed");
                generation.pushes.lose_track();
                // A new epoch means that data was lost. The next setup reads everything.
                return Ok(());
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.step("push").count(keys.len()).log();
        // Each key is read in every spelling, not only in the spelling that was touched.
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
        // If a key exists in one spelling, its missing spellings were usually never written. A
        // missing spelling then counts as removed only if this node knew it.
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
