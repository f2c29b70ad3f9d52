//! The protocol `curfew.v1`: every command, every reply and every error (CONTRACT §4).

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, json, opcode};
use curfew_tests::{Gateway, Settings};
use serde_json::{Value, json};

#[tokio::test]
async fn every_command_with_an_id_is_answered_with_it() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    let token = Key::default_secret().user("alice");
    for (command, answer) in [
        (
            json!({"type":"subscribe","channel":"room:1"}),
            json!({"type":"ok"}),
        ),
        (
            json!({"type":"subscribe","channel":"room:1"}),
            json!({"type":"error","code":"already_subscribed","message":"<string>"}),
        ),
        (
            json!({"type":"unsubscribe","channel":"room:1"}),
            json!({"type":"ok"}),
        ),
        (
            json!({"type":"unsubscribe","channel":"room:1"}),
            json!({"type":"error","code":"not_subscribed","message":"<string>"}),
        ),
        (
            json!({"type":"publish","channel":"room:1","data":{}}),
            json!({"type":"ok"}),
        ),
        (json!({"type":"ping"}), json!({"type":"pong"})),
        (
            json!({"type":"refresh","token":token}),
            json!({"type":"refreshed","expires_at":"<number>"}),
        ),
        (
            json!({"type":"dance"}),
            json!({"type":"error","code":"unknown_type","message":"<string>"}),
        ),
    ] {
        for id in [json!(7), json!("seven"), json!(-1), json!(1.5), json!("")] {
            let again = command["type"] == "subscribe" || command["type"] == "unsubscribe";
            let (mut command, mut answer) = (command.clone(), answer.clone());
            command["id"] = id.clone();
            answer["id"] = id.clone();
            client.send(command.clone()).await;
            let reply = client.next_json().await;
            assert!(
                json::matches(&answer, &reply),
                "{command}\n gave {reply}\n not  {answer}"
            );
            // A second `subscribe` or `unsubscribe` would get another answer, and the number of
            // malformed commands is limited.
            if again || answer["code"] == "unknown_type" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_id_is_echoed_as_it_was_written() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    for id in [
        "1",
        "-0",
        "1.50",
        "1e3",
        "12345678901234567890123",
        r#""a\u0062""#,
        r#""é""#,
    ] {
        client
            .send_text(&format!(r#"{{"type":"ping","id":{id}}}"#))
            .await;
        let reply = client.next_text().await;
        assert!(reply.contains(&format!("\"id\":{id}")), "{id}: {reply}");
    }
}

#[tokio::test]
async fn without_an_id_only_errors_are_answered() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    client
        .send(json!({"type":"subscribe","channel":"room:1"}))
        .await;
    client
        .send(json!({"type":"publish","channel":"room:2","data":1}))
        .await;
    client
        .send(json!({"type":"unsubscribe","channel":"room:1"}))
        .await;
    assert!(client.barrier().await.is_empty());
    client
        .send(json!({"type":"unsubscribe","channel":"room:1"}))
        .await;
    let error = client.next_json().await;
    let expect = json!({"type":"error","code":"not_subscribed","message":"<string>"});
    assert!(json::matches(&expect, &error), "{error}");
    client.send(json!({"type":"ping"})).await;
    assert_eq!(client.next_json().await, json!({"type":"pong"}));
}

#[tokio::test]
async fn a_publication_reaches_every_subscriber_and_nobody_else() {
    let gateway = Gateway::start_default().await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    let mut carol = gateway.subscriber("carol", "room:2").await;
    alice
        .send(json!({"type":"publish","channel":"room:1","data":{"text":"hi"}}))
        .await;
    let expect = json!({"type":"message","channel":"room:1","data":{"text":"hi"},"from":"alice"});
    assert_eq!(alice.next_json().await, expect);
    assert_eq!(bob.next_json().await, expect);
    assert!(carol.barrier().await.is_empty());
    // A client may publish to a channel without being subscribed to it.
    carol
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":null}))
        .await;
    carol.expect_json(json!({"type":"ok","id":1})).await;
    let expect = json!({"type":"message","channel":"room:1","data":null,"from":"carol"});
    assert_eq!(bob.next_json().await, expect);
    // After a client has unsubscribed, it receives no further message.
    bob.send(json!({"type":"unsubscribe","id":2,"channel":"room:1"}))
        .await;
    bob.expect_json(json!({"type":"ok","id":2})).await;
    gateway.publish("room:1", json!(1)).await;
    alice.until_json(json!({"type":"message","data":1})).await;
    assert!(bob.barrier().await.is_empty());
}

#[tokio::test]
async fn publications_keep_their_order() {
    let gateway = Gateway::start_default().await;
    let mut alice = gateway.user("alice").await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    let frames: Vec<OutFrame> = (0..1000)
        .map(|n| {
            let command = json!({"type":"publish","channel":"room:1","data":n});
            OutFrame::text(&command.to_string())
        })
        .collect();
    alice.send_frames(&frames).await;
    for n in 0..1000 {
        assert_eq!(bob.next_json().await["data"], n);
    }
}

#[tokio::test]
async fn data_is_delivered_byte_for_byte() {
    let gateway = Gateway::start_default().await;
    let mut alice = gateway.user("alice").await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    for data in [
        r#"{"b":1,"a":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{ "spaced" :  [ 1 , 2 ] }"#,
        "1.0",
        "1.50e+10",
        "-0",
        "12345678901234567890123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        r#""\u00e9\/\n""#,
        r#""é€😀""#,
        "true",
        "null",
        "[]",
        r#""""#,
        r#""<script>""#,
        "{\n\t\"lines\":\n[1,\n2]}",
    ] {
        alice
            .send_text(&format!(
                r#"{{"type":"publish","channel":"room:1","data":{data}}}"#
            ))
            .await;
        let text = bob.next_text().await;
        assert!(
            text.contains(&format!("\"data\":{data}")),
            "{data} became {text}"
        );
        serde_json::from_str::<Value>(&text).unwrap();
    }
    // `data` may come before the other members. A publication by the API also keeps its bytes.
    alice
        .send_text(r#"{"data":{"z":1.0},"channel":"room:1","type":"publish"}"#)
        .await;
    assert!(bob.next_text().await.contains(r#""data":{"z":1.0}"#));
    let body = br#"{"data": {"z":1.0,"a":1e2}, "channel":"room:1"}"#;
    let answer = curfew_testkit::http::request(
        gateway.admin_address(),
        "POST",
        "/v1/publish",
        &[
            (
                "Authorization",
                &format!("Bearer {}", curfew_tests::ADMIN_KEY),
            ),
            ("Content-Type", "application/json"),
        ],
        body,
    )
    .await;
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    let text = bob.next_text().await;
    assert!(text.contains(r#""data":{"z":1.0,"a":1e2}"#), "{text}");
}

#[tokio::test]
async fn channel_names_are_checked() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    let longest = "x".repeat(255);
    let long = "x".repeat(256);
    let long_in_bytes = "é".repeat(128);
    for name in [
        "a",
        "room:1",
        "a:b:c",
        "räume:ä",
        "*",
        "room:*",
        "a/b",
        &longest,
        "__proto__",
        "constructor",
        "__keyspace@0__:*",
        "curfew:{revoked}:x",
    ] {
        for command in ["subscribe", "publish", "unsubscribe"] {
            client
                .send(
                    json!({"type":command,"id":1,"channel":name,"data":1})
                        .as_object()
                        .unwrap()
                        .iter()
                        .filter(|(key, _)| *key != "data" || command == "publish")
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect::<serde_json::Map<_, _>>()
                        .into(),
                )
                .await;
            client.until_json(json!({"type":"ok","id":1})).await;
        }
    }
    for name in [
        "",
        "a b",
        "a\tb",
        "a\nb",
        "a\0b",
        "\u{1b}[31m",
        "a\u{85}b",
        "$",
        "$presence",
        &long,
        &long_in_bytes,
    ] {
        for command in [
            json!({"type":"subscribe","id":1,"channel":name}),
            json!({"type":"unsubscribe","id":1,"channel":name}),
            json!({"type":"publish","id":1,"channel":name,"data":1}),
        ] {
            let mut client = gateway.user("alice").await;
            client.send(command.clone()).await;
            let reply = client.next_json().await;
            assert_eq!(reply["code"], "invalid_channel", "{command}: {reply}");
            assert_eq!(reply["id"], 1, "{reply}");
        }
    }
}

#[tokio::test]
async fn errors_of_form_are_answered_and_the_session_goes_on() {
    let gateway = Gateway::start_default().await;
    for (text, code) in [
        (r#"{"type":"dance","id":1}"#, "unknown_type"),
        (r#"{"type":"message","id":1}"#, "unknown_type"),
        (
            r#"{"type":"SUBSCRIBE","id":1,"channel":"a"}"#,
            "unknown_type",
        ),
        (r#"{"type":"","id":1}"#, "unknown_type"),
        (r#"{"id":1}"#, "bad_request"),
        (r#"{}"#, "bad_request"),
        (r#"{"type":7,"id":1}"#, "bad_request"),
        (r#"{"type":null}"#, "bad_request"),
        (r#"{"type":"subscribe","id":1}"#, "bad_request"),
        (r#"{"type":"subscribe","id":1,"channel":7}"#, "bad_request"),
        (
            r#"{"type":"subscribe","id":1,"channel":null}"#,
            "bad_request",
        ),
        (
            r#"{"type":"subscribe","id":1,"channel":"a","data":1}"#,
            "bad_request",
        ),
        (
            r#"{"type":"subscribe","id":1,"channel":"a","extra":1}"#,
            "bad_request",
        ),
        (
            r#"{"type":"subscribe","id":1,"channel":"a","channel":"b"}"#,
            "bad_request",
        ),
        (
            r#"{"type":"ping","type":"subscribe","channel":"a"}"#,
            "bad_request",
        ),
        (r#"{"type":"ping","id":1,"id":2}"#, "bad_request"),
        (r#"{"type":"ping","id":null}"#, "bad_request"),
        (r#"{"type":"ping","id":true}"#, "bad_request"),
        (r#"{"type":"ping","id":{}}"#, "bad_request"),
        (r#"{"type":"ping","id":[1]}"#, "bad_request"),
        (r#"{"type":"ping","channel":"a"}"#, "bad_request"),
        (r#"{"type":"publish","id":1,"channel":"a"}"#, "bad_request"),
        (r#"{"type":"publish","id":1,"data":1}"#, "bad_request"),
        (
            r#"{"type":"publish","id":1,"channel":"a","data":1,"data":2}"#,
            "bad_request",
        ),
        (
            r#"{"type":"publish","id":1,"channel":"a","data":1,"from":"bob"}"#,
            "bad_request",
        ),
        (r#"{"type":"refresh","id":1}"#, "bad_request"),
        (r#"{"type":"refresh","id":1,"token":7}"#, "bad_request"),
    ] {
        let mut client = gateway.user("alice").await;
        client.send_text(text).await;
        let reply = client.next_json().await;
        assert_eq!(reply["type"], "error", "{text}: {reply}");
        assert_eq!(reply["code"], code, "{text}: {reply}");
        assert!(
            reply["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{reply}"
        );
        assert!(client.barrier().await.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn more_errors_of_form_than_allowed_close_with_4400() {
    let settings = Settings::default().with("limits.bad_frames = 2");
    for (settings, allowed) in [(Settings::default(), 3), (settings, 2)] {
        let gateway = Gateway::start_with(&settings).await;
        let mut client = gateway.user("alice").await;
        for n in 0..allowed {
            client.send(json!({"type":"dance","id":n})).await;
            client
                .expect_json(json!({"type":"error","id":n,"code":"unknown_type"}))
                .await;
        }
        // A command that is well-formed but refused does not count towards the limit.
        for _ in 0..10 {
            client
                .send(json!({"type":"unsubscribe","id":"n","channel":"a"}))
                .await;
            client
                .expect_json(json!({"type":"error","id":"n","code":"not_subscribed"}))
                .await;
        }
        client.send(json!({"type":"dance","id":"last"})).await;
        let closing = client.expect_close(4400, "bad_request").await;
        assert_eq!(closing["reconnect"], false);
    }
}

#[tokio::test]
async fn what_is_not_json_closes_with_4400() {
    let gateway = Gateway::start_default().await;
    for frame in [
        OutFrame::text("hello"),
        OutFrame::text(""),
        OutFrame::text("{"),
        OutFrame::text(r#"{"type":"ping"} trailing"#),
        OutFrame::text(r#"{"type":"ping"}{"type":"ping"}"#),
        OutFrame::text(r#"{'type':'ping'}"#),
        OutFrame::text(r#"{"type":"ping",}"#),
        OutFrame::text("\u{feff}{\"type\":\"ping\"}"),
        OutFrame::text("NaN"),
        OutFrame::new(opcode::BINARY, r#"{"type":"ping"}"#),
        OutFrame::new(opcode::BINARY, ""),
    ] {
        let mut client = gateway.user("alice").await;
        client.send_frame(frame.clone()).await;
        let closing = client.expect_close(4400, "bad_request").await;
        assert_eq!(closing["reconnect"], false, "{frame:?}");
    }
}

#[tokio::test]
async fn json_that_is_no_object_is_refused() {
    let gateway = Gateway::start_default().await;
    for text in ["[]", "1", "null", "\"ping\"", r#"[{"type":"ping"}]"#] {
        let mut client = gateway.user("alice").await;
        client.send_text(text).await;
        let reply = client.next_json().await;
        assert!(
            reply["code"] == "bad_request" || reply["code"] == 4400,
            "{text}: {reply}"
        );
    }
}

#[tokio::test]
async fn deep_json_is_refused_and_harms_nobody() {
    let gateway = Gateway::start_default().await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let publish =
        |data: &str| format!(r#"{{"type":"publish","id":1,"channel":"room:1","data":{data}}}"#);
    let mut alice = gateway.user("alice").await;
    alice.send_text(&publish(&nested(20))).await;
    alice.expect_json(json!({"type":"ok","id":1})).await;
    assert!(bob.next_text().await.contains(&nested(20)));
    for text in [
        publish(&nested(200)),
        publish(&nested(20_000)),
        publish(&format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200))),
        nested(200),
        "[".repeat(60_000),
        r#"{"type":"ping","id":"#.to_owned() + &nested(200) + "}",
    ] {
        let mut alice = gateway.user("alice").await;
        alice.send_text(&text).await;
        let reply = alice.next_json().await;
        assert!(
            reply["code"] == "bad_request" || reply["code"] == 4400,
            "{} bytes: {reply}",
            text.len()
        );
    }
    assert!(bob.barrier().await.is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn odd_strings_pass_or_are_refused_but_never_break_a_receiver() {
    let gateway = Gateway::start_default().await;
    for data in [
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\u0000""#,
        &format!("1{}", "0".repeat(60_000)),
    ] {
        let mut bob = gateway.subscriber("bob", "room:1").await;
        let mut alice = gateway.user("alice").await;
        alice
            .send_text(&format!(
                r#"{{"type":"publish","id":1,"channel":"room:1","data":{data}}}"#
            ))
            .await;
        let reply = alice.next_json().await;
        if reply["type"] == "ok" {
            assert!(bob.next_text().await.contains(data));
        } else {
            assert!(
                reply["code"] == "bad_request" || reply["code"] == 4400,
                "{reply}"
            );
            assert!(bob.barrier().await.is_empty());
        }
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007() {
    let gateway = Gateway::start_default().await;
    for bytes in [
        &b"{\"type\":\"ping\",\"id\":\"\xff\"}"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"{\"type\":\"publish\",\"channel\":\"a\",\"data\":\"\xf0\x9f\"}",
    ] {
        let mut client = gateway.user("alice").await;
        client.send_frame(OutFrame::new(opcode::TEXT, bytes)).await;
        assert_eq!(client.closed().await.0, 1007);
    }
    // A fragment of a message may end within a character.
    let mut client = gateway.user("alice").await;
    let text = r#"{"type":"ping","id":"é"}"#.as_bytes();
    let middle = text.iter().position(|byte| *byte >= 0x80).unwrap() + 1;
    client
        .send_frames(&[
            OutFrame::new(opcode::TEXT, &text[..middle]).fin(false),
            OutFrame::new(opcode::CONTINUATION, &text[middle..]),
        ])
        .await;
    client.expect_json(json!({"type":"pong","id":"é"})).await;
}

#[tokio::test]
async fn an_operator_can_close_one_session() {
    let gateway = Gateway::start_default().await;
    let mut other = gateway.user("alice").await;
    let token = Key::default_secret().user("alice");
    let (mut client, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    let session = connected["session"].as_str().unwrap();
    gateway
        .admin_ok("DELETE", &format!("/v1/sessions/{session}"), None)
        .await;
    let closing = client.expect_close(4404, "disconnected").await;
    assert_eq!(closing["reconnect"], true);
    assert!(other.barrier().await.is_empty());
    gateway.session(&token).await;
}
