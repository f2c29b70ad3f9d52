use super::*;

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
    // The line ends lie before, at and after the end of the first stride.
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
fn a_publication_is_written_in_one_allocation() {
    let news = channel("news");
    let sender = Present {
        info: Some(r#"{"name":"Alice"}"#.into()),
        channel_info: Some(r#"{"seat":7}"#.into()),
        ..alice()
    };
    let data = r#"{"room":"kitchen","temp":20.5,"unit":"C"}"#.repeat(50);
    let patch = "7\n5@0,3:\"a\";";
    for form in [
        DataForm::Plain,
        DataForm::Whole,
        DataForm::Difference(patch.as_bytes()),
    ] {
        for offset in [1, MAX_OFFSET] {
            let message = Push::Message {
                channel: &news,
                data: data.as_bytes(),
                from: None,
                sender: Some(&sender),
                position: Some(position(offset)),
                form,
            };
            for protocol in [JSON, PROTOBUF] {
                let mut out = BytesMut::new();
                let used = allocation_counter::measure(|| {
                    assert!(protocol.encode_push(&message, &mut out));
                });
                assert_eq!(used.count_total, 1, "{form:?}");
            }
        }
    }
}

#[test]
fn other_pushes_tell_of_sessions_and_ends() {
    let news = channel("news");
    let present = Present {
        info: Some("1".into()),
        channel_info: Some("[2]".into()),
        ..alice()
    };
    let info = Some(wire::Presence {
        info: alice_info().map(|info| wire::ClientInfo {
            conn_info: b"1".to_vec(),
            chan_info: b"[2]".to_vec(),
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
                r#"{{"push":{{"channel":"news","{name}":{{"info":{{"user":"alice","client":"{SESSION}","conn_info":1,"chan_info":[2]}}}}}}}}"#
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
        let info = format!("[{data}]");
        let sender = Present {
            user: user.as_str().into(),
            channel_info: Some(info.as_str().into()),
            ..alice()
        };
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
        let chan_info: Value = serde_json::from_str(&info).unwrap();
        prop_assert_eq!(&published["info"]["chan_info"], &chan_info);
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
        prop_assert_eq!(published.info.unwrap().chan_info, info.as_bytes());
        let mut chars = name.chars();
        chars.next_back();
        let (shorter, longer) = (chars.as_str(), format!("{name}x"));
        for (of, expect) in [(name.as_str(), true), (shorter, false), (&longer, false)] {
            let Ok(of) = Channel::parse(of) else { continue };
            for protocol in [JSON, PROTOBUF] {
                let message = pushed(protocol, &push).unwrap();
                prop_assert_eq!(protocol.is_of(&message, &of), expect, "{:?} {}", protocol, of);
            }
        }
    }
}

/// The second byte of the longer name equals the key of a Protobuf field that may follow the
/// shorter name.
#[test]
fn a_push_of_a_channel_is_none_of_a_channel_whose_name_begins_so() {
    let [shorter, longer] = ["0", "02"].map(channel);
    for (of, other) in [(&shorter, &longer), (&longer, &shorter)] {
        let push = Push::Message {
            channel: of,
            data: b"1",
            from: None,
            sender: None,
            position: None,
            form: DataForm::Plain,
        };
        for protocol in [JSON, PROTOBUF] {
            let message = pushed(protocol, &push).unwrap();
            assert!(protocol.is_of(&message, of) && !protocol.is_of(&message, other));
        }
    }
}

#[test]
fn connected_tells_the_way_of_commands_where_the_transport_carries_none() {
    let node = "01980000-0000-7000-8000-00000000000a";
    let connected = Reply::Connected {
        session: session(),
        user: "alice",
        expires_at: 1_764_000_000,
        renew_in: Some(240),
        ping_interval: 25,
        subscriptions: &[],
        commands_by: Some(CommandsBy {
            key: "secret",
            node: node.parse().unwrap(),
        }),
    };
    let version = format!("Curfew {}", env!("CARGO_PKG_VERSION"));
    reply(
        &connected,
        &format!(
            r#"{{"id":2,"connect":{{"client":"{SESSION}","version":"{version}","expires":true,"ttl":240,"ping":25,"pong":true,"session":"secret","node":"{node}"}}}}"#
        ),
        wire::Reply {
            connect: Some(wire::ConnectResult {
                client: SESSION.to_owned(),
                version: version.clone(),
                expires: true,
                ttl: 240,
                ping: 25,
                pong: true,
                session: "secret".to_owned(),
                node: node.to_owned(),
                ..wire::ConnectResult::default()
            }),
            ..wire::Reply::default()
        },
    );
    let shown = format!("{connected:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
