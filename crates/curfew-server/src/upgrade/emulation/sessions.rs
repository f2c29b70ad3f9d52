//! The sessions of this node that have a streamed answer. This file passes commands to them.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::{Sealed, SessionKey, SessionKeyId};
use curfew_backend::{BoxFuture, RELAY_PATIENCE, Relayed};
use curfew_model::Repeats;
use curfew_protocol_centrifuge::Encoding;
use curfew_ws::frame::{self, Opcode};
use curfew_ws::{Closed, Inlet};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::{task, time};
use tracing::warn;

use super::replays::{NotNew, Received};
use crate::metrics::{RelayDropReason, ServerMetrics};

/// Maximum number of messages from other nodes that wait for one session. A message waits while
/// earlier commands fill the session's inlet.
const WAITING_OF_SESSION: usize = 128;

/// Maximum total size of the messages that wait for all sessions, in KiB.
const WAITING_KIB: usize = 32 * 1024;

/// The sessions of this node that have a streamed answer, by the ids of their keys.
pub(crate) struct Emulated {
    sessions: Mutex<HashMap<SessionKeyId, Arc<EmulatedSession>>>,
    metrics: Arc<ServerMetrics>,
    waiting: Arc<Semaphore>,
    /// Limits the warnings about messages that were not accepted.
    dropped: Repeats,
}

/// A session with a streamed answer.
#[derive(Debug)]
pub(super) struct EmulatedSession {
    key: SessionKey,
    inlet: Inlet,
    /// The numbers of the messages that the session has received from other nodes.
    received: Mutex<Received>,
    waiting: Arc<Semaphore>,
}

/// The entry of a session in [`Emulated`]. Dropping this value removes the entry.
#[derive(Debug)]
pub(crate) struct Entry {
    emulated: Arc<Emulated>,
    id: SessionKeyId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut sessions = self.emulated.sessions.lock();
        sessions.remove(&self.id);
        if sessions.is_empty() {
            // A new map frees the memory that a storm of sessions needed.
            *sessions = HashMap::new();
        }
    }
}

impl Emulated {
    pub(crate) fn new(metrics: Arc<ServerMetrics>) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            metrics,
            waiting: Arc::new(Semaphore::new(WAITING_KIB)),
            dropped: Repeats::default(),
        })
    }

    /// Adds a session. Commands for `key` reach it through `inlet` until the returned entry is
    /// dropped.
    pub(in crate::upgrade) fn enter(self: &Arc<Self>, key: SessionKey, inlet: Inlet) -> Entry {
        let id = key.id();
        let session = EmulatedSession {
            key,
            inlet,
            received: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING_OF_SESSION)),
        };
        self.sessions.lock().insert(id, Arc::new(session));
        Entry {
            emulated: Arc::clone(self),
            id,
        }
    }

    pub(super) fn get(&self, id: SessionKeyId) -> Option<Arc<EmulatedSession>> {
        self.sessions.lock().get(&id).cloned()
    }

    /// Accepts a message from another node. A session receives its messages in the order of the
    /// calls of this method, even if the returned futures are polled in another order.
    pub(crate) fn take_relayed(&self, message: &[u8]) -> BoxFuture<'static, Relayed> {
        let (session, commands) = match self.open(message) {
            Ok(opened) => opened,
            Err(relayed) => return Box::pin(ready(relayed)),
        };
        let waiting = Arc::clone(&session.waiting);
        let kib = u32::try_from(commands.len() / 1024 + 1).unwrap_or(u32::MAX);
        let metrics = Arc::clone(&self.metrics);
        // `unconstrained` turns off tokio's budget for the task. With an exhausted budget, the
        // first poll below would not queue the message, and a later message could overtake it.
        let mut sending = Box::pin(task::unconstrained(async move {
            match time::timeout(RELAY_PATIENCE, session.send(commands)).await {
                // If the session has ended, the end of the stream tells the client.
                Ok(Ok(()) | Err(Closed)) => Relayed::Taken,
                Err(_) => {
                    metrics.emulation_dropped.inc(RelayDropReason::Behind);
                    Relayed::Refused
                }
            }
        }));
        // A message that fits into the session's inlet does not wait and needs no permit.
        if let Some(relayed) = (&mut sending).now_or_never() {
            return Box::pin(ready(relayed));
        }
        let place = waiting.try_acquire_owned();
        let bytes = Arc::clone(&self.waiting).try_acquire_many_owned(kib);
        let (Ok(place), Ok(bytes)) = (place, bytes) else {
            self.drop_relayed(RelayDropReason::Behind);
            return Box::pin(ready(Relayed::Refused));
        };
        Box::pin(async move {
            let _held = (place, bytes);
            sending.await
        })
    }

    /// Decrypts a message from another node. Returns the session to which the message is addressed,
    /// and the message's commands as a frame.
    fn open(&self, message: &[u8]) -> Result<(Arc<EmulatedSession>, Bytes), Relayed> {
        let sealed = Sealed::parse(message);
        let sealed = sealed.ok_or_else(|| self.drop_relayed(RelayDropReason::Unreadable))?;
        let session = self.get(sealed.key()).ok_or(Relayed::Unknown)?;
        let opened = sealed.open(&session.key);
        let opened = opened.as_deref().and_then(read);
        let Some((encoding, data)) = opened else {
            return Err(self.drop_relayed(RelayDropReason::Unreadable));
        };
        // The number is noted only after decryption, because decryption authenticates the sender.
        let noted = session
            .received
            .lock()
            .note(sealed.sender(), sealed.number());
        match noted {
            Ok(()) => Ok((session, frame(encoding, data))),
            Err(NotNew::Replayed) => Err(self.drop_relayed(RelayDropReason::Replayed)),
            Err(NotNew::TooManySenders) => Err(self.drop_relayed(RelayDropReason::Senders)),
        }
    }

    /// Counts a message that is not accepted, and logs a warning, at most once a minute.
    fn drop_relayed(&self, reason: RelayDropReason) -> Relayed {
        self.metrics.emulation_dropped.inc(reason);
        if self.dropped.note().is_some() {
            warn!(
                reason = reason.as_str(),
                "commands from another node not executed; more in the next minute are not logged"
            );
        }
        Relayed::Refused
    }
}

impl EmulatedSession {
    /// Passes a frame to the session. Waits while earlier frames fill the session's inlet.
    pub(super) async fn send(&self, frame: Bytes) -> Result<(), Closed> {
        self.inlet.send(frame).await
    }
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulated")
            .field("sessions", &self.sessions.lock().len())
            .finish_non_exhaustive()
    }
}

/// Returns the content of a message to another node: a byte that names the encoding, and the
/// commands.
pub(super) fn written(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    let encoding = match encoding {
        Encoding::Json => b'j',
        Encoding::Protobuf => b'p',
    };
    [&[encoding], data].concat()
}

/// Parses the content of a message, which [`written`] has made.
fn read(content: &[u8]) -> Option<(Encoding, &[u8])> {
    match content.split_first()? {
        (b'j', data) => Some((Encoding::Json, data)),
        (b'p', data) => Some((Encoding::Protobuf, data)),
        _ => None,
    }
}

/// Returns the commands `data` as a frame, because a session reads frames.
pub(in crate::upgrade) fn frame(encoding: Encoding, data: &[u8]) -> Bytes {
    let opcode = match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Protobuf => Opcode::Binary,
    };
    frame::masked(opcode, data)
}
