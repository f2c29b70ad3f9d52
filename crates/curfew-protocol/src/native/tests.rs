use std::borrow::Cow;

use curfew_model::{
    AuthFailure, Channel, Command, DataForm, Disconnect, Epoch, ErrorCode, HistoryRange,
    MAX_OFFSET, Payload, Position, PresenceChange, Present, Publication, StreamEntry,
    SubscribeOptions, Subscribed,
};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

fn decode(text: &str) -> Result<ClientRequest<'_>, DecodeError> {
    let mut message = Message::Text(text);
    let request = Native.decode(&mut message);
    assert!(message.is_empty());
    request
}

fn position(epoch: &str, offset: u64) -> Position {
    let epoch = epoch.parse().unwrap();
    Position { epoch, offset }
}

/// The command in a message, with its id.
fn command_of(text: &str) -> (Option<CommandId>, Command<'_>) {
    match decode(text) {
        Ok(ClientRequest::Command { id, command }) => (id, command),
        other => panic!("{text}: {other:?}"),
    }
}

fn form(text: &str) -> (Option<String>, ErrorCode, String) {
    match decode(text) {
        Err(DecodeError::Form { id, code, message }) => (
            id.map(|id| id.as_json().to_owned()),
            code,
            message.into_owned(),
        ),
        other => panic!("{text} gave {other:?}"),
    }
}

fn replied(id: Option<&str>, reply: &Reply<'_>) -> Option<String> {
    let mut out = BytesMut::new();
    let id = id.map(CommandId::from_json);
    let written = Native.encode_reply(id.as_ref(), reply, &mut out);
    assert_eq!(written, !out.is_empty());
    written.then(|| String::from_utf8(out.to_vec()).unwrap())
}

fn pushed(push: &Push<'_>) -> String {
    let mut out = BytesMut::new();
    assert!(Native.encode_push(push, &mut out));
    String::from_utf8(out.to_vec()).unwrap()
}

fn nested(depth: usize) -> String {
    // `depth` does not count the object of the message itself.
    let (open, close) = ("[".repeat(depth), "]".repeat(depth));
    format!(r#"{{"id":7,"type":"publish","channel":"c","data":{open}{close}}}"#)
}

#[test]
fn every_command_is_read() {
    let text = |text: &'static str| Cow::Borrowed(text);
    for (message, id, command) in [
        (
            r#"{"type":"auth","token":"a.b.c"}"#,
            None,
            Command::Auth {
                token: Some(text("a.b.c")),
                subscriptions: Vec::new(),
            },
        ),
        (
            r#"{"type":"subscribe","id":1,"channel":"room:1"}"#,
            Some("1"),
            Command::Subscribe {
                channel: text("room:1"),
                options: SubscribeOptions {
                    since: None,
                    join_leave: false,
                    ..SubscribeOptions::default()
                },
            },
        ),
        (
            r#"{"type":"subscribe","channel":"c","since":{"offset":41,"epoch":"kdWqZx3a"}}"#,
            None,
            Command::Subscribe {
                channel: text("c"),
                options: SubscribeOptions {
                    since: Some(position("kdWqZx3a", 41)),
                    join_leave: false,
                    ..SubscribeOptions::default()
                },
            },
        ),
        (
            r#"{"type":"subscribe","channel":"c","since":{"epoch":"ä","offset":9007199254740991}}"#,
            None,
            Command::Subscribe {
                channel: text("c"),
                options: SubscribeOptions {
                    since: Some(Position {
                        epoch: Epoch::NONE,
                        offset: MAX_OFFSET,
                    }),
                    join_leave: false,
                    ..SubscribeOptions::default()
                },
            },
        ),
        (
            r#"{"type":"history","channel":"c","since":{"epoch":"kdWqZx3a","offset":0}}"#,
            None,
            Command::History {
                channel: text("c"),
                limit: 100,
                range: HistoryRange::Since(position("kdWqZx3a", 0)),
                epoch: None,
            },
        ),
        (
            r#"{"type":"history","channel":"c","before":44,"limit":0}"#,
            None,
            Command::History {
                channel: text("c"),
                limit: 0,
                range: HistoryRange::Before(44),
                epoch: None,
            },
        ),
        (
            r#"{"type":"history","channel":"c"}"#,
            None,
            Command::History {
                channel: text("c"),
                limit: 100,
                range: HistoryRange::Before(u64::MAX),
                epoch: None,
            },
        ),
        (
            r#"{"type":"publish","channel":"c","data":1,"key":"order-77"}"#,
            None,
            Command::Publish {
                channel: text("c"),
                data: Payload::Json("1"),
                trace: None,
                key: Some(text("order-77")),
            },
        ),
        (
            r#"{"id":"x\n","type":"unsubscribe","channel":"ä"}"#,
            Some(r#""x\n""#),
            Command::Unsubscribe {
                channel: text("ä")
            },
        ),
        (
            r#"{"type":"publish","id":-1.0e+5,"channel":"c","data":null}"#,
            Some("-1.0e+5"),
            Command::Publish {
                channel: text("c"),
                data: Payload::Json("null"),
                trace: None,
                key: None,
            },
        ),
        (
            r#"{"type":"refresh","token":""}"#,
            None,
            Command::Refresh { token: text("") },
        ),
        (" {\t\"type\" :\r\n\"ping\" } ", None, Command::Ping),
        (r#"{"t\u0079pe":"\u0070ing"}"#, None, Command::Ping),
        (
            r#"{"type":"subscribe","channel":"\ud83d\ude00\/\""}"#,
            None,
            Command::Subscribe {
                channel: text("😀/\""),
                options: SubscribeOptions {
                    since: None,
                    join_leave: false,
                    ..SubscribeOptions::default()
                },
            },
        ),
    ] {
        let (read_id, read) = command_of(message);
        assert_eq!(read, command, "{message}");
        assert_eq!(read_id.as_ref().map(CommandId::as_json), id, "{message}");
    }
}

#[test]
fn a_channel_without_escapes_is_not_copied() {
    let message = r#"{"type":"publish","channel":"room:1","data":{}}"#;
    let (_, Command::Publish { channel, .. }) = command_of(message) else {
        panic!("the command is not `publish`");
    };
    assert!(matches!(channel, Cow::Borrowed("room:1")));
}

#[test]
fn data_is_kept_byte_for_byte() {
    for data in [
        "null",
        "1.0e+5",
        "-0",
        "123456789012345678901234567890.10",
        "1e999",
        r#""\ud83d""#,
        r#"["\ud800x","\ud800\ud800\udc00",{"\udc00":"\ud800\n"}]"#,
        r#"{ "b" : 1 ,"a":[ 1.00,true ], "b":2 }"#,
        "\"\\u0041\\/\\ud83d\\ude00 é\"",
        "[1,\n\t2]",
        r#"{"type":"x","id":[]}"#,
    ] {
        let message = format!("{{\"type\":\"publish\",\"channel\":\"c\",\"data\": {data} }}");
        let (_, Command::Publish { data: read, .. }) = command_of(&message) else {
            panic!("the command is not `publish`");
        };
        assert_eq!(read, Payload::Json(data));
        let channel = Channel::parse("c").unwrap();
        let push = Push::Message {
            channel: &channel,
            data: read.as_bytes(),
            from: None,
            position: None,
            sender: None,
            form: DataForm::Plain,
        };
        assert_eq!(
            pushed(&push),
            format!(r#"{{"type":"message","channel":"c","data":{data}}}"#)
        );
    }
}

#[test]
fn what_is_not_json_is_not_the_protocol() {
    for message in [
        "",
        " ",
        "hello",
        "{",
        "{}x",
        "{} {}",
        r#"{"type":"ping"},"#,
        r#"{"type":"ping",}"#,
        r#"{"type":ping}"#,
        r#"{'type':"ping"}"#,
        r#"{"type" "ping"}"#,
        "{1:2}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "0x1",
        "NaN",
        "nul",
        "truex",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\\u12\"",
        "\"",
        "\u{feff}{}",
        "{\"a\":\"\0\"}",
        "{\"a\":1\u{a0}}",
        "/**/{}",
    ] {
        let expect = Err(DecodeError::NotTheProtocol {
            message: "the message is not JSON",
        });
        assert_eq!(decode(message), expect, "{message:?}");
    }
    assert!(matches!(
        Native.decode(&mut Message::Binary(b"{\"type\":\"ping\"}")),
        Err(DecodeError::NotTheProtocol { .. })
    ));
}

#[test]
fn errors_of_form_name_what_is_wrong_and_keep_the_id() {
    let long_id = "1".repeat(65);
    let long_id_message = format!(r#"{{"type":"ping","id":{long_id}}}"#);
    for (message, id, expect) in [
        ("[]", None, "one JSON object"),
        ("null", None, "one JSON object"),
        ("\"{}\"", None, "one JSON object"),
        ("{}", None, "`type` is missing"),
        (r#"{"id":1}"#, Some("1"), "`type` is missing"),
        (r#"{"type":1,"id":1}"#, Some("1"), "`type` must be a string"),
        (r#"{"type":null}"#, None, "`type` must be a string"),
        (
            r#"{"type":"ping","id":1,"x":{}}"#,
            Some("1"),
            "unknown member `x`",
        ),
        (
            r#"{"x":1,"type":"ping","id":"a"}"#,
            Some("\"a\""),
            "unknown member `x`",
        ),
        (
            r#"{"type":"ping","token":"t","id":3}"#,
            Some("3"),
            "unknown member `token` of ping",
        ),
        (
            r#"{"type":"subscribe","channel":"c","data":1}"#,
            None,
            "unknown member `data` of subscribe",
        ),
        (
            r#"{"type":"auth","token":"t","channel":"c"}"#,
            None,
            "unknown member `channel` of auth",
        ),
        (
            r#"{"type":"publish","channel":"c","id":2}"#,
            Some("2"),
            "`data` is missing",
        ),
        (
            r#"{"type":"publish","data":1}"#,
            None,
            "`channel` is missing",
        ),
        (r#"{"type":"subscribe"}"#, None, "`channel` is missing"),
        (r#"{"type":"refresh"}"#, None, "`token` is missing"),
        (
            r#"{"type":"refresh","token":null}"#,
            None,
            "`token` must be a string",
        ),
        (
            r#"{"type":"subscribe","channel":["c"]}"#,
            None,
            "`channel` must be a string",
        ),
        (
            r#"{"type":"ping","type":"ping","id":4}"#,
            Some("4"),
            "`type` is repeated",
        ),
        (r#"{"type":"ping","id":4,"id":5}"#, None, "`id` is repeated"),
        (
            r#"{"type":"publish","channel":"c","data":1,"d\u0061ta":2}"#,
            None,
            "`data` is repeated",
        ),
        (r#"{"type":"ping","id":null}"#, None, "`id` must be"),
        (r#"{"type":"ping","id":true}"#, None, "`id` must be"),
        (r#"{"type":"ping","id":[1]}"#, None, "`id` must be"),
        (long_id_message.as_str(), None, "`id` must be"),
        (r#"{"type":"ping","id":"\ud800"}"#, None, "surrogate"),
        (
            r#"{"type":"subscribe","id":1,"channel":"\udc00"}"#,
            Some("1"),
            "surrogate",
        ),
        (r#"{"type":"\ud800","id":1}"#, Some("1"), "surrogate"),
        (
            r#"{"type":"ping","id":1,"\ud800":1}"#,
            Some("1"),
            "surrogate",
        ),
    ] {
        let (found_id, code, text) = form(message);
        assert_eq!(code, ErrorCode::BadRequest, "{message}");
        assert!(text.contains(expect), "{message} gave {text}");
        assert_eq!(found_id.as_deref(), id, "{message}");
    }
}

#[test]
fn an_id_is_measured_by_its_content() {
    let quotes = "\\\"".repeat(MAX_ID_BYTES);
    let unicode = "\\u0041".repeat(MAX_ID_BYTES);
    for content in ["x".repeat(MAX_ID_BYTES), quotes, unicode] {
        let id = format!("\"{content}\"");
        let message = format!(r#"{{"type":"ping","id":{id}}}"#);
        assert_eq!(command_of(&message).0.unwrap().as_json(), id);
        let message = format!(r#"{{"type":"ping","id":"x{content}"}}"#);
        assert!(form(&message).2.contains("64 bytes"), "{message}");
    }
}

#[test]
fn an_unknown_type_is_told_apart() {
    for message in [
        r#"{"type":"histories","id":9}"#,
        r#"{"type":"","id":9}"#,
        r#"{"type":"Ping","id":9,"x":1}"#,
        r#"{"id":9,"type":"connected","session":"s"}"#,
    ] {
        let (id, code, text) = form(message);
        assert_eq!((id.as_deref(), code), (Some("9"), ErrorCode::UnknownType));
        assert!(text.contains("subscribe"), "{text}");
    }
}

#[test]
fn a_long_unknown_member_is_not_repeated_in_full() {
    let message = format!(r#"{{"type":"ping","{}":1}}"#, "é".repeat(10_000));
    assert!(form(&message).2.chars().count() < 100);
}

#[test]
fn depth_is_bounded() {
    assert!(decode(&nested(MAX_DEPTH)).is_ok());
    for depth in [MAX_DEPTH + 1, 200, 30_000] {
        let (id, code, text) = form(&nested(depth));
        assert_eq!((id.as_deref(), code), (Some("7"), ErrorCode::BadRequest));
        assert!(text.contains("deeper than 32"), "{text}");
    }
    assert_eq!(form(&"[".repeat(60_000)).1, ErrorCode::BadRequest);
}

#[test]
fn replies_are_written_as_the_contract_shows() {
    let session = "01980000-0000-7000-8000-000000000000".parse().unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = curfew_model::TraceContext::parse(trace).map(|trace| trace.trace());
    let error = Reply::Error {
        code: ErrorCode::Forbidden,
        message: "no rule allows publish on room:1".into(),
        trace: None,
    };
    for (id, reply, expect) in [
        (
            Some("1"),
            &Reply::Subscribed(Subscribed {
                position: None,
                recovered: None,
                ..Subscribed::default()
            }),
            Some(r#"{"type":"ok","id":1}"#),
        ),
        (
            Some("2"),
            &Reply::Unsubscribed,
            Some(r#"{"type":"ok","id":2}"#),
        ),
        (
            Some("3"),
            &Reply::Published { position: None },
            Some(r#"{"type":"ok","id":3}"#),
        ),
        (
            None,
            &Reply::Subscribed(Subscribed {
                position: None,
                recovered: None,
                ..Subscribed::default()
            }),
            None,
        ),
        (None, &Reply::Unsubscribed, None),
        (None, &Reply::Published { position: None }, None),
        (
            Some("1"),
            &Reply::Connected {
                session,
                user: "alice",
                expires_at: 1_764_000_000,
                ping_interval: 25,
                renew_in: Some(60),
                subscriptions: &[],
                commands_by: None,
            },
            Some(
                r#"{"type":"connected","session":"01980000-0000-7000-8000-000000000000","user":"alice","expires_at":1764000000,"ping_interval":25}"#,
            ),
        ),
        (
            Some("1"),
            &Reply::AuthFailed {
                reason: AuthFailure::Expired,
                message: "the token has expired",
                trace,
            },
            Some(
                r#"{"type":"auth_failed","reason":"expired","message":"the token has expired","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
            ),
        ),
        (
            Some("1"),
            &error,
            Some(
                r#"{"type":"error","id":1,"code":"forbidden","message":"no rule allows publish on room:1"}"#,
            ),
        ),
        (
            None,
            &error,
            Some(
                r#"{"type":"error","code":"forbidden","message":"no rule allows publish on room:1"}"#,
            ),
        ),
        (
            Some("4"),
            &Reply::Refreshed {
                expires_at: 1_764_003_600,
                renew_in: Some(60),
            },
            Some(r#"{"type":"refreshed","id":4,"expires_at":1764003600}"#),
        ),
        (
            None,
            &Reply::Refreshed {
                expires_at: 1,
                renew_in: Some(60),
            },
            Some(r#"{"type":"refreshed","expires_at":1}"#),
        ),
        (None, &Reply::Pong, Some(r#"{"type":"pong"}"#)),
        (
            Some("\"a\""),
            &Reply::Pong,
            Some(r#"{"type":"pong","id":"a"}"#),
        ),
    ] {
        assert_eq!(replied(id, reply).as_deref(), expect);
    }
}

#[test]
fn replies_about_streams_are_written_as_specified() {
    let entry = |offset| StreamEntry {
        position: position("kdWqZx3a", offset),
        at: 1_764_000_000_123,
    };
    let publication = |offset, from: Option<&str>| Publication {
        channel: Channel::parse("room:1").unwrap(),
        data: "{ }".into(),
        from: from.map(Into::into),
        sender: None,
        is_binary: false,
        entry: Some(entry(offset)),
        trace: None,
    };
    let publications = [publication(43, Some("eve")), publication(42, None)];
    for (reply, expect) in [
        (
            Reply::Subscribed(Subscribed {
                position: Some(position("kdWqZx3a", 43)),
                recovered: Some(true),
                ..Subscribed::default()
            }),
            r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":43,"recovered":true}"#,
        ),
        (
            Reply::Subscribed(Subscribed {
                position: None,
                recovered: Some(false),
                ..Subscribed::default()
            }),
            r#"{"type":"ok","id":1,"recovered":false}"#,
        ),
        (
            Reply::Published {
                position: Some(position("kdWqZx3a", 45)),
            },
            r#"{"type":"ok","id":1,"offset":45}"#,
        ),
        (
            Reply::History {
                position: position("kdWqZx3a", 44),
                publications: &publications,
                truncated: false,
            },
            r#"{"type":"history","id":1,"epoch":"kdWqZx3a","offset":44,"publications":[{"offset":43,"data":{ },"from":"eve","at":1764000000123},{"offset":42,"data":{ },"at":1764000000123}]}"#,
        ),
        (
            Reply::History {
                position: position("kdWqZx3a", 0),
                publications: &[],
                truncated: true,
            },
            r#"{"type":"history","id":1,"epoch":"kdWqZx3a","offset":0,"publications":[],"truncated":true}"#,
        ),
    ] {
        assert_eq!(replied(Some("1"), &reply).as_deref(), Some(expect));
    }
}

fn present() -> Present {
    Present {
        session: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        user: "b\"b".into(),
        info: Some(r#"{"a":[1.0e5]}"#.into()),
        // Other protocols send this member, but the native protocol does not.
        channel_info: Some("7".into()),
    }
}

#[test]
fn presence_is_listed_and_asked_for() {
    let sessions = [present()];
    let reply = Reply::Presence {
        sessions: &sessions,
        users: 7,
        truncated: true,
    };
    let expect = r#"{"type":"presence","id":1,"sessions":[{"session":"01890a5d-ac96-774b-bcce-b302099a8057","user":"b\"b","info":{"a":[1.0e5]}}],"users":7,"truncated":true}"#;
    assert_eq!(replied(Some("1"), &reply).as_deref(), Some(expect));
    for (value, expect) in [("true", true), ("false", false)] {
        let message = format!(r#"{{"type":"subscribe","channel":"c","join_leave":{value}}}"#);
        let Ok(ClientRequest::Command { command, .. }) = decode(&message) else {
            panic!("{message}");
        };
        let subscribe = Command::Subscribe {
            channel: "c".into(),
            options: SubscribeOptions {
                since: None,
                join_leave: expect,
                ..SubscribeOptions::default()
            },
        };
        assert_eq!(command, subscribe);
    }
    assert!(
        form(r#"{"type":"subscribe","channel":"c","join_leave":1}"#)
            .2
            .contains("`join_leave`")
    );
    assert!(
        form(r#"{"type":"presence","channel":"c","join_leave":true}"#)
            .2
            .contains("`join_leave`")
    );
}

#[test]
fn positions_limits_and_keys_are_checked() {
    let (long, longest) = ("k".repeat(65), "k".repeat(64));
    let key = |key: &str| format!(r#"{{"type":"publish","channel":"c","data":1,"key":"{key}"}}"#);
    assert!(decode(&key(&longest)).is_ok());
    assert!(form(&key(&long)).2.contains("`key`"));
    assert!(form(&key("")).2.contains("`key`"));
    for since in [
        "1",
        "null",
        "[]",
        "{}",
        r#"{"epoch":"kdWqZx3a"}"#,
        r#"{"offset":1}"#,
        r#"{"epoch":"kdWqZx3a","offset":-1}"#,
        r#"{"epoch":"kdWqZx3a","offset":1.0}"#,
        r#"{"epoch":"kdWqZx3a","offset":9007199254740992}"#,
        r#"{"epoch":"kdWqZx3a","offset":"1"}"#,
        r#"{"epoch":1,"offset":1}"#,
        r#"{"epoch":"kdWqZx3a","offset":1,"x":1}"#,
        r#"{"epoch":"kdWqZx3a","offset":1,"offset":1}"#,
    ] {
        let message = format!(r#"{{"type":"subscribe","id":1,"channel":"c","since":{since}}}"#);
        let (id, code, text) = form(&message);
        assert_eq!((id.as_deref(), code), (Some("1"), ErrorCode::BadRequest));
        assert!(text.contains("`since`"), "{since} gave {text}");
    }
    for (member, value) in [("limit", "-1"), ("limit", "1e2"), ("before", r#""1""#)] {
        let message = format!(r#"{{"type":"history","channel":"c","{member}":{value}}}"#);
        assert!(form(&message).2.contains(member), "{message}");
    }
    let both = r#"{"type":"history","channel":"c","before":1,"since":{"epoch":"a","offset":1}}"#;
    assert!(form(both).2.contains("not both"));
}

#[test]
fn pushes_are_written_as_the_contract_shows() {
    let channel = Channel::parse("room:1").unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = curfew_model::TraceContext::parse(trace).map(|trace| trace.trace());
    for (push, expect) in [
        (
            Push::Message {
                channel: &channel,
                data: b"{ \"a\": 1.0 }",
                from: Some("alice"),
                position: None,
                sender: None,
                form: DataForm::Plain,
            },
            r#"{"type":"message","channel":"room:1","data":{ "a": 1.0 },"from":"alice"}"#,
        ),
        (
            Push::Message {
                channel: &channel,
                data: b"1",
                from: Some("bob"),
                position: Some(position("kdWqZx3a", 42)),
                sender: None,
                form: DataForm::Plain,
            },
            r#"{"type":"message","channel":"room:1","data":1,"from":"bob","offset":42}"#,
        ),
        (
            Push::Gap {
                channel: &channel,
                position: Some(position("kdWqZx3a", 90)),
            },
            r#"{"type":"gap","channel":"room:1","epoch":"kdWqZx3a","offset":90}"#,
        ),
        (
            Push::Message {
                channel: &channel,
                data: b"1",
                from: None,
                position: None,
                sender: None,
                form: DataForm::Plain,
            },
            r#"{"type":"message","channel":"room:1","data":1}"#,
        ),
        (
            Push::Gap {
                channel: &channel,
                position: None,
            },
            r#"{"type":"gap","channel":"room:1"}"#,
        ),
        (
            Push::Presence {
                channel: &channel,
                change: PresenceChange::Join,
                present: &present(),
            },
            r#"{"type":"join","channel":"room:1","session":"01890a5d-ac96-774b-bcce-b302099a8057","user":"b\"b","info":{"a":[1.0e5]}}"#,
        ),
        (
            Push::Presence {
                channel: &channel,
                change: PresenceChange::Leave,
                present: &Present {
                    info: None,
                    ..present()
                },
            },
            r#"{"type":"leave","channel":"room:1","session":"01890a5d-ac96-774b-bcce-b302099a8057","user":"b\"b"}"#,
        ),
        (
            Push::Expiring { expires_at: 5 },
            r#"{"type":"expiring","expires_at":5}"#,
        ),
        (
            Push::Unsubscribed {
                channel: &channel,
                reason: ErrorCode::Forbidden,
            },
            r#"{"type":"unsubscribed","channel":"room:1","reason":"forbidden"}"#,
        ),
        (
            Push::Closing {
                disconnect: Disconnect::EXPIRED,
                retry_after_ms: Some(1200),
                trace: None,
            },
            r#"{"type":"closing","code":4410,"reason":"expired","message":"the token has expired","reconnect":true,"retry_after_ms":1200}"#,
        ),
        (
            Push::Closing {
                disconnect: Disconnect::REVOKED,
                retry_after_ms: None,
                trace,
            },
            r#"{"type":"closing","code":4403,"reason":"revoked","message":"access was revoked","reconnect":false,"trace":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
        ),
    ] {
        assert_eq!(pushed(&push), expect);
        let is_of = matches!(
            push,
            Push::Message { .. } | Push::Gap { .. } | Push::Presence { .. }
        );
        assert_eq!(Native.is_of(expect.as_bytes(), &channel), is_of, "{expect}");
    }
}

#[test]
fn a_push_is_recognized_by_its_whole_channel_alone() {
    let names = [r#"a"b"#, r"a\b", "a", "ab", r#"a""#, r#"a","data":1"#, "ä"];
    let channels = names.map(|name| Channel::parse(name).unwrap());
    for of in &channels {
        let gap = pushed(&Push::Gap {
            channel: of,
            position: None,
        });
        for other in &channels {
            let is_of = Native.is_of(gap.as_bytes(), other);
            assert_eq!(is_of, of == other, "{gap} {other}");
        }
    }
    let named = r#"{"type":"ok","id":1,"channel":"a"}"#;
    assert!(!Native.is_of(named.as_bytes(), &channels[2]));
}

#[test]
fn encoding_appends() {
    let mut out = BytesMut::from(&b"before"[..]);
    Native.encode_push(&Push::Expiring { expires_at: 1 }, &mut out);
    Native.encode_reply(None, &Reply::Pong, &mut out);
    assert_eq!(
        &out[..],
        br#"before{"type":"expiring","expires_at":1}{"type":"pong"}"#
    );
}

/// Texts that are JSON, almost JSON or not JSON, composed mostly of the protocol's own elements.
fn messages() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u",
            "d800",
            "\\udc00",
            "\\n",
            "\"type\"",
            "\"id\"",
            "\"channel\"",
            "\"data\"",
            "\"token\"",
            "\"publish\"",
            "\"ping\"",
            "null",
            "true",
            "0",
            "1",
            "-",
            ".",
            "e5",
            " ",
            "\n",
            "\u{1}",
            "é",
            "\"type\":\"ping\"",
            "\"id\":1",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn decoding_never_panics_and_agrees_with_serde_on_what_json_is(text in messages()) {
        let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
        let not_json = matches!(decode(&text), Err(DecodeError::NotTheProtocol { .. }));
        prop_assert_eq!(not_json, !is_json);
    }

    #[test]
    fn decoding_never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let text = String::from_utf8_lossy(&bytes);
        drop(decode(&text));
        drop(Native.decode(&mut Message::Binary(&bytes)));
    }

    #[test]
    fn strings_survive_encoding(user in any::<String>(), control in "[\u{0}-\u{7f}\u{2028}\"\\\\]*") {
        for text in [user, control] {
            let reply = Reply::Error { code: ErrorCode::BadRequest, message: text.as_str().into(), trace: None };
            let value: Value = serde_json::from_str(&replied(None, &reply).unwrap()).unwrap();
            prop_assert_eq!(value["message"].as_str(), Some(text.as_str()));
        }
    }

    #[test]
    fn publications_pass_through(channel in any::<String>(), data in any::<String>()) {
        let data = serde_json::to_string(&[&data]).unwrap();
        let message = format!(
            r#"{{"type":"publish","channel":{},"data":{data}}}"#,
            serde_json::to_string(&channel).unwrap()
        );
        let (_, command) = command_of(&message);
        prop_assert_eq!(command, Command::Publish { channel: channel.into(), data: Payload::Json(&data), trace: None, key: None });
    }
}
