//! `[telemetry]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::log::parse_level;

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The form of a log line on standard error: `json`, one object a line, or `text`, for people;
    /// coloured when standard error is a terminal. Default `json`. Takes effect at start.
    pub log_format: LogFormat,
    /// The least severe level that is logged: `error`, `warn`, `info`, `debug` or `trace`, where
    /// wanted by module: `info,curfew_session=debug`. Default `info`. Takes effect on reload.
    pub log_level: String,
    /// Where traces are sent: the URL of an OTLP/gRPC collector, for example `http://jaeger:4317`.
    /// Default: absent, no traces are exported. Not over TLS: a collector that is far away is
    /// reached through one that is near. Takes effect at start.
    pub otlp_endpoint: Option<String>,
    /// The share of connects, publications and calls of the admin API that are traced, 0 to 1.
    /// A call of the admin API that brings a `traceparent` goes by that one's flag. Revocations are
    /// always traced; and, up to 100 of each kind in a second and 10 of them for one client's
    /// address and user, refusals, errors and ends of sessions. Default 0.01. Takes effect at start.
    pub trace_sample_ratio: f64,
    /// Whether the `traceparent` of a client is joined, and its flag obeyed for up to 10 traces a
    /// second. Default `false`: a span that is recorded by our own ratio links to it. Takes effect
    /// at start.
    pub trust_client_traces: bool,
    /// Spans hold users' ids and channels' names, and the log the user of a revocation that not every
    /// node has confirmed. Default `false`. Takes effect at start.
    pub trace_user_ids: bool,
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
            trace_sample_ratio: 0.01,
            trust_client_traces: false,
            trace_user_ids: false,
        }
    }
}

impl Config {
    /// Passes every problem to `report` as the key below `telemetry` and what is wrong with it.
    /// (A callback, since problems have their form elsewhere.)
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
            && !is_endpoint(endpoint)
        {
            report(
                "otlp_endpoint",
                "must be the URL of an OTLP/gRPC collector, such as http://127.0.0.1:4317; https is not spoken".to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            report("trace_sample_ratio", "must be between 0 and 1".to_owned());
        }
    }
}

/// Whether it is `http://`, a host and perhaps a port.
fn is_endpoint(endpoint: &str) -> bool {
    endpoint
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .is_some_and(|host| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-_:[]/".contains(&b))
        })
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
        for (endpoint, good) in [
            ("http://jaeger:4317", true),
            ("http://[::1]:4317/", true),
            ("jaeger:4317", false),
            ("https://jaeger:4317", false),
            ("http://", false),
            ("http:// x", false),
        ] {
            let mut keys = Vec::new();
            let config = Config {
                otlp_endpoint: Some(endpoint.to_owned()),
                trace_sample_ratio: if good { 1.0 } else { f64::NAN },
                ..Config::default()
            };
            config.check(|key, _| keys.push(key.to_owned()));
            let expect: &[&str] = if good {
                &[]
            } else {
                &["otlp_endpoint", "trace_sample_ratio"]
            };
            assert_eq!(keys, expect, "{endpoint}");
        }
    }
}
