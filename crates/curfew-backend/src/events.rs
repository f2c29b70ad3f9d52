//! The interfaces through which a backend calls its node: [`Events`] receives events, and
//! [`LocalSessions`] answers queries about sessions.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use curfew_model::{
    Channel, Disconnect, GapReason, Position, PresenceChange, PresenceEntry, Present, Publication,
    Revocation, RevocationKey, SessionId,
};

use crate::{BoxFuture, Relayed, SessionRecord};

/// The node, as its backend calls it. The backend calls a method when something happens that
/// concerns sessions of the node.
///
/// Every method is synchronous, never blocks and never calls back into the backend; only the
/// answers of [`probe`](Events::probe) and [`relayed`](Events::relayed) are futures. A backend may
/// therefore call a method from the task that receives the event, such as the reader of the
/// backend's connection, or the publisher's own task. A queue between backend and node would cost a
/// wake-up for each publication, and could overflow.
pub trait Events: Send + Sync + 'static {
    /// A publication arrived in a channel.
    fn publication(&self, publication: &Publication);

    /// Publications of a channel were possibly lost before they reached this node's sessions. From
    /// now on, publications of the channel arrive without loss again.
    fn gap(&self, channel: &Channel, reason: GapReason);

    /// Publications of a channel no longer arrive, until the next [gap](Events::gap) with the
    /// reason [`GapReason::LinkLost`]. Until then, the node reads the channel's stream from the
    /// backend instead of using its copies.
    fn interrupted(&self, channel: &Channel);

    /// A session has entered a channel, or has left it.
    fn presence_changed(&self, channel: &Channel, change: PresenceChange, present: &Present);

    /// The publications of a channel's stream were deleted. The node drops its copies of them.
    fn cleared(&self, channel: &Channel);

    /// The backend may have lost publications of any stream, or begun new epochs. The node compares
    /// its copies with the streams before it uses them again.
    fn doubt_streams(&self);

    /// A revocation was written. The node ends every local session that the revocation names and
    /// covers. When the call returns, nothing more is queued for these sessions. Once the sessions
    /// [have left](Ended::has_left), nothing more is delivered to them or accepted from them.
    /// `learned` is the time when the node first learned of the key.
    fn revoked(&self, key: &RevocationKey, revocation: &Revocation, learned: Instant) -> Ended;

    /// A revocation was written just now, and [`Events::revoked`] has ended no session for it. The
    /// node uses the call for logs and traces only. The backend does not make the call when it
    /// reads a known revocation again.
    fn revoked_nobody(&self, key: &RevocationKey, revocation: &Revocation);

    /// The revocation stored under `key` may have changed, and the backend is about to read it.
    /// Until the returned value is dropped, nothing is delivered to the sessions that the key
    /// names, and nothing is accepted from them. `None` if the key names no session.
    fn suspend(&self, key: &RevocationKey) -> Option<Suspension>;

    /// True if a revocation of this kind finds every session of this node that the revocation
    /// names. The result is false if the node's settings lack the kind. It is also false after a
    /// change of the settings, until all sessions are indexed under the new settings and compared
    /// with the revocations. While the result is false, the node confirms no revocation of this
    /// kind.
    fn finds(&self, kind: &str) -> bool;

    /// Ends one session on request. Returns true if this node has the session.
    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool;

    /// Checks that the clients of these sessions respond. A session whose client does not respond
    /// is told to end. The future is ready once every client has responded, or a moment after
    /// [`PROBE_PATIENCE`](crate::PROBE_PATIENCE). The future returns the sessions that are not on
    /// this node, and the sessions that were told to end for any reason.
    fn probe(&self, sessions: Vec<SessionId>) -> BoxFuture<'static, Vec<SessionId>>;

    /// Another node has sent this message. The call itself reads the message, before the returned
    /// future is polled. The future is ready within [`RELAY_PATIENCE`](crate::RELAY_PATIENCE).
    fn relayed(&self, message: Bytes) -> BoxFuture<'static, Relayed>;

    /// Wakes the sessions that hold messages back. The backend calls this method when the node
    /// holds its lease again after a loss, and when the loss is more than a short interruption.
    fn reopened(&self);

    /// The backend was unreachable for too long. Ends every session, and returns their number.
    fn isolated(&self) -> usize;
}

/// The queries of a backend about the sessions of its node. No method blocks.
pub trait LocalSessions: Send + Sync + 'static {
    /// Every session, including those that are opening, in no particular order.
    fn sessions(&self) -> Vec<SessionId>;

    /// Every revocation key that names one of these sessions, each once.
    fn keys(&self, sessions: &[SessionId]) -> Vec<RevocationKey>;

    /// True if sessions can be revoked by the value of the claim `kind`.
    fn is_kind(&self, kind: &str) -> bool;

    /// The records of the open sessions among `sessions`.
    fn records(&self, sessions: &[SessionId]) -> Vec<SessionRecord>;

    /// The position up to which the node has received a channel's stream. `None` if the node knows
    /// no such position, and while it delivers publications of the channel. If the newest
    /// publication of the stream has a lower position, the backend has lost publications of the
    /// stream.
    fn reached(&self, channel: &Channel) -> Option<Position>;

    /// The presence entries of these sessions, in all channels.
    fn presence(&self, sessions: &[SessionId]) -> Vec<PresenceEntry>;
}

/// A value that suspends sessions until it is dropped.
pub type Suspension = Box<dyn Any + Send>;

/// A session that was told to end.
pub trait Leaving: Send + Sync {
    /// True if the session's task has dropped everything that was queued for the client.
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
    /// `count` sessions that have all left.
    pub fn gone(count: usize) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// `count` ended sessions. `leaving` lists the sessions that the caller must wait for,
    /// including sessions that were already ending.
    pub fn new(count: usize, leaving: Vec<Arc<dyn Leaving>>) -> Self {
        Self {
            count,
            unopened: 0,
            leaving,
        }
    }

    /// Sets the number of ended sessions that were still opening.
    pub fn unopened(self, unopened: usize) -> Self {
        Self { unopened, ..self }
    }

    /// The number of sessions that were told to end.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The number of ended sessions that were open.
    pub fn open(&self) -> usize {
        self.count.saturating_sub(self.unopened)
    }

    /// Adds the sessions of `other`.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.unopened += other.unopened;
        self.leaving.extend(other.leaving);
    }

    /// True if all of the sessions have left.
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
