//! ST6 of presence, checked after all trouble: the list of the lobby's sessions, and the notes of
//! nodes. A note is the name of a session that a node stores in Redis, so that the session's entry
//! in the list can be found.

use std::collections::BTreeSet;

use super::{Violation, session_of};
use crate::client::Client;
use crate::machine::elapsed;
use crate::record::Listing;
use crate::world::World;

/// Checks that, after all trouble, every session in the lobby is listed.
pub fn lobby(world: &World) -> Vec<Violation> {
    let empty = Listing::new();
    let listed = world.record.presence.now().unwrap_or(&empty);
    let inside = inside(world);
    let missing = inside
        .iter()
        .filter(|session| !listed.contains_key(*session));
    missing
        .map(|session| {
            violation(format!(
                "session {session} is subscribed, but is not listed"
            ))
        })
        .collect()
}

/// Checks that, at the end, exactly the sessions in the lobby are listed, and that the notes of
/// nodes name exactly these sessions.
pub fn notes(world: &World) -> Vec<Violation> {
    if !world.record.presence.is_on {
        return Vec::new();
    }
    let empty = Listing::new();
    let listed = world.record.presence.now().unwrap_or(&empty);
    let inside = inside(world);
    let ghosts = listed.keys().filter(|session| !inside.contains(*session));
    let ghosts =
        ghosts.map(|session| format!("session {session} is listed, but is not subscribed"));
    let now = world.host.now();
    let server = world.host.server();
    let mut noted = BTreeSet::new();
    let keys = server.keys(now).into_iter();
    for key in keys.filter(|key| key.ends_with(b":presence")) {
        for note in server.members(&key, now) {
            let note = String::from_utf8_lossy(&note).into_owned();
            noted.insert(note.split(':').next().unwrap_or_default().to_owned());
        }
    }
    let unnoted = inside.difference(&noted);
    let unnoted =
        unnoted.map(|session| format!("no note names session {session}, which is subscribed"));
    let left = noted.difference(&inside);
    let left =
        left.map(|session| format!("a note names session {session}, which is not subscribed"));
    ghosts.chain(unnoted).chain(left).map(violation).collect()
}

fn violation(what: String) -> Violation {
    Violation {
        promise: "ST6",
        at: elapsed(),
        what,
    }
}

/// The sessions in the lobby, according to the answers that their clients have received.
fn inside(world: &World) -> BTreeSet<String> {
    let inside = world.clients.iter().filter(|client| client.is_in_lobby());
    let sessions = inside.filter_map(Client::open);
    sessions
        .filter_map(|connection| session_of(world.record.wires.get(&connection)?))
        .map(|session| session.to_string())
        .collect()
}
