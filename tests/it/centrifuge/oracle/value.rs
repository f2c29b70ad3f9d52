//! A message of the protocol with its fields, and its form in JSON.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::schema::{Field, Kind, fields};

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(i128),
    Bool(bool),
    Text(String),
    Bytes(Vec<u8>),
    Message(Message),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    /// A placeholder that a transcript shows in place of a value.
    Unquoted(String),
    /// A member that the schema lacks, or that has another type.
    Unknown(String),
}

/// The fields of a message that have a value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Message(pub(super) Vec<(String, Value)>);

impl Message {
    /// Reads a message of this type from JSON. Members that do not fit the schema become
    /// [`Value::Unknown`].
    pub(super) fn from_json(name: &str, text: &str) -> Result<Self, String> {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
        let mut message = Self::default();
        for (member, raw) in members {
            let field = fields(name).iter().find(|field| field.name == member);
            let value = field.and_then(|field| field_value(field, raw.get()));
            let value = value.unwrap_or_else(|| Value::Unknown(raw.get().to_owned()));
            message.0.push((member, value));
        }
        message.sort(name);
        Ok(message)
    }

    /// Sorts the fields in the order of the schema, with unknown fields last.
    pub(super) fn sort(&mut self, name: &str) {
        let place = |member: &str| fields(name).iter().position(|field| field.name == member);
        self.0
            .sort_by_key(|(member, _)| place(member).unwrap_or(usize::MAX));
    }

    /// The field with this name.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        let mut fields = self.0.iter();
        fields
            .find(|(name, _)| name == field)
            .map(|(_, value)| value)
    }

    /// The field with this name, to change it.
    pub(super) fn get_mut(&mut self, field: &str) -> Option<&mut Value> {
        let mut fields = self.0.iter_mut();
        fields
            .find(|(name, _)| name == field)
            .map(|(_, value)| value)
    }

    /// The message in the field with this name.
    pub(super) fn message(&self, field: &str) -> Option<&Self> {
        match self.get(field)? {
            Value::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The text in the field with this name.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self.get(field)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Calls `change` for each field, at any depth. If `change` returns false, the field is
    /// removed.
    pub(super) fn walk(&mut self, change: &mut impl FnMut(&str, &mut Value) -> bool) {
        self.0.retain_mut(|(name, value)| {
            if !change(name, value) {
                return false;
            }
            let mut into = |value: &mut Value| {
                if let Value::Message(message) = value {
                    message.walk(change);
                }
            };
            match value {
                Value::List(values) => values.iter_mut().for_each(into),
                Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| into(value)),
                value => into(value),
            }
            true
        });
    }

    /// The message as a transcript shows it: JSON, with angle brackets around payloads that are not
    /// JSON.
    pub(super) fn show(&self) -> String {
        let members = self.0.iter().map(|(name, value)| match value {
            Value::Unknown(raw) => format!("{}:{raw}", quoted(&format!("?{name}"))),
            value => format!("{}:{}", quoted(name), value.show()),
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

impl Value {
    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Bool(bool) => bool.to_string(),
            Self::Text(text) => quoted(text),
            Self::Bytes(bytes) => show_bytes(bytes),
            Self::Message(message) => message.show(),
            Self::List(values) => {
                let values: Vec<_> = values.iter().map(Self::show).collect();
                format!("[{}]", values.join(","))
            }
            Self::Map(entries) => {
                let show =
                    |(key, value): &(String, Self)| format!("{}:{}", quoted(key), value.show());
                let mut entries: Vec<_> = entries.iter().map(show).collect();
                entries.sort();
                format!("{{{}}}", entries.join(","))
            }
            Self::Unquoted(text) | Self::Unknown(text) => text.clone(),
        }
    }
}

/// A payload as a script would write it. JSON on one line stays unchanged. Another text becomes
/// `"<raw …>"`, and other bytes become hexadecimal digits.
fn show_bytes(bytes: &[u8]) -> String {
    let one_line = |text: &&str| !text.contains(['\n', '\r']);
    let json = |text: &&str| serde_json::from_str::<&RawValue>(text).is_ok();
    match std::str::from_utf8(bytes) {
        Ok(text) if Some(text).filter(one_line).filter(json).is_some() => text.to_owned(),
        Ok(text) => quoted(&format!("<raw {text}>")),
        Err(_) => quoted(&format!("<hex {}>", hex(bytes))),
    }
}

/// The bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads the JSON value of a field; `None` if the value does not have the field's type.
fn field_value(field: &Field, raw: &str) -> Option<Value> {
    if field.repeated {
        let items: Vec<Box<RawValue>> = serde_json::from_str(raw).ok()?;
        let values: Option<_> = items
            .iter()
            .map(|item| value(field.kind, item.get()))
            .collect();
        return Some(Value::List(values?));
    }
    if field.map {
        let entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw).ok()?;
        let entries = entries
            .into_iter()
            .map(|(key, raw)| Some((key, value(field.kind, raw.get())?)));
        return Some(Value::Map(entries.collect::<Option<_>>()?));
    }
    value(field.kind, raw)
}

fn value(kind: Kind, raw: &str) -> Option<Value> {
    Some(match kind {
        Kind::Unsigned => Value::Number(serde_json::from_str::<u64>(raw).ok()?.into()),
        Kind::Signed => Value::Number(serde_json::from_str::<i64>(raw).ok()?.into()),
        Kind::Bool => Value::Bool(serde_json::from_str(raw).ok()?),
        Kind::Text => Value::Text(serde_json::from_str(raw).ok()?),
        Kind::Bytes => Value::Bytes(payload(raw)),
        Kind::Message(name) => Value::Message(Message::from_json(name, raw).ok()?),
    })
}

/// The bytes of a script's `"<raw text>"`; other JSON stands for its own bytes.
fn payload(raw: &str) -> Vec<u8> {
    let text = serde_json::from_str::<String>(raw).unwrap_or_default();
    let inner = text
        .strip_prefix("<raw ")
        .and_then(|text| text.strip_suffix('>'));
    inner.unwrap_or(raw).as_bytes().to_vec()
}
