//! Tests that random commands are decoded alike in both encodings. Other implementations of JSON
//! and Protobuf encode the commands.

use super::*;

fn any_text(max: usize) -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec!['"', '\\', '\n', 'é']);
    let character = prop_oneof![any::<char>(), special];
    prop::collection::vec(character, 0..max).prop_map(|text| text.into_iter().collect())
}

fn one_of(texts: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    prop::sample::select(texts.to_vec()).prop_map(str::to_owned)
}

fn rare<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.3, strategy)
}

prop_compose! {
    fn subscribe()(
        (channel, token) in (any_text(4), any_text(3)),
        [recover, join_leave, has_filter] in any::<[bool; 3]>(),
        epoch in one_of(&["", EPOCH, "_"]),
        delta in one_of(&["", "", "fossil", "x"]),
        (offset, flag, kind) in (any::<u64>(), 0..4_i64, -1..2_i32),
    ) -> wire::SubscribeRequest {
        wire::SubscribeRequest {
            channel,
            token,
            recover,
            epoch,
            offset,
            join_leave,
            delta,
            flag,
            kind,
            tf: has_filter.then_some(wire::Empty {}),
            ..wire::SubscribeRequest::default()
        }
    }
}

prop_compose! {
    fn connect()(
        token in any_text(3),
        subs in prop::collection::btree_map(any_text(3), subscribe(), 0..3),
    ) -> wire::ConnectRequest {
        wire::ConnectRequest { token, subs, ..wire::ConnectRequest::default() }
    }
}

prop_compose! {
    fn publish()(
        channel in any_text(3),
        data in one_of(&["", "1", "{\"a\":[]}"]),
        key in one_of(&["", "", "k"]),
        removed in prop::bool::weighted(0.1),
    ) -> wire::PublishRequest {
        wire::PublishRequest { channel, data: data.into(), kind: 0, key, removed }
    }
}

prop_compose! {
    fn history()(
        channel in any_text(3),
        limit in -2..400_i32,
        since in rare((0..3_u64, one_of(&["", EPOCH, "?"]))),
        reverse in any::<bool>(),
    ) -> wire::HistoryRequest {
        let since = since.map(|(offset, epoch)| wire::StreamPosition { offset, epoch });
        wire::HistoryRequest { channel, limit, since, reverse }
    }
}

prop_compose! {
    fn channel()(channel in any_text(3)) -> wire::ChannelRequest {
        wire::ChannelRequest { channel }
    }
}

prop_compose! {
    fn a_command()(
        id in 0..3_u32,
        (connect, subscribe, publish, history) in
            (rare(connect()), rare(subscribe()), rare(publish()), rare(history())),
        (unsubscribe, presence, presence_stats) in
            (rare(channel()), rare(channel()), rare(channel())),
        (refresh, sub_refresh) in (rare(any_text(2)), rare((any_text(2), any_text(2)))),
        [ping, send, rpc] in any::<[bool; 3]>(),
    ) -> wire::Command {
        let empty = |is_there: bool| is_there.then_some(wire::Empty {});
        wire::Command {
            id,
            connect,
            subscribe,
            unsubscribe,
            publish,
            presence,
            presence_stats,
            history,
            refresh: refresh.map(|token| wire::RefreshRequest { token }),
            sub_refresh: sub_refresh
                .map(|(channel, token)| wire::SubRefreshRequest { channel, token, kind: 0 }),
            ping: empty(ping),
            send: empty(send),
            rpc: empty(rpc),
        }
    }
}

fn subscribe_json(request: &wire::SubscribeRequest) -> Value {
    json!({
        "channel": request.channel, "token": request.token, "recover": request.recover,
        "epoch": request.epoch, "offset": request.offset, "join_leave": request.join_leave,
        "delta": request.delta, "flag": request.flag, "type": request.kind,
        "tf": request.tf.as_ref().map(|_| json!({})),
    })
}

fn connect_json(request: &wire::ConnectRequest) -> Value {
    let subs = request.subs.iter();
    let subs = subs.map(|(channel, request)| (channel.clone(), subscribe_json(request)));
    json!({"token": request.token, "subs": subs.collect::<serde_json::Map<_, _>>()})
}

fn publish_json(request: &wire::PublishRequest) -> Value {
    let (channel, key, removed) = (&request.channel, &request.key, request.removed);
    let mut value = json!({"channel": channel, "key": key, "removed": removed});
    if !request.data.is_empty() {
        value["data"] = serde_json::from_slice(&request.data).unwrap();
    }
    value
}

fn history_json(request: &wire::HistoryRequest) -> Value {
    let since = request.since.as_ref();
    json!({
        "channel": request.channel, "limit": request.limit, "reverse": request.reverse,
        "since": since.map(|since| json!({"offset": since.offset, "epoch": since.epoch})),
    })
}

fn command_json(command: &wire::Command) -> String {
    let channel = |request: &Option<wire::ChannelRequest>| {
        let request = request.as_ref();
        request.map(|request| json!({"channel": request.channel}))
    };
    let empty = |request: &Option<wire::Empty>| request.as_ref().map(|_| json!({}));
    let refresh = command.refresh.as_ref();
    let sub_refresh = command.sub_refresh.as_ref();
    json!({
        "id": command.id,
        "connect": command.connect.as_ref().map(connect_json),
        "subscribe": command.subscribe.as_ref().map(subscribe_json),
        "unsubscribe": channel(&command.unsubscribe),
        "publish": command.publish.as_ref().map(publish_json),
        "presence": channel(&command.presence),
        "presence_stats": channel(&command.presence_stats),
        "history": command.history.as_ref().map(history_json),
        "refresh": refresh.map(|request| json!({"token": request.token})),
        "sub_refresh": sub_refresh
            .map(|request| json!({"channel": request.channel, "token": request.token})),
        "ping": empty(&command.ping),
        "send": empty(&command.send),
        "rpc": empty(&command.rpc),
    })
    .to_string()
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let text = String::from_utf8_lossy(&bytes);
        for protocol in [JSON, PROTOBUF] {
            drop(decoded(protocol, Message::Binary(&bytes)));
            drop(decoded(protocol, Message::Text(&text)));
        }
    }

    #[test]
    fn both_encodings_are_one_protocol(commands in prop::collection::vec(a_command(), 1..4)) {
        let text: Vec<_> = commands.iter().map(command_json).collect();
        let text = text.join("\n");
        let binary = commands.iter().map(|command| command.encode_length_delimited_to_vec());
        let binary: Vec<u8> = binary.flatten().collect();
        let (mut text, mut binary) = (Message::Text(&text), Message::Binary(&binary));
        for _ in commands {
            match (JSON.decode(&mut text), PROTOBUF.decode(&mut binary)) {
                (Ok(ClientRequest::Command { id, command }), other) => {
                    let command = in_bytes(command);
                    prop_assert_eq!(Ok(ClientRequest::Command { id, command }), other);
                }
                (one, other) => prop_assert_eq!(one, other),
            }
        }
        prop_assert!(text.is_empty() && binary.is_empty());
    }
}
