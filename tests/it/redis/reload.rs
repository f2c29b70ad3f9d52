//! Settings that change while sessions are open, and the receipts during the change (CONTRACT §2,
//! §6, §8 R5).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{
    Cluster, Flow, Gateway, Kind, Link, Redis, Settings, Tape, eventually, revocation_key,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SUCCESS: &str = "curfew_config_last_reload_successful";

fn by(claims: &str) -> Settings {
    Settings::default().with(&format!("session.revocable_claims = {claims}"))
}

/// The settings after the reload. The settings before the reload make no claim revocable.
fn after(url: &str) -> Settings {
    by("[\"tenant\"]").on_redis(url)
}

fn token(user: &str, tenant: &str) -> String {
    Key::default_secret().user_with(user, json!({"tenant":tenant}))
}

/// A session of `user` in `tenant` that subscribes to `room:1`.
async fn listener(node: &Gateway, user: &str, tenant: &str) -> Tape {
    let mut client = node.session(&token(user, tenant)).await;
    client
        .send(json!({"type":"subscribe","id":0,"channel":"room:1"}))
        .await;
    client.expect_json(json!({"type":"ok","id":0})).await;
    Tape::of(client)
}

/// Revokes the tenant `acme` through the API of `node`. Returns the status and the receipt. Asserts
/// that the receipt has a name for each missing node.
async fn revoke_acme(node: &Gateway) -> (u16, Value) {
    let body = json!({"kind":"tenant","value":"acme","ttl":"1h"});
    let (status, mut receipt) = node.admin("POST", "/v1/revocations", Some(body)).await;
    if let Some(nodes) = receipt["nodes"].as_object_mut() {
        let names = nodes.remove("names").unwrap_or_else(|| json!({}));
        for missing in nodes["missing"].as_array().into_iter().flatten() {
            assert!(names[missing.as_str().unwrap()].is_string(), "{names}");
        }
    }
    (status, receipt)
}

fn nodes(live: u64, missing: &[&str]) -> Value {
    json!({"live":live,"confirmed":live - missing.len() as u64,"missing":missing})
}

#[tokio::test]
async fn sessions_from_before_a_reload_are_closed_by_what_it_makes_revocable() {
    for told in [true, false] {
        let redis = Redis::start().await;
        let cluster = Cluster::start(1, &redis.url(), &by("[]")).await;
        let idle = Tape::of(cluster[0].session(&token("idle", "acme")).await);
        let busy = listener(&cluster[0], "busy", "acme").await;
        let other = listener(&cluster[0], "other", "other").await;
        let _publisher = cluster[0].publisher("carol", "room:1").await;
        busy.until(json!({"type":"message"})).await;
        cluster[0].take_over(&after(&redis.url()), told).await;
        let revoked = Instant::now();
        let (status, receipt) = revoke_acme(&cluster[0]).await;
        assert_eq!(
            (status, &receipt["nodes"]),
            (200, &nodes(1, &[])),
            "{receipt}"
        );
        assert_eq!(receipt["closed"], 2, "{receipt}");
        for tape in [&idle, &busy] {
            tape.revoked().await;
            tape.assert_revoked_within_the_lease(revoked, "after a reload");
        }
        other.assert_open("after the reload").await;
        cluster.assert_well().await;
    }
}

#[tokio::test]
async fn a_bare_key_is_applied_whether_it_was_written_before_the_reload_or_after() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &by("[]")).await;
    let mut tapes = Vec::new();
    for tenant in ["before", "after", "other"] {
        tapes.push(listener(&cluster[0], tenant, tenant).await);
    }
    let _publisher = cluster[0].publisher("carol", "room:1").await;
    let revoke = async |tenant: &str| {
        let key = revocation_key("tenant", tenant);
        redis.run(&["SET", &key, "1"]).await;
    };
    revoke("before").await;
    tapes[0]
        .assert_open("as long as the settings lack the kind")
        .await;
    cluster[0].take_over(&after(&redis.url()), true).await;
    tapes[0].revoked().await;
    tapes[1].assert_open("after the reload").await;
    revoke("after").await;
    tapes[1].revoked().await;
    tapes[2].assert_open("at the end").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_node_that_has_not_reloaded_yet_is_missing_from_the_receipt() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &by("[]")).await;
    let here = listener(&cluster[0], "alice", "acme").await;
    let there = listener(&cluster[1], "bob", "acme").await;
    cluster[0].take_over(&after(&redis.url()), true).await;
    let (status, receipt) = revoke_acme(&cluster[0]).await;
    let missing = cluster[1].id().await;
    assert_eq!((status, &receipt["nodes"]), (202, &nodes(2, &[&missing])));
    assert_eq!(receipt["closed"], 1, "{receipt}");
    here.revoked().await;
    there.assert_open("there").await;
    let (status, refused) = revoke_acme(&cluster[1]).await;
    assert_eq!(
        status, 400,
        "the node knows the kind before its reload: {refused}"
    );
    // The node that has not reloaded confirms revocations of other kinds.
    let receipt = cluster[0]
        .revoke(json!({"kind":"user","value":"nobody"}))
        .await;
    assert_eq!(receipt["nodes"], nodes(2, &[]));
    cluster[1].take_over(&after(&redis.url()), true).await;
    there.revoked().await;
    let (status, receipt) = revoke_acme(&cluster[1]).await;
    assert_eq!(
        (status, &receipt["nodes"]),
        (200, &nodes(2, &[])),
        "{receipt}"
    );
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_reload_is_over_only_once_redis_was_asked() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &by("[]")).await;
    let url = |at: usize| format!("redis://{}", cluster.proxy(at).address());
    cluster[0].take_over(&after(&url(0)), true).await;
    let there = Tape::of(cluster[1].session(&token("bob", "acme")).await);
    // Only the control connection is stalled, so the node still counts as live.
    let stalled = Link::both(Flow::Stall);
    cluster.proxy(1).set_only(Kind::Tracking, stalled);
    cluster[1].write_config(&after(&url(1)));
    cluster[1].reload();
    eventually("the configuration to be taken over", async || {
        let log = cluster[1].log().text();
        log.contains("configuration in force").then_some(())
    })
    .await;
    let (status, receipt) = revoke_acme(&cluster[0]).await;
    let missing = cluster[1].id().await;
    assert_eq!((status, &receipt["nodes"]), (202, &nodes(2, &[&missing])));
    assert_eq!(cluster[1].metric(SUCCESS).await, 0.0);
    // The last reload failed because of an invalid file. The failure does not revert the reload
    // before it.
    cluster[1].write("curfew.toml", "nonsense");
    cluster[1].reload();
    cluster.proxy(1).set(Link::PASS);
    there.revoked().await;
    assert_eq!(cluster[1].metric(SUCCESS).await, 0.0);
    cluster[1].take_over(&after(&url(1)), true).await;
    let (status, receipt) = revoke_acme(&cluster[0]).await;
    assert_eq!(
        (status, &receipt["nodes"]),
        (200, &nodes(2, &[])),
        "{receipt}"
    );
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_does_not_wait_for_a_reload() {
    let redis = Redis::start().await;
    let settings = by("[]").with("drain.window = \"100ms\"");
    let mut cluster = Cluster::behind_proxies(1, &redis, &settings).await;
    let url = format!("redis://{}", cluster.proxy(0).address());
    let _session = cluster[0].tape("alice", "room:1").await;
    cluster.proxy(0).set(Link::both(Flow::Stall));
    let mut node = cluster.remove(0);
    node.write_config(&after(&url).with("drain.window = \"100ms\""));
    node.reload();
    node.until_metric(SUCCESS, |value| value == 0.0).await;
    node.signal("TERM");
    assert_eq!(node.exited(Duration::from_secs(15)).await, 0);
}

/// Opens, refreshes and closes sessions of the tenant `acme` on `node`. Returns the sessions that
/// stay open.
async fn come_refresh_and_go(node: &Gateway, worker: usize) -> Vec<Tape> {
    let mut kept = Vec::new();
    for round in 0..40 {
        let user = format!("user-{worker}-{round}");
        let mut client = node.session(&token(&user, "acme")).await;
        client
            .send(json!({"type":"refresh","id":1,"token":token(&user, "acme")}))
            .await;
        client.expect_json(json!({"type":"refreshed","id":1})).await;
        if round % 4 == 0 {
            kept.push(Tape::of(client));
        }
    }
    kept
}

#[tokio::test]
async fn after_a_storm_of_reloads_every_session_is_found_by_the_last_settings() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &by("[]")).await;
    let node = &cluster[0];
    let storm = async {
        for round in 0..20 {
            let claims = [
                "[]",
                "[\"tenant\"]",
                "[\"device\",\"tenant\"]",
                "[\"device\"]",
            ];
            let since = node.log().lines().len();
            node.write_config(&by(claims[round % 4]).on_redis(&redis.url()));
            node.reload();
            // The test waits for every third reload. The other reloads may overlap.
            if round % 3 == 0 {
                eventually("a reload", async || {
                    let lines = node.log().lines();
                    let new = &lines[since..];
                    new.iter()
                        .any(|line| line.contains("configuration"))
                        .then_some(())
                })
                .await;
            }
        }
    };
    let (_, one, two, three) = tokio::join!(
        storm,
        come_refresh_and_go(node, 1),
        come_refresh_and_go(node, 2),
        come_refresh_and_go(node, 3),
    );
    let kept: Vec<Tape> = one.into_iter().chain(two).chain(three).collect();
    node.take_over(&after(&redis.url()), true).await;
    eventually("only those that are kept", async || {
        (node.sessions().await.len() == kept.len()).then_some(())
    })
    .await;
    let (status, receipt) = revoke_acme(node).await;
    assert_eq!(
        (status, &receipt["nodes"]),
        (200, &nodes(1, &[])),
        "{receipt}"
    );
    assert_eq!(receipt["closed"], kept.len(), "{receipt}");
    let mut closing = JoinSet::new();
    for tape in kept {
        closing.spawn(async move { tape.revoked().await });
    }
    closing.join_all().await;
    cluster.assert_well().await;
}
