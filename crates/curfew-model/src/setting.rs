//! How settings are written: durations as `5s`, `500ms`, `1h 30m`.
//!
//! Use as `#[serde(with = "curfew_model::setting::duration")]` beside
//! `#[schemars(with = "String")]`.

/// Durations as humantime text.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads `5s`, `500ms`, `1h 30m`. A bare number is refused: it has no unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    /// Writes the shortest such text.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*duration).to_string())
    }

    /// Reads a duration from text, as the configuration and the command line do.
    pub fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text).map_err(|_| {
            format!("{text:?} is not a duration such as \"5s\", \"500ms\" or \"1h 30m\"")
        })
    }
}
