use std::sync::Arc;

use curfew_model::{
    AuthFailure, Channel, Command, CommandsBy, DataForm, Epoch, ErrorCode, HistoryRange,
    MAX_OFFSET, Payload, Position, PresenceChange, Present, Publication, SessionId, StreamEntry,
    SubscribeOptions, Subscribed,
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use super::*;

mod decode;
mod encode;
mod wire;

const JSON: Centrifuge = Centrifuge {
    encoding: Encoding::Json,
    transport: Over::WebSocket,
};

const PROTOBUF: Centrifuge = Centrifuge {
    encoding: Encoding::Protobuf,
    transport: Over::WebSocket,
};

const EPOCH: &str = "kdWqZx3a";
const SESSION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn position(offset: u64) -> Position {
    let epoch = EPOCH.parse().unwrap();
    Position { epoch, offset }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Decodes all requests of a message.
fn decoded<'a>(
    protocol: Centrifuge,
    mut message: Message<'a>,
) -> Result<Vec<ClientRequest<'a>>, DecodeError> {
    let mut requests = Vec::new();
    loop {
        let before = format!("{message:?}");
        requests.push(protocol.decode(&mut message)?);
        assert_ne!(
            format!("{message:?}"),
            before,
            "the decoder removed nothing from the message"
        );
        if message.is_empty() {
            return Ok(requests);
        }
    }
}

fn command(id: u64, command: Command<'_>) -> ClientRequest<'_> {
    let id = Some(CommandId::from_number(id));
    ClientRequest::Command { id, command }
}
