//! A single pass over a JSON text (RFC 8259). It checks the text, bounds its depth, and finds the
//! members of the outermost object. It builds no tree of values.
//!
//! `serde_json` is not used, because its depth limit is fixed and it refuses numbers that do not
//! fit into a double. If it refuses such a number, it does not report whether the text is JSON.

use std::borrow::Cow;
use std::ops::Range;

/// A number without an exponent that has at most this many characters always fits into a double.
const DOUBLE_DIGITS: usize = 308;

/// The reason why a scan ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The text is not JSON.
    NotJson,
    /// The text is nested deeper than the rules allow. The rest of the text was not scanned.
    TooDeep,
    /// An object repeats a name.
    Repeated,
}

/// The rules that a text must obey in addition to the rules of JSON.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Maximum number of nested arrays and objects, the outermost included.
    pub max_depth: usize,
    /// True if no object in the text may repeat a name. The scan then also notes the parts that
    /// other JSON parsers may refuse; [`Scanned::plain`] replaces these parts.
    pub strict: bool,
}

/// The result of the scan of a text that is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// True if the text is a JSON object.
    pub is_object: bool,
    odd: Vec<Odd>,
}

/// A part of a valid JSON text that other JSON parsers may refuse, with its replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Odd {
    at: Range<usize>,
    instead: &'static str,
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String {
        /// True if the string has escapes.
        escaped: bool,
    },
    /// A number.
    Number,
    /// Any other value.
    Other,
}

/// A value within the text.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// The text exactly as written, without white space around it.
    pub raw: &'a str,
    /// The kind of the value.
    pub kind: Kind,
}

impl<'a> Value<'a> {
    /// The content of a string. `None` for another value, or if a surrogate is unpaired.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String { escaped: false } => {
                Some(Cow::Borrowed(&self.raw[1..self.raw.len() - 1]))
            }
            Kind::String { escaped: true } => serde_json::from_str(self.raw).ok().map(Cow::Owned),
            Kind::Number | Kind::Other => None,
        }
    }

    /// The content of a string, with U+FFFD for each unpaired surrogate; empty for another value.
    fn lossy(&self) -> Cow<'a, str> {
        self.as_str().unwrap_or_else(|| {
            let rules = Rules {
                max_depth: 0,
                strict: true,
            };
            let scanned = scan(self.raw, rules, |_, _| {}).ok();
            let plain = scanned.map(|scanned| scanned.plain(self.raw));
            let text = plain.and_then(|plain| serde_json::from_str(&plain).ok());
            Cow::Owned(text.unwrap_or_default())
        })
    }

    /// True if the value is a string.
    pub fn is_string(&self) -> bool {
        matches!(self.kind, Kind::String { .. })
    }

    /// The elements of an array; `None` for another value.
    pub fn elements(&self) -> Option<Vec<Value<'a>>> {
        let mut scanner = Scanner::new(
            self.raw,
            Rules {
                max_depth: usize::MAX,
                strict: false,
            },
        );
        let mut elements = Vec::new();
        let is_array = scanner.peek() == Some(b'[');
        let scanned = is_array.then(|| scanner.array(1, &mut |element| elements.push(element)));
        matches!(scanned, Some(Ok(_))).then_some(elements)
    }
}

impl Scanned {
    /// True if the scan noted no part that other parsers may refuse (see [`Rules::strict`]).
    pub fn is_plain(&self) -> bool {
        self.odd.is_empty()
    }

    /// The scanned `text` in a form that every JSON parser accepts: an unpaired surrogate becomes
    /// U+FFFD, and a number that does not fit into a double becomes `null`.
    pub fn plain<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_plain() {
            return Cow::Borrowed(text);
        }
        let mut plain = String::with_capacity(text.len());
        let mut from = 0;
        for odd in &self.odd {
            plain.push_str(&text[from..odd.at.start]);
            plain.push_str(odd.instead);
            from = odd.at.end;
        }
        plain.push_str(&text[from..]);
        Cow::Owned(plain)
    }
}

/// The bytes as text, if they are UTF-8 and begin like a JSON object. Without this check, a derived
/// deserializer would also accept an array.
pub fn object_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.trim_ascii_start().starts_with('{').then_some(text)
}

/// Scans `text`, and passes each member of the outermost object to `member`.
///
/// # Errors
///
/// If the text is not JSON or breaks the rules.
pub fn scan<'a>(
    text: &'a str,
    rules: Rules,
    mut member: impl FnMut(Value<'a>, Value<'a>),
) -> Result<Scanned, Fault> {
    let mut scanner = Scanner::new(text, rules);
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
    Ok(Scanned {
        is_object,
        odd: scanner.odd,
    })
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    rules: Rules,
    odd: Vec<Odd>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, rules: Rules) -> Self {
        Self {
            text,
            at: 0,
            rules,
            odd: Vec::new(),
        }
    }

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

    /// Scans a value that is nested in `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'{') => self.object(depth + 1, &mut |_, _| {})?,
            Some(b'[') => self.array(depth + 1, &mut |_| {})?,
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
        let mut names = Vec::new();
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
            if self.rules.strict {
                names.push(name.lossy());
            }
            if !self.goes_on(b'}')? {
                break;
            }
        }
        names.sort_unstable();
        match names.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(Fault::Repeated),
            false => Ok(Kind::Other),
        }
    }

    fn array(&mut self, depth: usize, element: &mut dyn FnMut(Value<'a>)) -> Result<Kind, Fault> {
        self.open(depth)?;
        if self.closes(b']') {
            return Ok(Kind::Other);
        }
        loop {
            self.space();
            element(self.value(depth)?);
            if !self.goes_on(b']')? {
                return Ok(Kind::Other);
            }
        }
    }

    /// Skips the opening bracket. The check of the depth here bounds the scanner's recursion too.
    fn open(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > self.rules.max_depth {
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

    /// Skips a comma or the closing bracket. Returns true for a comma.
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
        let start = self.at;
        let mut has_exponent = false;
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
            has_exponent = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let may_overflow = has_exponent || self.at - start > DOUBLE_DIGITS;
        if self.rules.strict && may_overflow {
            let number = self.text[start..self.at].parse::<f64>();
            if !number.is_ok_and(f64::is_finite) {
                self.note(start, "null");
            }
        }
        Ok(Kind::Number)
    }

    /// Notes that other parsers may refuse the text from `start` to here. `instead` replaces it.
    fn note(&mut self, start: usize, instead: &'static str) {
        let at = start..self.at;
        self.odd.push(Odd { at, instead });
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

    /// Scans an escape after its backslash.
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

    /// Notes `unit` if it is an unpaired surrogate. A pair is a high surrogate and then a low one.
    fn surrogates(&mut self, unit: u16) -> Result<(), Fault> {
        match unit {
            0xD800..=0xDBFF => {
                let after_high = self.at;
                let paired = self.next() == Some(b'\\')
                    && self.next() == Some(b'u')
                    && (0xDC00..=0xDFFF).contains(&self.hex4()?);
                if !paired {
                    self.at = after_high;
                    self.half_pair();
                }
            }
            0xDC00..=0xDFFF => self.half_pair(),
            _ => {}
        }
        Ok(())
    }

    /// Notes that the escape just scanned is an unpaired surrogate.
    fn half_pair(&mut self) {
        if self.rules.strict {
            self.note(self.at - "\\ud800".len(), "\\ufffd");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules = Rules {
        max_depth: 4,
        strict: true,
    };

    fn plain(text: &str) -> Result<String, Fault> {
        let scanned = scan(text, STRICT, |_, _| {})?;
        let plain = scanned.plain(text).into_owned();
        serde_json::from_str::<serde_json::Value>(&plain).unwrap();
        Ok(plain)
    }

    #[test]
    fn what_other_readers_refuse_is_replaced() {
        for (text, expect) in [
            (
                r#"{"a":"\ud83d\ude00","b":1e308}"#,
                r#"{"a":"\ud83d\ude00","b":1e308}"#,
            ),
            (
                r#"["\ud83d","\ude00\ud83d\ud83d\ude00x"]"#,
                r#"["\ufffd","\ufffd\ufffd\ud83d\ude00x"]"#,
            ),
            (r#"[1e309,-1E+999,1e-999]"#, "[null,null,1e-999]"),
            (r#"{"\uD83D":1}"#, r#"{"\ufffd":1}"#),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(expect));
        }
        let long = "9".repeat(400);
        assert_eq!(plain(&long).as_deref(), Ok("null"));
        assert_eq!(plain(&"9".repeat(308)).unwrap().len(), 308);
    }

    #[test]
    fn names_are_unique_by_what_readers_take_them_for() {
        for text in [
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":{"a":1,"b":2,"a":3}}]"#,
            r#"{"\ud83d":1,"\ud83e":2}"#,
        ] {
            assert_eq!(plain(text), Err(Fault::Repeated), "{text}");
        }
        assert_eq!(plain("[[[[[]]]]]"), Err(Fault::TooDeep));
    }

    #[test]
    fn elements_are_those_of_the_array_alone() {
        let mut values = Vec::new();
        scan(r#"{"a":[1, [2,3] ,"x"],"b":{}}"#, STRICT, |_, value| {
            values.push(value)
        })
        .unwrap();
        let elements = values[0].elements().unwrap();
        let raw: Vec<&str> = elements.iter().map(|element| element.raw).collect();
        assert_eq!(raw, ["1", "[2,3]", "\"x\""]);
        assert!(values[1].elements().is_none());
    }
}
