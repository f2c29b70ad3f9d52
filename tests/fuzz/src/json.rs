//! The JSON scanner, and the native commands that are parsed with it. Both are compared with
//! serde_json.

use curfew_model::json::{Fault, Rules, scan};
use curfew_model::{ClientRequest, Command, Message, Payload};
use curfew_protocol::Protocol as _;
use curfew_protocol::native::Native;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

/// Maximum depth of nesting. It is below serde_json's own limit.
const DEPTH: usize = 100;

/// Checks that the scanner and serde_json either both accept the text or both refuse it. The
/// scanner may also refuse deep nesting and, if it is strict, duplicate names. If the strict
/// scanner accepts the text, it replaces halves of surrogate pairs and numbers beyond doubles.
/// serde_json must be able to build a value from the result.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let opinion = is_json(text);
    let mut accepted = false;
    for strict in [false, true] {
        let rules = Rules {
            max_depth: DEPTH,
            strict,
        };
        let mut members = 0;
        let scanned = scan(text, rules, |name, value| {
            members += 1;
            assert!(name.is_string(), "the name of a member is a string");
            let within = |part: &str| {
                let start = part.as_ptr().addr() - text.as_ptr().addr();
                text.get(start..start + part.len()) == Some(part)
            };
            assert!(
                within(name.raw) && within(value.raw),
                "the name and the value are parts of the text"
            );
        });
        match scanned {
            Ok(scanned) => {
                assert!(opinion, "{text:?} is accepted, but it is not JSON");
                assert_eq!(scanned.is_object, text.trim_start().starts_with('{'));
                if !strict {
                    accepted = true;
                    continue;
                }
                let plain = scanned.plain(text);
                let value = serde_json::from_str::<Value>(&plain);
                assert!(
                    value.is_ok(),
                    "no value can be built from {plain:?}: {value:?}"
                );
            }
            Err(Fault::NotJson) => assert!(!opinion, "{text:?} is refused, but it is JSON"),
            Err(Fault::TooDeep) => {
                let opened = text.bytes().filter(|byte| b"[{".contains(byte)).count();
                assert!(
                    opened > DEPTH,
                    "{text:?} is refused as too deep, but it opens only {opened} levels"
                );
            }
            Err(Fault::Repeated) => {
                assert!(strict, "only the strict scanner refuses duplicate names")
            }
        }
    }
    accepted
}

/// True if serde_json accepts the text. serde_json builds no value here, so it checks neither
/// halves of surrogate pairs nor the size of numbers.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The command `publish`. Only its data is parsed.
#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Checks that an accepted command is JSON, and that its data equals the text of the member `data`
/// byte for byte.
pub fn check_command(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let Ok(request) = Native.decode(&mut Message::Text(text)) else {
        return false;
    };
    assert!(is_json(text), "the command {text:?} is not JSON");
    if let ClientRequest::Command {
        command: Command::Publish {
            data: Payload::Json(data),
            ..
        },
        ..
    } = &request
    {
        let opinion: Publish<'_> =
            serde_json::from_str(text).expect("an accepted `publish` is an object with data");
        assert_eq!(
            *data,
            opinion.data.get(),
            "the data equals the text that was sent"
        );
        assert!(
            std::ptr::eq(*data, opinion.data.get()),
            "the data is a part of the text that was sent"
        );
    }
    true
}
