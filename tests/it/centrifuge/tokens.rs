//! Tokens of subscriptions, through the public listener: their effect, and their revocation.

use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, Link, Redis, Settings, eventually, revocation_key};
use serde_json::{Value, json};

use super::raw::{BOTH, Encoding, Raw};

/// A node whose channels `open:*` and `bytes:*` need no token. Each other channel needs a
/// subscription token.
fn settings() -> Settings {
    let rules = "[[policy.rules]]\nname = \"open\"\nchannels = [\"*\"]\n\
                 actions = [\"publish\", \"history\", \"presence\"]\n\
                 [[policy.rules]]\nname = \"listen\"\nchannels = [\"open:*\", \"bytes:*\"]\n\
                 actions = [\"subscribe\"]\n\
                 [[channels]]\npattern = \"*\"\nhistory = { size = 10, ttl = \"10m\" }\n\
                 presence = true\njoin_leave = true\n";
    Settings::default()
        .rules(rules)
        .with("centrifuge.enabled = true")
        .with("centrifuge.subscription_tokens = true")
        .with("session.revocable_claims = [\"tenant\"]")
}

/// A token of `alice` for a subscription to `channel`, with the additional claims `more`.
fn token(channel: &str, id: &str, mut more: Value) -> String {
    more["channel"] = channel.into();
    more["jti"] = id.into();
    more["tenant"] = "acme".into();
    Key::default_secret().user_with("alice", more)
}

/// A session of `alice` that subscribes to `open:1`, and to `room:1` with a token of this id.
async fn subscribed(gateway: &Gateway, encoding: Encoding, id: &str) -> Raw {
    let mut alice = Raw::open(gateway, encoding, "alice").await;
    alice.subscribe("open:1", json!({})).await;
    let token = token("room:1", id, json!({}));
    alice.subscribe("room:1", json!({"token":token})).await;
    // A revocation during a write closes the connection (0095). The client may read the answer
    // before the node has noted the end of the write.
    gateway
        .until_metric("curfew_send_queue_bytes", |bytes| bytes == 0.0)
        .await;
    alice
}

/// Asserts that the session loses `room:1`, keeps `open:1` and receives nothing else.
async fn assert_revoked(gateway: &Gateway, alice: &mut Raw, data: u64) {
    let told = alice.push("unsubscribe").await;
    assert_eq!(told, json!({"code":2000,"reason":"revoked"}));
    gateway.publish("room:1", json!("late")).await;
    gateway.publish("open:1", json!(data)).await;
    // In Protobuf the payload is the text of the number.
    let came = &alice.push("pub").await["data"];
    assert!(
        [json!(data), json!(data.to_string())].contains(came),
        "{came}"
    );
}

/// Revokes a token by its id, as an operator does in Redis itself.
async fn revoke(redis: &Redis, id: &str) {
    let key = revocation_key("token", id);
    redis.run(&["SET", &key, "1"]).await;
}

async fn refusal(alice: &mut Raw, id: &str) -> Value {
    let request = json!({"channel":"room:1","token":token("room:1", id, json!({}))});
    alice.ask(json!({"subscribe":request})).await["error"]["code"].take()
}

#[tokio::test]
async fn a_revocation_by_the_api_ends_the_subscription_alone() {
    let gateway = Gateway::start_with(&settings()).await;
    for (data, encoding) in (0..).zip(BOTH) {
        let id = format!("sub-{data}");
        let mut alice = subscribed(&gateway, encoding, &id).await;
        gateway.revoke(json!({"kind":"token","value":id})).await;
        assert_revoked(&gateway, &mut alice, data).await;
        assert_eq!(refusal(&mut alice, &id).await, 103);
    }
    let lost = "curfew_subscriptions_lost_total{reason=\"revoked\"}";
    assert_eq!(gateway.metric(lost).await, 2.0);
    assert_eq!(gateway.metric("curfew_sessions_revoked_total").await, 0.0);
    // The claim `tenant` is only in the token of the subscription, not in the token of the session.
    let mut alice = subscribed(&gateway, Encoding::Json, "sub-2").await;
    gateway
        .revoke(json!({"kind":"tenant","value":"acme"}))
        .await;
    assert_revoked(&gateway, &mut alice, 2).await;
}

#[tokio::test]
async fn a_key_in_redis_ends_the_subscription_on_every_node() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let [first, second] = cluster.nodes() else {
        panic!("the cluster does not have two nodes");
    };
    let mut here = subscribed(first, Encoding::Json, "both").await;
    let mut there = subscribed(second, Encoding::Protobuf, "both").await;
    let mut other = subscribed(second, Encoding::Json, "other").await;
    revoke(&redis, "both").await;
    assert_revoked(first, &mut here, 1).await;
    // The unsubscribe comes before the publications of `assert_revoked`.
    let told = there.push("unsubscribe").await;
    assert_eq!(told, json!({"code":2000,"reason":"revoked"}));
    assert_eq!(other.push("pub").await["data"], "late");
    // The revocation is in Redis before the session asks for the subscription.
    for (node, encoding) in [(first, Encoding::Json), (second, Encoding::Protobuf)] {
        let mut late = Raw::open(node, encoding, "alice").await;
        assert_eq!(refusal(&mut late, "both").await, 103);
    }
    revoke(&redis, "before").await;
    let mut late = Raw::open(first, Encoding::Json, "alice").await;
    assert_eq!(refusal(&mut late, "before").await, 103);
}

#[tokio::test]
async fn a_node_that_was_cut_off_delivers_nothing_by_a_token_revoked_meanwhile() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &settings()).await;
    let [cut, well] = cluster.nodes() else {
        panic!("the cluster does not have two nodes");
    };
    let mut alice = subscribed(cut, Encoding::Json, "cut").await;
    cluster.proxy(0).set(Link::STALLED);
    cut.until_out_of_touch(Duration::from_secs(10), &[]).await;
    revoke(&redis, "cut").await;
    well.publish("room:1", json!("meanwhile")).await;
    cluster.proxy(0).set(Link::PASS);
    cut.until_in_touch(Duration::from_secs(20)).await;
    assert_revoked(cut, &mut alice, 1).await;
}

#[tokio::test]
async fn others_see_the_info_of_a_subscription() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let [first, second] = cluster.nodes() else {
        panic!("the cluster does not have two nodes");
    };
    for (encoding, channel) in BOTH.into_iter().zip(["open:json", "open:protobuf"]) {
        let mut bob = Raw::open(first, Encoding::Json, "bob").await;
        bob.subscribe(channel, json!({"join_leave":true})).await;
        bob.push("join").await;
        let seat = token(channel, "seat", json!({"info":{"seat":7}}));
        let mut alice = Raw::open(second, encoding, "alice").await;
        alice.subscribe(channel, json!({"token":seat})).await;
        let joined = bob.push("join").await;
        assert_eq!(joined["info"]["chan_info"], json!({"seat":7}), "{joined}");
        let publish = json!({"id":9,"publish":{"channel":channel,"data":1}});
        alice.send(&publish).await;
        let published = bob.push("pub").await;
        assert_eq!(published["info"]["chan_info"], json!({"seat":7}));
        // The history shows the info as well.
        let history = json!({"history":{"channel":channel,"limit":10}});
        let read = bob.ask(history).await["history"]["publications"][0].take();
        assert_eq!(read["info"]["chan_info"], json!({"seat":7}), "{read}");
    }
}

#[tokio::test]
async fn a_token_keeps_its_subscription_out_of_presence() {
    let gateway = Gateway::start_with(&settings()).await;
    let channel = "open:hidden";
    let mut bob = Raw::open(&gateway, Encoding::Json, "bob").await;
    bob.subscribe(channel, json!({"join_leave":true})).await;
    bob.push("join").await;
    let hidden = token(
        channel,
        "h",
        json!({"override":{"presence":{"value":false}}}),
    );
    let mut alice = Raw::open(&gateway, Encoding::Json, "alice").await;
    alice.subscribe(channel, json!({"token":hidden})).await;
    let silent = token(
        channel,
        "s",
        json!({"override":{"join_leave":{"value":false}}}),
    );
    let mut second = Raw::open(&gateway, Encoding::Json, "alice").await;
    second.subscribe(channel, json!({"token":silent})).await;
    let told = json!({"override":{"force_push_join_leave":{"value":true}}});
    let told = token(channel, "t", told);
    let mut third = Raw::open(&gateway, Encoding::Json, "alice").await;
    third.subscribe(channel, json!({"token":told})).await;
    // The node sends the third session its join, although the session did not ask for joins.
    third.push("join").await;
    // Bob gets only the join of the third session.
    let joined = bob.push("join").await;
    assert_eq!(joined["info"]["user"], "alice");
    let presence = json!({"presence":{"channel":channel}});
    let present = bob.ask(presence).await["presence"]["presence"].take();
    let present = present.as_object().expect("sessions");
    assert_eq!(
        present.len(),
        3,
        "not bob and two sessions of alice: {present:?}"
    );
}

#[tokio::test]
async fn reserved_names_are_denied_as_others_are() {
    let gateway = Gateway::start_with(&settings()).await;
    for encoding in BOTH {
        let mut alice = Raw::open(&gateway, encoding, "alice").await;
        for command in ["subscribe", "history"] {
            let answer = alice.ask(json!({command:{"channel":"$room"}})).await;
            assert_eq!(answer["error"]["code"], 103, "{command}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_session_of_json_is_told_that_it_loses_a_channel_of_bytes() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut json = Raw::open(&gateway, Encoding::Json, "alice").await;
    let mut protobuf = Raw::open(&gateway, Encoding::Protobuf, "alice").await;
    for client in [&mut json, &mut protobuf] {
        client.subscribe("bytes:1", json!({})).await;
    }
    let mut native = gateway.subscriber("bob", "bytes:1").await;
    let binary = settings().rules(
        "[[policy.rules]]\nname = \"all\"\nchannels = [\"*\"]\nactions = [\"subscribe\", \"publish\"]\n\
         [[channels]]\npattern = \"bytes:*\"\nhistory = { size = 10, ttl = \"10m\" }\n\
         format = \"binary\"\n",
    );
    gateway.take_over(&binary, true).await;
    let told = json.push("unsubscribe").await;
    assert_eq!(told, json!({"code":2000,"reason":"not_available"}));
    native
        .expect_json(json!({"type":"unsubscribed","channel":"bytes:1","reason":"not_available"}))
        .await;
    let lost = "curfew_subscriptions_lost_total{reason=\"not_available\"}";
    eventually("both to be counted", async || {
        (gateway.metric(lost).await == 2.0).then_some(())
    })
    .await;
    // The refusal has the same form as for a channel that the client subscribes to with a command.
    let subs = json!({"bytes:1":{}});
    let (mut again, connected) = Raw::connect(&gateway, Encoding::Json, "alice", subs).await;
    assert!(connected["subs"]["bytes:1"].is_null(), "{connected}");
    let told = again.push("unsubscribe").await;
    assert_eq!(told, json!({"code":2000,"reason":"not_available"}));
    assert_eq!(gateway.metric(lost).await, 3.0);
    let publish = json!({"publish":{"channel":"bytes:1","data":[255]}});
    let mut publisher = Raw::open(&gateway, Encoding::Protobuf, "alice").await;
    publisher.ask(publish).await;
    assert_eq!(protobuf.push("pub").await["data"], json!([255]));
}
