//! Closes that an operator looks for: the log tells each kind once in an interval, since clients can
//! repeat them.

use std::collections::BTreeMap;
use std::sync::Arc;

use curfew_model::{Disconnect, Principal, Repeats, RevocationKey, SessionId, Spelling};
use parking_lot::Mutex;
use tracing::info;

use crate::Node;

/// The session that a connection had, or would have had.
#[derive(Debug, Clone)]
pub struct SessionIdentity {
    /// Its id.
    pub session: SessionId,
    /// Who it is of.
    pub principal: Arc<Principal>,
}

/// Closes by their code.
#[derive(Debug, Default)]
pub(crate) struct Closes(Mutex<BTreeMap<u16, Repeats<Closed>>>);

#[derive(Debug)]
struct Closed {
    disconnect: Disconnect,
    whose: Option<SessionIdentity>,
}

impl Node {
    /// The node closes a connection: noted where that is one that an operator looks for.
    pub fn note_close(&self, disconnect: Disconnect, whose: Option<SessionIdentity>) {
        if !is_notable(disconnect) {
            return;
        }
        let closed = Closed { disconnect, whose };
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

    /// Tells what no line of the log has told, where the interval of the last one is over. To be called
    /// every second or so.
    pub fn tell_rest(&self) {
        self.cleanup.tell_rest();
        let due: Vec<_> = {
            let closes = self.closes.0.lock();
            closes.values().filter_map(Repeats::rest).collect()
        };
        for (connections, closed) in due {
            self.tell_close(connections, &closed);
        }
    }

    /// The key of the user has the digest of its value; the user is named where spans may name users.
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

/// Closes that an operator looks for; the rest is everyday.
fn is_notable(disconnect: Disconnect) -> bool {
    [
        Disconnect::SLOW_CONSUMER,
        Disconnect::INTERNAL,
        Disconnect::SESSION_LIMIT,
        Disconnect::RATE_LIMITED,
    ]
    .contains(&disconnect)
}
