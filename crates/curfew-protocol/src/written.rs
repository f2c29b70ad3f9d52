//! Recognition of what an encoding has written.

/// The rest of `json` behind the string `text`; `None` if it begins otherwise. Only quotes and
/// backslashes are escaped in it, as a text without control characters is written.
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
