use super::*;

fn session() -> SessionId {
    SESSION.parse().unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn alice() -> Present {
    Present {
        session: session(),
        user: "alice".into(),
        info: None,
    }
}

fn alice_info() -> Option<wire::ClientInfo> {
    Some(wire::ClientInfo {
        user: "alice".to_owned(),
        client: SESSION.to_owned(),
        conn_info: Vec::new(),
    })
}

fn publication(data: &'static str, offset: u64, sender: Option<Present>) -> Publication {
    Publication {
        channel: channel("news"),
        data: data.into(),
        from: None,
        sender: sender.map(Arc::new),
        entry: Some(StreamEntry {
            position: position(offset),
            at: 1,
        }),
        trace: None,
    }
}

fn wire_publication(data: &str, offset: u64) -> wire::Publication {
    wire::Publication {
        data: data.into(),
        offset,
        ..wire::Publication::default()
    }
}

fn replied(protocol: Centrifuge, id: u64, reply: &Reply<'_>) -> Option<Vec<u8>> {
    let mut out = BytesMut::from("before");
    let written = protocol.encode_reply(Some(&CommandId::from_number(id)), reply, &mut out);
    assert_eq!(written, out.len() > 6);
    assert_eq!(&out[..6], b"before");
    written.then(|| out[6..].to_vec())
}

fn pushed(protocol: Centrifuge, push: &Push<'_>) -> Option<Vec<u8>> {
    let mut out = BytesMut::from("before");
    let written = protocol.encode_push(push, &mut out);
    assert_eq!(written, out.len() > 6);
    written.then(|| out[6..].to_vec())
}

fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap();
    serde_json::from_str::<Value>(&text).unwrap();
    assert!(!text.contains('\n'), "{text}");
    text
}

/// Checks a reply in both encodings.
fn reply(reply: &Reply<'_>, json: &str, wire: wire::Reply) {
    assert_eq!(text(replied(JSON, 2, reply).unwrap()), json);
    let wire = wire::Reply { id: 2, ..wire };
    let bytes = replied(PROTOBUF, 2, reply).unwrap();
    assert_eq!(
        wire::Reply::decode_length_delimited(&bytes[..]).unwrap(),
        wire
    );
    assert_eq!(bytes, wire.encode_length_delimited_to_vec(), "{json}");
}

/// Checks a push in both encodings.
fn push(push: &Push<'_>, json: &str, wire: wire::Push) {
    push_over(Over::WebSocket, push, json, wire);
}

fn push_over(transport: Over, push: &Push<'_>, json: &str, wire: wire::Push) {
    let over = |protocol| Centrifuge {
        transport,
        ..protocol
    };
    assert_eq!(text(pushed(over(JSON), push).unwrap()), json);
    let wire = wire::Reply {
        push: Some(wire),
        ..wire::Reply::default()
    };
    let bytes = pushed(over(PROTOBUF), push).unwrap();
    assert_eq!(
        wire::Reply::decode_length_delimited(&bytes[..]).unwrap(),
        wire
    );
    assert_eq!(bytes, wire.encode_length_delimited_to_vec(), "{json}");
}

#[test]
fn the_other_implementation_writes_the_vectors() {
    let connect = wire::Reply {
        id: 1,
        connect: Some(wire::ConnectResult {
            client: "0198".to_owned(),
            version: "Curfew".to_owned(),
            expires: true,
            ttl: 240,
            ping: 25,
            pong: true,
            ..wire::ConnectResult::default()
        }),
        ..wire::Reply::default()
    };
    let subscribe = wire::Reply {
        id: 2,
        subscribe: Some(wire::SubscribeResult {
            recoverable: true,
            epoch: "xyzz".to_owned(),
            publications: vec![wire_publication(r#"{"n":4}"#, 4)],
            recovered: true,
            offset: 3,
            positioned: true,
            was_recovering: true,
            ..wire::SubscribeResult::default()
        }),
        ..wire::Reply::default()
    };
    let publication = wire::Reply {
        push: Some(wire::Push {
            channel: "news".to_owned(),
            publication: Some(wire::Publication {
                info: Some(wire::ClientInfo {
                    user: "alice".to_owned(),
                    client: "0198".to_owned(),
                    conn_info: Vec::new(),
                }),
                ..wire_publication(r#"{"n":5}"#, 5)
            }),
            ..wire::Push::default()
        }),
        ..wire::Reply::default()
    };
    for (reply, vector) in [
        (
            connect,
            "1b08012a170a04303139381206437572666577180120f00138194001",
        ),
        (
            subscribe,
            "210802321d1801320478797a7a3a0b22077b226e223a347d30044001480350016001",
        ),
        (
            publication,
            "24222212046e657773221a22077b226e223a357d2a0d0a05616c6963651204303139383005",
        ),
    ] {
        assert_eq!(reply.encode_length_delimited_to_vec(), hex(vector));
    }
}

#[test]
fn vectors_without_names_of_ours_are_written_byte_for_byte() {
    let news = channel("news");
    let gap = Push::Gap {
        channel: &news,
        position: Some(position(9)),
    };
    assert_eq!(
        text(pushed(JSON, &gap).unwrap()),
        r#"{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
    );
    assert_eq!(
        pushed(PROTOBUF, &gap).unwrap(),
        hex("21221f12046e6577733a1710c4131a12696e73756666696369656e74207374617465")
    );
    let expired = Reply::Error {
        code: ErrorCode::Expired,
        message: "token expired".into(),
        trace: None,
    };
    assert_eq!(
        text(replied(JSON, 3, &expired).unwrap()),
        r#"{"id":3,"error":{"code":109,"message":"token expired","temporary":true}}"#
    );
    assert_eq!(
        replied(PROTOBUF, 3, &expired).unwrap(),
        hex("1708031213086d120d746f6b656e20657870697265641801")
    );
    assert_eq!(
        text(replied(JSON, 4, &Reply::Unsubscribed).unwrap()),
        r#"{"id":4,"unsubscribe":{}}"#
    );
    assert_eq!(
        replied(PROTOBUF, 4, &Reply::Unsubscribed).unwrap(),
        hex("0408043a00")
    );
    for (protocol, expect) in [(JSON, &b"{}"[..]), (PROTOBUF, &b"\0"[..])] {
        let mut out = BytesMut::new();
        assert!(protocol.ping(&mut out));
        assert_eq!(out, expect);
    }
}

#[test]
fn connected_tells_of_the_session_and_its_subscriptions() {
    let subscriptions = [
        (
            channel("a\"b"),
            Subscribed {
                position: Some(position(5)),
                is_recoverable: true,
                ..Subscribed::default()
            },
        ),
        (channel("news"), Subscribed::default()),
    ];
    let connected = |renew_in, subscriptions| Reply::Connected {
        session: session(),
        user: "alice",
        expires_at: 1_764_000_000,
        renew_in,
        ping_interval: 25,
        subscriptions,
    };
    let wire = |subs: &[(&str, wire::SubscribeResult)], ttl| wire::Reply {
        connect: Some(wire::ConnectResult {
            client: SESSION.to_owned(),
            version: format!("Curfew {}", env!("CARGO_PKG_VERSION")),
            expires: true,
            ttl,
            subs: subs
                .iter()
                .map(|(channel, subs)| ((*channel).to_owned(), subs.clone()))
                .collect(),
            ping: 25,
            pong: true,
        }),
        ..wire::Reply::default()
    };
    let version = env!("CARGO_PKG_VERSION");
    reply(
        &connected(240, &[]),
        &format!(
            r#"{{"id":2,"connect":{{"client":"{SESSION}","version":"Curfew {version}","expires":true,"ttl":240,"ping":25,"pong":true}}}}"#
        ),
        wire(&[], 240),
    );
    let with_position = wire::SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: EPOCH.to_owned(),
        offset: 5,
        ..wire::SubscribeResult::default()
    };
    // Clients fail without the time, so that it is never left out.
    let subs = [
        ("a\"b", with_position),
        ("news", wire::SubscribeResult::default()),
    ];
    let bytes = replied(PROTOBUF, 2, &connected(0, &subscriptions)).unwrap();
    let decoded = wire::Reply::decode_length_delimited(&bytes[..]).unwrap();
    assert_eq!(
        decoded,
        wire::Reply {
            id: 2,
            ..wire(&subs, 1)
        }
    );
    assert_eq!(
        text(replied(JSON, 2, &connected(0, &subscriptions)).unwrap()),
        format!(
            r#"{{"id":2,"connect":{{"client":"{SESSION}","version":"Curfew {version}","expires":true,"ttl":1,"subs":{{"a\"b":{{"recoverable":true,"epoch":"{EPOCH}","offset":5,"positioned":true}},"news":{{}}}},"ping":25,"pong":true}}}}"#
        )
    );
}

fn subscribed(subscribe: wire::SubscribeResult) -> wire::Reply {
    wire::Reply {
        subscribe: Some(subscribe),
        ..wire::Reply::default()
    }
}

#[test]
fn a_subscriber_is_told_where_it_stands() {
    let publications = [publication(r#"{"n":4}"#, 4, None)];
    let recovered = Subscribed {
        position: Some(position(4)),
        since: Some(position(3)),
        recovered: Some(true),
        is_recoverable: true,
        publications: &publications,
        ..Subscribed::default()
    };
    let wire = wire::SubscribeResult {
        recoverable: true,
        epoch: EPOCH.to_owned(),
        publications: vec![wire_publication(r#"{"n":4}"#, 4)],
        recovered: true,
        // The client's own: it advances as it takes the publications.
        offset: 3,
        positioned: true,
        was_recovering: true,
        ..wire::SubscribeResult::default()
    };
    reply(
        &Reply::Subscribed(recovered.clone()),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"kdWqZx3a","publications":[{"data":{"n":4},"offset":4}],"recovered":true,"offset":3,"positioned":true,"was_recovering":true}}"#,
        subscribed(wire.clone()),
    );
    reply(
        &Reply::Subscribed(Subscribed {
            recovered: Some(false),
            ..recovered
        }),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"kdWqZx3a","offset":4,"positioned":true,"was_recovering":true}}"#,
        subscribed(wire::SubscribeResult {
            publications: Vec::new(),
            recovered: false,
            offset: 4,
            ..wire
        }),
    );
    reply(
        &Reply::Subscribed(Subscribed::default()),
        r#"{"id":2,"subscribe":{}}"#,
        subscribed(wire::SubscribeResult::default()),
    );
    reply(
        &Reply::Subscribed(Subscribed {
            data: Some(b"{\n}"),
            renew_in: Some(30),
            // Without a position nothing can be resumed.
            is_recoverable: true,
            is_delta: true,
            ..Subscribed::default()
        }),
        r#"{"id":2,"subscribe":{"expires":true,"ttl":30,"data":{},"delta":true}}"#,
        subscribed(wire::SubscribeResult {
            expires: true,
            ttl: 30,
            data: b"{\n}".to_vec(),
            delta: true,
            ..wire::SubscribeResult::default()
        }),
    );
}

#[test]
fn recovered_publications_are_chained_differences() {
    let texts = [
        r#"{"room":"kitchen","temp":20.5,"unit":"C"}"#,
        r#"{"room":"kitchen","temp":21.0,"unit":"C"}"#,
        "1",
    ];
    let publications: Vec<_> = (1..)
        .zip(texts)
        .map(|(at, text)| publication(text, at, None))
        .collect();
    let recovered = Reply::Subscribed(Subscribed {
        position: Some(position(3)),
        since: Some(position(0)),
        recovered: Some(true),
        publications: &publications,
        is_delta: true,
        ..Subscribed::default()
    });
    let patch = "e\nQ@0,3:1.0C@T,27ul48;";
    let value: Value = serde_json::from_slice(&replied(JSON, 2, &recovered).unwrap()).unwrap();
    // Each is a text, also the whole ones.
    assert_eq!(
        value["subscribe"]["publications"],
        json!([
            {"data": texts[0], "offset": 1, "epoch": EPOCH},
            {"data": patch, "offset": 2, "delta": true},
            {"data": "1", "offset": 3},
        ])
    );
    let bytes = replied(PROTOBUF, 2, &recovered).unwrap();
    let decoded = wire::Reply::decode_length_delimited(&bytes[..]).unwrap();
    let expect = [
        wire::Publication {
            epoch: EPOCH.to_owned(),
            ..wire_publication(texts[0], 1)
        },
        wire::Publication {
            delta: true,
            ..wire_publication(patch, 2)
        },
        wire_publication("1", 3),
    ];
    assert_eq!(decoded.subscribe.unwrap().publications, expect);
}

#[test]
fn every_result_is_written_also_an_empty_one() {
    let wire = wire::Reply::default;
    let empty = || Some(wire::Empty {});
    reply(
        &Reply::Unsubscribed,
        r#"{"id":2,"unsubscribe":{}}"#,
        wire::Reply {
            unsubscribe: empty(),
            ..wire()
        },
    );
    reply(
        &Reply::Published {
            position: Some(position(4)),
        },
        r#"{"id":2,"publish":{}}"#,
        wire::Reply {
            publish: empty(),
            ..wire()
        },
    );
    reply(
        &Reply::Pong,
        r#"{"id":2,"ping":{}}"#,
        wire::Reply {
            ping: empty(),
            ..wire()
        },
    );
    reply(
        &Reply::SubscriptionRefreshed { renew_in: None },
        r#"{"id":2,"sub_refresh":{}}"#,
        wire::Reply {
            sub_refresh: Some(wire::SubRefreshResult::default()),
            ..wire()
        },
    );
    reply(
        &Reply::SubscriptionRefreshed { renew_in: Some(7) },
        r#"{"id":2,"sub_refresh":{"expires":true,"ttl":7}}"#,
        wire::Reply {
            sub_refresh: Some(wire::SubRefreshResult {
                expires: true,
                ttl: 7,
            }),
            ..wire()
        },
    );
    reply(
        &Reply::Refreshed {
            expires_at: 5,
            renew_in: 0,
        },
        r#"{"id":2,"refresh":{"expires":true,"ttl":1}}"#,
        wire::Reply {
            refresh: Some(wire::RefreshResult {
                expires: true,
                ttl: 1,
            }),
            ..wire()
        },
    );
    reply(
        &Reply::PresenceCount {
            sessions: 3,
            users: 2,
        },
        r#"{"id":2,"presence_stats":{"num_clients":3,"num_users":2}}"#,
        wire::Reply {
            presence_stats: Some(wire::PresenceStatsResult {
                num_clients: 3,
                num_users: 2,
            }),
            ..wire()
        },
    );
    reply(
        &Reply::Presence {
            sessions: &[],
            users: 0,
            truncated: false,
        },
        r#"{"id":2,"presence":{}}"#,
        wire::Reply {
            presence: Some(wire::PresenceResult::default()),
            ..wire()
        },
    );
    reply(
        &Reply::History {
            position: position(0),
            publications: &[],
            truncated: false,
        },
        r#"{"id":2,"history":{"epoch":"kdWqZx3a"}}"#,
        wire::Reply {
            history: Some(wire::HistoryResult {
                epoch: EPOCH.to_owned(),
                ..wire::HistoryResult::default()
            }),
            ..wire()
        },
    );
}

#[test]
fn history_and_presence_are_listed() {
    let informed = Present {
        info: Some("{\r\n\"a\":1}".into()),
        ..alice()
    };
    let publications = [
        publication("2", 2, Some(alice())),
        publication("1", 1, None),
    ];
    let history = |publications| wire::Reply {
        history: Some(wire::HistoryResult {
            publications,
            epoch: EPOCH.to_owned(),
            offset: 2,
        }),
        ..wire::Reply::default()
    };
    reply(
        &Reply::History {
            position: position(2),
            publications: &publications,
            truncated: true,
        },
        &format!(
            r#"{{"id":2,"history":{{"publications":[{{"data":2,"offset":2,"info":{{"user":"alice","client":"{SESSION}"}}}},{{"data":1,"offset":1,"epoch":"{EPOCH}"}}],"epoch":"{EPOCH}","offset":2}}}}"#
        ),
        history(vec![
            wire::Publication {
                info: alice_info(),
                ..wire_publication("2", 2)
            },
            wire::Publication {
                epoch: EPOCH.to_owned(),
                ..wire_publication("1", 1)
            },
        ]),
    );
    // Bytes are as they were; only JSON is written on one line.
    let info = wire::ClientInfo {
        conn_info: b"{\r\n\"a\":1}".to_vec(),
        ..alice_info().unwrap()
    };
    reply(
        &Reply::Presence {
            sessions: &[informed],
            users: 1,
            truncated: false,
        },
        &format!(
            r#"{{"id":2,"presence":{{"presence":{{"{SESSION}":{{"user":"alice","client":"{SESSION}","conn_info":{{"a":1}}}}}}}}}}"#
        ),
        wire::Reply {
            presence: Some(wire::PresenceResult {
                presence: [(SESSION.to_owned(), info)].into(),
            }),
            ..wire::Reply::default()
        },
    );
}

#[test]
fn errors_have_a_number_and_a_text() {
    let error = |code, message: &str, temporary| wire::Reply {
        error: Some(wire::Error {
            code,
            message: message.to_owned(),
            temporary,
        }),
        ..wire::Reply::default()
    };
    let auth_failed = |reason| Reply::AuthFailed {
        reason,
        message: "m",
        trace: None,
    };
    for reason in AuthFailure::ALL {
        let failed = auth_failed(*reason);
        match reason {
            AuthFailure::Expired | AuthFailure::NotYetValid | AuthFailure::ReauthRequired => reply(
                &failed,
                r#"{"id":2,"error":{"code":109,"message":"token expired"}}"#,
                error(109, "token expired", false),
            ),
            AuthFailure::MissingToken => reply(
                &failed,
                r#"{"id":2,"error":{"code":101,"message":"unauthorized"}}"#,
                error(101, "unauthorized", false),
            ),
            _ => {
                assert_eq!(replied(JSON, 2, &failed), None);
                assert_eq!(replied(PROTOBUF, 2, &failed), None);
            }
        }
    }
    for disconnect in curfew_model::DISCONNECTS {
        let not_opened = Reply::NotOpened {
            disconnect: *disconnect,
        };
        if *disconnect == Disconnect::UNAVAILABLE {
            reply(
                &not_opened,
                r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
                error(100, "internal server error", true),
            );
        } else if *disconnect == Disconnect::SESSION_LIMIT {
            reply(
                &not_opened,
                r#"{"id":2,"error":{"code":111,"message":"too many requests","temporary":true}}"#,
                error(111, "too many requests", true),
            );
        } else {
            assert_eq!(replied(JSON, 2, &not_opened), None);
        }
    }
    reply(
        &Reply::Unrecoverable,
        r#"{"id":2,"error":{"code":112,"message":"unrecoverable position"}}"#,
        error(112, "unrecoverable position", false),
    );
    for (code, message, expect) in [
        (
            ErrorCode::Forbidden,
            "no \"rule\"",
            (103, r#"no "rule""#, false),
        ),
        (ErrorCode::NotAvailable, "", (108, "not available", false)),
        (
            ErrorCode::UnknownOutcome,
            "",
            (400, "unknown outcome", false),
        ),
    ] {
        let refused = Reply::Error {
            code,
            message: message.into(),
            trace: None,
        };
        let (code, message, temporary) = expect;
        let json = json!({"id": 2, "error": {"code": code, "message": message}});
        let bytes = replied(JSON, 2, &refused).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), json);
        let bytes = replied(PROTOBUF, 2, &refused).unwrap();
        let decoded = wire::Reply::decode_length_delimited(&bytes[..]).unwrap();
        assert_eq!(
            decoded,
            wire::Reply {
                id: 2,
                ..error(code, message, temporary)
            }
        );
    }
}

#[test]
fn nothing_without_an_id_is_answered() {
    let mut out = BytesMut::new();
    for protocol in [JSON, PROTOBUF] {
        assert!(!protocol.encode_reply(None, &Reply::Pong, &mut out));
    }
    assert!(out.is_empty());
}

#[test]
fn a_publication_has_its_place_and_its_sender() {
    let news = channel("news");
    let alice = alice();
    let plain = Push::Message {
        channel: &news,
        data: br#"{"n":5}"#,
        from: Some("alice"),
        sender: Some(&alice),
        position: Some(position(5)),
        form: DataForm::Plain,
    };
    let wire = |publication| wire::Push {
        channel: "news".to_owned(),
        publication: Some(publication),
        ..wire::Push::default()
    };
    push(
        &plain,
        &format!(
            r#"{{"push":{{"channel":"news","pub":{{"data":{{"n":5}},"offset":5,"info":{{"user":"alice","client":"{SESSION}"}}}}}}}}"#
        ),
        wire(wire::Publication {
            info: alice_info(),
            ..wire_publication(r#"{"n":5}"#, 5)
        }),
    );
    let message = |data, offset, form| Push::Message {
        channel: &news,
        data,
        from: None,
        sender: None,
        position: Some(offset).filter(|offset| *offset > 0).map(position),
        form,
    };
    push(
        &message(b"1", 0, DataForm::Plain),
        r#"{"push":{"channel":"news","pub":{"data":1}}}"#,
        wire(wire_publication("1", 0)),
    );
    push(
        &message(b"1", 1, DataForm::Plain),
        r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"kdWqZx3a"}}}"#,
        wire(wire::Publication {
            epoch: EPOCH.to_owned(),
            ..wire_publication("1", 1)
        }),
    );
    push(
        &message(b"{\"a\":\n1}", 2, DataForm::Whole),
        r#"{"push":{"channel":"news","pub":{"data":"{\"a\":\n1}","offset":2}}}"#,
        wire(wire_publication("{\"a\":\n1}", 2)),
    );
    push(
        &message(
            b"{}",
            MAX_OFFSET,
            DataForm::Difference("7\n5@0,é;".as_bytes()),
        ),
        r#"{"push":{"channel":"news","pub":{"data":"7\n5@0,é;","offset":9007199254740991,"delta":true}}}"#,
        wire(wire::Publication {
            delta: true,
            ..wire_publication("7\n5@0,é;", MAX_OFFSET)
        }),
    );
}

#[test]
fn a_payload_is_on_one_line_in_json_and_as_it_was_in_protobuf() {
    let news = channel("news");
    // Line ends on both sides of a stride.
    for space in [0, 1, 29, 30, 31, 32, 100] {
        let data = format!("[{}\r\n1,\n\"\\n\"]", " ".repeat(space));
        let message = Push::Message {
            channel: &news,
            data: data.as_bytes(),
            from: None,
            sender: None,
            position: None,
            form: DataForm::Plain,
        };
        let expect = data.replace(['\r', '\n'], "");
        push(
            &message,
            &format!(r#"{{"push":{{"channel":"news","pub":{{"data":{expect}}}}}}}"#),
            wire::Push {
                channel: "news".to_owned(),
                publication: Some(wire_publication(&data, 0)),
                ..wire::Push::default()
            },
        );
    }
}

#[test]
fn other_pushes_tell_of_sessions_and_ends() {
    let news = channel("news");
    let present = Present {
        info: Some("1".into()),
        ..alice()
    };
    let info = Some(wire::Presence {
        info: alice_info().map(|info| wire::ClientInfo {
            conn_info: b"1".to_vec(),
            ..info
        }),
    });
    for (name, change, join, leave) in [
        ("join", PresenceChange::Join, info.clone(), None),
        ("leave", PresenceChange::Leave, None, info),
    ] {
        push(
            &Push::Presence {
                channel: &news,
                change,
                present: &present,
            },
            &format!(
                r#"{{"push":{{"channel":"news","{name}":{{"info":{{"user":"alice","client":"{SESSION}","conn_info":1}}}}}}}}"#
            ),
            wire::Push {
                channel: "news".to_owned(),
                join,
                leave,
                ..wire::Push::default()
            },
        );
    }
    for (reason, code, text) in [
        (ErrorCode::Expired, 2501, "subscription expired"),
        (ErrorCode::Forbidden, 2000, "forbidden"),
    ] {
        push(
            &Push::Unsubscribed {
                channel: &news,
                reason,
            },
            &format!(
                r#"{{"push":{{"channel":"news","unsubscribe":{{"code":{code},"reason":"{text}"}}}}}}"#
            ),
            wire::Push {
                channel: "news".to_owned(),
                unsubscribe: Some(wire::Unsubscribe {
                    code,
                    reason: text.to_owned(),
                }),
                ..wire::Push::default()
            },
        );
    }
    let closing = Push::Closing {
        disconnect: Disconnect::REVOKED,
        retry_after_ms: None,
        trace: None,
    };
    push_over(
        Over::Http,
        &closing,
        r#"{"push":{"disconnect":{"code":3503,"reason":"revoked"}}}"#,
        wire::Push {
            disconnect: Some(wire::Disconnect {
                code: 3503,
                reason: "revoked".to_owned(),
            }),
            ..wire::Push::default()
        },
    );
    for protocol in [JSON, PROTOBUF] {
        assert_eq!(pushed(protocol, &closing), None);
        assert_eq!(pushed(protocol, &Push::Expiring { expires_at: 1 }), None);
    }
}

proptest! {
    #[test]
    fn publications_survive_in_both_encodings(
        user in any::<String>(),
        name in "[^\\s$\\p{Cc}][^\\s\\p{Cc}]{0,20}",
        data in any::<String>(),
        offset in 0..=MAX_OFFSET,
        is_delta in any::<bool>(),
    ) {
        let channel = channel(&name);
        let data = serde_json::to_string(&data).unwrap();
        let sender = Present { user: user.as_str().into(), ..alice() };
        let push = Push::Message {
            channel: &channel,
            data: data.as_bytes(),
            from: None,
            sender: Some(&sender),
            position: Some(position(offset)),
            form: if is_delta { DataForm::Difference(data.as_bytes()) } else { DataForm::Plain },
        };
        let value: Value = serde_json::from_slice(&pushed(JSON, &push).unwrap()).unwrap();
        let published = &value["push"]["pub"];
        prop_assert_eq!(value["push"]["channel"].as_str(), Some(name.as_str()));
        prop_assert_eq!(published["info"]["user"].as_str().unwrap_or_default(), user.as_str());
        prop_assert_eq!(published["offset"].as_u64().unwrap_or(0), offset);
        let expect = if is_delta { Value::from(data.as_str()) } else { serde_json::from_str(&data).unwrap() };
        prop_assert_eq!(&published["data"], &expect);
        let bytes = pushed(PROTOBUF, &push).unwrap();
        let decoded = wire::Reply::decode_length_delimited(&bytes[..]).unwrap();
        prop_assert_eq!(decoded.encode_length_delimited_to_vec(), bytes);
        let decoded = decoded.push.unwrap();
        prop_assert_eq!(&decoded.channel, &name);
        let published = decoded.publication.unwrap();
        prop_assert_eq!(&published.data, data.as_bytes());
        prop_assert_eq!((published.offset, published.delta), (offset, is_delta));
    }
}
