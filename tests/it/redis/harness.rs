//! Tests of the test harness itself, on which the other modules rely.

use std::time::{Duration, Instant};

use curfew_tests::{
    Attempt, Flow, Gateway, Kind, Link, Proxy, Redis, RedisCluster, Resp, Sentinel, eventually,
    redis_program,
};
use serde_json::json;
use tokio::time::timeout;

/// The server has the version that was requested. Redis and Valkey name their version in different
/// fields, and Valkey also names a version of Redis that it is compatible with.
#[tokio::test]
async fn the_server_that_is_tried_is_the_one_asked_for() {
    let Some(wanted) = std::env::var_os("CURFEW_REDIS_VERSION") else {
        assert!(
            std::env::var_os("CURFEW_REDIS").is_none(),
            "CURFEW_REDIS needs CURFEW_REDIS_VERSION"
        );
        return;
    };
    let wanted = wanted.into_string().unwrap();
    let (name, version) = wanted.split_once('-').unwrap();
    let redis = Redis::start().await;
    let info = redis.run(&["INFO", "server"]).await.text();
    let line = format!("{name}_version:{version}\r\n");
    assert!(info.contains(&line), "{:?}: {info}", redis_program(""));
}

#[tokio::test]
async fn a_server_keeps_its_data_only_when_told_to() {
    for (settings, kept) in [
        (&[][..], false),
        (&["appendonly yes", "appendfsync always"], true),
    ] {
        let mut redis = Redis::start_with(settings).await;
        let port = redis.port();
        redis.run(&["SET", "a", "1"]).await;
        redis.restart().await;
        assert_eq!(redis.has("a").await, kept);
        redis.restart_empty().await;
        assert!(!redis.has("a").await);
        assert_eq!(redis.port(), port);
    }
}

#[tokio::test]
async fn a_link_is_as_bad_as_asked() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address()).await;
    let mut through = Resp::connect(proxy.address()).await.unwrap();
    through.call(&["SET", "a", "1"]).await.unwrap();

    proxy.set(Link::both(Flow::Delay(Duration::from_millis(100))));
    let before = Instant::now();
    through.call(&["SET", "a", "2"]).await.unwrap();
    assert!(before.elapsed() > Duration::from_millis(199));

    // The server receives the command, and its answer arrives late.
    proxy.set(Link::only_down(Flow::Stall));
    let mut setting = Box::pin(async {
        through.call(&["SET", "a", "3"]).await.unwrap();
    });
    let heard = eventually("the command", async || {
        (redis.run(&["GET", "a"]).await.text() == "3").then_some(())
    });
    tokio::select! {
        () = &mut setting => panic!("an answer came over a link that is stalled"),
        () = heard => {}
    }
    proxy.set(Link::PASS);
    setting.await;

    // The server does not receive the command. The connection has lost bytes, so the proxy cuts it.
    proxy.set(Link::DEAF);
    let lost = timeout(Duration::from_millis(300), through.call(&["SET", "a", "4"]));
    lost.await.unwrap_err();
    proxy.set(Link::PASS);
    through.call(&["PING"]).await.unwrap_err();
    assert_eq!(redis.run(&["GET", "a"]).await.text(), "3");

    let mut through = Resp::connect(proxy.address()).await.unwrap();
    proxy.set(Link::CUT);
    through.call(&["PING"]).await.unwrap_err();
    let refused = async { Resp::connect(proxy.address()).await?.call(&["PING"]).await };
    refused.await.unwrap_err();
}

#[tokio::test]
async fn one_kind_of_connection_can_be_cut_alone_and_the_time_can_be_wrong() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address()).await;
    let mut plain = Resp::connect(proxy.address()).await.unwrap();
    let mut tracking = Resp::connect(proxy.address()).await.unwrap();
    tracking.call(&["HELLO", "2"]).await.unwrap();
    tracking.call(&["client", "tracking", "off"]).await.unwrap();
    let mut subscriber = Resp::connect(proxy.address()).await.unwrap();
    subscriber.call(&["SUBSCRIBE", "a"]).await.unwrap();
    proxy.set_only(Kind::Tracking, Link::CUT);
    tracking.call(&["PING"]).await.unwrap_err();
    plain.call(&["PING"]).await.unwrap();
    subscriber.call(&["PING"]).await.unwrap();
    proxy.set_only(Kind::Subscriber, Link::CUT);
    subscriber.call(&["PING"]).await.unwrap_err();

    let seconds = |reply: curfew_tests::Reply| reply.texts()[0].parse::<i64>().unwrap();
    let truth = seconds(redis.run(&["TIME"]).await);
    proxy.shift_time(-40);
    let said = seconds(plain.call(&["TIME"]).await.unwrap());
    assert!((39..=40).contains(&(truth - said)), "{truth} {said}");
}

#[tokio::test]
async fn a_cluster_and_a_failover_can_be_had() {
    let cluster = RedisCluster::start().await;
    for key in ["a", "b", "c", "d{x}", "e{x}"] {
        cluster.run(&["SET", key, "1"]).await;
    }
    assert_eq!(cluster.keys().await.len(), 5);

    let mut sentinel = Sentinel::start().await;
    sentinel.primary.run(&["SET", "kept", "1"]).await;
    sentinel.replica.until_key("kept").await;
    sentinel.cut_replication();
    sentinel.primary.run(&["SET", "lost", "1"]).await;
    sentinel.primary.kill();
    sentinel.promoted().await;
    assert!(sentinel.replica.has("kept").await);
    assert!(!sentinel.replica.has("lost").await);
    sentinel.replica.run(&["SET", "a", "1"]).await;
}

#[tokio::test]
async fn a_recorded_client_shows_what_came_and_when() {
    let gateway = Gateway::start_default().await;
    let alice = gateway.tape("alice", "room:1").await;
    let publisher = gateway.publisher("bob", "room:1").await;
    let first = alice.until(json!({"type":"message","data":0})).await;
    alice.message_after(Duration::from_secs(10), first.at).await;
    alice.assert_open("1").await;
    let revoked = Instant::now();
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    assert!(alice.revoked().await >= revoked && alice.is_closed());
    alice.assert_revoked_within_the_lease(revoked, "at once");
    gateway.assert_refused("alice").await;
    gateway.assert_admits("carol").await;
    drop(publisher);
    eventually("no sessions", async || {
        gateway.sessions().await.is_empty().then_some(())
    })
    .await;
    let attempt = gateway.attempt_with("not.a.token").await;
    assert!(matches!(attempt, Attempt::Refused(reason, 4401) if reason == "malformed"));
    assert_eq!(
        gateway.nodes().await[0]["node"],
        gateway.id().await.as_str()
    );
    gateway.until_in_touch(Duration::from_secs(10)).await;
}
