//! Applies patches of delta compression, as a client does.

use std::collections::{BTreeMap, BTreeSet};

use super::value::{Message, Value};

/// The payload in each channel that the channel's next patch applies to.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// The channel of each request, by the id of its command.
    asked: BTreeMap<i128, String>,
    /// The channels with delta compression.
    compressed: BTreeSet<String>,
    bases: BTreeMap<String, Vec<u8>>,
}

impl Bases {
    /// Stores the channel of a command.
    pub(super) fn asked(&mut self, command: &Message) {
        let mut requests = command.0.iter().filter_map(|(_, value)| match value {
            Value::Message(request) => request.text("channel"),
            _ => None,
        });
        if let (Some(Value::Number(id)), Some(channel)) = (command.get("id"), requests.next()) {
            self.asked.insert(*id, channel.to_owned());
        }
    }

    /// Replaces patches by payloads in every publication of this message. If `json` is true, the
    /// payloads of compressed channels are JSON texts.
    pub(super) fn apply(&mut self, message: &mut Message, json: bool) {
        if let Some(Value::Message(push)) = message.get_mut("push") {
            let channel = push.text("channel").unwrap_or_default().to_owned();
            if let Some(Value::Message(publication)) = push.get_mut("pub") {
                self.publication(&channel, publication, json);
            }
            return;
        }
        let Some(Value::Number(id)) = message.get("id") else {
            return;
        };
        let Some(channel) = self.asked.remove(id) else {
            return;
        };
        let Some(Value::Message(result)) = message.get_mut("subscribe") else {
            return;
        };
        self.bases.remove(&channel);
        match result.get("delta") {
            Some(_) => self.compressed.insert(channel.clone()),
            None => self.compressed.remove(&channel),
        };
        if let Some(Value::List(publications)) = result.get_mut("publications") {
            for publication in publications {
                if let Value::Message(publication) = publication {
                    self.publication(&channel, publication, json);
                }
            }
        }
    }

    fn publication(&mut self, channel: &str, publication: &mut Message, json: bool) {
        if !self.compressed.contains(channel) {
            return;
        }
        let is_patch = publication.get("delta").is_some();
        let Some(data) = publication.get_mut("data") else {
            return;
        };
        let Value::Bytes(bytes) = data else { return };
        let content = if json {
            match serde_json::from_slice::<String>(bytes) {
                Ok(text) => text.into_bytes(),
                Err(_) => {
                    *data = Value::Unquoted("<no text>".to_owned());
                    return;
                }
            }
        } else {
            bytes.clone()
        };
        if !is_patch {
            self.bases.insert(channel.to_owned(), content);
            return;
        }
        let Some(base) = self.bases.get(channel) else {
            *data = Value::Unquoted("<patch without a base>".to_owned());
            return;
        };
        *data = Value::Unquoted(match patched(base, &content) {
            Some(payload) => {
                let shown = format!("<patch to {}>", String::from_utf8_lossy(&payload));
                self.bases.insert(channel.to_owned(), payload);
                shown
            }
            None => "<patch that does not apply>".to_owned(),
        });
    }
}

/// The result of a patch on `base`; `None` if the patch is malformed or its checksum is wrong.
fn patched(base: &[u8], patch: &[u8]) -> Option<Vec<u8>> {
    let mut rest = patch;
    let length = number(&mut rest)?;
    rest = rest.strip_prefix(b"\n")?;
    let mut payload = Vec::new();
    loop {
        let count = number(&mut rest)?;
        let (command, after) = rest.split_first()?;
        rest = after;
        match command {
            b'@' => {
                let from = number(&mut rest)?;
                rest = rest.strip_prefix(b",")?;
                payload.extend_from_slice(base.get(from..from.checked_add(count)?)?);
            }
            b':' => {
                let (text, after) = rest.split_at_checked(count)?;
                rest = after;
                payload.extend_from_slice(text);
            }
            b';' => {
                let right = checksum(&payload) == u32::try_from(count).ok()?;
                return (right && payload.len() == length && rest.is_empty()).then_some(payload);
            }
            _ => return None,
        }
    }
}

/// The sum of the payload's 32-bit words in big-endian order.
fn checksum(payload: &[u8]) -> u32 {
    payload.chunks(4).fold(0, |sum, word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_be_bytes(bytes))
    })
}

/// Reads a number in base 64 with the format's own digits.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let mut number = None;
    while let Some((&first, rest)) = bytes.split_first() {
        let Some(value) = digit(first) else { break };
        number = Some(
            number
                .unwrap_or(0_usize)
                .checked_mul(64)?
                .checked_add(value)?,
        );
        *bytes = rest;
    }
    number
}

#[test]
fn patches_are_applied() {
    let cases: [(&str, &str, Option<&str>); 4] = [
        (r#"{"a":1}"#, "7\n7:{\"a\":2}2qLDtY;", Some(r#"{"a":2}"#)),
        (
            r#"{"room":"kitchen","temp":20.5,"unit":"C"}"#,
            "e\nQ@0,3:1.0C@T,27ul48;",
            Some(r#"{"room":"kitchen","temp":21.0,"unit":"C"}"#),
        ),
        (r#"{"a":1}"#, "7\n7:{\"a\":3}2qLDtY;", None),
        (r#"{"a":1}"#, "7\nZ@0,0;", None),
    ];
    for (base, patch, payload) in cases {
        let patched = patched(base.as_bytes(), patch.as_bytes());
        assert_eq!(patched.as_deref(), payload.map(str::as_bytes), "{patch}");
    }
}
