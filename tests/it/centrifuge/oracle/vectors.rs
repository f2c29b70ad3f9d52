//! Tests of the Protobuf encoder and decoder in `protobuf.rs`, with frames made by the protocol's
//! official Python package.

use super::protobuf;
use super::value::{Message, hex};

const COMMANDS: [(&str, &str); 3] = [
    (
        r#"{"id":1,"connect":{"token":"T","name":"js"}}"#,
        "0b080122070a015422026a73",
    ),
    (
        r#"{"id":2,"subscribe":{"channel":"news","recover":true,"epoch":"xyzz","offset":3}}"#,
        "1408022a100a046e6577731801320478797a7a3803",
    ),
    ("{}", "00"),
];

const REPLIES: [(&str, &str); 5] = [
    (
        r#"{"id":1,"connect":{"client":"0198","version":"Curfew","expires":true,"ttl":240,"ping":25,"pong":true}}"#,
        "1b08012a170a04303139381206437572666577180120f00138194001",
    ),
    (
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"xyzz","publications":[{"data":{"n":4},"offset":4}],"recovered":true,"offset":3,"positioned":true,"was_recovering":true}}"#,
        "210802321d1801320478797a7a3a0b22077b226e223a347d30044001480350016001",
    ),
    (
        r#"{"push":{"channel":"news","pub":{"data":{"n":5},"offset":5,"info":{"user":"alice","client":"0198"}}}}"#,
        "24222212046e657773221a22077b226e223a357d2a0d0a05616c6963651204303139383005",
    ),
    (
        r#"{"id":3,"error":{"code":109,"message":"token expired","temporary":true}}"#,
        "1708031213086d120d746f6b656e20657870697265641801",
    ),
    (r#"{"id":4,"unsubscribe":{}}"#, "0408043a00"),
];

#[test]
fn the_protobuf_of_the_runner_is_that_of_the_official_package() {
    let bytes = |digits: &str| -> Vec<u8> {
        let pairs = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    };
    for (json, frame) in REPLIES {
        let message = Message::from_json("Reply", json).unwrap();
        assert_eq!(
            protobuf::messages("Reply", &bytes(frame)).unwrap(),
            [message]
        );
    }
    for (json, frame) in COMMANDS {
        let message = Message::from_json("Command", json).unwrap();
        let encoded = protobuf::frame("Command", std::slice::from_ref(&message));
        assert_eq!(hex(&encoded), frame, "{json}");
        let decoded = protobuf::messages("Command", &encoded).unwrap();
        assert_eq!(decoded, [message]);
    }
}
