//! Strict percent-decoding (RFC 3986 §2.1).

use std::borrow::Cow;

/// The bytes that `text` encodes. `None` if a `%` is not followed by two hexadecimal digits; the
/// crate `percent_encoding` would leave such a `%` as it is.
pub fn percent_decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let has_digits =
        |after: &[u8]| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
    let is_encoded = text.split(|byte| *byte == b'%').skip(1).all(has_digits);
    is_encoded.then(|| percent_encoding::percent_decode(text).into())
}

/// Like [`percent_decode`], but also `None` if the bytes are not UTF-8.
pub fn percent_decode_str(text: &str) -> Option<Cow<'_, str>> {
    match percent_decode(text.as_bytes())? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(text)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_percent_sign_needs_two_digits() {
        for (text, expect) in [
            ("", Some("")),
            ("plain+text", Some("plain+text")),
            ("%41b%C3%a9%25", Some("Abé%")),
            ("%2541", Some("%41")),
            ("%", None),
            ("a%4", None),
            ("%zz", None),
            ("%%41", None),
            ("%+1", None),
            ("%4é", None),
            ("%ff", None),
        ] {
            assert_eq!(percent_decode_str(text).as_deref(), expect, "{text}");
        }
        assert_eq!(
            percent_decode(b"%fF\xff").as_deref(),
            Some(&[0xff, 0xff][..])
        );
    }
}
