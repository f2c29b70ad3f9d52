//! An operator revokes by writing a key, with any command (CONTRACT §7).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Cluster, Redis, Settings, Tape, eventually, revocation_key};
use serde_json::{Value, json};

/// Deadline for a revocation in a healthy cluster. Usually it takes milliseconds, as the benches
/// show.
const PROMPT: Duration = Duration::from_secs(1);

/// A value longer than 200 bytes. Its key has a digest of the value.
const LONG: [u8; 201] = [b'x'; 201];

/// A user for each case, and the commands with which an operator writes the user's revocation,
/// `KEY`.
const WRITES: [(&str, &[&[&str]]); 19] = [
    ("set", &[&["SET", "KEY", "1"]]),
    ("set-ex", &[&["SET", "KEY", "1", "EX", "86400"]]),
    ("set-nx", &[&["SET", "KEY", "1", "NX"]]),
    ("setex", &[&["SETEX", "KEY", "100", "1"]]),
    ("mset", &[&["MSET", "curfew:other", "1", "KEY", "1"]]),
    ("append", &[&["APPEND", "KEY", "1"]]),
    ("incr", &[&["INCR", "KEY"]]),
    ("lpush", &[&["LPUSH", "KEY", "1"]]),
    ("sadd", &[&["SADD", "KEY", "1"]]),
    ("hset", &[&["HSET", "KEY", "a", "1"]]),
    ("xadd", &[&["XADD", "KEY", "*", "a", "1"]]),
    (
        "rename",
        &[&["SET", "curfew:x", "1"], &["RENAME", "curfew:x", "KEY"]],
    ),
    (
        "copy",
        &[&["SET", "curfew:x", "1"], &["COPY", "curfew:x", "KEY"]],
    ),
    ("multi", &[&["MULTI"], &["SET", "KEY", "1"], &["EXEC"]]),
    (
        "eval",
        &[&["EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "KEY"]],
    ),
    ("empty", &[&["SET", "KEY", ""]]),
    ("garbage", &[&["SET", "KEY", "{\"before\": \u{fffd}\r\n"]]),
    (
        "json",
        &[&["SET", "KEY", r#"{"reason":"left the company"}"#]],
    ),
    ("early", &[&["SET", "KEY", r#"{"before":"yesterday"}"#]]),
];

async fn three(redis: &Redis) -> Cluster {
    let settings = Settings::default().with(r#"session.revocable_claims = ["tenant", "groups"]"#);
    Cluster::start(3, &redis.url(), &settings).await
}

/// Opens a recorded session of `user` on every node.
async fn everywhere(cluster: &Cluster, user: &str) -> Vec<Tape> {
    let mut tapes = Vec::new();
    for node in cluster.nodes() {
        tapes.push(node.tape(user, "room:1").await);
    }
    tapes
}

#[tokio::test]
async fn however_the_key_is_written_the_user_is_out_on_every_node() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let bobs = everywhere(&cluster, "bob").await;
    for (user, commands) in WRITES {
        let tapes = everywhere(&cluster, user).await;
        let key = revocation_key("user", user);
        let mut connection = redis.connect().await;
        let written = Instant::now();
        for command in commands {
            let command: Vec<&str> = command
                .iter()
                .map(|word| if *word == "KEY" { &key } else { *word })
                .collect();
            connection.call(&command).await.unwrap().accepted();
        }
        for tape in &tapes {
            let took = tape.revoked().await.duration_since(written);
            assert!(took < PROMPT, "{user}: {took:?}");
        }
        for node in cluster.nodes() {
            node.assert_refused(user).await;
        }
        for (node, bob) in bobs.iter().enumerate() {
            bob.assert_open(&format!("{user}-{node}")).await;
        }
        redis.run(&["DEL", "curfew:x", "curfew:other"]).await;
    }
    assert_eq!(cluster.metric("curfew_sessions").await, 3.0);
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_value_that_is_a_time_spares_tokens_issued_after_it() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let now = unix_now();
    let values = [
        ("seconds", (now - 50).to_string()),
        ("millis", ((now - 50) * 1000).to_string()),
        (
            "json",
            json!({"before":now - 50,"reason":"password changed"}).to_string(),
        ),
    ];
    for (user, value) in values {
        let issued = |iat: Value| Key::default_secret().user_with(user, json!({ "iat": iat }));
        let session =
            async |node: usize, iat: Value| Tape::of(cluster[node].session(&issued(iat)).await);
        let old = session(0, json!(now - 100)).await;
        let at = session(1, json!(now - 50)).await;
        let new = session(1, json!(now - 49)).await;
        let undated = session(2, Value::Null).await;
        redis
            .run(&["SET", &revocation_key("user", user), &value])
            .await;
        for tape in [&old, &undated] {
            tape.revoked().await;
        }
        // This token was issued in the very second of the cutoff, so the client may renew it.
        at.closed_with(4401, "reauth_required").await;
        new.assert_open("after").await;
        assert!(
            cluster[2]
                .attempt_with(&issued(json!(now - 49)))
                .await
                .is_open(),
            "{value}"
        );
        for iat in [json!(now - 51), Value::Null] {
            let attempt = cluster[0].attempt_with(&issued(iat)).await;
            assert!(attempt.is_revoked(), "{value}: {attempt:?}");
        }
        // A later cutoff replaces an earlier one. This one has no time, so it covers every session.
        redis
            .run(&["SET", &revocation_key("user", user), "1"])
            .await;
        new.revoked().await;
    }
    cluster.assert_well().await;
}

#[tokio::test]
async fn without_the_key_the_user_is_welcome_again() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let (alice, carol) = (
        revocation_key("user", "alice"),
        revocation_key("user", "carol"),
    );
    let alices = everywhere(&cluster, "alice").await;
    let carols = everywhere(&cluster, "carol").await;
    redis.run(&["SET", &alice, "1"]).await;
    redis.run(&["SET", &carol, "1", "EX", "2"]).await;
    for tape in alices.iter().chain(&carols) {
        tape.revoked().await;
    }
    cluster[1].assert_refused("alice").await;
    redis.run(&["DEL", &alice]).await;
    for node in cluster.nodes() {
        node.assert_admits("alice").await;
        node.until_admitted("carol").await;
    }
    assert!(!redis.has(&carol).await);
    for node in cluster.nodes() {
        eventually("an empty list of revocations", async || {
            let listed = node.admin_ok("GET", "/v1/revocations", None).await;
            (listed["revocations"] == json!([])).then_some(())
        })
        .await;
    }
    // A user who is revoked by two keys is admitted again when both keys are removed.
    let erin = ["user", "tenant"].map(|kind| revocation_key(kind, "erin"));
    redis.run(&["MSET", &erin[0], "1", &erin[1], "1"]).await;
    let token = Key::default_secret().user_with("erin", json!({"tenant":"erin"}));
    for key in &erin {
        assert!(cluster[0].attempt_with(&token).await.is_revoked());
        redis.run(&["DEL", key]).await;
    }
    let session = Tape::of(cluster[0].session(&token).await);
    // A key that is written and removed in one transaction has no effect.
    let mut connection = redis.connect().await;
    for command in [
        ["MULTI"].as_slice(),
        &["SET", &erin[0], "1"],
        &["DEL", &erin[0]],
        &["EXEC"],
    ] {
        connection.call(command).await.unwrap().accepted();
    }
    session.assert_open("after").await;
    // If the removed key is written again, it counts again. After it is renamed, it no longer
    // counts.
    let again = everywhere(&cluster, "alice").await;
    redis.run(&["SET", &alice, "1"]).await;
    for tape in &again {
        tape.revoked().await;
    }
    redis.run(&["RENAME", &alice, "curfew:x"]).await;
    cluster[2].assert_admits("alice").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn each_kind_names_its_sessions() {
    let redis = Redis::start().await;
    let cluster = three(&redis).await;
    let long = String::from_utf8_lossy(&LONG);
    let claims = |n: usize| {
        json!({"jti":format!("token-{n}"),"tenant":format!("tenant-{n}"),
        "groups":[format!("group-{n}"), "everyone"],"device":format!("device-{n}")})
    };
    let mut sessions = Vec::new();
    let users = [
        "user-0", "user-1", "user-2", "user-3", "zoë", &long, "user-6",
    ];
    for (n, user) in users.into_iter().enumerate() {
        let token = Key::default_secret().user_with(user, claims(n));
        let node = &cluster[n % 3];
        let (client, connected) = node.connected(node.ws().bearer(&token)).await;
        sessions.push((
            Tape::of(client),
            connected["session"].as_str().unwrap().to_owned(),
        ));
    }
    let session = sessions[3].1.clone();
    // The digests were made with `printf %s zoë | openssl dgst -sha256 -binary | basenc
    // --base64url`.
    for (kind, value, named) in [
        ("device", "device-0", None),
        ("user", "USER-0", None),
        ("user", "user-0 ", None),
        ("token", "token-0", Some(0)),
        ("tenant", "tenant-1", Some(1)),
        ("groups", "group-2", Some(2)),
        ("session", &session, Some(3)),
        (
            "user",
            "~J1K4hoaEf6XIb0e5TOZSt7PyKpHDdhfUUaTbmvpDFFA",
            Some(4),
        ),
        (
            "user",
            "~hKBnjJCTf13PmZTVhmZo2muZUQnIrYRUEFWbSKTsr-0",
            Some(5),
        ),
    ] {
        redis.run(&["SET", &revocation_key(kind, value), "1"]).await;
        if let Some(named) = named {
            sessions[named].0.revoked().await;
        }
        for (n, (tape, _)) in sessions.iter().enumerate() {
            if !tape.is_closed() {
                tape.assert_open(&format!("{kind}-{value}-{n}")).await;
            }
        }
    }
    let open = sessions.iter().filter(|(tape, _)| !tape.is_closed());
    assert_eq!(open.count(), 1, "another session than the last is open");
    redis.run(&["SET", "curfew:{revoked}:all", "1"]).await;
    sessions[6].0.revoked().await;
    cluster[0].assert_refused("user-6").await;
    redis.run(&["DEL", "curfew:{revoked}:all"]).await;
    cluster[0].assert_admits("user-6").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn another_prefix_is_another_cluster() {
    let redis = Redis::start().await;
    let ours = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let other = Settings::default().with(r#"backend.redis.prefix = "other:""#);
    let theirs = Cluster::start(1, &redis.url(), &other).await;
    let (our_alice, their_alice) = (
        ours[0].tape("alice", "room:1").await,
        theirs[0].tape("alice", "room:1").await,
    );
    ours[0].publish("room:1", json!("ours")).await;
    our_alice.until(json!({"data":"ours"})).await;
    redis.run(&["SET", "other:{revoked}:user:alice", "1"]).await;
    their_alice.revoked().await;
    our_alice.assert_open("1").await;
    assert!(their_alice.messages().is_empty());
    assert_eq!(ours[0].sessions().await.len(), 1);
}
