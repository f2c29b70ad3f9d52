//! A Redis that hangs, dies, or restarts without its data (CONTRACT §8 R6).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{
    Attempt, Cluster, Flow, Gateway, LEASE, Link, Publisher, Redis, Settings, Tape, eventually,
    eventually_within, revocation_key,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Deadline for a cluster to recover once its Redis has recovered.
const RECOVERY: Duration = Duration::from_secs(15);

/// Two nodes that share a Redis. Alice is revoked by `SET`, and carol is revoked by the API. Bob
/// has a session on each node, and both sessions receive publications.
struct Stage {
    redis: Redis,
    cluster: Cluster,
    bobs: Vec<Tape>,
    _publisher: Publisher,
}

/// Requests sessions of alice until the node admits other users. Alice must not get a session.
async fn alice_knocks_until_ready(node: &Gateway) {
    eventually_within(RECOVERY, "others to be admitted", async || {
        let attempt = node.attempt("alice").await;
        assert!(
            attempt.is_revoked() || attempt.is_unavailable(),
            "{attempt:?}"
        );
        match node.attempt("frank").await {
            Attempt::Open(_) => Some(()),
            Attempt::Unavailable => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
}

impl Stage {
    async fn set(redis: Redis, settings: &Settings) -> Self {
        let cluster = Cluster::start(2, &redis.url(), settings).await;
        let publisher = cluster[1].publisher("dave", "room:1").await;
        let alice = cluster[0].tape("alice", "room:1").await;
        let mut bobs = Vec::new();
        for node in cluster.nodes() {
            bobs.push(node.tape("bob", "room:1").await);
        }
        // This revocation is removed before the data is lost, so it must not be written back.
        let erin = revocation_key("user", "erin");
        redis.run(&["SET", &erin, "1"]).await;
        cluster[0].assert_refused("erin").await;
        redis.run(&["DEL", &erin]).await;
        redis
            .run(&["SET", &revocation_key("user", "alice"), "1", "EX", "3600"])
            .await;
        alice.revoked().await;
        cluster[0]
            .revoke(json!({"kind":"user","value":"carol","reason":"left","ttl":"2h"}))
            .await;
        for node in cluster.nodes() {
            node.until_metric("curfew_revocations_known", |known| known == 2.0)
                .await;
        }
        Self {
            redis,
            cluster,
            bobs,
            _publisher: publisher,
        }
    }

    /// Asserts that every session of bob receives publications from after `since` and has its
    /// record.
    async fn assert_bobs_live_on(&self, since: Instant) {
        for (n, bob) in self.bobs.iter().enumerate() {
            bob.message_after(RECOVERY, since).await;
            bob.assert_open(&format!("{n}-{since:?}")).await;
        }
        eventually_within(RECOVERY, "the records of live sessions", async || {
            let records = self.redis.keys().await;
            let bobs = records
                .iter()
                .filter(|key| key.starts_with("curfew:session:"));
            // These are the two sessions of bob and the publisher's session.
            (bobs.count() == 3).then_some(())
        })
        .await;
        let index = self.redis.run(&["ZCARD", "curfew:user:bob:sessions"]).await;
        assert_eq!(index.integer(), 2);
    }

    /// Asserts that revocations still exist with their remaining time, and that a removed
    /// revocation stays removed.
    async fn assert_revocations_kept(&self) {
        for (user, seconds) in [("alice", 3600), ("carol", 7200)] {
            let key = revocation_key("user", user);
            let left = self.redis.run(&["TTL", &key]).await.integer();
            assert!((seconds - 60..=seconds).contains(&left), "{user}: {left}");
            for node in self.cluster.nodes() {
                node.assert_refused(user).await;
            }
        }
        let listed = self.cluster[1]
            .admin_ok("GET", "/v1/revocations", None)
            .await;
        assert_eq!(
            listed["revocations"].as_array().unwrap().len(),
            2,
            "{listed}"
        );
        self.cluster[0].assert_admits("erin").await;
    }
}

#[tokio::test]
async fn a_redis_that_sleeps_for_five_seconds_costs_nobody_the_session() {
    let stage = Stage::set(Redis::start().await, &Settings::default()).await;
    let erin = stage.cluster[0].tape("erin", "room:1").await;
    erin.until(json!({"type":"message"})).await;
    let mut connection = stage.redis.connect().await;
    let key = revocation_key("user", "erin");
    let written = Instant::now();
    // Redis executes both commands in one iteration of its event loop, so it does not push the
    // revocation before it stops.
    let mut asleep = JoinSet::new();
    asleep.spawn(async move {
        let commands: [&[&str]; 2] = [&["SET", &key, "1"], &["DEBUG", "SLEEP", "5"]];
        connection.pipeline(&commands).await.unwrap();
    });
    // The lease ends while Redis is stopped. A token is then refused as unavailable, not as
    // invalid.
    stage.cluster[0].until_out_of_touch(LEASE * 2, &[]).await;
    assert!(stage.cluster[0].attempt("frank").await.is_unavailable());
    asleep.join_all().await;
    let awake = Instant::now();
    erin.revoked().await;
    erin.assert_revoked_within_the_lease(written, "asleep");
    alice_knocks_until_ready(&stage.cluster[0]).await;
    for bob in &stage.bobs {
        bob.message_after(RECOVERY, awake).await;
        bob.assert_open("awake").await;
    }
    // A Redis that hangs accepts connections, and does nothing else.
    stage
        .redis
        .run(&["DEL", &revocation_key("user", "erin")])
        .await;
    stage.redis.freeze();
    stage.cluster[0].until_out_of_touch(LEASE * 2, &[]).await;
    assert!(stage.cluster[0].attempt("frank").await.is_unavailable());
    stage.redis.thaw();
    let awake = Instant::now();
    alice_knocks_until_ready(&stage.cluster[0]).await;
    stage.assert_bobs_live_on(awake).await;
    stage.assert_revocations_kept().await;
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn a_redis_that_comes_back_with_its_data_is_as_it_was() {
    let redis = Redis::start_with(&["appendonly yes", "appendfsync always"]).await;
    let mut stage = Stage::set(redis, &Settings::default()).await;
    for _ in 0..2 {
        stage.redis.kill();
        stage.cluster[0].until_out_of_touch(LEASE * 2, &[]).await;
        let back = Instant::now();
        stage.redis.restart().await;
        alice_knocks_until_ready(&stage.cluster[0]).await;
        stage.cluster.synced().await;
        stage.assert_bobs_live_on(back).await;
        stage.assert_revocations_kept().await;
    }
    // All data is missing for a moment, in which no node can notice it.
    let back = Instant::now();
    stage.redis.run(&["DEBUG", "RELOAD"]).await;
    stage.cluster.synced().await;
    stage.assert_bobs_live_on(back).await;
    stage.assert_revocations_kept().await;
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_told_what_was_revoked() {
    let mut stage = Stage::set(Redis::start().await, &Settings::default()).await;
    let back = Instant::now();
    stage.redis.restart_empty().await;
    alice_knocks_until_ready(&stage.cluster[0]).await;
    alice_knocks_until_ready(&stage.cluster[1]).await;
    stage.cluster.synced().await;
    stage.assert_bobs_live_on(back).await;
    stage.assert_revocations_kept().await;
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_is_told_what_was_revoked() {
    let stage = Stage::set(Redis::start().await, &Settings::default()).await;
    for command in [
        ["FLUSHALL"].as_slice(),
        &["FLUSHDB"],
        &["FLUSHALL", "ASYNC"],
        // A missing epoch means that Redis has other data.
        &["DEL", "curfew:{revoked}:epoch"],
    ] {
        let flushed = Instant::now();
        stage.redis.run(command).await;
        stage
            .redis
            .until_key(&revocation_key("user", "alice"))
            .await;
        alice_knocks_until_ready(&stage.cluster[0]).await;
        stage.cluster.synced().await;
        stage.assert_bobs_live_on(flushed).await;
        stage.assert_revocations_kept().await;
    }
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn a_link_that_breaks_while_revocations_are_written_back_loses_none() {
    /// Delay in each direction. It makes the node's reconnect long enough that the link can be cut
    /// at each point of it.
    const DISTANCE: Duration = Duration::from_millis(20);
    let redis = Redis::start().await;
    // The test has only one node. Another node would write back the revocations that this node
    // loses.
    let cluster = Cluster::behind_proxies(1, &redis, &Settings::default()).await;
    let bob = cluster[0].tape("bob", "room:1").await;
    let alice = revocation_key("user", "alice");
    redis.run(&["SET", &alice, "1"]).await;
    cluster[0].assert_refused("alice").await;
    let far = Link::both(Flow::Delay(DISTANCE));
    for step in 0..16 {
        cluster.proxy(0).set(far);
        redis.run(&["FLUSHALL"]).await;
        // Now the node has written its first key. A quick node may also have written its second
        // key.
        redis.until_key("curfew:{revoked}:epoch").await;
        sleep(DISTANCE / 2 * step).await;
        cluster.proxy(0).set(Link::CUT);
        cluster.proxy(0).set(Link::PASS);
        alice_knocks_until_ready(&cluster[0]).await;
        assert!(
            redis.has(&alice).await,
            "the revocation is lost in step {step}"
        );
        cluster[0].assert_refused("alice").await;
    }
    bob.assert_open("after").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_revocation_that_closed_a_session_is_written_back_however_soon_it_is_lost() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &Settings::default()).await;
    cluster
        .proxy(0)
        .set(Link::both(Flow::Delay(Duration::from_millis(30))));
    let alice = cluster[0].tape("alice", "room:1").await;
    let key = revocation_key("user", "alice");
    redis.run(&["SET", &key, "1"]).await;
    alice.revoked().await;
    // The link is cut before the commands that the node has sent after the push can reach Redis.
    cluster.proxy(0).set(Link::CUT);
    redis.run(&["FLUSHALL"]).await;
    cluster.proxy(0).set(Link::PASS);
    alice_knocks_until_ready(&cluster[0]).await;
    assert!(redis.has(&key).await);
    cluster.assert_well().await;
}

#[tokio::test]
async fn what_happens_in_another_database_is_nobodys_concern() {
    let stage = Stage::set(Redis::start().await, &Settings::default()).await;
    let mut connection = stage.redis.connect().await;
    let bob = revocation_key("user", "bob");
    for command in [
        ["SELECT", "5"].as_slice(),
        // Redis pushes the name of the key, but not its database.
        &["SET", &bob, "1"],
        &["FLUSHDB"],
        &["SET", &bob, "1"],
        &["DEL", &bob],
    ] {
        connection.call(command).await.unwrap().accepted();
    }
    let done = Instant::now();
    stage.assert_bobs_live_on(done).await;
    stage.assert_revocations_kept().await;
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn with_reauth_every_token_from_before_the_loss_must_be_renewed() {
    let settings = Settings::default().with(r#"backend.on_data_loss = "reauth""#);
    let mut stage = Stage::set(Redis::start().await, &settings).await;
    let issued =
        |user: &str, iat: u64| Key::default_secret().user_with(user, json!({ "iat": iat }));
    let old = issued("bob", unix_now() - 5);
    stage.redis.restart_empty().await;
    for bob in &stage.bobs {
        bob.closed_with(4401, "reauth_required").await;
        let closing = &bob.matching(&json!({"type":"closing"}))[0].frame;
        assert_eq!(closing["code"], 4401, "{closing}");
    }
    stage.cluster.synced().await;
    for node in stage.cluster.nodes() {
        match node.attempt_with(&old).await {
            Attempt::Refused(_, code) => assert!(matches!(code, 4401 | 4403), "{code}"),
            other => panic!("{other:?}"),
        }
    }
    let floor = stage
        .redis
        .run(&["GET", "curfew:{revoked}:all"])
        .await
        .text();
    let floor: Value = serde_json::from_str(&floor).unwrap();
    let floor = floor.as_u64().or_else(|| floor["before"].as_u64()).unwrap();
    assert!(floor.abs_diff(unix_now()) < 30, "{floor}");
    assert!(
        stage
            .redis
            .run(&["TTL", "curfew:{revoked}:all"])
            .await
            .integer()
            > 0
    );
    eventually("a second that tokens can be issued in", async || {
        (unix_now() > floor).then_some(())
    })
    .await;
    let new = issued("bob", unix_now());
    for node in stage.cluster.nodes() {
        assert!(node.attempt_with(&new).await.is_open());
    }
    // After the loss, the revocation of a single user still holds, in addition to the cutoff for
    // all users.
    for user in ["alice", "carol"] {
        let attempt = stage.cluster[0]
            .attempt_with(&issued(user, unix_now()))
            .await;
        assert!(attempt.is_revoked(), "{attempt:?}");
    }
    stage.cluster.assert_well().await;
}

#[tokio::test]
async fn a_revocation_that_was_swapped_in_is_found_by_the_sweep() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let (alice, bob) = (
        cluster[0].tape("alice", "room:1").await,
        cluster[0].tape("bob", "room:1").await,
    );
    for key in redis.keys().await {
        redis.run(&["COPY", &key, &key, "DB", "1"]).await;
    }
    let mut connection = redis.connect().await;
    connection.call(&["SELECT", "1"]).await.unwrap();
    let key = revocation_key("user", "alice");
    connection
        .call(&["SET", &key, "1"])
        .await
        .unwrap()
        .accepted();
    alice.assert_open("before").await;
    // Redis sends no push for `SWAPDB`.
    redis.run(&["SWAPDB", "0", "1"]).await;
    cluster[0].assert_refused("alice").await;
    // The sweep runs every 30 seconds, or up to a fifth earlier or later.
    alice
        .until_within(
            Duration::from_secs(40),
            json!({"type":"closing","code":4403}),
        )
        .await;
    bob.assert_open("after").await;
    cluster[0]
        .until_metric("curfew_revocation_missed_push_total", |missed| {
            missed >= 1.0
        })
        .await;
    cluster[0].assert_alive().await;
}
