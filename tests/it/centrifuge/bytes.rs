//! Channels that carry bytes, which need not be JSON.

use curfew_tests::{Cluster, Gateway, Redis, Settings};
use serde_json::{Value, json};

use super::raw::{Encoding, Raw, bytes};
use super::with_channels;

/// Data for a binary channel: bytes that are not UTF-8, two texts that are not JSON, and one JSON
/// object.
const DATA: [&[u8]; 4] = [&[0xff, 0, 1, 0xfe], b"boom", b"\"open", b"{\"n\":1}"];

fn settings() -> Settings {
    with_channels(
        "[[channels]]\npattern = \"bytes:*\"\nformat = \"binary\"\n\
         history = { size = 10, ttl = \"10m\" }\n\
         [[channels]]\npattern = \"live:*\"\nformat = \"binary\"\n",
    )
}

async fn publish(client: &mut Raw, channel: &str, data: &[u8]) -> Value {
    // The data is passed as a list of numbers, because `Raw` sends a list as the bytes themselves.
    // It would send a string as JSON, in quotes.
    let publish = json!({"channel":channel,"data":Value::from(data)});
    client.ask(json!({"publish":publish})).await
}

fn data_of(publications: &Value) -> Vec<Value> {
    let publications = publications.as_array().expect("publications");
    publications
        .iter()
        .map(|publication| publication["data"].clone())
        .collect()
}

/// Publishes at `one`, and subscribes, reads and recovers at `other`.
async fn are_carried(one: &Gateway, other: &Gateway) {
    let expect: Vec<_> = DATA.iter().map(|data| bytes(data)).collect();
    let mut publisher = Raw::open(one, Encoding::Protobuf, "alice").await;
    for channel in ["live:1", "bytes:1"] {
        let mut listener = Raw::open(other, Encoding::Protobuf, "bob").await;
        listener.subscribe(channel, json!({})).await;
        for (data, expect) in DATA.iter().zip(&expect) {
            let answer = publish(&mut publisher, channel, data).await;
            assert_eq!(answer["publish"], json!({}), "{answer}");
            assert_eq!(listener.push("pub").await["data"], *expect);
        }
    }
    let history = json!({"history":{"channel":"bytes:1","limit":10}});
    let mut reader = Raw::open(other, Encoding::Protobuf, "bob").await;
    let answer = reader.ask(history).await;
    assert_eq!(data_of(&answer["history"]["publications"]), expect);
    let since = json!({"recover":true,"recoverable":true,"offset":1,
        "epoch":answer["history"]["epoch"]});
    // A second node that has only published has no copy of this channel's stream in memory. It
    // reads the stream from Redis.
    for node in [one, other] {
        let mut reader = Raw::open(node, Encoding::Protobuf, "carol").await;
        let answer = reader.subscribe("bytes:1", since.clone()).await;
        assert_eq!(answer["recovered"], true, "{answer}");
        assert_eq!(data_of(&answer["publications"]), expect[1..]);
    }
}

#[tokio::test]
async fn bytes_are_published_recovered_and_read_on_one_node() {
    let gateway = Gateway::start_with(&settings()).await;
    are_carried(&gateway, &gateway).await;
}

#[tokio::test]
async fn bytes_are_published_recovered_and_read_across_nodes() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    are_carried(&cluster[0], &cluster[1]).await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn those_who_speak_json_are_refused() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut native = gateway.user("alice").await;
    for (command, code) in [
        (json!({"type":"subscribe"}), "not_available"),
        (json!({"type":"history"}), "not_available"),
        (json!({"type":"publish","data":1}), "bad_request"),
    ] {
        let mut command = command;
        command["id"] = 1.into();
        command["channel"] = "bytes:1".into();
        native.send(command).await;
        let answer = native.next_json().await;
        assert_eq!(answer["code"], code, "{answer}");
    }
    let mut client = Raw::open(&gateway, Encoding::Json, "alice").await;
    for (command, code) in [
        (json!({"subscribe":{"channel":"bytes:1"}}), 108),
        (json!({"history":{"channel":"bytes:1","limit":1}}), 108),
        (json!({"publish":{"channel":"bytes:1","data":1}}), 107),
    ] {
        let answer = client.ask(command).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let publish = json!({"channel":"bytes:1","data":1});
    for (method, path, body) in [
        ("POST", "/v1/publish", Some(publish)),
        ("GET", "/v1/channels/bytes:1/history", None),
    ] {
        let (status, problem) = gateway.admin(method, path, body).await;
        assert_eq!((status, &problem["code"]), (409, &"not_available".into()));
    }
    // None of the refused publications is in the stream.
    let details = gateway.admin_ok("GET", "/v1/channels/bytes:1", None).await;
    assert_eq!(details["stream"]["offset"], 0);
}

/// Data that is not UTF-8 JSON would make an invalid text message. Such a message would end the
/// connection of each subscriber that speaks JSON, and would end it again at each recovery.
#[tokio::test]
async fn a_channel_of_json_takes_only_json_in_utf8_from_protobuf() {
    let gateway = Gateway::start_with(&with_channels(
        "[[channels]]\npattern = \"room:*\"\nhistory = { size = 10, ttl = \"10m\" }\n",
    ))
    .await;
    let mut publisher = Raw::open(&gateway, Encoding::Protobuf, "alice").await;
    let mut listener = Raw::open(&gateway, Encoding::Json, "bob").await;
    listener.subscribe("room:1", json!({})).await;
    let deep = [[b'['; 33], [b']'; 33]].concat();
    for data in [
        b"\"\xff\"",
        &b"{\"\xc0\x80\":1}"[..],
        b"\"\xed\xa0\x80\"",
        b"\"\xe2\x82\"",
        &deep,
        b"boom",
    ] {
        let answer = publish(&mut publisher, "room:1", data).await;
        assert_eq!(answer["error"]["code"], 107, "{data:?}: {answer}");
    }
    let answer = publish(&mut publisher, "room:1", "\"é\"".as_bytes()).await;
    assert_eq!(answer["publish"], json!({}), "{answer}");
    let deepest = [[b'['; 32], [b']'; 32]].concat();
    publish(&mut publisher, "room:1", &deepest).await;
    assert_eq!(listener.push("pub").await["data"], "é");
    assert_eq!(listener.push("pub").await["offset"], 2);
}

#[tokio::test]
async fn a_change_of_the_format_hides_what_was_published_before() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut publisher = Raw::open(&gateway, Encoding::Protobuf, "alice").await;
    publish(&mut publisher, "bytes:1", DATA[0]).await;
    let json = "[[channels]]\npattern = \"bytes:*\"\nhistory = { size = 10, ttl = \"10m\" }\n";
    gateway.take_over(&with_channels(json), true).await;
    gateway.publish("bytes:1", json!(2)).await;
    let mut client = Raw::open(&gateway, Encoding::Json, "alice").await;
    let history = json!({"history":{"channel":"bytes:1","limit":10}});
    let answer = client.ask(history).await;
    assert_eq!(data_of(&answer["history"]["publications"]), [json!(2)]);
    let path = "/v1/channels/bytes:1/history";
    let read = gateway.admin_ok("GET", path, None).await;
    assert_eq!(data_of(&read["publications"]), [json!(2)]);
    // A client that cannot receive bytes cannot recover them either.
    let epoch = &answer["history"]["epoch"];
    for (offset, recovered) in [(0, Value::Null), (1, Value::Bool(true))] {
        let mut client = Raw::open(&gateway, Encoding::Json, "alice").await;
        let since = json!({"recover":true,"recoverable":true,"epoch":epoch,"offset":offset});
        let answer = client.subscribe("bytes:1", since).await;
        assert_eq!(answer["recovered"], recovered, "{answer}");
        gateway.assert_alive().await;
    }
}
