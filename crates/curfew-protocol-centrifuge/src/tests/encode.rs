use super::*;

mod pushes;
mod replies;

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
        channel_info: None,
    }
}

fn alice_info() -> Option<wire::ClientInfo> {
    Some(wire::ClientInfo {
        user: "alice".to_owned(),
        client: SESSION.to_owned(),
        conn_info: Vec::new(),
        chan_info: Vec::new(),
    })
}

fn publication(data: &'static str, offset: u64, sender: Option<Present>) -> Publication {
    Publication {
        channel: channel("news"),
        data: data.into(),
        from: None,
        is_binary: false,
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
    let news = channel("news");
    let is_of = matches!(push, Push::Message { .. } | Push::Presence { .. });
    for protocol in [JSON, PROTOBUF] {
        let message = pushed(over(protocol), push).unwrap();
        assert_eq!(protocol.is_of(&message, &news), is_of, "{json}");
    }
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
                    ..wire::ClientInfo::default()
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
