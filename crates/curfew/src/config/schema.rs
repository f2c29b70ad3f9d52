//! Facts about keys, read from the JSON schemas of the sections: the type, the description and the
//! default of each key.

use curfew_model::setting::duration;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::path::{KeyPath, Segment};

/// The schema of a whole configuration.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    root: Value,
    /// The defaults of the type, by section and key.
    defaults: Value,
}

/// The form of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'s> {
    /// A string or an enumeration.
    Text,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list, with the schema of its elements.
    List(&'s Value),
    /// A table.
    Table,
    /// The form is not known.
    Unknown,
}

impl Schema {
    /// The schema of `T`.
    pub(crate) fn of<T: JsonSchema + Default + Serialize>() -> Self {
        Self {
            root: schemars::schema_for!(T).to_value(),
            defaults: serde_json::to_value(T::default()).unwrap_or_default(),
        }
    }

    /// True if the default of the key is a duration: then the key takes a duration.
    pub(crate) fn is_duration(&self, path: &KeyPath) -> bool {
        let default =
            path.segments()
                .iter()
                .try_fold(&self.defaults, |at, segment| match segment {
                    Segment::Key(key) => at.get(key),
                    Segment::Index(_) => None,
                });
        let default = default.and_then(Value::as_str);
        default.is_some_and(|text| duration::parse(text).is_ok())
    }

    /// The schema of the key at `path`.
    pub(crate) fn find(&self, path: &KeyPath) -> Option<&Value> {
        let mut at = &self.root;
        for segment in path.segments() {
            at = match segment {
                Segment::Key(key) => self.property(at, key)?,
                Segment::Index(_) => match self.shape(at) {
                    Shape::List(items) => items,
                    _ => return None,
                },
            };
        }
        Some(at)
    }

    /// The form of the value of a key with this schema.
    pub(crate) fn shape<'s>(&'s self, schema: &'s Value) -> Shape<'s> {
        let schema = self.deref(schema);
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            return match self.choices(schema).iter().all(|choice| choice.is_string()) {
                true => Shape::Text,
                false => Shape::Unknown,
            };
        }
        match type_name(schema) {
            Some("string") => Shape::Text,
            Some("integer") => Shape::Integer,
            Some("number") => Shape::Number,
            Some("boolean") => Shape::Boolean,
            Some("array") => schema.get("items").map_or(Shape::Unknown, Shape::List),
            Some("object") => Shape::Table,
            _ => {
                let variants = variants(schema);
                let texts = variants.iter().all(|v| self.shape(v) == Shape::Text);
                if texts && !variants.is_empty() {
                    Shape::Text
                } else {
                    Shape::Unknown
                }
            }
        }
    }

    /// The schema of a section.
    pub(crate) fn section(&self, name: &str) -> Option<&Value> {
        self.property(&self.root, name)
    }

    /// The doc comment of a key, or of its type.
    pub(crate) fn description<'s>(&'s self, schema: &'s Value) -> Option<&'s str> {
        let own = schema.get("description");
        own.or_else(|| self.deref(schema).get("description"))?
            .as_str()
    }

    /// The keys of a table, by name, and their schemas.
    pub(crate) fn properties<'s>(
        &'s self,
        schema: &'s Value,
    ) -> impl Iterator<Item = (&'s str, &'s Value)> {
        let properties = self
            .deref(schema)
            .get("properties")
            .and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(key, schema)| (key.as_str(), schema))
    }

    fn property<'s>(&'s self, schema: &'s Value, key: &str) -> Option<&'s Value> {
        let schema = self.deref(schema);
        let named = schema.get("properties").and_then(|keys| keys.get(key));
        named.or_else(|| self.any_key(schema))
    }

    /// The schema of the values of a table whose keys the operator chooses.
    pub(crate) fn any_key<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        let any = self.deref(schema).get("additionalProperties")?;
        any.is_object().then_some(any)
    }

    /// Returns the values that an enumeration can have; empty for any other schema.
    pub(crate) fn choices<'s>(&'s self, schema: &'s Value) -> Vec<&'s Value> {
        let schema = self.deref(schema);
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().filter(|value| !value.is_null()).collect();
        }
        if let Some(value) = schema.get("const") {
            return vec![value];
        }
        variants(schema)
            .iter()
            .flat_map(|variant| self.choices(variant))
            .collect()
    }

    /// The schema behind references and `Option`.
    fn deref<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        // The number of steps is bounded. References nest no deeper than the types of the
        // configuration.
        for _ in 0..16 {
            if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
                match self.root.pointer(name.trim_start_matches('#')) {
                    Some(target) => schema = target,
                    None => return schema,
                }
            } else if let [only] = variants(schema)[..] {
                schema = only;
            } else {
                return schema;
            }
        }
        schema
    }
}

/// A schema's alternatives, without `null`.
fn variants(schema: &Value) -> Vec<&Value> {
    ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten()
        .filter(|variant| type_name(variant) != Some("null"))
        .collect()
}

/// A schema's type. If the schema has a list of types, such as `["string", "null"]`, the result is
/// the first type that is not `null`.
fn type_name(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str);
            names.find(|name| *name != "null")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn keys_have_shapes() {
        let schema = Schema::of::<Config>();
        for (path, expect) in [
            ("server", Shape::Table),
            ("server.listen", Shape::Text),
            ("auth.leeway", Shape::Text),
            ("auth.reject", Shape::Text),
            ("auth.issuers[0].secret", Shape::Text),
            ("auth.issuers[0].discovery", Shape::Boolean),
            ("auth.issuers[0].algorithms[0]", Shape::Text),
            ("limits.message_bytes", Shape::Integer),
            ("backend.kind", Shape::Text),
        ] {
            let found = schema.find(&KeyPath::parse(path)).map(|s| schema.shape(s));
            assert_eq!(found, Some(expect), "{path}");
        }
        for path in [
            "auth.issuers",
            "auth.token_sources",
            "auth.issuers[0].audience",
        ] {
            let found = schema.find(&KeyPath::parse(path)).map(|s| schema.shape(s));
            assert!(matches!(found, Some(Shape::List(_))), "{path}: {found:?}");
        }
        assert_eq!(schema.find(&KeyPath::parse("auth.nothing")), None);
        let reject = schema.find(&KeyPath::parse("auth.reject")).unwrap();
        assert_eq!(schema.choices(reject), ["message", "http"]);
    }
}
