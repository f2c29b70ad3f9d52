//! Records that other programs remove while the sessions are open (CONTRACT §7).

use std::time::Duration;

use curfew_testkit::WsClient;
use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Cluster, Flow, Gateway, Kind, Link, Redis, Settings, eventually_within};
use serde_json::json;

/// Deadline for a record to be restored. The node checks a record within 30 s, and writes it 10 s
/// later. The remaining time is for a busy machine.
const RESTORED: Duration = Duration::from_secs(60);

/// Settings with which clients may stay silent while the test waits.
fn settings() -> Settings {
    Settings::default().with("session.ping_interval = \"5m\"")
}

/// A session of a user, and the keys of the session's record.
struct Recorded {
    client: WsClient,
    session: String,
    hash: String,
    of_user: String,
    of_node: String,
}

const OF_ALL: &str = "curfew:sessions";

impl Recorded {
    async fn open(node: &Gateway, user: &str) -> Self {
        let token = Key::default_secret().user(user);
        let (client, connected) = node.connected(node.ws().bearer(&token)).await;
        let session = connected["session"].as_str().unwrap().to_owned();
        Self {
            client,
            hash: format!("curfew:session:{session}"),
            of_user: format!("curfew:user:{user}:sessions"),
            of_node: format!("curfew:node:{}:sessions", node.id().await),
            session,
        }
    }

    /// True if the record has all keys and fields that CONTRACT §7 names.
    async fn is_whole(&self, redis: &Redis) -> bool {
        let noted = redis
            .run(&["SISMEMBER", &self.of_node, &self.session])
            .await;
        let mut places = true;
        for set in [self.of_user.as_str(), OF_ALL] {
            let members = redis.run(&["ZRANGE", set, "0", "-1"]).await.texts();
            places &= members.contains(&self.session);
        }
        redis.has(&self.hash).await && noted.integer() == 1 && places
    }

    async fn until_whole(&self, redis: &Redis) {
        eventually_within(RESTORED, "the whole record", async || {
            self.is_whole(redis).await.then_some(())
        })
        .await;
    }

    /// Asserts that `node` finds the session by its user, and closes it by its id.
    async fn is_reached(&mut self, node: &Gateway, user: &str) {
        let path = format!("/v1/sessions?user={user}");
        let listed = node.admin_ok("GET", &path, None).await;
        assert_eq!(listed["sessions"][0]["session"], self.session.as_str());
        let path = format!("/v1/sessions/{}", self.session);
        node.admin_ok("DELETE", &path, None).await;
        self.client.expect_close(4404, "disconnected").await;
    }
}

#[tokio::test]
async fn whatever_is_missing_of_a_live_sessions_record_is_written_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let mut all = Vec::new();
    for user in [
        "hash",
        "of-user",
        "of-node",
        "of-all",
        "other-node",
        "whole",
    ] {
        all.push((user, Recorded::open(&cluster[0], user).await));
    }
    for (user, recorded) in &all {
        let session = &recorded.session;
        match *user {
            "hash" => redis.run(&["DEL", &recorded.hash]).await,
            "of-user" => redis.run(&["ZREM", &recorded.of_user, session]).await,
            "of-node" => redis.run(&["SREM", &recorded.of_node, session]).await,
            "of-all" => redis.run(&["ZREM", OF_ALL, session]).await,
            "other-node" => {
                let elsewhere = cluster[1].id().await;
                let command = ["HSET", &recorded.hash, "node", &elsewhere];
                redis.run(&command).await
            }
            _ => continue,
        };
        assert!(*user == "other-node" || !recorded.is_whole(&redis).await);
    }
    for (_, recorded) in &all {
        recorded.until_whole(&redis).await;
    }
    let here = cluster[0].id().await;
    let moved = &all[4].1.hash;
    eventually_within(RESTORED, "the right node", async || {
        let node = redis.run(&["HGET", moved, "node"]).await.text();
        (node == here).then_some(())
    })
    .await;
    for (user, recorded) in &mut all {
        recorded.is_reached(&cluster[1], user).await;
    }
    let restored = cluster
        .metric("curfew_session_records_restored_total")
        .await;
    assert_eq!(
        restored, 5.0,
        "not exactly the five incomplete records were restored, once each"
    );
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_reaper_that_is_late_takes_nothing_for_good_from_a_node_that_is_back() {
    /// Deadline for the other node to consider the stopped node dead, and for the stopped node to
    /// return.
    const SLEEPS: Duration = Duration::from_secs(40);
    let redis = Redis::start().await;
    let settings = settings().with("backend.grace = \"5m\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let (sleeper, reaper) = (&cluster[0], &cluster[1]);
    let mut recorded = Recorded::open(sleeper, "alice").await;
    redis.run(&["HSET", &recorded.hash, "marked", "1"]).await;
    redis.run(&["CONFIG", "RESETSTAT"]).await;

    sleeper.signal("STOP");
    // Each command of the node that reaps is delayed, so that the test can act between two
    // commands.
    let link = cluster.proxy(1);
    link.set_only(
        Kind::Other,
        Link::only_up(Flow::Delay(Duration::from_millis(400))),
    );
    // The node that reaps has read the owners of the sessions. Its next command removes their
    // records.
    eventually_within(SLEEPS, "the other node to begin to reap", async || {
        let stats = redis.run(&["INFO", "commandstats"]).await.text();
        stats.contains("cmdstat_hmget:").then_some(())
    })
    .await;
    link.set_only(Kind::Other, Link::only_up(Flow::Stall));
    assert!(
        redis.has(&recorded.hash).await,
        "the record was removed before the stall"
    );

    sleeper.signal("CONT");
    sleeper.until_in_touch(SLEEPS).await;
    // The node that was stopped has found that its lease was over. It now writes its records again.
    eventually_within(SLEEPS, "the records to be written again", async || {
        let marked = redis.run(&["HEXISTS", &recorded.hash, "marked"]).await;
        (marked.integer() == 0 && recorded.is_whole(&redis).await).then_some(())
    })
    .await;

    link.set_only(Kind::Other, Link::PASS);
    eventually_within(SLEEPS, "the late removal", async || {
        (!redis.has(&recorded.hash).await).then_some(())
    })
    .await;
    recorded.until_whole(&redis).await;
    reaper.until_in_touch(SLEEPS).await;
    recorded.is_reached(reaper, "alice").await;
    assert!(
        sleeper
            .metric("curfew_session_records_restored_total")
            .await
            >= 1.0
    );
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_refresh_writes_a_record_that_was_removed() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let mut recorded = Recorded::open(&cluster[0], "alice").await;
    redis.run(&["DEL", &recorded.hash]).await;
    let exp = unix_now() + 7200;
    let token = Key::default_secret().user_with("alice", json!({"exp":exp}));
    let refresh = json!({"type":"refresh","id":1,"token":token});
    recorded.client.send(refresh).await;
    recorded
        .client
        .expect_json(json!({"type":"refreshed","id":1}))
        .await;
    // The refresh writes the record at once, and does not wait for a check.
    let ends = redis.run(&["HGET", &recorded.hash, "expires_at"]).await;
    assert_eq!(ends.text(), exp.to_string());
    recorded.is_reached(&cluster[1], "alice").await;
}

#[tokio::test]
async fn a_session_that_ends_while_its_record_is_missing_is_not_brought_back() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &settings()).await;
    let closes = Recorded::open(&cluster[0], "alice").await;
    let stays = Recorded::open(&cluster[0], "bob").await;
    for recorded in [&closes, &stays] {
        redis.run(&["DEL", &recorded.hash]).await;
    }
    // The session must end in the ten seconds between the first and the second check that find its
    // record missing.
    stays.until_whole(&redis).await;
    closes.until_whole(&redis).await;
    redis.run(&["DEL", &closes.hash]).await;
    closes.client.reset();
    eventually_within(
        RESTORED,
        "the removal of every key of the session",
        async || {
            let keys = redis.keys().await;
            let left = keys.iter().any(|key| key.contains("alice"));
            let noted = redis.run(&["SCARD", &stays.of_node]).await.integer();
            (!left && noted == 1).then_some(())
        },
    )
    .await;
    // Later checks must not restore the record either. The record of the other session is restored,
    // which proves that a later check ran.
    redis.run(&["DEL", &stays.hash]).await;
    stays.until_whole(&redis).await;
    let keys = redis.keys().await;
    assert!(!keys.iter().any(|key| key.contains("alice")), "{keys:?}");
    assert!(!redis.has(&closes.hash).await);
}
