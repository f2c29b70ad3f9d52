//! Where in a distributed trace something happens.

use std::fmt;

/// Length of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// The flag that says that a trace is recorded.
const SAMPLED: u8 = 1;

/// A span that others may have as their parent: W3C Trace Context, without `tracestate`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl TraceContext {
    /// A context; `None` when an id is all zero, which names nothing.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            sampled,
        })
    }

    /// Reads a `traceparent`: version 00, lower-case hexadecimal. Anything else is none: it comes
    /// from whoever likes to send one, and is no reason to refuse what it came with.
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

    /// Names the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Names the span within it.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

/// As a `traceparent`.
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

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

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
