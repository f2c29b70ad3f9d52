//! The text forms of settings: durations as `5s`, `500ms`, `1h 30m`.
//!
//! A field uses this form by `#[serde(with = "curfew_model::setting::duration")]` beside
//! `#[schemars(with = "String")]`.

/// Durations as humantime text.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Parses `5s`, `500ms`, `1h 30m`. A bare number is refused, because it has no unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    /// A duration for display, in at most two units: `1 day 2h`, `59m 58s`.
    pub fn shown(duration: Duration) -> String {
        let text = humantime::format_duration(duration).to_string();
        let units: Vec<String> = text.split(' ').take(2).map(spaced).collect();
        units.join(" ")
    }

    /// Puts a space between a number and a unit that is a word.
    fn spaced(unit: &str) -> String {
        let at = unit
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(unit.len());
        let (number, name) = unit.split_at(at);
        match name.len() {
            0..=2 => unit.to_owned(),
            _ => format!("{number} {name}"),
        }
    }

    /// Writes the duration as humantime text, from which [`deserialize`] reads the same duration.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*duration).to_string())
    }

    /// Parses a duration of the configuration or the command line.
    pub fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text).map_err(|_| {
            let number = text.trim();
            if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
                return format!(
                    "{text:?} is not a duration: it has no unit, write \"{number}s\" for seconds"
                );
            }
            format!("{text:?} is not a duration such as \"5s\", \"500ms\" or \"1h 30m\"")
        })
    }
}
