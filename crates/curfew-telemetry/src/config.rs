//! `[telemetry]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::log::parse_level;

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The form of a log line on standard error: `json`, one object a line, or `text`, for people;
    /// coloured when standard error is a terminal. Default `json`. Takes effect at start.
    pub log_format: LogFormat,
    /// The least severe level that is logged: `error`, `warn`, `info`, `debug` or `trace`, where
    /// wanted by module: `info,curfew_session=debug`. Default `info`. Takes effect on reload.
    pub log_level: String,
    /// Where traces are sent: the URL of an OTLP/gRPC collector, for example `http://jaeger:4317`.
    /// Default: absent, no traces are exported. This version exports none in either case and says
    /// so in the log when the key is set.
    pub otlp_endpoint: Option<String>,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            log_level: "info".to_owned(),
            otlp_endpoint: None,
        }
    }
}

impl Config {
    /// Passes every problem to `report` as the key below `telemetry` and what is wrong with it.
    /// (A callback, since this crate depends on no other of the project.)
    pub fn check(&self, mut report: impl FnMut(&str, String)) {
        if let Err(error) = parse_level(&self.log_level) {
            report(
                "log_level",
                format!(
                    "{error}: use error, warn, info, debug or trace, or module=level pairs separated by commas"
                ),
            );
        }
        if let Some(endpoint) = &self.otlp_endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            report(
                "otlp_endpoint",
                "must be a URL that starts with http:// or https://".to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_levels_pass() {
        for (level, good) in [
            ("info", true),
            ("INFO", true),
            ("warn,curfew_session=trace", true),
            ("off", true),
            ("", false),
            (" ", false),
            ("loud", false),
            ("curfew_hub=loud", false),
            ("info,,debug=", false),
        ] {
            let mut problems = Vec::new();
            let config = Config {
                log_level: level.to_owned(),
                ..Config::default()
            };
            config.check(|key, message| problems.push(format!("{key}: {message}")));
            assert_eq!(problems.is_empty(), good, "{level:?}: {problems:?}");
        }
    }

    #[test]
    fn the_endpoint_of_traces_is_a_url() {
        let mut keys = Vec::new();
        let config = Config {
            otlp_endpoint: Some("jaeger:4317".to_owned()),
            ..Config::default()
        };
        config.check(|key, _| keys.push(key.to_owned()));
        assert_eq!(keys, ["otlp_endpoint"]);
    }
}
