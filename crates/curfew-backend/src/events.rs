//! News of a backend for its node, and its questions to the node.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use curfew_model::{
    Channel, Disconnect, GapReason, PresenceChange, PresenceEntry, Present, Publication,
    Revocation, RevocationKey, SessionId,
};

use crate::{BoxFuture, Relayed, SessionRecord};

/// The node's side of a backend: called when something happened that concerns local sessions.
///
/// Every method but the answers to a probe and to a message is synchronous, never blocks and never calls back into the backend, so that a
/// backend may call it from wherever the news arrives: its connection's reader, or the publisher
/// itself. (A queue between the two would cost a wake-up per publication and could overflow.)
pub trait Events: Send + Sync + 'static {
    /// A publication arrived in a channel.
    fn publication(&self, publication: &Publication);

    /// Publications of a channel that sessions here listen to may not have arrived: those that arrive
    /// from now on are whole again.
    fn gap(&self, channel: &Channel, reason: GapReason);

    /// A session has come to a channel, or has gone.
    fn presence_changed(&self, channel: &Channel, change: PresenceChange, present: &Present);

    /// The publications of a channel's stream were taken out: the node forgets what it remembers of
    /// them.
    fn cleared(&self, channel: &Channel);

    /// The backend may have lost publications of any stream, or begun other epochs: the node compares
    /// what it remembers before it is used.
    fn doubt_streams(&self);

    /// A revocation was written. Ends every local session it names and covers. When it returns,
    /// nothing more is queued for them; when they [have left](Ended::has_left), nothing more is
    /// delivered to or accepted from them. `learned` is when the node first heard of the key.
    fn revoked(&self, key: &RevocationKey, revocation: &Revocation, learned: Instant) -> Ended;

    /// A revocation was written just now, and [`Events::revoked`] has ended no session for it. For what is
    /// to be seen of it; not called when one that is known is read again.
    fn revoked_nobody(&self, key: &RevocationKey, revocation: &Revocation);

    /// A revocation key was touched and is about to be read: until the answer is dropped, nothing
    /// is delivered to or accepted from the sessions it names. `None` when it names none.
    fn suspend(&self, key: &RevocationKey) -> Option<Suspension>;

    /// True if a revocation of this kind finds every session of this node that it names. It is false
    /// if the node's settings lack the kind, and while sessions from before a change of settings
    /// are not yet indexed and compared by the new ones. Until then no revocation is confirmed.
    fn finds(&self, kind: &str) -> bool;

    /// Ends one session on request. Returns true if it lives on this node.
    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool;

    /// Asks the clients of these sessions for a sign of life. The answer comes when each has given one,
    /// or a moment after [`PROBE_PATIENCE`](crate::PROBE_PATIENCE): the sessions that do not live here,
    /// or were told to end, those included that gave none.
    fn probe(&self, sessions: Vec<SessionId>) -> BoxFuture<'static, Vec<SessionId>>;

    /// Another node has sent a message to this one. It is read before the answer is polled. The answer
    /// comes within [`RELAY_PATIENCE`](crate::RELAY_PATIENCE).
    fn relayed(&self, message: Bytes) -> BoxFuture<'static, Relayed>;

    /// The lease was lost and is held again: what sessions held back may go.
    fn reopened(&self);

    /// The backend was out of reach for too long: ends every session; returns how many.
    fn isolated(&self) -> usize;
}

/// Questions of a backend to its node about the sessions that live there. None of them blocks.
pub trait LocalSessions: Send + Sync + 'static {
    /// Every session, those that are opening included, in no order.
    fn sessions(&self) -> Vec<SessionId>;

    /// Every revocation key that names one of these sessions' tokens, each once.
    fn keys(&self, sessions: &[SessionId]) -> Vec<RevocationKey>;

    /// True if the claim `kind` can be revoked by its value, beside users, sessions and tokens.
    fn is_kind(&self, kind: &str) -> bool;

    /// The records of those of these sessions that are open.
    fn records(&self, sessions: &[SessionId]) -> Vec<SessionRecord>;

    /// The entries of these sessions in the presence of channels.
    fn presence(&self, sessions: &[SessionId]) -> Vec<PresenceEntry>;
}

/// Sessions held back; dropping it lets them go on.
pub type Suspension = Box<dyn Any + Send>;

/// A session that was told to end.
pub trait Leaving: Send + Sync {
    /// True if its task has let go of everything that was meant for the client.
    fn has_left(&self) -> bool;
}

/// Sessions that a revocation has told to end.
#[derive(Default)]
pub struct Ended {
    count: usize,
    unopened: usize,
    leaving: Vec<Arc<dyn Leaving>>,
}

impl Ended {
    /// So many, all of which have left.
    pub fn gone(count: usize) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// So many; `leaving` are to be waited for, among them any that were ending before.
    pub fn new(count: usize, leaving: Vec<Arc<dyn Leaving>>) -> Self {
        Self {
            count,
            unopened: 0,
            leaving,
        }
    }

    /// So many of them were still opening.
    pub fn unopened(self, unopened: usize) -> Self {
        Self { unopened, ..self }
    }

    /// The number of sessions that ended.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The number of them that were open.
    pub fn open(&self) -> usize {
        self.count.saturating_sub(self.unopened)
    }

    /// Adds others.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.unopened += other.unopened;
        self.leaving.extend(other.leaving);
    }

    /// True if all of them have left.
    pub fn has_left(&mut self) -> bool {
        self.leaving.retain(|session| !session.has_left());
        self.leaving.is_empty()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
