//! WebSocket frames: cut at any places, the same bytes are the same messages and the same fault.

use curfew_model::Message;
use curfew_ws::{Decoder, Event, Input, Limits};

/// Small, so that few bytes reach them.
const LIMITS: Limits = Limits {
    message_bytes: 300,
    fragments: 4,
};

/// The first byte says how long the parts are into which the rest is cut.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Some((&step, bytes)) = bytes.split_first() else {
        return false;
    };
    let whole = decode(bytes, bytes.len().max(1));
    let cut = decode(bytes, usize::from(step).max(1));
    assert_eq!(whole, cut, "cut into parts of {step}");
    whole.iter().any(|told| told.starts_with("message"))
}

fn decode(bytes: &[u8], step: usize) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut told = Vec::new();
    for part in bytes.chunks(step) {
        let mut part = part.to_vec();
        let mut input = Input::new(&mut part);
        loop {
            match decoder.next(&mut input, &LIMITS) {
                Ok(Some(event)) => {
                    told.push(summary(&event));
                }
                Ok(None) => break,
                Err(error) => {
                    told.push(format!("fault: {error:?}"));
                    return told;
                }
            }
        }
    }
    told
}

/// All that a caller is told, in few characters.
fn summary(event: &Event<'_>) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let hash = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        format!("{} {:x}", bytes.len(), hasher.finish())
    };
    match event {
        Event::Message(message) => {
            let bytes = match message {
                Message::Text(text) => text.as_bytes(),
                Message::Binary(bytes) => bytes,
            };
            assert!(
                bytes.len() <= LIMITS.message_bytes,
                "a message over the bound"
            );
            format!("message {}", hash(bytes))
        }
        Event::Ping(payload) => format!("ping {}", hash(payload)),
        Event::Pong(payload) => format!("pong {}", hash(payload)),
        Event::Close { code, reason } => format!("close {code:?} {}", hash(reason.as_bytes())),
    }
}
