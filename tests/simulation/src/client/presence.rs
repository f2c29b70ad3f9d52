//! The part of a client that uses presence: it enters and leaves the lobby, and asks for the list.

use serde_json::json;

use super::{Asked, Client, LOBBY};
use crate::machine::elapsed;
use crate::record::Visit;
use crate::world::{ConnectionId, World};

/// The state of the client's subscription to the lobby, according to the answers that it received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lobby {
    #[default]
    Outside,
    /// The client has asked to enter or to leave.
    Between,
    Inside,
}

impl Client {
    /// True from the answer that confirms the subscription until the client asks to leave.
    pub fn is_in_lobby(&self) -> bool {
        self.lobby == Lobby::Inside
    }

    /// Enters or leaves the lobby, or asks for its list. Returns the milliseconds until the client
    /// acts again, or `None` if it did nothing.
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
            // A command that was answered with an error had no effect.
            (Visit::Enter(_), _) => self.lobby = Lobby::Outside,
            (Visit::Leave, _) => self.lobby = Lobby::Inside,
            (Visit::List, _) => {}
        }
    }
}
