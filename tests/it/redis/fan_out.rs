//! Publications reach the subscribers on every node, in order and unchanged.

use std::time::Duration;

use curfew_testkit::WsClient;
use curfew_tests::{Cluster, Gateway, Kind, Link, Redis, Settings, Tape, eventually};
use serde_json::{Value, json};

/// JSON whose bytes change if a library parses it and writes it again.
const DELICATE: [&str; 10] = [
    r#"{"b":1.0,"a":1e2}"#,
    r#"{"a":1,"a":2}"#,
    "12345678901234567890123456789",
    "-0.00",
    r#""\u00e9\/\ud83d\ude00""#,
    r#"[ 1 ,{ "x" :null } ]"#,
    r#""zoë 😀""#,
    "false",
    r#"["\ud83d",{"\ude00":"\ud83d\ud83d"}]"#,
    "[1e999,-1E+999]",
];

async fn three(redis: &Redis) -> Cluster {
    Cluster::start(3, &redis.url(), &Settings::default()).await
}

/// Opens a subscriber of `room:1` on each node.
async fn listeners(cluster: &Cluster) -> Vec<WsClient> {
    let mut listeners = Vec::new();
    for (n, node) in cluster.nodes().iter().enumerate() {
        listeners.push(node.subscriber(&format!("listener-{n}"), "room:1").await);
    }
    listeners
}

async fn subscribers(redis: &Redis, channel: &str) -> i64 {
    let counted = redis.run(&["PUBSUB", "NUMSUB", channel]).await;
    match counted {
        curfew_tests::Reply::List(counted) => counted[1].integer(),
        other => panic!("{other:?}"),
    }
}

async fn command(client: &mut WsClient, kind: &str, channel: &str) {
    client
        .send(json!({"type":kind,"id":kind,"channel":channel}))
        .await;
    client.expect_json(json!({"type":"ok","id":kind})).await;
}

#[tokio::test]
async fn everyone_gets_every_publication_in_order_and_byte_for_byte() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let mut listeners = listeners(&cluster).await;
    let mut alice = cluster[0].user("alice").await;
    let large = format!("\"{}\"", "x".repeat(60_000));
    let texts: Vec<&str> = DELICATE.into_iter().chain([large.as_str()]).collect();
    for data in &texts {
        let publish = format!(r#"{{"type":"publish","channel":"room:1","data":{data}}}"#);
        alice.send_text(&publish).await;
    }
    assert!(alice.barrier().await.is_empty());
    cluster[1]
        .publish("room:1", json!({"from":"an operator"}))
        .await;
    for listener in &mut listeners {
        for data in &texts {
            let text = listener.next_text().await;
            assert!(text.contains(data), "{data} arrived as {text}");
            assert!(text.ends_with(r#","from":"alice"}"#), "{text}");
        }
        let text = listener.next_json().await;
        assert_eq!(text["data"], json!({"from":"an operator"}));
        assert!(text.get("from").is_none_or(Value::is_null), "{text}");
    }

    // Two clients publish on two nodes at the same time. The order of each client's publications is
    // preserved.
    let count = 500;
    let mut bob = cluster[2].user("bob").await;
    for n in 0..count {
        let publish = json!({"type":"publish","channel":"room:1","data":n});
        alice.send(publish.clone()).await;
        bob.send(publish).await;
    }
    for listener in &mut listeners {
        let mut next = [0, 0];
        while next != [count, count] {
            let message = listener.next_json().await;
            let publisher = usize::from(message["from"] == "bob");
            assert_eq!(message["data"], next[publisher], "{message}");
            next[publisher] += 1;
        }
        assert!(listener.barrier().await.is_empty());
    }
    assert!(alice.barrier().await.is_empty() && bob.barrier().await.is_empty());
    assert_eq!(
        cluster.metric("curfew_broker_messages_dropped_total").await,
        0.0
    );
}

#[tokio::test]
async fn a_subscription_that_is_confirmed_misses_nothing() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let mut alice = cluster[1].user("alice").await;
    let mut publisher = cluster[0].user("bob").await;
    for round in 0..40 {
        let channel = format!("room:{round}");
        command(&mut alice, "subscribe", &channel).await;
        command_publish(&mut publisher, &channel, round).await;
        alice
            .expect_json(json!({"type":"message","channel":channel,"data":round}))
            .await;
        command(&mut alice, "unsubscribe", &channel).await;
    }
    // The subscriber leaves and returns faster than a node unsubscribes from a channel. Sometimes
    // it returns at the moment at which the node unsubscribes.
    for round in 0..60_u64 {
        command(&mut alice, "subscribe", "door").await;
        command_publish(&mut publisher, "door", round).await;
        alice
            .expect_json(json!({"type":"message","channel":"door","data":round}))
            .await;
        command(&mut alice, "unsubscribe", "door").await;
        if round % 10 == 9 {
            // The test sleeps here, because the subscriber should return at about the time at which
            // the node unsubscribes.
            tokio::time::sleep(Duration::from_millis(970 + round)).await;
        }
    }
}

async fn command_publish(publisher: &mut WsClient, channel: &str, data: u64) {
    publisher
        .send(json!({"type":"publish","id":data,"channel":channel,"data":data}))
        .await;
    publisher.expect_json(json!({"type":"ok","id":data})).await;
}

#[tokio::test]
async fn a_subscription_is_not_confirmed_before_redis_has_it() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let alice = Tape::of(cluster[0].user("alice").await);
    for (round, link) in [Link::STALLED, Link::DEAF, Link::MUTE, Link::CUT]
        .into_iter()
        .enumerate()
    {
        let channel = format!("room:{round}");
        let command = json!({"type":"subscribe","channel":channel});
        cluster.proxy(0).set_only(Kind::Subscriber, link);
        let answer = alice.ask(&format!("bad-{round}"), command.clone()).await;
        assert!(
            answer["type"] == "ok" || answer["code"] == "unavailable",
            "{answer}"
        );
        if answer["type"] == "ok" {
            assert_eq!(
                subscribers(&redis, &format!("curfew:channel:{channel}")).await,
                1,
                "{link:?}"
            );
        }
        cluster.proxy(0).set(Link::PASS);
        let (mut confirmed, mut again) = (answer["type"] == "ok", 0);
        while !confirmed {
            let answer = alice
                .ask(&format!("good-{round}-{again}"), command.clone())
                .await;
            assert!(
                answer["type"] == "ok" || answer["code"] == "unavailable",
                "{answer}"
            );
            confirmed = answer["type"] == "ok";
            again += 1;
            assert!(
                again < 2000,
                "{link:?}: the subscription is still unavailable"
            );
        }
        // A subscription that was confirmed before the link was faulty may be lost only now, so the
        // test first waits for the node.
        cluster[0].until_in_touch(Duration::from_secs(15)).await;
        cluster[1].publish(&channel, json!(round)).await;
        alice
            .until(json!({"type":"message","channel":channel,"data":round}))
            .await;
    }
}

#[tokio::test]
async fn a_node_listens_to_a_channel_only_while_somebody_does() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let channel = "curfew:channel:room:1";
    assert_eq!(subscribers(&redis, channel).await, 0);
    let mut first = cluster[0].subscriber("alice", "room:1").await;
    let second = cluster[0].subscriber("bob", "room:1").await;
    assert_eq!(subscribers(&redis, channel).await, 1);
    let _third = cluster[1].subscriber("carol", "room:1").await;
    assert_eq!(subscribers(&redis, channel).await, 2);
    command(&mut first, "unsubscribe", "room:1").await;
    second.reset();
    eventually("one node to listen", async || {
        (subscribers(&redis, channel).await == 1).then_some(())
    })
    .await;
    cluster[2].publish("room:1", json!(1)).await;
    assert!(first.barrier().await.is_empty());
    let channels = cluster[1].admin_ok("GET", "/v1/channels", None).await;
    assert_eq!(
        channels["channels"],
        json!([{"channel":"room:1","subscribers":1}])
    );
}

#[tokio::test]
async fn what_is_no_publication_is_dropped_and_counted_and_harms_nothing() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let mut listeners = listeners(&cluster).await;
    let mut garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0".to_vec(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"hello".to_vec(),
        br#"{"v":999,"data":1}"#.to_vec(),
        br#"{"v":"1"}"#.to_vec(),
        br#"{"type":"message","channel":"room:1","data":1,"from":"alice"}"#.to_vec(),
        vec![0xff; 1024],
        vec![b'['; 1024 * 1024],
        (0..1024 * 1024_u32).map(|n| n.to_le_bytes()[0]).collect(),
    ];
    // The junk includes each prefix of a valid envelope.
    let mut spy = redis.connect().await;
    spy.call(&["SUBSCRIBE", "curfew:channel:room:1"])
        .await
        .unwrap();
    cluster[0].publish("room:1", json!({"n":[1, 2, 3]})).await;
    for listener in &mut listeners {
        listener.expect_json(json!({"data":{"n":[1, 2, 3]}})).await;
    }
    let envelope = spy.reply().await.unwrap().texts().remove(2).into_bytes();
    garbage.extend((1..envelope.len()).map(|length| envelope[..length].to_vec()));
    // One envelope is valid except for its data, which is not JSON.
    let text = String::from_utf8_lossy(&envelope).replace("[1,2,3]", "[1,2,3}");
    garbage.push(text.into_bytes());

    let mut connection = redis.connect().await;
    for junk in &garbage {
        for channel in ["curfew:channel:room:1", "curfew:control"] {
            let command = [b"PUBLISH".as_slice(), channel.as_bytes(), junk];
            connection.call(&command).await.unwrap().accepted();
        }
    }
    cluster[0].publish("room:1", json!("after")).await;
    for listener in &mut listeners {
        // The node reports a gap for each of these messages, because it may have been a
        // publication.
        for _ in &garbage {
            listener
                .expect_json(json!({"type":"gap","channel":"room:1"}))
                .await;
        }
        listener
            .expect_json(json!({"type":"message","data":"after"}))
            .await;
    }
    let expected = u32::try_from(garbage.len()).unwrap();
    for node in cluster.nodes() {
        assert_counted(node, f64::from(expected)).await;
    }
    cluster[0]
        .revoke(json!({"kind":"user","value":"listener-2"}))
        .await;
    listeners[2].expect_close(4403, "revoked").await;
    cluster.assert_well().await;
}

async fn assert_counted(node: &Gateway, dropped: f64) {
    // The count may also include the junk on the control channel.
    node.until_metric("curfew_broker_messages_dropped_total", |count| {
        count >= dropped
    })
    .await;
}
