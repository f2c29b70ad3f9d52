//! The layers of a configuration, which are merged in this order: the standard variables of
//! OpenTelemetry, the file, the other environment variables, and `--set`. Defaults are not a layer,
//! because they belong to the sections' types.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use curfew_telemetry::GivenSetting;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::ConfigProblem;
use super::path::KeyPath;
use super::schema::{Schema, Shape};

/// Prefix of the names of environment variables. The second underscore excludes variables that
/// Kubernetes sets for a Service named `curfew`, such as `CURFEW_PORT`.
pub(crate) const ENV_PREFIX: &str = "CURFEW__";

/// One layer: some keys and their source.
#[derive(Debug)]
struct Layer {
    /// A file's path, an environment variable's name or `--set`.
    source: String,
    keys: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.keys.clone()))
    }
}

/// The configuration file: its path and text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    text: String,
    positions: toml_edit::ImDocument<String>,
}

impl File {
    /// Reads and parses the file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigProblem> {
        let problem = |line, message| ConfigProblem {
            source: path.display().to_string(),
            line,
            key: String::new(),
            message,
        };
        let text = std::fs::read(path)
            .map_err(|error| problem(None, format!("cannot be read: {error}")))?;
        let text = String::from_utf8(text)
            .map_err(|_| problem(None, "is not UTF-8 text, as TOML must be".to_owned()))?;
        match toml_edit::ImDocument::parse(text.clone()) {
            Ok(positions) => Ok(Self {
                path: path.to_owned(),
                text,
                positions,
            }),
            Err(error) => {
                let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
                let message = error.message().lines().collect::<Vec<_>>().join(", ");
                Err(problem(
                    Some(line),
                    format!("is not valid TOML (column {column}): {message}"),
                ))
            }
        }
    }

    /// Returns the line on which the key at `path` is written. If the file lacks the key, returns
    /// the line of the nearest parent key.
    pub(crate) fn line(&self, path: &KeyPath) -> Option<usize> {
        use super::path::Segment;
        let mut at = self.positions.as_item();
        let mut span = None;
        for segment in path.segments() {
            let next = match segment {
                Segment::Key(key) => at
                    .as_table_like()
                    .and_then(|table| table.get_key_value(key))
                    .map(|(key, item)| (item, key.span().or_else(|| item.span()))),
                Segment::Index(index) => at.get(*index).map(|item| (item, item.span())),
            };
            let Some((item, found)) = next else {
                break;
            };
            at = item;
            span = found.or(span);
        }
        span.map(|span| position(&self.text, span.start).0)
    }

    fn layer(&self) -> Result<Layer, ConfigProblem> {
        let keys = Toml::from_str::<Dict>(&self.text).map_err(|error| ConfigProblem {
            source: self.path.display().to_string(),
            line: None,
            key: String::new(),
            message: error.to_string(),
        })?;
        Ok(Layer {
            source: self.path.display().to_string(),
            keys,
        })
    }
}

/// Merges the layers. Reports input that cannot be assigned to a key.
pub(crate) fn merge(
    schema: &Schema,
    given: &[GivenSetting],
    file: Option<&File>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    sets: &[String],
    problems: &mut Vec<ConfigProblem>,
) -> Figment {
    let mut layers = Vec::new();
    for setting in given {
        let keys = ["telemetry".to_owned(), setting.key.to_owned()];
        match layer(schema, setting.variable.to_owned(), &keys, &setting.value) {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    match file.map(File::layer) {
        Some(Ok(layer)) => layers.push(layer),
        Some(Err(problem)) => problems.push(problem),
        None => {}
    }
    // The variables are sorted, so that a variable for a whole table comes before the variables for
    // its keys, regardless of the environment's order.
    let mut variables: Vec<_> = env.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        match from_variable(schema, &name, value) {
            Some(Ok(layer)) => layers.push(layer),
            Some(Err(problem)) => problems.push(problem),
            None => {}
        }
    }
    for set in sets {
        match from_set(schema, set) {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    layers.into_iter().fold(Figment::new(), Figment::merge)
}

/// Reads a variable `CURFEW__SECTION__KEY`. Returns `None` for a variable that is not a setting,
/// and a problem for a name that [`misspelt`] reports.
fn from_variable(
    schema: &Schema,
    name: &OsString,
    value: OsString,
) -> Option<Result<Layer, ConfigProblem>> {
    let name = name.to_str()?;
    if let Some(problem) = misspelt(schema, name) {
        return Some(Err(problem));
    }
    let keys = name.strip_prefix(ENV_PREFIX)?;
    let problem = |message: &str| ConfigProblem {
        source: name.to_owned(),
        line: None,
        key: String::new(),
        message: message.to_owned(),
    };
    let keys: Vec<String> = keys.split("__").map(str::to_ascii_lowercase).collect();
    if keys.iter().any(String::is_empty) {
        return Some(Err(problem("is not of the form CURFEW__SECTION__KEY")));
    }
    let Ok(value) = value.into_string() else {
        return Some(Err(problem("is not UTF-8 text")));
    };
    Some(layer(schema, name.to_owned(), &keys, &value))
}

/// Variables of the command line that could be mistaken for settings.
const OTHER_VARIABLES: [&str; 2] = ["CURFEW_ADMIN_KEY", "CURFEW_ADMIN_KEY_FILE"];

/// Reports a variable whose name differs from an existing key's name only by single underscores or
/// lower case. Such a variable would otherwise silently have no effect.
fn misspelt(schema: &Schema, name: &str) -> Option<ConfigProblem> {
    let upper = name.to_ascii_uppercase();
    let keys = upper.strip_prefix("CURFEW_")?;
    if name.starts_with(ENV_PREFIX) || OTHER_VARIABLES.contains(&name) {
        return None;
    }
    let keys = keys.trim_start_matches('_').to_ascii_lowercase();
    let path = named(schema, &KeyPath::default(), &keys)?;
    let right = path.to_string().replace('.', "__").to_ascii_uppercase();
    Some(ConfigProblem {
        source: name.to_owned(),
        line: None,
        key: path.to_string(),
        message: format!(
            "is not the name of a setting: write {ENV_PREFIX}{right}, in capitals and with two underscores between the parts"
        ),
    })
}

/// Returns the key below `above` that `name` may mean. Any number of underscores may separate the
/// parts of `name`.
fn named(schema: &Schema, above: &KeyPath, name: &str) -> Option<KeyPath> {
    let whole = above.key(name);
    if schema
        .find(&whole)
        .is_some_and(|found| schema.shape(found) != Shape::Table)
    {
        return Some(whole);
    }
    let mut splits = name.match_indices('_');
    splits.find_map(|(at, _)| {
        let section = above.key(&name[..at]);
        let found = schema.find(&section)?;
        let rest = name[at..].trim_start_matches('_');
        let is_table = schema.shape(found) == Shape::Table && !rest.is_empty();
        is_table.then(|| named(schema, &section, rest)).flatten()
    })
}

/// Reads an argument `section.key=value`.
fn from_set(schema: &Schema, set: &str) -> Result<Layer, ConfigProblem> {
    let parts = set.split_once('=').map(|(keys, value)| {
        (
            keys.trim()
                .split('.')
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            value,
        )
    });
    match parts {
        Some((keys, value)) if keys.iter().all(|key| !key.is_empty()) => {
            layer(schema, "--set".to_owned(), &keys, value)
        }
        // The message does not repeat the text. The text may be a secret that was given without its
        // key.
        _ => Err(ConfigProblem {
            source: "--set".to_owned(),
            line: None,
            key: String::new(),
            message: "takes section.key=value, for example --set server.listen=127.0.0.1:8080"
                .to_owned(),
        }),
    }
}

fn layer(
    schema: &Schema,
    source: String,
    keys: &[String],
    text: &str,
) -> Result<Layer, ConfigProblem> {
    let path = keys
        .iter()
        .fold(KeyPath::default(), |path, key| path.key(key));
    let shape = schema
        .find(&path)
        .map_or(Shape::Unknown, |found| schema.shape(found));
    let value = read(schema, shape, text).map_err(|message| ConfigProblem {
        source: source.clone(),
        line: None,
        key: path.to_string(),
        message,
    })?;
    let nested = keys.iter().rev().fold(value, |value, key| {
        Value::from(Dict::from([(key.clone(), value)]))
    });
    let keys = nested.into_dict().unwrap_or_default();
    Ok(Layer { source, keys })
}

/// Reads text as the type that the key takes. Text that does not fit the type stays a string, and
/// the misfit is reported later. A key of type text takes the text unchanged, so that a secret
/// `0123456` does not become a number.
fn read(schema: &Schema, shape: Shape<'_>, text: &str) -> Result<Value, String> {
    Ok(match shape {
        Shape::Text => Value::from(text),
        Shape::Integer => match text.trim().parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(text),
        },
        Shape::Number => match text.trim().parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(text),
        },
        Shape::Boolean => match text.trim() {
            "true" => Value::from(true),
            "false" => Value::from(false),
            _ => Value::from(text),
        },
        Shape::List(_) if text.trim_start().starts_with('[') => toml(text)?,
        Shape::List(items) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            let items = parts.map(|part| read(schema, schema.shape(items), part));
            Value::from(items.collect::<Result<Vec<_>, _>>()?)
        }
        Shape::Table | Shape::Unknown if text.trim_start().starts_with('{') => toml(text)?,
        Shape::Table | Shape::Unknown => Value::from(text),
    })
}

/// Reads one TOML value. The error does not repeat the parser's message, which quotes the text.
fn toml(text: &str) -> Result<Value, String> {
    Toml::from_str::<Dict>(&format!("value = {}", text.trim()))
        .ok()
        .and_then(|mut dict| dict.remove("value"))
        .ok_or_else(|| "starts like a TOML value but is not a valid one".to_owned())
}

/// The line and the column of a byte, each counted from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}
