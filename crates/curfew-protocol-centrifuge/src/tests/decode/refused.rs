//! Tests of messages that are not commands.

use super::*;

#[test]
fn what_is_not_offered_is_answered() {
    for (message, code) in [
        (
            r#"{"id":9,"subscribe":{"channel":"c","tf":{}}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":9,"subscribe":{"channel":"c","type":1}}"#,
            ErrorCode::NotAvailable,
        ),
        (
            r#"{"id":9,"publish":{"channel":"c"}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":9,"publish":{"channel":"c","data":1,"type":1}}"#,
            ErrorCode::NotAvailable,
        ),
        (
            r#"{"id":9,"sub_refresh":{"channel":"c"}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":9,"sub_refresh":{"token":"T","type":1}}"#,
            ErrorCode::NotAvailable,
        ),
    ] {
        let id = Some(CommandId::from_number(9));
        assert_eq!(form(message), (id, code), "{message}");
    }
}

#[test]
fn what_is_not_of_the_protocol_is_refused() {
    for message in [
        "",
        "\n",
        "{}\n\n",
        "[]",
        "1",
        "{",
        "{} {}",
        "\u{c}{}",
        "\u{feff}{}",
        r#"{"id":1}"#,
        r#"{"id":1,"x":{}}"#,
        r#"{"id":-1,"ping":{}}"#,
        r#"{"id":1.0,"ping":{}}"#,
        r#"{"id":"1","ping":{}}"#,
        r#"{"id":4294967296,"ping":{}}"#,
        r#"{"id":1,"id":2,"ping":{}}"#,
        r#"{"id":1,"ping":[]}"#,
        r#"{"id":1,"subscribe":{"channel":"c"},"ping":1}"#,
        r#"{"send":{},"ping":{},"rpc":{}}"#,
        r#"{"id":1,"subscribe":{}}"#,
        r#"{"id":1,"subscribe":{"channel":""}}"#,
        r#"{"id":1,"subscribe":{"channel":5}}"#,
        r#"{"id":1,"subscribe":{"channel":"\ud83d"}}"#,
        r#"{"id":1,"subscribe":{"channel":"c","recover":1}}"#,
        r#"{"id":1,"subscribe":{"channel":"c","offset":-1}}"#,
        r#"{"id":1,"subscribe":{"channel":"c","delta":"zstd"}}"#,
        r#"{"id":1,"subscribe":{"channel":"c","channel":"d"}}"#,
        r#"{"id":1,"publish":{"data":1}}"#,
        r#"{"id":1,"unsubscribe":{}}"#,
        r#"{"id":1,"history":{}}"#,
        r#"{"id":1,"refresh":{}}"#,
        "{\"id\":1,\n\"ping\":{}}",
    ] {
        assert!(is_refused(message), "{message}");
    }
    for message in [
        "",
        "01",
        "0208",
        "020801",
        // The first of these three messages is cut off within its command. The second has a length
        // beyond its end, and the third has a length beyond 64 bits.
        "05080122030a",
        "0508012203",
        "ffffffffffffffffff0200",
        // These four messages contain, in this order: a field with the tag 0, a group, a text that
        // is not UTF-8, and a number in place of a nested message.
        "020000",
        "040801231c",
        "0708012a030a01ff",
        "0408012001",
    ] {
        let bytes = hex(message);
        let decoded = decoded(PROTOBUF, Message::Binary(&bytes));
        assert!(
            matches!(decoded, Err(DecodeError::NotTheProtocol { .. })),
            "{message}: {decoded:?}"
        );
    }
}

#[test]
fn payloads_are_borrowed_and_their_depth_is_bounded() {
    let publish = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"id":3,"publish":{{"channel":"c","data":{data}}}}}"#)
    };
    assert!(text(&publish(32)).is_ok());
    let id = Some(CommandId::from_number(3));
    assert_eq!(form(&publish(33)), (id.clone(), ErrorCode::BadRequest));
    assert_eq!(form(&publish(30_000)), (id, ErrorCode::BadRequest));
    assert!(is_refused(&"[".repeat(30_000)));
    assert!(is_refused(&format!("{{\"a\":{}", "[".repeat(30_000))));

    let message = r#"{"id":3,"publish":{"channel":"c","data": "\u00e9" }}"#;
    let requests = text(message).unwrap();
    let [
        ClientRequest::Command {
            command: Command::Publish { data, .. },
            ..
        },
    ] = &requests[..]
    else {
        panic!("{requests:?}");
    };
    assert_eq!(*data, Payload::Json(r#""\u00e9""#));
    let data = data.as_bytes().as_ptr();
    assert!(message.as_bytes().as_ptr_range().contains(&data));
}

#[test]
fn an_error_of_form_leaves_the_rest_of_a_batch() {
    let batch = "{\"id\":1,\"publish\":{\"channel\":\"c\"}}\n{\"id\":2,\"ping\":{}}";
    let mut message = Message::Text(batch);
    assert!(JSON.decode(&mut message).is_err());
    assert_eq!(JSON.decode(&mut message), Ok(command(2, Command::Ping)));
}
