//! Contexts of distributed traces (W3C Trace Context).

use std::fmt;
use std::sync::Arc;

/// Length of a `traceparent` of version 00, in bytes.
const TRACEPARENT_BYTES: usize = 55;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// Longest `tracestate` that is passed on, in bytes. W3C Trace Context requires at least this
/// length.
const MAX_STATE_BYTES: usize = 512;

/// Maximum number of members of a `tracestate`.
const MAX_STATE_MEMBERS: usize = 32;

/// A span that other spans may have as their parent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
    /// The `tracestate`, passed on unchanged.
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Creates a context. Returns `None` if an id is all zero, which is invalid.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            sampled,
            state: None,
        })
    }

    /// Adds a `tracestate`, which every participant of a trace passes on unchanged. A `tracestate`
    /// that is empty, malformed or too long is left out.
    pub fn with_state(self, tracestate: &str) -> Self {
        Self {
            state: is_state(tracestate).then(|| tracestate.into()),
            ..self
        }
    }

    /// The `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// A copy without the `tracestate`.
    pub fn without_state(&self) -> Self {
        Self {
            state: None,
            ..*self
        }
    }

    /// Parses a `traceparent` of version 00 in lower-case hexadecimal. Any other text gives `None`.
    /// A client may send any text, and a bad `traceparent` is no reason to refuse the message that
    /// it came with.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        if text.len() != TRACEPARENT_BYTES || !text.starts_with(b"00-") {
            return None;
        }
        if text[35] != b'-' || text[52] != b'-' {
            return None;
        }
        let [flags] = hex(&text[53..55])?;
        Self::new(
            hex(&text[3..35])?,
            hex(&text[36..52])?,
            flags & SAMPLED != 0,
        )
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the trace, for display.
    pub fn trace(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    /// The id of the span within the trace.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// True if the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

/// The id of a trace, displayed as 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Writes the form of `traceparent` and `traceresponse`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
            u8::from(self.sampled)
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// True if the text is a list of `key=value` members that is short enough to be passed on.
fn is_state(text: &str) -> bool {
    let mut members = 0;
    let mut is_good = !text.is_empty() && text.len() <= MAX_STATE_BYTES;
    for member in text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
    {
        if member.is_empty() {
            continue;
        }
        members += 1;
        is_good &= member.split_once('=').is_some_and(|(key, value)| {
            let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            key.bytes().next().is_some_and(is_key)
                && key
                    .bytes()
                    .all(|byte| is_key(byte) || b"_-*/@".contains(&byte))
                && value
                    .bytes()
                    .all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
        });
    }
    is_good && (1..=MAX_STATE_MEMBERS).contains(&members)
}

/// Decodes `2 * N` lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Decodes one lower-case hexadecimal digit.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(
            context.span_id(),
            [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb7]
        );
        let other_flags = GOOD.replace("-01", "-fe");
        assert!(!TraceContext::parse(&other_flags).unwrap().is_sampled());
    }

    #[test]
    fn a_tracestate_is_passed_on_if_it_is_one() {
        let with = |state: &str| TraceContext::parse(GOOD).unwrap().with_state(state);
        for good in ["rojo=00f067aa0ba902b7", "a=b, c@d=e\t,", "0/x=, y=a b"] {
            assert_eq!(with(good).state(), Some(good));
        }
        let many = vec!["a=b"; MAX_STATE_MEMBERS + 1].join(",");
        let long = format!("a={}", "b".repeat(MAX_STATE_BYTES));
        for bad in [
            "", ",", "x", "=x", "A=b", "a=b=c", "a=b\n", "a=é", &many, &long,
        ] {
            assert_eq!(with(bad).state(), None, "{bad:?}");
        }
        assert_eq!(with("a=b").without_state(), with(""));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let mut bad = vec![
            String::new(),
            GOOD.to_uppercase(),
            GOOD.replacen("00-", "01-", 1),
            GOOD.replacen("00-", "ff-", 1),
            format!("{GOOD}-x"),
            format!(" {GOOD}"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("4b", "+b"),
            GOOD.replace("4b", "é"),
        ];
        bad.extend((0..GOOD.len()).map(|end| GOOD[..end].to_owned()));
        for text in bad {
            assert_eq!(TraceContext::parse(&text), None, "{text:?}");
        }
    }
}
