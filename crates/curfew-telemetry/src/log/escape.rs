//! Escapes text, so that text from a client can neither end a log line nor control a terminal.

use std::fmt::{self, Write};

/// Maximum length of a field's value, in bytes before escaping. A longer value is cut, so that one
/// client cannot fill the log.
const MAX_VALUE_BYTES: usize = 256;

/// Maximum length of a message, in bytes before escaping. The limit is higher than for other
/// fields, because the messages of panics and libraries may be long.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The characters that are escaped, and the form of an escaped character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// The form inside a JSON string (RFC 8259 §7).
    Json,
    /// The form inside a quoted value for people. It differs from JSON in that control characters
    /// have the form `\u{1b}`.
    Quoted,
    /// The form of a message for people. It differs from `Quoted` in that quotation marks and
    /// backslashes are not escaped.
    Text,
}

/// A writer that escapes text, and cuts it at the maximum length.
pub(super) struct Escaped<'a, W> {
    out: &'a mut W,
    escapes: Escapes,
    left: usize,
    cut: bool,
}

impl<'a, W: Write> Escaped<'a, W> {
    /// Creates a writer for the value of `field`. The maximum length of the field `message` is
    /// higher than that of other fields.
    pub(super) fn new(out: &'a mut W, escapes: Escapes, field: &str) -> Self {
        let left = match field {
            "message" => MAX_MESSAGE_BYTES,
            _ => MAX_VALUE_BYTES,
        };
        Self {
            out,
            escapes,
            left,
            cut: false,
        }
    }

    fn escape(&mut self, c: char) -> fmt::Result {
        match (c, self.escapes) {
            ('"', _) => self.out.write_str("\\\""),
            ('\\', _) => self.out.write_str("\\\\"),
            ('\n', _) => self.out.write_str("\\n"),
            ('\r', _) => self.out.write_str("\\r"),
            ('\t', _) => self.out.write_str("\\t"),
            // Every character that is escaped in JSON is below U+10000, so four digits are enough.
            (c, Escapes::Json) => write!(self.out, "\\u{:04x}", u32::from(c)),
            (c, _) => write!(self.out, "\\u{{{:x}}}", u32::from(c)),
        }
    }

    fn is_harmless(&self, c: char) -> bool {
        match c {
            '"' | '\\' => self.escapes == Escapes::Text,
            // The characters of this line and the next separate lines or paragraphs, or change the
            // direction of text, or are invisible.
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => false,
            '\u{2066}'..='\u{2069}' | '\u{061c}' | '\u{feff}' => false,
            c => !c.is_control(),
        }
    }
}

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let mut start = 0;
        for (at, c) in text.char_indices() {
            if c.len_utf8() > self.left {
                self.out.write_str(&text[start..at])?;
                self.cut = true;
                return self.out.write_str("…");
            }
            self.left -= c.len_utf8();
            if !self.is_harmless(c) {
                self.out.write_str(&text[start..at])?;
                self.escape(c)?;
                start = at + c.len_utf8();
            }
        }
        self.out.write_str(&text[start..])
    }
}
