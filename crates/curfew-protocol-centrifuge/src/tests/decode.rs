use super::*;

mod agree;
mod refused;

const SUBSCRIBE_VECTOR: &str = "1408022a100a046e6577731801320478797a7a3803";
const CONNECT_VECTOR: &str = "0b080122070a015422026a73";

fn text(text: &str) -> Result<Vec<ClientRequest<'_>>, DecodeError> {
    decoded(JSON, Message::Text(text))
}

/// Checks that a message in JSON and the same message in Protobuf are both decoded to `expect`.
fn both(json: &str, wire: &wire::Command, expect: &Command<'_>) {
    let bytes = wire.encode_length_delimited_to_vec();
    let binary = decoded(PROTOBUF, Message::Binary(&bytes)).unwrap();
    for requests in [text(json).unwrap(), binary] {
        let [ClientRequest::Command { command, .. }] = &requests[..] else {
            panic!("{json}: {requests:?}");
        };
        assert_eq!(
            in_bytes(command.clone()),
            in_bytes(expect.clone()),
            "{json}"
        );
    }
}

/// A command with its payload as bytes, as Protobuf has it.
fn in_bytes(command: Command<'_>) -> Command<'_> {
    match command {
        Command::Publish {
            channel,
            data: Payload::Json(data),
            trace,
            key,
        } => Command::Publish {
            channel,
            data: Payload::Bytes(data.as_bytes().into()),
            trace,
            key,
        },
        command => command,
    }
}

fn form(text: &str) -> (Option<CommandId>, ErrorCode) {
    match self::text(text) {
        Err(DecodeError::Form { id, code, message }) => {
            assert!(!message.is_empty());
            (id, code)
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn is_refused(text: &str) -> bool {
    matches!(self::text(text), Err(DecodeError::NotTheProtocol { .. }))
}

fn batch() -> Vec<ClientRequest<'static>> {
    let auth = Command::Auth {
        token: Some("T".into()),
        subscriptions: Vec::new(),
    };
    let since = Position {
        // Four letters are not a valid epoch.
        epoch: Epoch::NONE,
        offset: 3,
    };
    let subscribe = Command::Subscribe {
        channel: "news".into(),
        options: SubscribeOptions {
            since: Some(since),
            ..SubscribeOptions::default()
        },
    };
    vec![command(1, auth), command(2, subscribe)]
}

#[test]
fn vectors_are_decoded_one_command_after_the_other() {
    let json = "{\"id\":1,\"connect\":{\"token\":\"T\",\"name\":\"js\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\",\"recover\":true,\"epoch\":\"xyzz\",\"offset\":3}}";
    let with_end = format!("{json}\n");
    let binary = hex(&format!("{CONNECT_VECTOR}{SUBSCRIBE_VECTOR}"));
    // Text and binary messages are decoded alike.
    for message in [
        Message::Text(json),
        Message::Text(&with_end),
        Message::Binary(json.as_bytes()),
        Message::Binary(with_end.as_bytes()),
    ] {
        assert_eq!(decoded(JSON, message), Ok(batch()));
    }
    assert_eq!(decoded(PROTOBUF, Message::Binary(&binary)), Ok(batch()));
    let as_text = std::str::from_utf8(&binary).unwrap();
    assert_eq!(decoded(PROTOBUF, Message::Text(as_text)), Ok(batch()));
    let mut message = Message::Binary(&binary);
    PROTOBUF.decode(&mut message).unwrap();
    assert_eq!(message, Message::Binary(&hex(SUBSCRIBE_VECTOR)));
}

#[test]
fn the_vectors_are_what_another_implementation_writes() {
    let connect = wire::Command {
        id: 1,
        connect: Some(wire::ConnectRequest {
            token: "T".to_owned(),
            name: "js".to_owned(),
            ..wire::ConnectRequest::default()
        }),
        ..wire::Command::default()
    };
    let subscribe = wire::Command {
        id: 2,
        subscribe: Some(wire::SubscribeRequest {
            channel: "news".to_owned(),
            recover: true,
            epoch: "xyzz".to_owned(),
            offset: 3,
            ..wire::SubscribeRequest::default()
        }),
        ..wire::Command::default()
    };
    let written = |command: wire::Command| command.encode_length_delimited_to_vec();
    assert_eq!(written(connect), hex(CONNECT_VECTOR));
    assert_eq!(written(subscribe), hex(SUBSCRIBE_VECTOR));
}

#[test]
fn a_message_without_an_id_and_send_is_a_pong() {
    for pong in [
        "{}",
        "{}\n",
        " {\"id\":0} ",
        r#"{"id":0,"x":1}"#,
        r#"{"connect":{}}"#,
    ] {
        assert_eq!(text(pong), Ok(vec![ClientRequest::Pong]), "{pong}");
    }
    let pong = decoded(PROTOBUF, Message::Binary(b"\0"));
    assert_eq!(pong, Ok(vec![ClientRequest::Pong]));
    let pongs = decoded(PROTOBUF, Message::Binary(b"\0\x02\x08\0"));
    assert_eq!(pongs, Ok(vec![ClientRequest::Pong, ClientRequest::Pong]));
}

#[test]
fn every_request_is_a_command() {
    let wire = || wire::Command {
        id: 7,
        ..wire::Command::default()
    };
    let channel = || {
        Some(wire::ChannelRequest {
            channel: "c".to_owned(),
        })
    };
    both(
        r#"{"id":7,"unsubscribe":{"channel":"c"}}"#,
        &wire::Command {
            unsubscribe: channel(),
            ..wire()
        },
        &Command::Unsubscribe {
            channel: "c".into(),
        },
    );
    for (name, is_count) in [("presence", false), ("presence_stats", true)] {
        both(
            &format!(r#"{{"id":7,"{name}":{{"channel":"c"}}}}"#),
            &wire::Command {
                presence: channel().filter(|_| !is_count),
                presence_stats: channel().filter(|_| is_count),
                ..wire()
            },
            &Command::Presence {
                channel: "c".into(),
                is_count,
            },
        );
    }
    both(
        r#"{"id":7,"publish":{"channel":"c","data":{ "a": [1.0] }}}"#,
        &wire::Command {
            publish: Some(wire::PublishRequest {
                channel: "c".to_owned(),
                data: br#"{ "a": [1.0] }"#.to_vec(),
                ..wire::PublishRequest::default()
            }),
            ..wire()
        },
        &Command::Publish {
            channel: "c".into(),
            data: Payload::Json(r#"{ "a": [1.0] }"#),
            trace: None,
            key: None,
        },
    );
    both(
        r#"{"id":7,"refresh":{"token":"T"}}"#,
        &wire::Command {
            refresh: Some(wire::RefreshRequest {
                token: "T".to_owned(),
            }),
            ..wire()
        },
        &Command::Refresh { token: "T".into() },
    );
    // Old clients name the channel only in the token.
    both(
        r#"{"id":7,"sub_refresh":{"token":"T"}}"#,
        &wire::Command {
            sub_refresh: Some(wire::SubRefreshRequest {
                token: "T".to_owned(),
                ..wire::SubRefreshRequest::default()
            }),
            ..wire()
        },
        &Command::RefreshSubscription {
            channel: "".into(),
            token: "T".into(),
        },
    );
    for name in ["rpc", "send", "ping"] {
        let empty = |of| (name == of).then_some(wire::Empty {});
        let wire = wire::Command {
            rpc: empty("rpc"),
            send: empty("send"),
            ping: empty("ping"),
            ..wire()
        };
        let command = match name {
            "rpc" => Command::Call,
            "send" => Command::Send,
            _ => Command::Ping,
        };
        both(
            &format!(r#"{{"id":7,"{name}":{{"data":1}}}}"#),
            &wire,
            &command,
        );
    }
    let send = ClientRequest::Command {
        id: None,
        command: Command::Send,
    };
    assert_eq!(text(r#"{"send":{"data":1}}"#), Ok(vec![send]));
}

#[test]
fn connect_has_a_token_and_subscriptions() {
    let news = wire::SubscribeRequest {
        recover: true,
        epoch: EPOCH.to_owned(),
        offset: 9,
        ..wire::SubscribeRequest::default()
    };
    both(
        r#"{"id":1,"connect":{"data":{"a":1},"headers":{"x":"y"},"version":"5","subs":{"news":{"recover":true,"epoch":"kdWqZx3a","offset":9}}}}"#,
        &wire::Command {
            id: 1,
            connect: Some(wire::ConnectRequest {
                data: b"not JSON".to_vec(),
                headers: [("x".to_owned(), "y".to_owned())].into(),
                subs: [("news".to_owned(), news)].into(),
                ..wire::ConnectRequest::default()
            }),
            ..wire::Command::default()
        },
        &Command::Auth {
            token: None,
            subscriptions: vec![(
                "news".into(),
                SubscribeOptions {
                    since: Some(position(9)),
                    ..SubscribeOptions::default()
                },
            )],
        },
    );
    assert!(is_refused(
        r#"{"id":1,"connect":{"subs":{"c":{"delta":"x"}}}}"#
    ));
}

#[test]
fn a_subscriber_has_wishes() {
    let subscribe = |members: &str| {
        let message = format!(r#"{{"id":1,"subscribe":{{"channel":"c",{members}}}}}"#);
        let mut requests = text(&message).unwrap();
        let ClientRequest::Command {
            command: Command::Subscribe { options, .. },
            ..
        } = requests.remove(0)
        else {
            panic!("{message}");
        };
        let token = options.token.map(|token| token.into_owned());
        let token = token.map(Into::into);
        SubscribeOptions { token, ..options }
    };
    let none = SubscribeOptions::default;
    let any = Position {
        epoch: Epoch::ANY,
        offset: 0,
    };
    let other = Position {
        epoch: Epoch::NONE,
        offset: MAX_OFFSET,
    };
    let since = |since| SubscribeOptions {
        since: Some(since),
        ..none()
    };
    for (members, expect) in [
        (r#""offset":3,"epoch":"x""#, none()),
        (r#""recover":true"#, since(any)),
        (
            r#""recover":true,"epoch":"_","offset":18446744073709551615"#,
            since(other),
        ),
        (
            r#""recover":true,"epoch":"kdWqZx3a","offset":4,"flag":3"#,
            SubscribeOptions {
                must_recover: true,
                ..since(position(4))
            },
        ),
        (
            r#""join_leave":true,"delta":"fossil","token":"T","flag":1,"tf":null,"type":0"#,
            SubscribeOptions {
                join_leave: true,
                delta: true,
                token: Some("T".into()),
                ..none()
            },
        ),
        (
            r#""positioned":true,"recoverable":true,"delta":"","token":"","data":[]"#,
            none(),
        ),
    ] {
        let options = subscribe(members);
        assert!(options == expect, "{members}: {options:?}");
    }
}

#[test]
fn history_is_read_in_both_directions() {
    let history = |members: &str| {
        let message = format!(r#"{{"id":1,"history":{{"channel":"c"{members}}}}}"#);
        let requests = text(&message).unwrap();
        let [
            ClientRequest::Command {
                command:
                    Command::History {
                        limit,
                        range,
                        epoch,
                        ..
                    },
                ..
            },
        ] = requests[..]
        else {
            panic!("{message}");
        };
        (limit, range, epoch)
    };
    let epoch = Some(position(0).epoch);
    let any = Position {
        epoch: Epoch::ANY,
        offset: 5,
    };
    for (members, expect) in [
        ("", (0, HistoryRange::ALL, None)),
        (r#","limit":10"#, (10, HistoryRange::ALL, None)),
        (r#","limit":-1"#, (300, HistoryRange::ALL, None)),
        (r#","limit":301"#, (300, HistoryRange::ALL, None)),
        (
            r#","since":{"offset":5,"epoch":"kdWqZx3a"}"#,
            (0, HistoryRange::Since(position(5)), epoch),
        ),
        (
            r#","since":{"offset":5}"#,
            (0, HistoryRange::Since(any), None),
        ),
        (r#","since":{}"#, (0, HistoryRange::ALL, None)),
        (
            r#","since":{"offset":5,"epoch":"?"},"reverse":true"#,
            (0, HistoryRange::Before(5), Some(Epoch::NONE)),
        ),
        (
            r#","reverse":true"#,
            (0, HistoryRange::Before(u64::MAX), None),
        ),
    ] {
        assert_eq!(history(members), expect, "{members}");
    }
    let nothing = r#"{"id":1,"history":{"channel":"c","reverse":true,"since":{"epoch":"x"}}}"#;
    assert_eq!(form(nothing).1, ErrorCode::BadRequest);
}

#[test]
fn the_first_request_in_the_order_of_precedence_counts() {
    for (message, expect) in [
        (
            r#"{"ping":{},"sub_refresh":{},"rpc":{},"id":1,"unsubscribe":{"channel":"c"}}"#,
            "unsubscribe",
        ),
        (r#"{"id":1,"ping":{},"send":{},"rpc":{}}"#, "rpc"),
        (r#"{"id":1,"ping":{},"refresh":{},"send":{}}"#, "send"),
        (r#"{"id":1,"ping":{},"rpc":null}"#, "ping"),
    ] {
        let [ClientRequest::Command { command, .. }] = &text(message).unwrap()[..] else {
            panic!("{message}");
        };
        assert_eq!(command.name(), expect, "{message}");
    }
}
