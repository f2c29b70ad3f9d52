//! Commands of the Centrifuge protocol, in JSON and in Protobuf. serde_json and prost parse the
//! commands too, as independent parsers. The table of commands in `opinion` gives the expected
//! result.

mod opinion;
mod text;
mod wire;

use curfew_model::{ClientRequest, ErrorCode, Message};
use curfew_protocol::{DecodeError, Protocol as _};
use curfew_protocol_centrifuge::{Centrifuge, Emulation, Encoding, Over};
use opinion::Verdict;

fn decode<'a>(
    encoding: Encoding,
    message: &mut Message<'a>,
) -> Result<ClientRequest<'a>, DecodeError> {
    let transport = Over::WebSocket;
    let protocol = Centrifuge {
        encoding,
        transport,
    };
    let before = size(message);
    let decoded = protocol.decode(message);
    assert!(
        size(message) < before.max(1),
        "the decoder removes a part of the message"
    );
    decoded
}

fn size(message: &Message<'_>) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
    }
}

/// Checks that Curfew and serde_json decode each line to the same command, error or refusal.
///
/// # Panics
///
/// Curfew and the independent parsers disagree.
pub fn check_json(bytes: &[u8]) -> bool {
    let mut message = Message::Binary(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut accepted = false;
    loop {
        let line = lines.next().expect("there is a line for each command");
        let shown = String::from_utf8_lossy(line);
        let decoded = decode(Encoding::Json, &mut message);
        accepted |= decoded.is_ok();
        let text = str::from_utf8(line).ok();
        let is_deep = matches!(&decoded, Err(DecodeError::Form { message, .. }) if message.contains("deeper"));
        match text.map(text::verdict) {
            // Curfew and serde_json may differ on deep nesting. They may also differ on half of a
            // surrogate pair in an unused text, which only serde_json refuses.
            _ if shown.contains("\\ud") || shown.contains("\\uD") => {}
            _ if is_deep || deep(line) => {}
            opinion => compare(&decoded, opinion.unwrap_or(Verdict::Refused), &shown),
        }
        if message.is_empty() || matches!(decoded, Err(DecodeError::NotTheProtocol { .. })) {
            return accepted;
        }
    }
}

/// True if the line may be nested so deeply that Curfew refuses it.
fn deep(line: &[u8]) -> bool {
    line.iter().filter(|byte| b"[{".contains(byte)).count() > 34
}

/// Checks that Curfew and prost decode each message to the same command. Curfew may refuse a
/// message that prost would encode to other bytes, for example a message with a group.
///
/// # Panics
///
/// Curfew and the independent parsers disagree.
pub fn check_protobuf(bytes: &[u8]) -> bool {
    let mut message = Message::Binary(bytes);
    let mut rest = bytes;
    let mut accepted = false;
    loop {
        let decoded = decode(Encoding::Protobuf, &mut message);
        accepted |= decoded.is_ok();
        let opinion = wire::take(&mut rest);
        let shown = format!("{rest:?}");
        match (&decoded, opinion) {
            (Err(DecodeError::NotTheProtocol { .. }), Some(opinion)) if !opinion.is_plain => {}
            (_, opinion) => {
                let verdict = opinion.map_or(Verdict::Refused, |opinion| opinion.verdict);
                compare(&decoded, verdict, &shown);
            }
        }
        if message.is_empty() || matches!(decoded, Err(DecodeError::NotTheProtocol { .. })) {
            return accepted;
        }
    }
}

/// Checks a request that carries commands, in JSON and in Protobuf. Curfew and the independent
/// parser (serde_json or prost) must find the same node, session and message. Curfew may refuse a
/// Protobuf body that prost would encode to other bytes.
///
/// # Panics
///
/// Curfew and the independent parsers disagree.
pub fn check_emulation(bytes: &[u8]) -> bool {
    let read = |encoding| {
        let read = Emulation::decode(encoding, bytes);
        read.map(|read| opinion::Carried {
            node: read.node.into_owned(),
            session: read.session.into_owned(),
            data: read.data.into_owned(),
        })
    };
    let shown = String::from_utf8_lossy(bytes);
    let of_text = read(Encoding::Json);
    if !(shown.contains("\\ud") || shown.contains("\\uD") || deep(bytes)) {
        assert_eq!(of_text.clone().ok(), text::carried(bytes), "{shown}");
    }
    let of_wire = read(Encoding::Protobuf);
    match (&of_wire, wire::carried(bytes)) {
        (Err(_), Some((_, false))) => {}
        (_, opinion) => {
            let opinion = opinion.map(|(carried, _)| carried);
            assert_eq!(of_wire.clone().ok(), opinion, "{bytes:?}");
        }
    }
    of_text.is_ok() || of_wire.is_ok()
}

fn compare(
    decoded: &Result<ClientRequest<'_>, DecodeError>,
    opinion: Verdict,
    shown: &dyn std::fmt::Display,
) {
    let verdict = match decoded {
        Err(DecodeError::NotTheProtocol { .. }) => Verdict::Refused,
        Err(DecodeError::Form { code, .. }) => Verdict::Form(match code {
            ErrorCode::BadRequest => 107,
            ErrorCode::NotAvailable => 108,
            other => panic!("{other}"),
        }),
        Ok(ClientRequest::Pong) => Verdict::Pong,
        Ok(ClientRequest::Command { id, command }) => {
            let id = id.as_ref().map_or("0", |id| id.as_json());
            Verdict::Command(
                id.parse().expect("an id is a number"),
                opinion::told(command),
            )
        }
    };
    assert_eq!(verdict, opinion, "{shown}");
}
