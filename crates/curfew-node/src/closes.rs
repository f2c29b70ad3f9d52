//! Closes that interest an operator. The log has at most one line per close code and interval (see
//! [`Repeats`]), because clients can cause any number of closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use curfew_model::{Disconnect, Principal, Repeats, RevocationKey, SessionId, Spelling};
use parking_lot::Mutex;
use tracing::info;

use crate::Node;

/// The session of a connection that was closed. If the session was refused, this is the session
/// that the connection would have had.
#[derive(Debug, Clone)]
pub struct SessionIdentity {
    /// The session's id.
    pub session: SessionId,
    /// The principal of the session.
    pub principal: Arc<Principal>,
}

/// Notable closes by their code.
#[derive(Debug, Default)]
pub(crate) struct Closes(Mutex<BTreeMap<u16, Repeats<Closed>>>);

#[derive(Debug)]
struct Closed {
    disconnect: Disconnect,
    whose: Option<SessionIdentity>,
}

impl Node {
    /// Notes that the node closed a connection, if the close is notable. Logs at most one line per
    /// code and interval.
    pub fn note_close(&self, disconnect: Disconnect, whose: Option<SessionIdentity>) {
        if !is_notable(disconnect) {
            return;
        }
        let closed = Closed { disconnect, whose };
        // The lock is released before logging, because logging may block.
        let due = {
            let mut closes = self.closes.0.lock();
            closes
                .entry(disconnect.code)
                .or_default()
                .note_event(closed)
        };
        if let Some((connections, closed)) = due {
            self.tell_close(connections, &closed);
        }
    }

    /// Logs the closes and the failures that have no log line yet, once the interval of the last
    /// line is over. Call it about once a second.
    pub fn tell_rest(&self) {
        self.cleanup.tell_rest();
        self.presence.tell_rest();
        // The closes are collected first, so that no lock is held while logging.
        let due: Vec<_> = {
            let closes = self.closes.0.lock();
            closes.values().filter_map(Repeats::rest).collect()
        };
        for (connections, closed) in due {
            self.tell_close(connections, &closed);
        }
    }

    /// Logs one line for `connections` closes. The line has the user's revocation key with a digest
    /// of the user's id. The line has the user's id itself only if spans may contain user ids.
    fn tell_close(&self, connections: u64, closed: &Closed) {
        let whose = closed.whose.as_ref();
        let user = whose.map(|whose| whose.principal.user());
        let key = user.map(|user| RevocationKey::user(user).written(Spelling::Digest));
        info!(
            code = closed.disconnect.code,
            reason = closed.disconnect.reason,
            connections,
            session = whose.map(|whose| tracing::field::display(whose.session)),
            user_key = key,
            user = user.filter(|_| self.metrics.tracer().names_users()),
            "connections closed"
        );
    }
}

/// Returns true for closes that interest an operator. Other closes are routine.
fn is_notable(disconnect: Disconnect) -> bool {
    [
        Disconnect::SLOW_CONSUMER,
        Disconnect::INTERNAL,
        Disconnect::SESSION_LIMIT,
        Disconnect::RATE_LIMITED,
    ]
    .contains(&disconnect)
}
