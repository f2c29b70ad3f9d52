//! The part of a client that concerns streams: its position, and its publications with an
//! idempotency key.

use serde_json::{Value, json};

use super::{Asked, CHANNELS, Client, STREAM};
use crate::machine::elapsed;
use crate::record::place;
use crate::world::{ConnectionId, World};

/// Maximum number of attempts to send a publication.
const MOST_ATTEMPTS: usize = 4;

/// True if the publication has an idempotency key, which allows sending it again. Every second
/// publication in the channel with a stream has a key.
pub(super) fn is_keyed(channel: usize, number: u64) -> bool {
    channel == STREAM && number.is_multiple_of(2)
}

impl Client {
    /// Adds the client's position to the command that subscribes to the channel with a stream.
    pub(super) fn name_place(
        world: &mut World,
        client: usize,
        connection: ConnectionId,
        channel: usize,
        command: &mut Value,
    ) {
        let since = world.clients[client].place.clone();
        if let Some((epoch, offset)) = since.filter(|_| channel == STREAM) {
            command["since"] = json!({"epoch":epoch,"offset":offset});
            let wire = world.record.wires.entry(connection).or_default();
            wire.since = Some((epoch, offset));
        }
    }

    /// Applies the position of an answer to a subscription, or of a gap. If `recovered` is true,
    /// the missed publications follow, and the position does not change yet.
    pub(super) fn begin_at(&mut self, told: &Value) {
        if told["recovered"] != true
            && let Some(place) = place(told)
        {
            self.place = Some(place);
        }
    }

    /// Applies the offset of a received publication.
    pub(super) fn move_on(&mut self, message: &[u8]) {
        let message: Value = serde_json::from_slice(message).expect("nodes write JSON");
        if let (Some(offset), Some((_, at))) = (message["offset"].as_u64(), &mut self.place) {
            *at = offset;
        }
    }

    /// Records that it is unknown if a publication was accepted, because the answer was lost or is
    /// `unknown_outcome`.
    pub(super) fn doubt(&mut self, channel: usize, number: u64) {
        if is_keyed(channel, number) {
            self.unsure.push(number);
        }
    }

    /// Records the publications without an answer when a connection ends, because they may or may
    /// not have been accepted.
    pub(super) fn doubt_unanswered(world: &mut World, client: usize) {
        if !world.record.streams {
            return;
        }
        let this = &mut world.clients[client];
        for asked in std::mem::take(&mut this.asked).into_values() {
            if let Asked::Publication(number) = asked
                && let Some(published) = world.record.publications.get(&number)
            {
                this.doubt(published.channel, number);
            }
        }
    }

    /// Sends a publication again with its key, unless it was sent [`MOST_ATTEMPTS`] times.
    pub(super) fn publish_again(
        world: &mut World,
        client: usize,
        connection: ConnectionId,
        number: u64,
    ) {
        let Some(published) = world.record.publications.get_mut(&number) else {
            return;
        };
        if published.attempts.len() >= MOST_ATTEMPTS {
            return;
        }
        published.attempts.push((elapsed(), connection));
        published.answer = None;
        let message = json!({"type":"publish","channel":CHANNELS[STREAM],"data":[format!("#{number}")],"key":number.to_string()});
        let asked = Asked::Publication(number);
        Self::ask(world, client, connection, message, asked);
    }
}
