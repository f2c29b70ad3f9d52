//! Paths of keys in a configuration, such as `auth.issuers[0].secret`.

use std::fmt;

use figment::value::Value;

/// The path of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<Segment>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A key of a table.
    Key(String),
    /// An element of a list.
    Index(usize),
}

impl KeyPath {
    /// Parses the displayed form of a [`KeyPath`].
    pub(crate) fn parse(text: &str) -> Self {
        let mut segments = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split('[');
            segments.extend(pieces.next().map(|key| Segment::Key(key.to_owned())));
            for index in pieces {
                segments.extend(index.trim_end_matches(']').parse().map(Segment::Index));
            }
        }
        Self(segments)
    }

    /// Converts the path of a figment error. Such a path writes an index like a key. A part of the
    /// path is an index if the value at this point of `root` is a list.
    pub(crate) fn resolve(root: &Value, parts: &[String]) -> Self {
        let mut at = Some(root);
        let mut segments = Vec::with_capacity(parts.len());
        for part in parts {
            let segment = match (at, part.parse()) {
                (Some(Value::Array(..)), Ok(index)) => Segment::Index(index),
                _ => Segment::Key(part.clone()),
            };
            at = at.and_then(|value| step(value, &segment));
            segments.push(segment);
        }
        Self(segments)
    }

    /// This path, extended by one key.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Key(key.to_owned()));
        path
    }

    /// This path, extended by the index of an element.
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Index(index));
        path
    }

    /// The steps from the root.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The value at this path.
    pub(crate) fn find<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(root, step)
    }

    /// Removes the value at this path from `root`. Returns true if a value was there. After the
    /// removal of a list's element, the later elements move up by one.
    pub(crate) fn remove(&self, root: &mut Value) -> bool {
        let Some((last, above)) = self.0.split_last() else {
            return false;
        };
        let mut at = root;
        for segment in above {
            let next = match (at, segment) {
                (Value::Dict(_, dict), Segment::Key(key)) => dict.get_mut(key),
                (Value::Array(_, list), Segment::Index(index)) => list.get_mut(*index),
                _ => None,
            };
            match next {
                Some(value) => at = value,
                None => return false,
            }
        }
        match (at, last) {
            (Value::Dict(_, dict), Segment::Key(key)) => dict.remove(key).is_some(),
            (Value::Array(_, list), Segment::Index(index)) if *index < list.len() => {
                list.remove(*index);
                true
            }
            _ => false,
        }
    }
}

fn step<'v>(value: &'v Value, segment: &Segment) -> Option<&'v Value> {
    match (value, segment) {
        (Value::Dict(_, dict), Segment::Key(key)) => dict.get(key),
        (Value::Array(_, list), Segment::Index(index)) => list.get(*index),
        _ => None,
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.chars().all(plain) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_what_they_show() {
        for text in ["auth", "auth.issuers[0].secret", "a.b[1][2]", ""] {
            assert_eq!(KeyPath::parse(text).to_string(), text);
        }
        assert_eq!(KeyPath::default().key("a b\n").to_string(), r#""a b\n""#);
    }
}
