//! Functions that write JSON without a library. Every delivered publication has to be encoded, so
//! the encoding must be fast.

use bytes::{BufMut, BytesMut};

/// Writes UTF-8 as a JSON string, with its quotation marks (RFC 8259 §7).
pub fn put_string(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.put_slice(&text[plain..at]);
        plain = at + 1;
        put_escape(byte, out);
    }
    out.put_slice(&text[plain..]);
    out.put_u8(b'"');
}

/// Writes a byte that a JSON string may not contain literally (RFC 8259 §7).
fn put_escape(byte: u8, out: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.put_slice(b"\\u00");
            out.put_u8(HEX[usize::from(byte >> 4)]);
            out.put_u8(HEX[usize::from(byte & 0xf)]);
            return;
        }
    };
    out.put_u8(b'\\');
    out.put_u8(short);
}

/// The bytes of `json` after the string `text`. `None` if `json` does not begin with this string in
/// the form that [`put_string`] writes. The caller ensures that `text` has no control characters.
pub fn strip_string<'j>(json: &'j [u8], text: &str) -> Option<&'j [u8]> {
    let mut rest = json.strip_prefix(b"\"")?;
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            rest = rest.strip_prefix(b"\\")?;
        }
        rest = rest.strip_prefix(&[byte])?;
    }
    rest.strip_prefix(b"\"")
}
