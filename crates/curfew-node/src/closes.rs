//! Closes that interest an operator. The log has one line per kind and interval, because clients
//! can cause any number of closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use curfew_model::{Disconnect, Principal, Repeats, RevocationKey, SessionId, Spelling};
use parking_lot::Mutex;
use tracing::info;

use crate::Node;

/// The session that a connection had, or would have had.
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
    /// Notes a close of a connection by the node, if it is notable. Logs at most one line per code
    /// and interval.
    pub fn note_close(&self, disconnect: Disconnect, whose: Option<SessionIdentity>) {
        if !is_notable(disconnect) {
            return;
        }
        let closed = Closed { disconnect, whose };
        // Released before logging, which may block.
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

    /// Logs the suppressed closes and failures whose interval has ended. The caller calls this
    /// about once a second.
    pub fn tell_rest(&self) {
        self.cleanup.tell_rest();
        self.presence.tell_rest();
        // Collected first, so that no lock is held while logging.
        let due: Vec<_> = {
            let closes = self.closes.0.lock();
            closes.values().filter_map(Repeats::rest).collect()
        };
        for (connections, closed) in due {
            self.tell_close(connections, &closed);
        }
    }

    /// Logs closes. The user's key is written with a digest; the user's id only if spans may
    /// contain it.
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
