//! A slow connection never delays the messages of another connection (CONTRACT §8, R7).

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, Incoming, PATIENCE};
use curfew_tests::{Gateway, Settings};
use serde_json::json;

/// Number of publications until the test waits for the clients that read. Their bytes are far below
/// `outbound_bytes`.
const BATCH: u32 = 8;
const BATCHES: u32 = 42;

fn slowly(gateway: &Gateway, user: &str) -> Connect {
    gateway
        .ws()
        .bearer(&Key::default_secret().user(user))
        .receive_buffer(16 * 1024)
}

#[tokio::test]
async fn whoever_stops_reading_is_closed_with_4508_and_nobody_else_loses_anything() {
    let gateway = Gateway::start_default().await;
    let (mut slow, _) = gateway.connected(slowly(&gateway, "slow")).await;
    slow.send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.expect_json(json!({"type":"ok"})).await;
    let mut good = gateway.subscriber("good", "flood").await;
    let mut publisher = gateway.user("publisher").await;
    let before = gateway.rss_kib();
    let pad = "x".repeat(60_000);
    // All publications together have 20 MB.
    for batch in 0..BATCHES {
        for n in 0..BATCH {
            let data = json!([batch * BATCH + n, pad]);
            publisher
                .send(json!({"type":"publish","channel":"flood","data":data}))
                .await;
        }
        for n in 0..BATCH {
            let message = good.next_json().await;
            assert_eq!(message["data"][0], batch * BATCH + n);
        }
    }
    gateway
        .until_metric("curfew_connections_closed_total{code=\"4508\"}", |n| {
            n == 1.0
        })
        .await;
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert!(publisher.barrier().await.is_empty());
    assert!(good.barrier().await.is_empty());
    // The slow client reads again. It receives the reason, or only the end if the node has already
    // cut the connection.
    loop {
        match slow.incoming(PATIENCE).await {
            Incoming::Frame(frame) if frame.opcode == 8 => {
                assert_eq!(frame.close(), (4508, "slow_consumer".to_owned()));
            }
            Incoming::Frame(_) => {}
            Incoming::End | Incoming::Cut(_) => break,
            Incoming::Silence => panic!("the connection stays open"),
        }
    }
    let dropped = gateway.metric("curfew_messages_dropped_total").await;
    assert!(dropped > 0.0);
}

#[tokio::test]
async fn the_bound_of_one_connection_is_configurable() {
    let settings = Settings::default().with("limits.outbound_bytes = 33554432");
    let gateway = Gateway::start_with(&settings).await;
    let (mut slow, _) = gateway.connected(slowly(&gateway, "slow")).await;
    slow.send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.expect_json(json!({"type":"ok"})).await;
    let mut publisher = gateway.user("publisher").await;
    let pad = "x".repeat(60_000);
    for n in 0..BATCH * BATCHES {
        publisher
            .send(json!({"type":"publish","id":n,"channel":"flood","data":[n, pad]}))
            .await;
        publisher.expect_json(json!({"type":"ok","id":n})).await;
    }
    for n in 0..BATCH * BATCHES {
        assert_eq!(slow.next_json().await["data"][0], n);
    }
}

#[tokio::test]
async fn the_bound_of_the_node_holds_for_many_connections_together() {
    let settings = Settings::default()
        .with("limits.outbound_bytes = 4194304")
        .with("limits.node_outbound_bytes = 4194304");
    let gateway = Gateway::start_with(&settings).await;
    let mut slow = Vec::new();
    for _ in 0..6 {
        let (mut client, _) = gateway.connected(slowly(&gateway, "slow")).await;
        client
            .send(json!({"type":"subscribe","id":0,"channel":"flood"}))
            .await;
        client.expect_json(json!({"type":"ok"})).await;
        slow.push(client);
    }
    let mut publisher = gateway.user("publisher").await;
    let pad = "x".repeat(60_000);
    // Each of the six clients would receive 8 MB. This is more than the node may queue, even
    // without the bytes that the kernel accepts.
    for n in 0..140 {
        publisher
            .send(json!({"type":"publish","id":n,"channel":"flood","data":[n, pad]}))
            .await;
        publisher.expect_json(json!({"type":"ok","id":n})).await;
    }
    gateway
        .until_metric("curfew_connections_closed_total{code=\"4508\"}", |n| {
            n >= 1.0
        })
        .await;
    assert!(publisher.barrier().await.is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn who_takes_no_byte_for_the_write_timeout_is_cut() {
    let settings = Settings::default()
        .with("limits.outbound_bytes = 33554432")
        .with(r#"session.write_timeout = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let (mut slow, _) = gateway.connected(slowly(&gateway, "slow")).await;
    slow.send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.expect_json(json!({"type":"ok"})).await;
    let mut publisher = gateway.user("publisher").await;
    let pad = "x".repeat(60_000);
    for n in 0..BATCH * BATCHES {
        publisher
            .send(json!({"type":"publish","id":n,"channel":"flood","data":[n, pad]}))
            .await;
        publisher.expect_json(json!({"type":"ok","id":n})).await;
    }
    gateway
        .until_metric("curfew_connections", |n| n == 1.0)
        .await;
    assert!(publisher.barrier().await.is_empty());
}

/// Frames of `lost` are short. The frame that is half written when the access ends is therefore
/// almost certainly a frame of `kept`.
#[tokio::test]
async fn a_channel_that_a_reload_takes_away_ends_with_what_the_kernel_has() {
    const COUNT: u32 = 100;
    let settings = || Settings::default().with("limits.outbound_bytes = 33554432");
    let gateway = Gateway::start_with(&settings()).await;
    let (mut slow, _) = gateway.connected(slowly(&gateway, "slow")).await;
    for channel in ["kept", "lost"] {
        slow.send(json!({"type":"subscribe","id":0,"channel":channel}))
            .await;
        slow.expect_json(json!({"type":"ok"})).await;
    }
    let mut publisher = gateway.user("publisher").await;
    let pad = "x".repeat(60_000);
    for n in 0..COUNT {
        for (channel, pad) in [("kept", pad.as_str()), ("lost", "")] {
            publisher
                .send(json!({"type":"publish","id":n,"channel":channel,"data":[n, pad]}))
                .await;
            publisher.expect_json(json!({"type":"ok","id":n})).await;
        }
    }
    gateway
        .until_metric("curfew_send_queue_bytes", |bytes| bytes > 1e6)
        .await;
    let rules =
        "[[policy.rules]]\nname = \"all\"\nchannels = [\"kept\"]\nactions = [\"subscribe\"]\n";
    gateway.write_config(&settings().rules(rules));
    gateway
        .until_metric("curfew_subscriptions_lost_total", |lost| lost == 1.0)
        .await;
    let withheld = gateway
        .metric("curfew_messages_dropped_total{reason=\"forbidden\"}")
        .await;
    assert!(withheld > 0.0, "{withheld}");
    let mut came = [0, 0];
    loop {
        let frame = slow.next_json().await;
        match frame["channel"].as_str() {
            Some("lost") if frame["type"] == "unsubscribed" => break,
            Some("lost") => came[1] += 1,
            _ => came[0] += 1,
        }
        assert!(frame["channel"] == "kept" || frame["data"][0] == came[1] - 1);
    }
    assert_eq!(came[0], COUNT);
    assert_eq!(f64::from(came[1]) + withheld, f64::from(COUNT));
    assert!(slow.barrier().await.is_empty());
}
