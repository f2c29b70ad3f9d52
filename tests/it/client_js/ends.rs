//! Connections that end because of the network, the node, the end of access, or sleep.

use std::cell::Cell;

use curfew_testkit::PATIENCE;
use curfew_tests::{Cluster, Gateway, Link, Proxy, Redis, signal};
use serde_json::json;

use super::{live, live_watched, settings};

#[tokio::test]
async fn a_network_that_is_half_open_is_noticed() {
    let node = Gateway::start_with(&settings()).await;
    let way = Proxy::start(node.address()).await;
    let task = json!({"publisher":node.address().to_string(),"scenarios":["half_open"]});
    let steps = live(way.address(), task, async |what| match what {
        "stall:" => way.set(Link::STALLED),
        "let pass:" => way.set(Link::PASS),
        other => panic!("{other}"),
    });
    assert_eq!(steps.await, ["stall:", "let pass:", "half_open"]);
}

#[tokio::test]
async fn a_node_that_starts_anew_has_its_clients_back() {
    let mut node = Some(Gateway::start_with(&settings()).await);
    let way = Proxy::start(node.as_ref().expect("a node").address()).await;
    let first = node.as_ref().expect("a node").address().to_string();
    let task = json!({"publisher":first,"scenarios":["restart"]});
    let steps = live(way.address(), task, async |what| {
        assert_eq!(what, "restart the node:");
        drop(node.take());
        let next = Gateway::start_with(&settings()).await;
        way.point_to(next.address());
        node = Some(next);
    });
    assert_eq!(steps.await, ["restart the node:", "restart"]);
}

/// The client connects to a proxy. The proxy leads to the first node until this node drains, then
/// to the second node until this node is killed, and then to the third node. The publisher uses the
/// third node.
#[tokio::test]
async fn a_client_has_every_message_when_its_node_drains_or_dies() {
    let redis = Redis::start().await;
    let settings = settings().with("drain.window = \"1s\"");
    let mut cluster = Cluster::start(3, &redis.url(), &settings).await;
    let way = Proxy::start(cluster[0].address()).await;
    for signal in ["TERM", "KILL"] {
        let next = cluster[1].address();
        let task = json!({
            "publisher": cluster[cluster.nodes().len() - 1].address().to_string(),
            "scenarios": ["failover"],
            "drains": signal == "TERM",
        });
        let mut ended = cluster.remove(0);
        let steps = live(way.address(), task, async |what| {
            assert_eq!(what, "end the node:");
            way.point_to(next);
            ended.signal(signal);
        });
        assert_eq!(steps.await, ["end the node:", "failover"], "{signal}");
        let code = ended.exited(PATIENCE).await;
        assert_eq!(code == 0, signal == "TERM", "{signal}: {code}");
    }
}

#[tokio::test]
async fn a_client_whose_user_is_revoked_stays_away() {
    let node = Gateway::start_with(&settings()).await;
    let task = json!({"scenarios":["revoked"]});
    let steps = live(node.address(), task, async |what| {
        assert_eq!(what, "revoke alice:");
        node.revoke(json!({"kind":"user","value":"alice"})).await;
    });
    assert_eq!(steps.await, ["revoke alice:", "revoked"]);
    let log = node.log().text();
    assert!(!log.contains("bearer."), "{log}");
}

#[tokio::test]
async fn a_token_that_expires_ends_the_session_and_a_new_one_opens_the_next() {
    let settings = settings()
        .with("auth.leeway = \"0s\"")
        .with("session.expiring_notice = \"0s\"");
    let node = Gateway::start_with(&settings).await;
    let task = json!({"scenarios":["expires"]});
    let steps = live(node.address(), task, async |what| panic!("{what}"));
    assert_eq!(steps.await, ["expires"]);
}

#[tokio::test]
async fn a_token_is_renewed_in_the_session() {
    let settings = settings()
        .with("auth.leeway = \"0s\"")
        .with("session.expiring_notice = \"2s\"");
    let node = Gateway::start_with(&settings).await;
    let task = json!({"scenarios":["renews"]});
    let steps = live(node.address(), task, async |what| panic!("{what}"));
    assert_eq!(steps.await, ["renews"]);
}

#[tokio::test]
async fn a_client_that_slept_has_what_it_missed() {
    let settings = settings()
        .with("session.ping_interval = \"1s\"")
        .with("session.pong_timeout = \"1s\"");
    let node = Gateway::start_with(&settings).await;
    let task = json!({"scenarios":["sleeps"]});
    let pid = Cell::new(0);
    let steps = live_watched(
        node.address(),
        task,
        async |what| {
            assert_eq!(what, "put to sleep:");
            signal(pid.get(), "STOP");
            let no_pong = "curfew_connections_closed_total{code=\"4510\"}";
            node.until_metric(no_pong, |count| count >= 1.0).await;
            for n in [2, 3] {
                node.publish("room:sleep", json!(n)).await;
            }
            signal(pid.get(), "CONT");
        },
        |started| pid.set(started),
    );
    assert_eq!(steps.await, ["put to sleep:", "sleeps"]);
}

#[tokio::test]
async fn a_client_without_a_token_is_a_visitor() {
    for sources in [r#"["message","subprotocol"]"#, r#"["subprotocol"]"#] {
        let settings = settings()
            .with("auth.anonymous = true")
            .with("auth.anonymous_lifetime = \"1s\"")
            .with(&format!("auth.token_sources = {sources}"));
        let node = Gateway::start_with(&settings).await;
        let task = json!({"scenarios":["anonymous"]});
        let steps = live(node.address(), task, async |what| panic!("{what}"));
        assert_eq!(steps.await, ["anonymous"], "{sources}");
    }
}
