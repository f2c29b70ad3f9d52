use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use tracing::subscriber::with_default;

use super::*;

/// A writer that stores the log.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

struct SinkWriter<'a>(MutexGuard<'a, Vec<u8>>);

impl Write for SinkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SinkWriter(self.0.lock().unwrap())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn logged(format: LogFormat, ansi: bool, log: impl FnOnce(&LogLevel)) -> String {
    let sink = Sink::default();
    let config = TelemetryConfig {
        log_format: format,
        ..TelemetryConfig::default()
    };
    let (subscriber, installed) = subscriber(&config, ansi, sink.clone()).unwrap();
    with_default(subscriber, || log(&installed.log_level));
    sink.text()
}

const HOSTILE: &str = "a\x1b[31m\r\nfake\u{9b}2J\u{7f}\u{2028}\u{202e}\"\\\0\u{e000}é";

fn log_hostile_values() {
    let error = io::Error::other(HOSTILE);
    let span = tracing::info_span!("connection", user = HOSTILE, channel = %HOSTILE);
    let _entered = span.enter();
    tracing::info!(
        text = HOSTILE,
        shown = %HOSTILE,
        debugged = ?HOSTILE,
        raw_debug = ?format_args!("{HOSTILE}"),
        error = &error as &dyn std::error::Error,
        "hello {HOSTILE}"
    );
}

fn forbidden(c: char) -> bool {
    c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)
}

#[test]
fn hostile_text_makes_one_harmless_line_in_both_formats() {
    for format in [LogFormat::Json, LogFormat::Text] {
        let text = logged(format, false, |_| log_hostile_values());
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(forbidden), "{format:?}: {line:?}");
        assert!(line.contains("é"), "{line}");
    }
}

#[test]
fn json_lines_hold_fields_beside_time_level_and_target() {
    let text = logged(LogFormat::Json, false, |_| {
        log_hostile_values();
        let span = tracing::info_span!("outer", id = 7, later = tracing::field::Empty);
        let _entered = span.enter();
        span.record("later", "x");
        tracing::warn!(
            count = 3_u64,
            below = -1,
            ratio = f64::NAN,
            on = true,
            "done"
        );
    });
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines[0]["text"], HOSTILE);
    assert_eq!(lines[0]["shown"], HOSTILE);
    assert_eq!(lines[0]["error"], HOSTILE);
    assert_eq!(lines[0]["message"], format!("hello {HOSTILE}"));
    assert_eq!(lines[0]["spans"][0]["user"], HOSTILE);
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["target"], "curfew_telemetry::log::tests");
    let time = lines[0]["timestamp"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    let done = &lines[1];
    assert_eq!(done["message"], "done");
    assert_eq!(
        (&done["count"], &done["below"], &done["on"]),
        (&3.into(), &(-1).into(), &true.into())
    );
    assert_eq!(done["ratio"], "NaN");
    assert_eq!(
        done["spans"],
        serde_json::json!([{"name": "outer", "id": 7, "later": "x"}])
    );
}

#[test]
fn text_lines_are_for_people() {
    let log = |_: &LogLevel| {
        tracing::info_span!("s", a = 1).in_scope(|| tracing::info!(b = "x y", "hello"))
    };
    let text = logged(LogFormat::Text, false, log);
    let (_, rest) = text.split_once(' ').unwrap();
    assert_eq!(
        rest,
        " INFO s{a=1}: curfew_telemetry::log::tests: hello b=\"x y\"\n"
    );
    let text = logged(LogFormat::Text, true, log);
    assert!(text.contains("\x1b[32m INFO\x1b[0m"), "{text:?}");
}

#[test]
fn long_values_are_cut_and_stay_valid_json() {
    let long = "ä".repeat(5000);
    let text = logged(
        LogFormat::Json,
        false,
        |_| tracing::info!(user = %long, "{long}"),
    );
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        line["user"].as_str().unwrap(),
        format!("{}…", "ä".repeat(128))
    );
    assert_eq!(line["message"].as_str().unwrap().chars().count(), 2049);
}

#[test]
fn an_error_is_logged_with_its_sources() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);
    let outer = Outer(io::Error::other("inner"));
    let text = logged(LogFormat::Json, false, |_| {
        tracing::error!(error = &outer as &dyn std::error::Error, "failed");
    });
    assert!(text.contains(r#""error":"outer: inner""#), "{text}");
}

#[test]
fn the_level_changes_while_running_and_survives_a_bad_change() {
    let text = logged(LogFormat::Json, false, |level| {
        tracing::debug!("one");
        level.set_level("debug").unwrap();
        tracing::debug!("two");
        assert!(matches!(
            level.set_level("loud"),
            Err(LevelError::Unknown(_))
        ));
        assert!(matches!(level.set_level(""), Err(LevelError::Empty)));
        tracing::debug!("three");
    });
    let messages: Vec<_> = text
        .lines()
        .map(|line| line.contains("\"message\":\"t"))
        .collect();
    assert_eq!(messages, [true, true], "{text}");
}

#[test]
fn debug_is_of_our_own_lines_unless_others_are_named() {
    let told = |directives: &str| {
        let text = logged(LogFormat::Json, false, |level| {
            level.set_level(directives).unwrap();
            tracing::debug!("ours");
            tracing::debug!(target: "h2::codec", "frame");
            tracing::debug!(target: "hyper::proto", "read");
            tracing::info!(target: "hyper::proto", "important");
        });
        let words = ["ours", "frame", "read", "important"].into_iter();
        words
            .filter(|word| text.contains(&format!("\"message\":\"{word}\"")))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("debug"), ["ours", "important"]);
    assert_eq!(told("debug,h2=debug"), ["ours", "frame", "important"]);
    assert_eq!(
        told("debug,*=trace"),
        ["ours", "frame", "read", "important"]
    );
    assert_eq!(told("trace,*=error"), ["ours"]);
    assert_eq!(told("info"), ["important"]);
    assert_eq!(told("info,*=debug"), ["frame", "read", "important"]);
    assert_eq!(told("debug,curfew_telemetry=info"), ["important"]);
    assert!(told("warn").is_empty());
}
