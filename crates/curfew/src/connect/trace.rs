//! The page of the trace that a frame or a refusal names.

use curfew_telemetry::TracePages;
use serde_json::Value;

/// Number of digits of a trace's id.
const ID_DIGITS: usize = 32;

/// The URL of traces' pages, and the trace that was named last.
#[derive(Debug)]
pub(super) struct Traces {
    pages: Option<TracePages>,
    last: Option<String>,
}

impl Traces {
    pub(super) fn new(pages: Option<TracePages>) -> Self {
        Self { pages, last: None }
    }

    /// Returns a line with the page of the trace that this frame or refusal names. Returns `None`
    /// if no trace is named, if the URL of the pages is not known, or if the last line already
    /// named this trace.
    pub(super) fn line(&mut self, told: &str) -> Option<String> {
        // Most frames name no trace, so they need not be parsed.
        let pages = self.pages.as_ref().filter(|_| told.contains("\"trace\""))?;
        let told: Value = serde_json::from_str(told).ok()?;
        let id = told["trace"].as_str().filter(|id| is_id(id))?;
        if self.last.as_deref() == Some(id) {
            return None;
        }
        self.last = Some(id.to_owned());
        Some(format!("trace: {}", pages.of(id)))
    }
}

/// Checks the form of an id, because a server may send any text.
fn is_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == ID_DIGITS && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_is_named_once_and_only_by_its_id() {
        let pages = "https://jaeger.example/trace/{trace_id}".parse().unwrap();
        let mut traces = Traces::new(Some(pages));
        let frame = format!(r#"{{"type":"auth_failed","trace":"{ID}"}}"#);
        let line = format!("trace: https://jaeger.example/trace/{ID}");
        assert_eq!(traces.line(&frame), Some(line));
        assert_eq!(traces.line(&frame), None);
        for other in [
            r#"{"type":"message","data":{"trace":"4bf9"}}"#.to_owned(),
            r#"{"trace":"../../admin"}"#.to_owned(),
            format!(r#"{{"trace":"{}"}}"#, ID.to_uppercase()),
            r#"{"trace":7}"#.to_owned(),
            "\"trace\"".to_owned(),
        ] {
            assert_eq!(traces.line(&other), None, "{other}");
        }
        assert_eq!(Traces::new(None).line(&frame), None);
    }
}
