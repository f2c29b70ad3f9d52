//! One pass over a JSON text (RFC 8259): is it JSON, how deep is it, where are the members of the
//! outermost object. Nothing is built, nothing is copied.
//!
//! Not serde_json: it passes over unpaired surrogates in what it does not decode, counts depth to a
//! limit of its own, and cannot tell "not JSON" from "not ours" before the end of the text.

use std::borrow::Cow;

use super::MAX_DEPTH;

/// Why the scan ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The text is not JSON.
    NotJson,
    /// It is nested deeper than [`MAX_DEPTH`]; what follows was not looked at.
    TooDeep,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outermost {
    /// One object.
    Object {
        /// Whether a `\u` escape anywhere in it is half of a surrogate pair.
        unpaired_surrogate: bool,
    },
    /// Another JSON value.
    Other,
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    String {
        /// Whether it has escapes.
        escaped: bool,
    },
    /// A number.
    Number,
    /// Anything else.
    Other,
}

/// A value within the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    /// Exactly as written, without white space around it.
    pub(super) raw: &'a str,
    /// What it is.
    pub(super) kind: Kind,
}

impl<'a> Value<'a> {
    /// The string's content; `None` when it is no string, or none of Unicode.
    pub(super) fn as_str(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String { escaped: false } => {
                Some(Cow::Borrowed(&self.raw[1..self.raw.len() - 1]))
            }
            Kind::String { escaped: true } => serde_json::from_str(self.raw).ok().map(Cow::Owned),
            Kind::Number | Kind::Other => None,
        }
    }
}

/// Scans `text`, passing each member of the outermost object to `member` on the way.
pub(super) fn scan<'a>(
    text: &'a str,
    mut member: impl FnMut(Value<'a>, Value<'a>),
) -> Result<Outermost, Fault> {
    let mut scanner = Scanner {
        text,
        at: 0,
        unpaired_surrogate: false,
    };
    scanner.space();
    let is_object = scanner.peek() == Some(b'{');
    if is_object {
        scanner.object(1, &mut member)?;
    } else {
        scanner.value(0)?;
    }
    scanner.space();
    if scanner.peek().is_some() {
        return Err(Fault::NotJson);
    }
    Ok(if is_object {
        Outermost::Object {
            unpaired_surrogate: scanner.unpaired_surrogate,
        }
    } else {
        Outermost::Other
    })
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    unpaired_surrogate: bool,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.next() == Some(byte) {
            Ok(())
        } else {
            Err(Fault::NotJson)
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A value inside `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'{') => self.object(depth + 1, &mut |_, _| {})?,
            Some(b'[') => self.array(depth + 1)?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => return Err(Fault::NotJson),
        };
        Ok(Value {
            raw: &self.text[start..self.at],
            kind,
        })
    }

    fn object(
        &mut self,
        depth: usize,
        member: &mut dyn FnMut(Value<'a>, Value<'a>),
    ) -> Result<Kind, Fault> {
        self.open(depth)?;
        if self.closes(b'}') {
            return Ok(Kind::Other);
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(Fault::NotJson);
            }
            let name = self.value(depth)?;
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.value(depth)?;
            member(name, value);
            if !self.goes_on(b'}')? {
                return Ok(Kind::Other);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Kind, Fault> {
        self.open(depth)?;
        if self.closes(b']') {
            return Ok(Kind::Other);
        }
        loop {
            self.space();
            self.value(depth)?;
            if !self.goes_on(b']')? {
                return Ok(Kind::Other);
            }
        }
    }

    /// Past the opening bracket. The depth bounds our own recursion too.
    fn open(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.at += 1;
        Ok(())
    }

    fn closes(&mut self, bracket: u8) -> bool {
        self.space();
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    /// Past a comma (true) or the closing bracket (false).
    fn goes_on(&mut self, bracket: u8) -> Result<bool, Fault> {
        self.space();
        match self.next() {
            Some(b',') => Ok(true),
            Some(byte) if byte == bracket => Ok(false),
            _ => Err(Fault::NotJson),
        }
    }

    fn word(&mut self, word: &str) -> Result<Kind, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Fault::NotJson);
        }
        self.at += word.len();
        Ok(Kind::Other)
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err(Fault::NotJson);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Kind, Fault> {
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.next() {
                Some(b'"') => return Ok(Kind::String { escaped }),
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => {}
                _ => return Err(Fault::NotJson),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), Fault> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let unit = self.hex4()?;
                self.surrogates(unit)
            }
            _ => Err(Fault::NotJson),
        }
    }

    /// A high surrogate needs a low one right after it, and a low one a high one before.
    fn surrogates(&mut self, unit: u16) -> Result<(), Fault> {
        match unit {
            0xD800..=0xDBFF => {
                let after_high = self.at;
                let paired = self.next() == Some(b'\\')
                    && self.next() == Some(b'u')
                    && (0xDC00..=0xDFFF).contains(&self.hex4()?);
                if !paired {
                    self.unpaired_surrogate = true;
                    self.at = after_high;
                }
            }
            0xDC00..=0xDFFF => self.unpaired_surrogate = true,
            _ => {}
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u16, Fault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self
                .next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u16::try_from(digit).ok())
                .ok_or(Fault::NotJson)?;
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }
}
