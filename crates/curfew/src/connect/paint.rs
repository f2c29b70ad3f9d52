//! The appearance of frames on a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use crate::output;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

/// The choice of colours, which is made once at the start.
#[derive(Debug)]
pub(super) struct Paint {
    /// True if frames are printed unchanged.
    raw: bool,
    /// True if stdout is a terminal.
    terminal: bool,
    /// True if frames are coloured.
    colour: bool,
    /// True if notes are dimmed.
    dim_notes: bool,
}

impl Paint {
    /// Enables colour on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    pub(super) fn new(raw: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let terminal = io::stdout().is_terminal();
        Self {
            raw,
            terminal,
            colour: !raw && wanted && terminal,
            dim_notes: wanted && io::stderr().is_terminal(),
        }
    }

    /// The line that shows a frame. On a terminal, control characters are escaped, unless frames
    /// are printed unchanged.
    pub(super) fn frame(&self, kind: &str, text: &str) -> String {
        if self.raw || !self.terminal {
            return text.to_owned();
        }
        let text = output::clean(text);
        match colour(kind).filter(|_| self.colour) {
            Some(colour) => format!("{colour}{text}{RESET}"),
            None => text,
        }
    }

    /// Writes a note to stderr.
    pub(super) fn note(&self, text: &str) {
        let text: Vec<String> = text.lines().map(output::clean).collect();
        let text = text.join("\n");
        let line = if self.dim_notes {
            format!("{DIM}{text}{RESET}\n")
        } else {
            format!("{text}\n")
        };
        // A failed write is ignored, because no other place could show the note.
        io::stderr().write_all(line.as_bytes()).ok();
    }
}

/// A frame's type; empty if the frame has no type.
pub(super) fn kind(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_str::<Typed>(text)
        .map(|typed| typed.r#type)
        .unwrap_or_default()
}

fn colour(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "connected" | "refreshed" => "\x1b[32m",
        "message" | "history" => "\x1b[36m",
        "expiring" | "gap" | "unsubscribed" => "\x1b[33m",
        "error" => "\x1b[31m",
        "auth_failed" | "closing" => "\x1b[1;31m",
        "ok" | "pong" => DIM,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_coloured_by_type_and_raw_when_asked() {
        let paint = |raw, terminal, colour| Paint {
            raw,
            terminal,
            colour,
            dim_notes: false,
        };
        let frame = r#"{"type":"error"}"#;
        assert_eq!(kind(frame), "error");
        assert_eq!(kind("[1]"), "");
        let coloured = format!("\x1b[31m{frame}{RESET}");
        assert_eq!(paint(false, true, true).frame("error", frame), coloured);
        assert_eq!(paint(false, true, false).frame("error", frame), frame);
        assert_eq!(paint(true, false, false).frame("error", "a\x1bb"), "a\x1bb");
        assert_eq!(paint(false, true, false).frame("", "a\x1bb"), "a\\u{1b}b");
    }
}
