//! The log on standard error, with one line per event. The subscriber of the log also records the
//! spans of traces.

mod escape;
mod format;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, TelemetryConfig};
use crate::trace::{self, Spans};
use format::Lines;

pub(crate) use format::TRACED;

/// The reason why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `telemetry.log_level` is not a log level.
    #[error("set the log level")]
    Level(#[from] LevelError),
    /// The process already has a subscriber of `tracing`.
    #[error("install the log")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// The reason why the log level could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The text is empty.
    #[error("the log level is empty")]
    Empty,
    /// A word without a module is not a level, or the word after `*=` is not. The filter of
    /// `tracing` would take a single word for the name of a module, and log every line of that
    /// module.
    #[error("{0:?} is not a log level")]
    Unknown(String),
    /// The filter of `tracing` cannot parse the text.
    #[error("the log level cannot be read")]
    Unreadable(#[source] ParseError),
    /// The subscriber of the log no longer exists.
    #[error("the log is not running")]
    Gone(#[source] reload::Error),
}

/// Changes the level of the running log. Cloning is cheap.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

/// The handles that [`init`] returns.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Changes the level of the log.
    pub log_level: LogLevel,
    /// The path of recorded spans to the export queue. [`Registry::start`](crate::Registry::start)
    /// creates this queue. Spans that end before the queue exists are not exported.
    pub spans: Spans,
}

/// Starts the log of the process on standard error, in the form and with the level of `config`. If
/// `config` names a collector, also starts the recording of spans. Call this function once, before
/// the process logs anything.
pub fn init(config: &TelemetryConfig) -> Result<Installed, InitError> {
    let ansi = config.log_format == LogFormat::Text && io::stderr().is_terminal();
    let (subscriber, installed) = subscriber(config, ansi, io::stderr)?;
    set_global_default(subscriber)?;
    Ok(installed)
}

/// The prefix of the targets of Curfew's own log lines.
const OURS: &str = "curfew";

/// The module name in a directive that stands for all modules of other crates.
const OTHERS: &str = "*";

/// Parses a list of directives such as `info,curfew_hub=debug`. The directive `debug` or `trace`
/// applies only to Curfew's own lines, because libraries log every frame at these levels and would
/// hide Curfew's lines. A directive such as `*=debug` applies to libraries.
pub(crate) fn parse_level(directives: &str) -> Result<EnvFilter, LevelError> {
    if directives.trim().is_empty() {
        return Err(LevelError::Empty);
    }
    // A directive with brackets selects spans by their fields. Its brackets may contain commas, so
    // the text is not split at commas.
    let directives = match directives.contains('[') {
        true => directives.to_owned(),
        false => separate(directives)?,
    };
    // A module for which there is no directive logs only errors. Regular expressions are turned
    // off, so that field values in directives are compared as plain text.
    EnvFilter::builder()
        .with_regex(false)
        .with_default_directive(LevelFilter::ERROR.into())
        .parse(directives)
        .map_err(LevelError::Unreadable)
}

/// Replaces a level without a module by two directives: one for Curfew's own lines, and one for the
/// lines of libraries.
fn separate(directives: &str) -> Result<String, LevelError> {
    let unknown = |word: &str| LevelError::Unknown(word.to_owned());
    let (mut alone, mut others, mut named) = (None, None, Vec::new());
    for word in directives.split(',').map(str::trim) {
        match word.split_once('=') {
            None if is_level(word) => alone = word.parse::<LevelFilter>().ok(),
            None => return Err(unknown(word)),
            Some((OTHERS, level)) => {
                let level = Some(level).filter(|level| is_level(level));
                others = Some(level.ok_or_else(|| unknown(word))?.to_owned());
            }
            Some(_) => named.push(word.to_owned()),
        }
    }
    let others = others.or_else(|| Some(alone?.min(LevelFilter::INFO).to_string()));
    let ours = alone.map(|level| format!("{OURS}={level}"));
    let all: Vec<String> = others.into_iter().chain(ours).chain(named).collect();
    Ok(all.join(","))
}

fn is_level(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok() && !word.is_empty()
}

fn subscriber<W>(
    config: &TelemetryConfig,
    ansi: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Installed), LevelError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_level(&config.log_level)?);
    let lines = Lines::new(config.log_format);
    let log = tracing_subscriber::fmt::layer::<Registry>()
        .event_format(lines)
        .fmt_fields(lines)
        .with_ansi(ansi)
        // With this option on, a failed write to the log would panic. A log that cannot be written
        // must not end the process.
        .log_internal_errors(false)
        .with_writer(writer)
        .with_filter(filter);
    let log_level = LogLevel(Arc::new(move |filter| handle.reload(filter)));
    let spans = Spans::default();
    let traces = config.traces_to().map(|_| trace::layer(&spans));
    let subscriber = tracing_subscriber::registry().with(log).with(traces);
    Ok((subscriber, Installed { log_level, spans }))
}

impl LogLevel {
    /// Sets the level to `directives`, which have the form of [`TelemetryConfig::log_level`]. On an
    /// error, the level stays unchanged.
    pub fn set_level(&self, directives: &str) -> Result<(), LevelError> {
        (self.0)(parse_level(directives)?).map_err(LevelError::Gone)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

#[cfg(test)]
mod tests;
