//! The `[telemetry]` section.

use std::fmt;
use std::str::FromStr;

use curfew_model::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint;
use crate::log::parse_level;
use crate::standard::Standard;

/// The settings of logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The form of log lines on standard error. `json`: one object a line. `text`: for people, in
    /// colour if standard error is a terminal. Default `json`. Takes effect at start.
    pub log_format: LogFormat,
    /// The least severe level to log: `error`, `warn`, `info`, `debug` or `trace`, and optionally
    /// another level for a module, as in `info,curfew_session=debug`. `debug` and `trace` apply to
    /// Curfew's own lines, and libraries stay at `info`. To include the lines of libraries, name a
    /// library (`debug,h2=debug`) or all (`debug,*=debug`). Default `info`. Takes effect on reload.
    pub log_level: String,
    /// The URL, with port, of the OTLP/gRPC collector for traces, for example `http://jaeger:4317`
    /// (4318 is OTLP over HTTP, which is not supported). TLS is not supported: reach a distant
    /// collector through one near the node. Default: absent, no traces are exported. Takes effect
    /// at start.
    pub otlp_endpoint: Option<String>,
    /// The share of connects, publications and calls of the admin API to trace, 0 to 1. The flag of
    /// a `traceparent` in a call of the admin API overrides this share. Revocations are always
    /// traced. Refusals, errors and ends of sessions are also always traced, up to 100 of each kind
    /// a second, 10 of them per client (address and user). Default 0.01. Takes effect at start.
    pub trace_sample_ratio: f64,
    /// Joins the trace of a client's `traceparent` and obeys its flag, for up to 10 traces a
    /// second. `tracestate` is passed on. Default `false`: a span recorded by the node's own ratio
    /// links to the client's trace. Takes effect at start.
    pub trust_client_traces: bool,
    /// Adds users' ids and channels' names to spans, and the user to the log line of a revocation
    /// that not every node has confirmed. Default `false`. Takes effect at start.
    pub trace_user_ids: bool,
    /// The URL of a trace's page, with `{trace_id}` in it, for example
    /// `https://jaeger.example/trace/{trace_id}`. Output of `curfew`, answers of the admin API and
    /// the page of `curfew dev` then show traces as links. Clients receive only the id, which
    /// `curfew connect --trace-url` turns into a link. Default: absent, only the id is shown. Takes
    /// effect at start.
    pub trace_url: Option<String>,
    /// The values of OpenTelemetry's standard variables that no setting covers. This field is not a
    /// setting.
    #[serde(skip)]
    pub standard: Standard,
}

/// The placeholder for a trace's id in `telemetry.trace_url`.
const TRACE_ID: &str = "{trace_id}";

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line of text for people.
    Text,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            log_level: "info".to_owned(),
            otlp_endpoint: None,
            trace_sample_ratio: 0.01,
            trust_client_traces: false,
            trace_user_ids: false,
            trace_url: None,
            standard: Standard::default(),
        }
    }
}

impl TelemetryConfig {
    /// Returns the address of the collector; `None` if no spans are exported.
    pub(crate) fn traces_to(&self) -> Option<&str> {
        let endpoint = self.otlp_endpoint.as_deref();
        endpoint.filter(|_| !self.standard.disabled)
    }

    /// Reports invalid values, and warns about values that are probably mistakes.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = parse_level(&self.log_level) {
            problems.report(
                "log_level",
                format!(
                    "{error}: use error, warn, info, debug or trace, or module=level pairs separated by commas"
                ),
            );
        }
        match self.otlp_endpoint.as_deref().map(endpoint::check) {
            Some(Err(why)) => problems.report("otlp_endpoint", why),
            Some(Ok(endpoint::HTTP_PORT)) => {
                problems.warn("otlp_endpoint", endpoint::doubt(endpoint::HTTP_PORT));
            }
            None | Some(Ok(_)) => {}
        }
        if let Some(Err(why)) = self.trace_url.as_ref().map(|url| url.parse::<TracePages>()) {
            problems.report("trace_url", why.to_string());
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            problems.report("trace_sample_ratio", "must be between 0 and 1");
        }
    }
}

/// The URL of a trace's page, with the placeholder `{trace_id}` for the trace's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracePages(String);

/// The error for a text that is not a URL for [`TracePages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a URL with {{trace_id}} in it, such as https://jaeger.example/trace/{{trace_id}}")]
pub struct NoTracePages;

impl TracePages {
    /// Returns the URL of the page of `trace`.
    pub fn of(&self, trace: impl fmt::Display) -> String {
        self.0.replace(TRACE_ID, &trace.to_string())
    }
}

impl FromStr for TracePages {
    type Err = NoTracePages;

    /// Accepts a URL that has `http://` or `https://`, a host and `{trace_id}`, and that contains
    /// no spaces, quotation marks or other braces.
    fn from_str(url: &str) -> Result<Self, NoTracePages> {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let is_one = rest.is_some_and(|rest| {
            !rest.starts_with(['/', '{'])
                && rest.contains(TRACE_ID)
                && !rest.replacen(TRACE_ID, "", 1).contains(['{', '}'])
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"\"<>`\\^|".contains(&byte))
        });
        match is_one {
            true => Ok(Self(url.to_owned())),
            false => Err(NoTracePages),
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
            ("debug,*=trace", true),
            ("debug,*=loud", false),
            ("debug,*=", false),
            ("off", true),
            ("", false),
            (" ", false),
            ("loud", false),
            ("curfew_hub=loud", false),
            ("info,,debug=", false),
        ] {
            let mut problems = Problems::new();
            let config = TelemetryConfig {
                log_level: level.to_owned(),
                ..TelemetryConfig::default()
            };
            config.check(&mut problems);
            assert_eq!(problems.is_empty(), good, "{level:?}: {problems:?}");
        }
    }

    #[test]
    fn the_endpoint_and_the_ratio_are_checked() {
        let mut problems = Problems::new();
        let config = TelemetryConfig {
            otlp_endpoint: Some("http://127.0.0.1:43a7".to_owned()),
            trace_sample_ratio: f64::NAN,
            ..TelemetryConfig::default()
        };
        config.check(&mut problems);
        let problems = problems.into_vec();
        let keys: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert_eq!(keys, ["otlp_endpoint", "trace_sample_ratio"]);
    }

    #[test]
    fn the_url_of_a_trace_has_its_id_in_it() {
        for (url, good) in [
            ("https://jaeger.example/trace/{trace_id}", true),
            ("http://127.0.0.1:16686/trace/{trace_id}?x=1#y", true),
            ("https://jaeger.example/trace/", false),
            ("https://jaeger.example/{trace}", false),
            ("https://jaeger.example/{trace_id}/{x}", false),
            ("https:///{trace_id}", false),
            ("javascript:alert('{trace_id}')", false),
            ("https://jaeger.example/\"{trace_id}", false),
            ("https://jaeger.example/ {trace_id}", false),
        ] {
            assert_eq!(url.parse::<TracePages>().is_ok(), good, "{url}");
        }
    }

    #[test]
    fn the_port_of_the_other_form_is_warned_of() {
        let mut problems = Problems::new();
        let config = TelemetryConfig {
            otlp_endpoint: Some("http://jaeger:4318".to_owned()),
            ..TelemetryConfig::default()
        };
        config.check(&mut problems);
        let warnings = problems.take_warnings();
        assert!(warnings[0].message.contains("4317"), "{warnings:?}");
        assert!(problems.is_empty());
    }
}
