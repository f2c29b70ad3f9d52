//! RESP as bytes: parsing commands of a connection, writing replies and pushes.
//!
//! Owns: the framing of both directions, RESP2 and RESP3.
//! Knows nothing of: commands, keys, connections.

use std::io::Write as _;

/// Maximum length of a bulk string that a client may send.
const MAX_BULK: i64 = 512 * 1024 * 1024;

/// Maximum number of arguments of one command.
const MAX_ARGUMENTS: i64 = 1024 * 1024;

/// Result of parsing the head of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A complete command, with the number of its bytes. An empty line is a command without
    /// arguments.
    Command(usize),
    /// The command is incomplete.
    Partial,
    /// The bytes are not RESP; Redis closes the connection with this error.
    Invalid(String),
}

/// Reads one command from the start of `input` into `arguments`.
pub(super) fn parse<'a>(input: &'a [u8], arguments: &mut Vec<&'a [u8]>) -> Parsed {
    arguments.clear();
    match input.first() {
        None => Parsed::Partial,
        Some(b'*') => parse_array(input, arguments),
        Some(_) => parse_inline(input, arguments),
    }
}

fn parse_array<'a>(input: &'a [u8], arguments: &mut Vec<&'a [u8]>) -> Parsed {
    let Some((count, mut at)) = line(input, 1) else {
        return Parsed::Partial;
    };
    let count = match super::number::integer(count) {
        Some(count) if count <= MAX_ARGUMENTS => count,
        _ => return Parsed::Invalid("Protocol error: invalid multibulk length".to_owned()),
    };
    for _ in 0..count.max(0) {
        match input.get(at) {
            None => return Parsed::Partial,
            Some(b'$') => {}
            Some(other) => {
                let got = char::from(*other);
                return Parsed::Invalid(format!("Protocol error: expected '$', got '{got}'"));
            }
        }
        let Some((length, start)) = line(input, at + 1) else {
            return Parsed::Partial;
        };
        let length = match super::number::integer(length) {
            Some(length @ 0..=MAX_BULK) => usize::try_from(length).unwrap_or_default(),
            _ => return Parsed::Invalid("Protocol error: invalid bulk length".to_owned()),
        };
        if input.len() < start + length + 2 {
            return Parsed::Partial;
        }
        arguments.push(&input[start..start + length]);
        at = start + length + 2;
    }
    Parsed::Command(at)
}

fn parse_inline<'a>(input: &'a [u8], arguments: &mut Vec<&'a [u8]>) -> Parsed {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return Parsed::Partial;
    };
    let words = input[..end].split(u8::is_ascii_whitespace);
    arguments.extend(words.filter(|word| !word.is_empty()));
    Parsed::Command(end + 1)
}

/// The line from `from` on, and the index at which the next line starts.
fn line(input: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = &input[from..];
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    // The line must end with both bytes, CR and LF.
    (rest.len() > end + 1).then(|| (&rest[..end], from + end + 2))
}

/// Writes replies and pushes in the protocol that a connection speaks.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    pub(super) resp3: bool,
}

impl Writer {
    pub(super) fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.bytes.extend_from_slice(text.as_bytes());
        self.end();
    }

    pub(super) fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    pub(super) fn error(&mut self, text: &str) {
        self.bytes.push(b'-');
        // A line break within the text would end the error early.
        let safe = text.bytes().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            byte => byte,
        });
        self.bytes.extend(safe);
        self.end();
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.head(b':', number);
    }

    pub(super) fn count(&mut self, count: usize) {
        self.head(b':', i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.end();
    }

    /// Writes a text, which RESP3 marks as a verbatim string.
    pub(super) fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            self.length(b'=', text.len() + 4);
            self.bytes.extend_from_slice(b"txt:");
            self.bytes.extend_from_slice(text.as_bytes());
            self.end();
        } else {
            self.bulk(text.as_bytes());
        }
    }

    pub(super) fn nil(&mut self) {
        let nil: &[u8] = if self.resp3 { b"_\r\n" } else { b"$-1\r\n" };
        self.bytes.extend_from_slice(nil);
    }

    pub(super) fn nil_array(&mut self) {
        let nil: &[u8] = if self.resp3 { b"_\r\n" } else { b"*-1\r\n" };
        self.bytes.extend_from_slice(nil);
    }

    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.nil(),
        }
    }

    pub(super) fn array(&mut self, count: usize) {
        self.length(b'*', count);
    }

    pub(super) fn map(&mut self, pairs: usize) {
        match self.resp3 {
            true => self.length(b'%', pairs),
            false => self.length(b'*', pairs * 2),
        }
    }

    pub(super) fn set(&mut self, count: usize) {
        self.length(if self.resp3 { b'~' } else { b'*' }, count);
    }

    pub(super) fn push(&mut self, count: usize) {
        self.length(if self.resp3 { b'>' } else { b'*' }, count);
    }

    pub(super) fn double(&mut self, number: f64) {
        let text = super::number::double(number);
        match self.resp3 {
            true => {
                self.bytes.push(b',');
                self.bytes.extend_from_slice(text.as_bytes());
                self.end();
            }
            false => self.bulk(text.as_bytes()),
        }
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.head(kind, i64::try_from(length).unwrap_or(i64::MAX));
    }

    fn head(&mut self, kind: u8, number: i64) {
        self.bytes.push(kind);
        if (0..10).contains(&number) {
            self.bytes.push(b'0' + number.unsigned_abs() as u8);
        } else {
            write!(self.bytes, "{number}").expect("writing to a vector cannot fail");
        }
        self.end();
    }

    fn end(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
    }
}
