//! Remembers the sessions of other nodes that have accepted commands from this node.
//!
//! Anyone can send a request with commands, and each request for a session of another node costs
//! Redis two messages. The requests for sessions that are not remembered are therefore limited to a
//! rate (`Permits::first_commands`). The requests for remembered sessions are not limited.

use std::collections::HashSet;

use curfew_auth::SessionKeyId;
use parking_lot::Mutex;

/// Maximum number of sessions in one generation.
const GENERATION: usize = 32 * 1024;

/// The key ids of the remembered sessions, in two generations. A session is added to the young
/// generation. When the young generation is full, it replaces the old generation, whose sessions
/// are forgotten.
#[derive(Debug, Default)]
pub(super) struct Familiar(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<SessionKeyId>,
    old: HashSet<SessionKeyId>,
}

impl Familiar {
    pub(super) fn has(&self, session: SessionKeyId) -> bool {
        let generations = self.0.lock();
        generations.young.contains(&session) || generations.old.contains(&session)
    }

    /// Remembers a session, because it has accepted commands.
    pub(super) fn add(&self, session: SessionKeyId) {
        let mut generations = self.0.lock();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(session);
    }

    /// Forgets a session, because it no longer exists.
    pub(super) fn remove(&self, session: SessionKeyId) {
        let mut generations = self.0.lock();
        generations.young.remove(&session);
        generations.old.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use curfew_auth::SessionKey;

    use super::*;

    #[test]
    fn sessions_in_use_stay_and_others_are_forgotten() {
        let familiar = Familiar::default();
        let id = || SessionKey::generate().id();
        let (used, unused, gone) = (id(), id(), id());
        for session in [used, unused, gone] {
            assert!(!familiar.has(session));
            familiar.add(session);
            assert!(familiar.has(session));
        }
        familiar.remove(gone);
        assert!(!familiar.has(gone));
        for _ in 0..2 * GENERATION {
            familiar.add(id());
            familiar.add(used);
        }
        assert!(familiar.has(used) && !familiar.has(unused));
        let generations = familiar.0.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
