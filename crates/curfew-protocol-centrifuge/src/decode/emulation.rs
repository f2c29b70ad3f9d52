//! Decoding of an HTTP request that carries commands of a client. The replies are sent in the
//! streamed answer to an earlier request of the client.

use std::borrow::Cow;

use curfew_model::json;

use super::fields::one;
use super::json::Json;
use super::protobuf::Wire;
use super::{Fault, Field, Read, Value};
use crate::Encoding;

const EMULATION: &[Field] = &[one(1, "node"), one(2, "session"), one(3, "data")];

/// An HTTP request that carries commands to a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Emulation<'a> {
    /// The name of the session's node.
    pub node: Cow<'a, str>,
    /// The secret that entitles the request to act for the session.
    pub session: Cow<'a, str>,
    /// The message, which holds one or more commands.
    pub data: Cow<'a, [u8]>,
}

impl std::fmt::Debug for Emulation<'_> {
    /// Leaves out the secret and the message, which may hold a token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulation")
            .field("node", &self.node)
            .field("data", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Emulation<'a> {
    /// Decodes the body of a request. The message within the body has the same encoding, and is not
    /// decoded here.
    ///
    /// # Errors
    ///
    /// The fault of the body.
    pub fn decode(encoding: Encoding, body: &'a [u8]) -> Result<Self, &'static str> {
        let read = match encoding {
            Encoding::Json => {
                let raw = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
                read(Json::new(raw.trim_ascii()), |data| {
                    Ok(match data.text()? {
                        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                    })
                })
            }
            Encoding::Protobuf => read(Wire::Bytes(body), |data| data.bytes().map(Cow::Borrowed)),
        };
        match read {
            Ok(emulation) if emulation.data.is_empty() => Err("the body has no `data`"),
            Ok(emulation) => Ok(emulation),
            Err(Fault::NotTheProtocol(message)) => Err(message),
            Err(Fault::TooDeep) => Err("arrays and objects are nested too deep"),
        }
    }
}

fn read<'a, V: Value<'a>>(
    message: V,
    data: impl Fn(V) -> Read<Cow<'a, [u8]>>,
) -> Read<Emulation<'a>> {
    let mut read = Emulation {
        node: Cow::Borrowed(""),
        session: Cow::Borrowed(""),
        data: Cow::Borrowed(&[]),
    };
    message.fields(EMULATION, &mut |name, value| {
        match name {
            "node" => read.node = value.text()?,
            "session" => read.session = value.text()?,
            _ => read.data = data(value)?,
        }
        Ok(())
    })?;
    Ok(read)
}

impl<'a> Json<'a> {
    fn new(raw: &'a str) -> Self {
        Self(json::Value {
            raw,
            kind: json::Kind::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_carry_a_message() {
        let json = br#" {"session":"S\u0031","node":"n","data":"{\"id\":1}\n{}","more":[1]}
"#;
        let protobuf = b"\x0a\x01n\x12\x02S1\x1a\x02\x01\x02\x22\x00";
        for (encoding, body, data) in [
            (Encoding::Json, &json[..], &b"{\"id\":1}\n{}"[..]),
            (Encoding::Protobuf, &protobuf[..], &[1, 2]),
        ] {
            let read = Emulation::decode(encoding, body).unwrap();
            assert_eq!((&*read.node, &*read.session), ("n", "S1"));
            assert_eq!(&*read.data, data);
            let shown = format!("{read:?}");
            assert!(!shown.contains("S1") && !shown.contains("id"), "{shown}");
        }
    }

    #[test]
    fn a_body_that_is_no_request_is_told_so() {
        for (encoding, body) in [
            (Encoding::Json, &b""[..]),
            (Encoding::Json, b"[]"),
            (Encoding::Json, b"\xff"),
            (Encoding::Json, br#"{"session":"s","node":"n"}"#),
            (Encoding::Json, br#"{"session":"s","data":{"id":1}}"#),
            (
                Encoding::Json,
                br#"{"session":"s","session":"t","data":"d"}"#,
            ),
            (Encoding::Protobuf, b""),
            (Encoding::Protobuf, b"\x0a\x05n"),
            (Encoding::Protobuf, b"\x08\x01\x1a\x01d"),
        ] {
            let read = Emulation::decode(encoding, body);
            assert!(read.is_err(), "{encoding:?} {body:?} {read:?}");
        }
    }
}
