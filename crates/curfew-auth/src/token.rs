//! The form of a token: its three parts, its header and its claims, read strictly.
//!
//! Tokens are read before their signature is verified. Nothing that is read here is trusted, and
//! `malformed` is the only refusal.

mod claims;
mod header;
pub(crate) mod json;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::AuthError;

pub(crate) use claims::{ClaimRules, OtherKind, TokenClaims};
pub(crate) use header::{Header, TokenType};
pub(crate) use json::Date;

/// The parts of a token between its dots, as base64url text.
pub(crate) struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// The signed text: header, dot, payload.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    /// Checks the token's length and alphabet, and splits the token into its parts. `most` is
    /// `auth.max_token_bytes`.
    pub(crate) fn of(token: &'a str, most: usize) -> Result<Self, AuthError> {
        if token.len() > most {
            return Err(AuthError::too_long(most));
        }
        let is_token_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !token.bytes().all(is_token_byte) {
            return Err(AuthError::malformed(
                "the token has characters outside base64url: padding (=) and spaces are not allowed",
            ));
        }
        let mut parts = token.split('.');
        let cut = [parts.next(), parts.next(), parts.next()];
        let ([Some(header), Some(payload), Some(signature)], None) = (cut, parts.next()) else {
            return Err(AuthError::malformed(
                match token.bytes().filter(|b| *b == b'.').count() {
                    4 => "encrypted tokens (JWE) are not supported",
                    _ => "the token does not have three parts separated by dots",
                },
            ));
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        Ok(Self {
            header,
            payload,
            signature,
            signed,
        })
    }

    /// The header's JSON text.
    pub(crate) fn header(&self) -> Result<String, AuthError> {
        text(self.header).ok_or_else(|| AuthError::malformed("the token's header is not base64url"))
    }

    /// The payload's JSON text.
    pub(crate) fn payload(&self) -> Result<String, AuthError> {
        text(self.payload)
            .ok_or_else(|| AuthError::malformed("the token's payload is not base64url"))
    }

    /// The signature's bytes.
    pub(crate) fn signature(&self) -> Result<Vec<u8>, AuthError> {
        decode(self.signature)
            .ok_or_else(|| AuthError::malformed("the token's signature is not base64url"))
    }

    /// The bytes that the signature covers.
    pub(crate) fn signed(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }
}

/// Decodes base64url without padding. Refuses unused bits that are set, so that each token has only
/// one spelling.
fn decode(part: &str) -> Option<Vec<u8>> {
    // The vector has the exact length, so that it can become a boxed string without a copy.
    let mut bytes = vec![0; part.len() / 4 * 3 + (part.len() % 4 * 3) / 4];
    let length = URL_SAFE_NO_PAD.decode_slice(part, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn text(part: &str) -> Option<String> {
    String::from_utf8(decode(part)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> ClaimRules {
        ClaimRules::of(&crate::AuthConfig::default())
    }

    /// Reads the parts of a token that are read before the signature is verified.
    fn read(token: &str) -> Result<(), AuthError> {
        let parts = Parts::of(token, usize::MAX)?;
        let header = parts.header()?;
        Header::parse(&header, TokenType::Access)?;
        let payload = parts.payload()?;
        TokenClaims::parse(&payload, &rules())?;
        parts.signature()?;
        Ok(())
    }

    fn is_read_or_malformed(token: &str) -> bool {
        read(token)
            .err()
            .is_none_or(|error| error.failure() == curfew_model::AuthFailure::Malformed)
    }

    /// Objects in forms that JSON allows but few programs write.
    fn objects() -> impl Strategy<Value = String> {
        let texts = [
            "a",
            "b",
            "\\ud83d",
            "\\ude00",
            "\\ud83d\\ude00",
            "\\u0061",
            "\\n",
            "é",
            "",
        ];
        let text = prop::collection::vec(prop::sample::select(texts.to_vec()), 0..3)
            .prop_map(|texts| format!("\"{}\"", texts.concat()));
        let numbers = [
            "0",
            "-1",
            "1e999",
            "-1E+309",
            "1e308",
            "0e999",
            "1.5e-999",
            "12345678901234567890",
        ];
        let leaf = prop_oneof![
            text.clone(),
            prop::sample::select(numbers.to_vec()).prop_map(str::to_owned),
            prop::sample::select(vec![1, 308, 309, 400]).prop_map(|digits| "9".repeat(digits)),
            Just("null".to_owned()),
        ];
        let object = |value: BoxedStrategy<String>, name: BoxedStrategy<String>| {
            prop::collection::vec((name, value), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(n, v)| format!("{n}:{v}")).collect();
                format!("{{{}}}", members.join(","))
            })
        };
        let name = text.boxed();
        let names = name.clone();
        let value = leaf.prop_recursive(4, 16, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| format!("[{}]", values.join(", "))),
                object(inner.boxed(), names.clone()),
            ]
        });
        object(value.boxed(), name)
    }

    #[test]
    fn the_smallest_token_is_read() {
        // The header is {"alg":"HS256"}, the payload is {}, and the signature is empty.
        assert_eq!(read("eyJhbGciOiJIUzI1NiJ9.e30."), Ok(()));
    }

    #[test]
    fn a_part_has_one_spelling() {
        // e30 and e31 differ only in unused bits, so a lax decoder reads the same bytes from both.
        assert!(read("eyJhbGciOiJIUzI1NiJ9.e31.").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_malformed(token in "\\PC{0,64}") {
            prop_assert!(is_read_or_malformed(&token));
        }

        #[test]
        fn any_header_and_payload_are_read_or_malformed(
            header in "\\PC{0,48}",
            payload in any::<Vec<u8>>(),
        ) {
            let payload = URL_SAFE_NO_PAD.encode(payload);
            for header in [header.as_str(), r#"{"alg":"HS256"}"#] {
                let header = URL_SAFE_NO_PAD.encode(header);
                let token = format!("{header}.{payload}.AAAA");
                prop_assert!(is_read_or_malformed(&token));
            }
        }

        /// Policies, records and the admin API read claims with `serde_json`, which must accept
        /// every payload that this parser accepts.
        #[test]
        fn what_is_read_can_be_read_elsewhere(text in objects()) {
            if let Ok((_, scanned)) = TokenClaims::parse(&text, &rules()) {
                let plain = scanned.plain(&text);
                let read = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&plain);
                prop_assert!(read.is_ok(), "{} as {}", text, plain);
            }
        }

        #[test]
        fn the_exact_capacity_is_exact(bytes in any::<Vec<u8>>()) {
            let decoded = decode(&URL_SAFE_NO_PAD.encode(&bytes)).unwrap();
            prop_assert_eq!(decoded.capacity(), bytes.len());
            prop_assert_eq!(decoded, bytes);
        }
    }
}
