//! Reads merged values into the sections' types, and finds all problems instead of only the first.

use figment::error::{Actual, Error, Kind};
use figment::value::Value;
use serde::de::DeserializeOwned;

use super::path::{KeyPath, Segment};
use super::schema::{Schema, Shape};

/// Maximum number of problems to look for.
const MOST_PROBLEMS: usize = 200;

/// The result of reading the values.
#[derive(Debug)]
pub(crate) struct Extracted<T> {
    /// The configuration, in which every key of `problems` has its default. `None` if the
    /// configuration cannot be read even so.
    pub(crate) config: Option<T>,
    /// Keys that are unknown, or whose value has the wrong type.
    pub(crate) problems: Vec<Misfit>,
}

/// A key that is unknown, or whose value has the wrong type.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// The key's path.
    pub(crate) path: KeyPath,
    /// True if the key is unknown; false if its value has the wrong type.
    pub(crate) unknown: bool,
    /// The fault.
    pub(crate) message: String,
}

impl Misfit {
    /// True if the removal of this key has caused the problem at `path`.
    pub(crate) fn explains(&self, path: &KeyPath) -> bool {
        let (this, other) = (self.path.segments(), path.segments());
        this == other || !self.unknown && this.split_last().is_some_and(|(_, above)| above == other)
    }
}

/// Reads a `T` from `root`. Serde stops at the first problem. This function therefore records the
/// problem, removes its key and reads the remaining values again, until no problem is left.
pub(crate) fn extract<T: DeserializeOwned>(schema: &Schema, root: &Value) -> Extracted<T> {
    let mut rest = root.clone();
    let mut problems: Vec<Misfit> = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        let found = match number_for_text(schema, &rest, &KeyPath::default()) {
            Some((path, message)) => Err(Misfit {
                path,
                unknown: false,
                message,
            }),
            None => T::deserialize(&rest).map_err(|error: Error| {
                let path = KeyPath::resolve(&rest, &error.path);
                Misfit {
                    unknown: matches!(error.kind, Kind::UnknownField(..)),
                    message: describe(&error.kind) + &as_list(schema, &path, &error.kind),
                    path,
                }
            }),
        };
        let mut misfit = match found {
            Ok(config) => {
                return Extracted {
                    config: Some(config),
                    problems,
                };
            }
            Err(misfit) => misfit,
        };
        let now = misfit.path.clone();
        misfit.path = original(&now, problems.iter().map(|problem| &problem.path));
        problems.push(misfit);
        // If the key of the problem cannot be removed, the same problem would be found again
        // without end.
        if !now.remove(&mut rest) {
            break;
        }
    }
    Extracted {
        config: None,
        problems,
    }
}

/// Returns a hint about the form of a list, if the key takes a list but has a value of another
/// type. The hint is empty otherwise.
fn as_list(schema: &Schema, path: &KeyPath, kind: &Kind) -> String {
    let Some(Shape::List(items)) = schema.find(path).map(|found| schema.shape(found)) else {
        return String::new();
    };
    match (kind, schema.shape(items)) {
        (Kind::InvalidType(Actual::Map, _), Shape::Table) => {
            format!(": begin each element with [[{path}]]")
        }
        (Kind::InvalidType(Actual::Str(_), _), Shape::Text) => {
            ": put it in brackets, as in [\"…\"]".to_owned()
        }
        _ => String::new(),
    }
}

/// The first key that takes a string but holds a number, and the fault. Without this check, figment
/// would read the number as the index of an enumeration's variant.
fn number_for_text(schema: &Schema, value: &Value, path: &KeyPath) -> Option<(KeyPath, String)> {
    match value {
        Value::Num(_, number) => {
            let found = schema.find(path)?;
            if schema.shape(found) != Shape::Text {
                return None;
            }
            let message = match number.to_i128() {
                Some(seconds) if schema.is_duration(path) => {
                    format!("expected a string, found a number: write \"{seconds}s\" for seconds")
                }
                _ => "expected a string, found a number: put it in quotes".to_owned(),
            };
            Some((path.clone(), message))
        }
        Value::Dict(_, dict) => dict
            .iter()
            .find_map(|(key, value)| number_for_text(schema, value, &path.key(key))),
        Value::Array(_, list) => list
            .iter()
            .enumerate()
            .find_map(|(index, value)| number_for_text(schema, value, &path.index(index))),
        _ => None,
    }
}

/// Converts a path in the remaining values to the path in the original values. `removed` are the
/// removed paths, in the order of their removal.
fn original<'p>(path: &KeyPath, removed: impl Iterator<Item = &'p KeyPath>) -> KeyPath {
    let mut removed: Vec<&KeyPath> = removed.collect();
    removed.sort_by_key(|path| match path.segments().last() {
        Some(Segment::Index(index)) => *index,
        _ => 0,
    });
    let mut before = KeyPath::default();
    for segment in path.segments() {
        before = match segment {
            Segment::Key(key) => before.key(key),
            Segment::Index(index) => {
                let gaps = removed
                    .iter()
                    .filter_map(|path| match path.segments().split_last() {
                        Some((Segment::Index(gap), list)) if list == before.segments() => {
                            Some(*gap)
                        }
                        _ => None,
                    });
                let index = gaps.fold(*index, |index, gap| index + usize::from(gap <= index));
                before.index(index)
            }
        };
    }
    before
}

/// Describes a fault in Curfew's own terms. Only the type of a value is shown, because the value
/// itself may be secret.
fn describe(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(key, known) => match nearest(key, known) {
            Some(close) => format!("unknown key, did you mean {close}?"),
            None => format!("unknown key, expected one of {}", known.join(", ")),
        },
        Kind::UnknownVariant(text, known) => match nearest(text, known) {
            Some(close) => format!("unknown value, did you mean {close:?}?"),
            None => format!("unknown value, expected one of {}", known.join(", ")),
        },
        Kind::InvalidType(found, expected) => {
            format!("expected {}, found {}", words(expected), type_of(found))
        }
        Kind::InvalidValue(Actual::Signed(_) | Actual::Unsigned(_), expected) => {
            format!("out of range, expected {}", words(expected))
        }
        Kind::InvalidValue(_, expected) => format!("expected {}", words(expected)),
        Kind::InvalidLength(length, expected) => {
            format!("has {length} elements, expected {}", words(expected))
        }
        Kind::MissingField(key) => format!("{key} is missing"),
        Kind::Message(message) if message == "invalid socket address syntax" => {
            "is not an address with a port, as in \"0.0.0.0:8080\" or \"[::]:8080\"".to_owned()
        }
        Kind::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

fn type_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

fn words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ if expected.starts_with("struct ") || expected == "a map" => "a table".to_owned(),
        _ if expected.starts_with("enum ") => "a string".to_owned(),
        "path string" => "a string".to_owned(),
        _ => expected.to_owned(),
    }
}

/// Returns the known word that `word` was probably meant to be.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    let close = |candidate: &&str| {
        let most = (candidate.len() / 3).clamp(1, 3);
        let distance = distance(&word, candidate);
        (distance <= most).then_some(distance)
    };
    let scored = known
        .iter()
        .filter_map(|known| Some((close(known)?, *known)));
    scored
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Levenshtein's distance: insertions, deletions and substitutions from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised() {
        let known = ["listen", "allowed_origins", "tls_cert_file", "tls_key_file"];
        for (word, expect) in [
            ("listne", Some("listen")),
            ("Listen", Some("listen")),
            ("allowed_origin", Some("allowed_origins")),
            ("tls_cert", None),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), expect, "{word}");
        }
    }

    #[test]
    fn indices_are_those_of_the_file_whatever_was_removed_before() {
        let removed = ["a[2]", "a[0]", "b[0]", "a[1].c"].map(KeyPath::parse);
        for (now, before) in [
            ("a[0]", "a[1]"),
            ("a[1]", "a[3]"),
            ("b[0].c", "b[1].c"),
            ("c[0]", "c[0]"),
        ] {
            let path = original(&KeyPath::parse(now), removed.iter());
            assert_eq!(path.to_string(), before, "{now}");
        }
    }
}
