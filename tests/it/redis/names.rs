//! An operator writes the value of a revocation as it is, or as its digest. Both forms name the
//! same sessions everywhere (CONTRACT §7).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, Link, Redis, Settings, Tape, eventually, revocation_key};
use serde_json::{Value, json};

/// The digest was made with `printf %s zoë | openssl dgst -sha256 -binary | basenc --base64url`.
const ZOE: &str = "~J1K4hoaEf6XIb0e5TOZSt7PyKpHDdhfUUaTbmvpDFFA";

/// Size of a value that is so large that a node could not receive it within its lease.
const LARGE: usize = 64 * 1024 * 1024;

fn settings() -> Settings {
    Settings::default().with(r#"session.revocable_claims = ["tenant", "dn"]"#)
}

async fn one(redis: &Redis) -> Cluster {
    Cluster::start(1, &redis.url(), &settings()).await
}

/// The entry for `key` in the list of revocations.
async fn listed(node: &Gateway, key: &str) -> Value {
    eventually(&format!("{key} in the list"), async || {
        let listed = node.admin_ok("GET", "/v1/revocations", None).await;
        let rows = listed["revocations"].as_array().unwrap();
        rows.iter().find(|row| row["key"] == key).cloned()
    })
    .await
}

#[tokio::test]
async fn a_value_is_written_as_it_is_byte_for_byte() {
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    let long = "x".repeat(201);
    let bob = node.tape("bob", "room:1").await;
    for value in [
        "zoë",
        "jürgen@example.com",
        &long,
        "a\nb",
        "a:b}{c",
        "~short",
        ZOE,
        "arn:aws:iam::123456789012:user/division_abc/subdivision_xyz/Zürich",
        "CN=Zoë,OU=People,O=Example\\, Inc.,C=CH",
    ] {
        for kind in ["user", "tenant", "token"] {
            let (user, claims) = match kind {
                "user" => (value, json!({})),
                "token" => ("carol", json!({"jti": value})),
                _ => ("carol", json!({"tenant": value})),
            };
            let token = Key::default_secret().user_with(user, claims);
            let tape = Tape::of(node.session(&token).await);
            let key = revocation_key(kind, value);
            redis.run(&["SET", &key, "1"]).await;
            tape.revoked().await;
            let attempt = node.attempt_with(&token).await;
            assert!(attempt.is_revoked(), "{kind} {value:?}: {attempt:?}");
            redis.run(&["DEL", &key]).await;
            let attempt = node.attempt_with(&token).await;
            assert!(attempt.is_open(), "{kind} {value:?}: {attempt:?}");
        }
    }
    bob.assert_open("after").await;
    // Unicode is compared byte for byte. This text looks the same, but has other code points.
    redis
        .run(&["SET", &revocation_key("user", "zoe\u{308}"), "1"])
        .await;
    node.assert_admits("zoë").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_session_is_named_in_lower_and_in_upper_case_but_not_in_both() {
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    for upper in [false, true] {
        let token = Key::default_secret().user("alice");
        let (client, connected) = node.connected(node.ws().bearer(&token)).await;
        let tape = Tape::of(client);
        let id = connected["session"].as_str().unwrap();
        let letter = id.find(|c: char| c.is_ascii_lowercase());
        if let Some(letter) = letter {
            let (head, tail) = id.split_at(letter + 1);
            let mixed = format!("{}{tail}", head.to_uppercase());
            if mixed != id.to_uppercase() {
                let key = revocation_key("session", &mixed);
                redis.run(&["SET", &key, "1"]).await;
                assert_eq!(listed(node, &key).await["ineffective"], "mixed_case");
                tape.assert_open("mixed").await;
            }
        }
        let written = if upper {
            id.to_uppercase()
        } else {
            id.to_owned()
        };
        redis
            .run(&["SET", &revocation_key("session", &written), "1"])
            .await;
        tape.revoked().await;
    }
    cluster.assert_well().await;
}

#[tokio::test]
async fn either_spelling_bans_and_both_must_go() {
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    let (plain, digest) = (revocation_key("user", "zoë"), revocation_key("user", ZOE));
    let writes: [&[&str]; 8] = [
        &["SET", "KEY", "1"],
        &["MSET", "KEY", "1"],
        &["HSET", "KEY", "a", "1"],
        &["RENAME", "curfew:x", "KEY"],
        &["COPY", "curfew:x", "KEY"],
        &["EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "KEY"],
        &["LPUSH", "KEY", "1"],
        &["SADD", "KEY", "1"],
    ];
    for command in writes {
        for (first, last) in [(&plain, &digest), (&digest, &plain)] {
            let tape = node.tape("zoë", "room:1").await;
            redis.run(&["SET", "curfew:x", "1"]).await;
            let command: Vec<&str> = command
                .iter()
                .map(|word| if *word == "KEY" { first } else { *word })
                .collect();
            redis.run(&command).await;
            tape.revoked().await;
            redis.run(&["SET", last, "1"]).await;
            redis.run(&["DEL", first]).await;
            node.assert_refused("zoë").await;
            redis.run(&["DEL", last]).await;
            node.until_admitted("zoë").await;
        }
    }
    // An operator may lift the revocation by each of its two names. This removes both keys.
    for name in ["zo%C3%AB", ZOE] {
        redis.run(&["MSET", &plain, "1", &digest, "1"]).await;
        listed(node, &plain).await;
        listed(node, &digest).await;
        node.admin_ok("DELETE", &format!("/v1/revocations/user/{name}"), None)
            .await;
        assert!(!redis.has(&plain).await && !redis.has(&digest).await);
        node.until_admitted("zoë").await;
    }
    // After a loss of data, the node writes each key back in the form in which it was written.
    redis.run(&["MSET", &plain, "1", &digest, "1"]).await;
    node.until_metric("curfew_revocations_known", |known| known == 2.0)
        .await;
    redis.run(&["FLUSHALL"]).await;
    redis.until_key(&plain).await;
    redis.until_key(&digest).await;
    node.assert_refused("zoë").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_key_that_can_match_nobody_is_listed_with_the_reason() {
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    let alice = node.tape("alice", "room:1").await;
    let effective = revocation_key("user", "carol");
    redis.run(&["SET", &effective, "1"]).await;
    assert_eq!(listed(node, &effective).await["ineffective"], Value::Null);
    let mut count = 0.0;
    for (key, reason) in [
        ("curfew:{revoked}:users:alice", "unknown_kind"),
        ("curfew:{revoked}:alice", "empty_value"),
        ("curfew:{revoked}:user:", "empty_value"),
        ("curfew:{revoked}:user:~short", "wrong_digest"),
        ("curfew:{revoked}:session:x", "not_a_session"),
        ("curfew:{revoked}:all:x", "all_with_value"),
        ("curfew:revoked:user:alice", "missing_braces"),
    ] {
        redis.run(&["SET", key, "1"]).await;
        assert_eq!(listed(node, key).await["ineffective"], reason, "{key}");
        count += 1.0;
        node.until_metric("curfew_revocations_ineffective", |now| now == count)
            .await;
    }
    redis
        .run(&[b"SET".as_slice(), b"curfew:{revoked}:user:zo\xeb", b"1"])
        .await;
    let row = listed(node, "curfew:{revoked}:user:zo\u{fffd}").await;
    assert_eq!(row["ineffective"], "not_utf8");
    alice.assert_open("after").await;
    assert!(node.log().text().contains("can match no session"));
    for key in redis.keys().await {
        if key.starts_with("curfew:revoked:") || key.starts_with("curfew:{revoked}:user:~") {
            redis.run(&["DEL", &key]).await;
        }
    }
    node.until_metric("curfew_revocations_ineffective", |now| now == count - 1.0)
        .await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn what_was_written_while_nobody_could_tell_is_known_once_it_is_met() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let node = &cluster[0];
    let bob = node.tape("bob", "room:1").await;
    cluster.proxy(0).set(Link::CUT);
    node.until_out_of_touch(Duration::from_secs(10), &[]).await;
    let (alice, zoe) = (
        revocation_key("user", "alice"),
        revocation_key("user", "zoë"),
    );
    redis.run(&["MSET", &alice, "1", &zoe, "1"]).await;
    cluster.proxy(0).set(Link::PASS);
    cluster.synced().await;
    node.assert_refused("alice").await;
    node.assert_refused("zoë").await;
    node.until_metric("curfew_revocations_known", |known| known == 2.0)
        .await;
    redis.run(&["FLUSHALL"]).await;
    redis.until_key(&alice).await;
    redis.until_key(&zoe).await;
    node.assert_refused("alice").await;
    node.assert_refused("zoë").await;
    bob.assert_open("after").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_large_value_covers_everyone_it_names_and_costs_the_others_nothing() {
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    let bob = node.tape("bob", "room:1").await;
    let alice = node.tape("alice", "room:1").await;
    let generations = node.metric("curfew_backend_generations_total").await;
    let key = revocation_key("user", "alice");
    let large = vec![b'1'; LARGE];
    redis
        .run(&[b"SET".as_slice(), key.as_bytes(), &large])
        .await;
    alice.revoked().await;
    node.assert_refused("alice").await;
    bob.assert_open("after").await;
    // The node has not lost its connection to Redis.
    assert_eq!(
        node.metric("curfew_backend_generations_total").await,
        generations
    );
    redis.run(&["FLUSHALL"]).await;
    redis.until_key(&key).await;
    assert!(redis.run(&["STRLEN", &key]).await.integer() < 10);
    node.assert_refused("alice").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_key_that_is_written_again_and_again_stops_no_heartbeat() {
    /// Number of times that the key is written.
    const WRITES: usize = 2000;
    let redis = Redis::start().await;
    let cluster = one(&redis).await;
    let node = &cluster[0];
    let _publisher = node.publisher("dave", "room:1").await;
    let bob = node.tape("bob", "room:1").await;
    bob.until(json!({"type":"message"})).await;
    let generations = node.metric("curfew_backend_generations_total").await;
    let mut connection = redis.connect().await;
    for _ in 0..WRITES {
        // This cutoff covers no session of the test.
        let write = ["SET", "curfew:{revoked}:all", "1000000000"];
        connection.call(&write).await.unwrap().accepted();
    }
    let written = Instant::now();
    bob.message_after(Duration::from_secs(3), written).await;
    bob.assert_open("after").await;
    assert_eq!(
        node.metric("curfew_backend_generations_total").await,
        generations
    );
    cluster.assert_well().await;
}
