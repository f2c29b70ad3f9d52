use super::*;

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
        commands_by: None,
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
            ..wire::ConnectResult::default()
        }),
        ..wire::Reply::default()
    };
    let version = env!("CARGO_PKG_VERSION");
    reply(
        &connected(Some(240), &[]),
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
    // Clients fail without `ttl`, so `ttl` is never left out, even if its value would be 0.
    let subs = [
        ("a\"b", with_position),
        ("news", wire::SubscribeResult::default()),
    ];
    let bytes = replied(PROTOBUF, 2, &connected(Some(0), &subscriptions)).unwrap();
    let decoded = wire::Reply::decode_length_delimited(&bytes[..]).unwrap();
    assert_eq!(
        decoded,
        wire::Reply {
            id: 2,
            ..wire(&subs, 1)
        }
    );
    assert_eq!(
        text(replied(JSON, 2, &connected(Some(0), &subscriptions)).unwrap()),
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
        // This is the offset of the client's own position, because the client advances with each
        // recovered publication.
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
            // Without a position, the client cannot recover, so `recoverable` is left out.
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
    // Every publication is a string, even a publication that is written whole.
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
            renew_in: Some(0),
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
        r#"{"id":2,"presence":{"presence":{}}}"#,
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
        r#"{"id":2,"history":{"publications":[],"epoch":"kdWqZx3a","offset":0}}"#,
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
    // Protobuf carries the bytes unchanged; only JSON is put on one line.
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
