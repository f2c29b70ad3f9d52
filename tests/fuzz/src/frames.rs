//! Checks the decoding of WebSocket frames from a client's bytes, which are cut at arbitrary
//! points.

mod opinion;

use curfew_model::Message;
use curfew_ws::{Decoder, Event, Input, Limits, ProtocolError};

/// Limits that are so small that short inputs reach them.
const LIMITS: Limits = Limits {
    message_bytes: 300,
    fragments: 4,
};

/// Maximum number of sizes that an input can specify.
const MOST_SIZES: u8 = 15;

/// The top bit of a part's size. If it is set, the caller takes one event from the part at a time
/// and saves the remaining bytes in the decoder.
const STOPS: u8 = 0x80;

/// An event that the decoder reports to its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DecodedEvent {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Fault(ProtocolError),
}

/// The result of decoding some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    told: Vec<DecodedEvent>,
    /// True if the decoder waits for the end of an incomplete message.
    owed: bool,
}

/// Checks the decoder. The lower four bits of the first byte are the number of sizes that follow.
/// The remaining input is cut into parts of these sizes. The sizes repeat until the input ends. If
/// the top bit of the first byte is set, the decoder gets the first part together with the upgrade.
///
/// # Panics
///
/// Curfew's decoder and the independent decoder disagree.
pub fn check(bytes: &[u8]) -> bool {
    let Some((&first, rest)) = bytes.split_first() else {
        return false;
    };
    let sizes = usize::from(first & MOST_SIZES);
    let Some((sizes, bytes)) = rest.split_at_checked(sizes) else {
        return false;
    };
    let opinion = opinion::decode(bytes);
    assert_eq!(
        decode(bytes, &[], false),
        opinion,
        "the bytes are decoded as one part"
    );
    let early = first & STOPS != 0;
    assert_eq!(
        decode(bytes, sizes, early),
        opinion,
        "the bytes are decoded in parts of {sizes:?}, with the first part early: {early}"
    );
    let mut told = opinion.told.iter();
    told.any(|told| matches!(told, DecodedEvent::Text(_) | DecodedEvent::Binary(_)))
}

/// Decodes the bytes as a connection does. Without sizes, all bytes form one part.
fn decode(bytes: &[u8], sizes: &[u8], early: bool) -> Decoded {
    let mut decoder = Decoder::new();
    let mut told = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().copied().cycle();
    let mut preload = early;
    loop {
        let size = sizes.next();
        let bytes = size.map_or(rest.len(), |size| usize::from(size & !STOPS).max(1));
        let stops = size.is_some_and(|size| size & STOPS != 0);
        let (part, behind) = rest.split_at(bytes.min(rest.len()));
        rest = behind;
        let mut part = part.to_vec();
        if std::mem::take(&mut preload) {
            decoder.preload(&part);
            part.clear();
        }
        let mut input = Input::new(&mut part);
        loop {
            let next = decoder
                .next(&mut input, &LIMITS)
                .map(|event| event.map(read));
            match next {
                Ok(Some(event)) => told.push(event),
                Ok(None) => break,
                Err(fault) => {
                    told.push(DecodedEvent::Fault(fault));
                    assert_eq!(
                        decoder.next(&mut Input::empty(), &LIMITS),
                        Ok(None),
                        "the decoder reports nothing after a fault"
                    );
                    break;
                }
            }
            if stops {
                decoder.save(std::mem::replace(&mut input, Input::empty()));
            }
        }
        if rest.is_empty() {
            let owed = decoder.mid_message();
            return Decoded { told, owed };
        }
    }
}

fn read(event: Event<'_>) -> DecodedEvent {
    match event {
        Event::Message(Message::Text(text)) => DecodedEvent::Text(text.as_bytes().to_vec()),
        Event::Message(Message::Binary(bytes)) => DecodedEvent::Binary(bytes.to_vec()),
        Event::Ping(payload) => DecodedEvent::Ping(payload.to_vec()),
        Event::Pong(payload) => DecodedEvent::Pong(payload.to_vec()),
        Event::Close { code, reason } => DecodedEvent::Close(code, reason.as_bytes().to_vec()),
    }
}
