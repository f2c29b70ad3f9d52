//! The one pass over JSON, and native commands, which are read by it: serde_json has the second opinion.

use curfew_model::json::{Fault, Rules, scan};
use curfew_model::{Command, Message};
use curfew_protocol::Protocol as _;
use curfew_protocol::native::Native;
use serde_json::Value;
use serde_json::value::RawValue;

/// Below the depth that serde_json has of its own.
const DEPTH: usize = 100;

/// It is JSON for both or for neither, but for nesting, names that are repeated, half surrogate pairs and
/// numbers beyond doubles, which [`scan`] knows about and serde_json refuses.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    for strict in [false, true] {
        let rules = Rules {
            max_depth: DEPTH,
            strict,
        };
        let mut members = 0;
        let scanned = scan(text, rules, |name, value| {
            members += 1;
            assert!(name.is_string(), "a member without a name");
            let within = |part: &str| {
                let start = part.as_ptr().addr() - text.as_ptr().addr();
                text.get(start..start + part.len()) == Some(part)
            };
            assert!(
                within(name.raw) && within(value.raw),
                "not a part of the text"
            );
        });
        let opinion = serde_json::from_str::<&RawValue>(text);
        match scanned {
            Ok(scanned) if strict => {
                let plain = scanned.plain(text);
                let value = serde_json::from_str::<Value>(&plain);
                assert!(value.is_ok(), "{plain:?} is not JSON: {value:?}");
            }
            Ok(scanned) => {
                assert_eq!(scanned.is_object, text.trim_start().starts_with('{'));
            }
            Err(Fault::NotJson) => {
                assert!(
                    opinion.is_err() || serde_json::from_str::<Value>(text).is_err(),
                    "{text:?} is JSON"
                );
            }
            Err(Fault::TooDeep | Fault::Repeated) => {}
        }
    }
}

/// A command that is read is JSON, and its data is a part of it, byte for byte.
pub(crate) fn check_command(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(request) = Native.decode(Message::Text(text)) else {
        return;
    };
    if let Command::Publish { data, .. } = &request.command {
        assert!(text.contains(data), "the data is not as it was sent");
        let rules = Rules {
            max_depth: DEPTH,
            strict: false,
        };
        assert!(scan(data, rules, |_, _| {}).is_ok(), "{data:?} is not JSON");
    }
}
