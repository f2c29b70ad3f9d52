//! The one pass over JSON, and native commands, which are read by it: serde_json has the second opinion.

use curfew_model::json::{Fault, Rules, scan};
use curfew_model::{Command, Message};
use curfew_protocol::Protocol as _;
use curfew_protocol::native::Native;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Below the depth that serde_json has of its own.
const DEPTH: usize = 100;

/// It is JSON for both or for neither, but for nesting, names that are repeated, half surrogate pairs and
/// numbers beyond doubles, which [`scan`] knows about and serde_json refuses.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let opinion = is_json(text);
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
        match scanned {
            Ok(scanned) => {
                assert!(opinion, "{text:?} is not JSON");
                assert_eq!(scanned.is_object, text.trim_start().starts_with('{'));
                if !strict {
                    continue;
                }
                let plain = scanned.plain(text);
                let value = serde_json::from_str::<Value>(&plain);
                assert!(value.is_ok(), "{plain:?} is not JSON: {value:?}");
            }
            Err(Fault::NotJson) => assert!(!opinion, "{text:?} is JSON"),
            Err(Fault::TooDeep | Fault::Repeated) => {}
        }
    }
    opinion
}

/// The opinion of serde_json, which looks at neither half surrogate pairs nor the size of numbers where
/// it builds nothing.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// A command that is read is JSON, and its data is a part of it, byte for byte.
pub(crate) fn check_command(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let Ok(request) = Native.decode(Message::Text(text)) else {
        return false;
    };
    assert!(is_json(text), "{text:?} is not JSON");
    if let Command::Publish { data, .. } = &request.command {
        assert!(text.contains(data), "the data is not as it was sent");
        assert!(is_json(data), "{data:?} is not JSON");
    }
    true
}
