//! The members of a JSON object in their original text. A map of serde_json does not suffice,
//! because it stores only the last of duplicate members, and parses all values.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Every member of an object, in order.
#[derive(Debug, Clone)]
pub(crate) struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// The members of a JSON text; `None` if the text is not an object.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        serde_json::from_str(str::from_utf8(text).ok()?).ok()
    }

    /// A member as a [`Value`]: `Value::Null` if it is missing, and `None` if it is repeated or
    /// cannot be parsed as a [`Value`].
    pub(crate) fn value(&self, name: &str) -> Option<Value> {
        match self.raw(name)? {
            Some(raw) => serde_json::from_str(raw).ok(),
            None => Some(Value::Null),
        }
    }

    /// A member in its original text: `Some(None)` if it is missing, and `None` if it is repeated.
    pub(crate) fn raw(&self, name: &str) -> Option<Option<&str>> {
        let mut all = self.0.iter().filter(|(known, _)| known == name);
        let raw = all.next().map(|(_, raw)| raw.get());
        all.next().is_none().then_some(raw)
    }

    /// True if every member can be parsed as a [`Value`].
    pub(crate) fn are_values(&self) -> bool {
        let is_value = |raw: &str| serde_json::from_str::<Value>(raw).is_ok();
        self.0.iter().all(|(_, raw)| is_value(raw.get()))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
