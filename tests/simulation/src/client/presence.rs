//! The part of a client that concerns presence: the client enters the lobby, leaves it, and
//! requests its list.

use serde_json::json;

use super::{Asked, Client, LOBBY};
use crate::machine::elapsed;
use crate::record::Visit;
use crate::world::{ConnectionId, World};

/// The client's state in the lobby, by the answers that it has received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lobby {
    #[default]
    Outside,
    /// The client has asked to enter or to leave, and has no answer yet.
    Between,
    Inside,
}

impl Client {
    /// True from the answer to the client's subscription until the client asks to leave.
    pub fn is_in_lobby(&self) -> bool {
        self.lobby == Lobby::Inside
    }

    /// Perhaps enters the lobby, leaves it, or requests its list. Returns the delay until the
    /// client's next action; `None` if nothing was done.
    pub(super) fn visit(world: &mut World, client: usize, connection: ConnectionId) -> Option<u64> {
        let chance = world.random.u8(..);
        let this = &mut world.clients[client];
        let visit = match (this.lobby, chance) {
            (Lobby::Outside, _) if this.quiet => Visit::Enter(client.is_multiple_of(2)),
            (Lobby::Outside, ..100) => Visit::Enter(client.is_multiple_of(2)),
            (Lobby::Inside, _) if this.quiet => return None,
            (Lobby::Inside, ..25) => Visit::Leave,
            (Lobby::Inside, 25..70) => Visit::List,
            _ => return None,
        };
        let mut message = match visit {
            Visit::Enter(join_leave) => json!({"type":"subscribe","join_leave":join_leave}),
            Visit::Leave => json!({"type":"unsubscribe"}),
            Visit::List => json!({"type":"presence"}),
        };
        message["channel"] = LOBBY.into();
        if visit != Visit::List {
            this.lobby = Lobby::Between;
        }
        Self::ask(world, client, connection, message, Asked::Lobby(visit));
        let number = world.clients[client].count;
        let wire = world.record.wires.entry(connection).or_default();
        wire.visits.insert(number, (elapsed(), visit));
        Some(world.random.u64(5..150))
    }

    /// Handles the answer to a command about the lobby.
    pub(super) fn visited(&mut self, visit: Visit, answer: &str) {
        match (visit, answer) {
            (Visit::Enter(_), "ok") => self.lobby = Lobby::Inside,
            (Visit::Leave, "ok") => self.lobby = Lobby::Outside,
            // A command that is answered with an error has had no effect.
            (Visit::Enter(_), _) => self.lobby = Lobby::Outside,
            (Visit::Leave, _) => self.lobby = Lobby::Inside,
            (Visit::List, _) => {}
        }
    }
}
