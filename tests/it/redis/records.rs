//! Records in Redis that other programs may read, and the removal of the records (CONTRACT §7).

use std::collections::{BTreeMap, BTreeSet};

use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Cluster, Redis, Settings, Tape, eventually};
use serde_json::{Value, json};

/// The lease of the hash of a node (CONTRACT §7), in milliseconds.
const NODE_LEASE: i64 = 15_000;

/// The default of `auth.leeway`, in seconds.
const LEEWAY: u64 = 5;

async fn hash(redis: &Redis, key: &str) -> BTreeMap<String, String> {
    let flat = redis.run(&["HGETALL", key]).await.texts();
    flat.chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

/// The time at which a key expires, in Unix seconds.
async fn ends(redis: &Redis, key: &str) -> u64 {
    let time = redis.run(&["EXPIRETIME", key]).await.integer();
    u64::try_from(time).unwrap_or_else(|_| panic!("{key} does not end: {time}"))
}

/// Opens a session of `user` with a token that expires in `lives` seconds.
async fn open(
    cluster: &Cluster,
    node: usize,
    user: &str,
    lives: u64,
) -> (WsClient, String, String) {
    let now = unix_now();
    let claims = json!({"exp":now + lives,"jti":format!("{user}-{lives}"),"roles":["a","b"]});
    let token = Key::default_secret().user_with(user, claims);
    let node = &cluster[node];
    let (client, connected) = node.connected(node.ws().bearer(&token)).await;
    let session = connected["session"].as_str().unwrap().to_owned();
    (client, session, token)
}

async fn until_gone(redis: &Redis, key: &str) {
    eventually(&format!("the end of {key}"), async || {
        (!redis.has(key).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_is_recorded_until_its_token_ends_and_a_refresh_moves_that() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let node = cluster[0].id().await;
    let now = unix_now();
    let (mut client, session, token) = open(&cluster, 0, "alice", 600).await;
    let key = format!("curfew:session:{session}");
    let record = hash(&redis, &key).await;
    assert_eq!(record["user"], "alice");
    assert_eq!(record["token_id"], "alice-600");
    assert_eq!(record["node"], node);
    assert_eq!(record["protocol"], "curfew.v1");
    let number = |name: &str| record[name].parse::<u64>().unwrap();
    assert!(number("issued_at").abs_diff(now) <= 5, "{record:?}");
    assert!(number("connected_at").abs_diff(now) <= 5, "{record:?}");
    let claims: Value = serde_json::from_str(&record["claims"]).unwrap();
    assert_eq!(claims["roles"], json!(["a", "b"]));
    assert!(number("expires_at").abs_diff(now + 600) <= 5);
    assert_eq!(number("expires_at") + LEEWAY, ends(&redis, &key).await);

    // The index has the user's sessions on all nodes, ordered by their expiry.
    let (second, other, _) = open(&cluster, 1, "alice", 1200).await;
    let index = "curfew:user:alice:sessions";
    let listed = redis
        .run(&["ZRANGE", index, "0", "-1", "WITHSCORES"])
        .await
        .texts();
    let other_ends = ends(&redis, &format!("curfew:session:{other}")).await;
    let expected = [
        session.clone(),
        (number("expires_at") + LEEWAY).to_string(),
        other,
        other_ends.to_string(),
    ];
    assert_eq!(listed, expected);
    assert_eq!(ends(&redis, index).await, other_ends);

    let claims = json!({"exp":now + 3000,"jti":"renewed"});
    let renewed = Key::default_secret().user_with("alice", claims);
    client
        .send(json!({"type":"refresh","id":1,"token":renewed}))
        .await;
    client.expect_json(json!({"type":"refreshed","id":1})).await;
    assert_eq!(ends(&redis, &key).await, now + 3000 + LEEWAY);
    let record = hash(&redis, &key).await;
    assert_eq!(record["token_id"], "renewed");
    assert_eq!(record["expires_at"], (now + 3000).to_string());
    let score = redis.run(&["ZSCORE", index, &session]).await.text();
    assert_eq!(score, (now + 3000 + LEEWAY).to_string());
    assert_eq!(ends(&redis, index).await, now + 3000 + LEEWAY);

    // The token is a credential, so its signature is not in the record. Its claims are no
    // credential.
    let signature = token.rsplit('.').next().unwrap();
    for field in record.values() {
        assert!(!field.contains(signature), "{field}");
    }
    client.reset();
    until_gone(&redis, &key).await;
    assert_eq!(redis.run(&["ZCARD", index]).await.integer(), 1);
    second.reset();
    until_gone(&redis, index).await;
}

#[tokio::test]
async fn a_node_is_recorded_with_its_sessions_while_it_lives() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("drain.window = \"1s\"");
    let mut cluster = Cluster::start(2, &redis.url(), &settings).await;
    let (_client, session, _) = open(&cluster, 0, "alice", 600).await;
    let mut ids = Vec::new();
    for node in cluster.nodes() {
        ids.push(node.id().await);
    }
    for (node, id) in cluster.nodes().iter().zip(&ids) {
        let key = format!("curfew:node:{id}");
        let record = hash(&redis, &key).await;
        assert_eq!(record["address"], node.address().to_string());
        for field in ["version", "started", "sessions"] {
            assert!(record.contains_key(field), "{field}: {record:?}");
        }
        let lives = redis.run(&["PTTL", &key]).await.integer();
        assert!((1..=NODE_LEASE).contains(&lives), "{lives}");
        let beat = format!("curfew:hb:{{revoked}}:{id}");
        let lives = redis.run(&["PTTL", &beat]).await.integer();
        assert!((1..=10_000).contains(&lives), "{lives}");
    }
    let sessions = format!("curfew:node:{}:sessions", ids[0]);
    assert_eq!(redis.run(&["SMEMBERS", &sessions]).await.texts(), [session]);
    assert_eq!(
        hash(&redis, &format!("curfew:node:{}", ids[1])).await["sessions"],
        "0"
    );
    let nodes: BTreeSet<String> = redis
        .run(&["SMEMBERS", "curfew:nodes"])
        .await
        .texts()
        .into_iter()
        .collect();
    assert_eq!(nodes, ids.iter().cloned().collect());

    // A node that drains removes its own records and the records of its sessions.
    let (mut client, session, _) = open(&cluster, 1, "carol", 600).await;
    let leaving = cluster.remove(1);
    leaving.terminate();
    let closing = client.expect_close(1012, "draining").await;
    assert_eq!(closing["reconnect"], true);
    until_gone(&redis, &format!("curfew:session:{session}")).await;
    until_gone(&redis, "curfew:user:carol:sessions").await;
    until_gone(&redis, &format!("curfew:node:{}", ids[1])).await;
    until_gone(&redis, &format!("curfew:hb:{{revoked}}:{}", ids[1])).await;
    cluster.synced().await;
    let left = redis.keys().await;
    assert!(!left.iter().any(|key| key.contains(&ids[1])), "{left:?}");
}

#[tokio::test]
async fn however_a_session_ends_nothing_of_it_is_left() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("auth.leeway = \"0s\"");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    // Each node has a session first, so that keys of nodes exist. Only these keys may remain later.
    for node in cluster.nodes() {
        drop(node.user("first").await);
    }
    eventually("no sessions", async || {
        cluster[0].sessions().await.is_empty().then_some(())
    })
    .await;
    let bare = redis.keys().await;
    assert!(
        !bare
            .iter()
            .any(|key| key.contains("first") || key.contains(":session:")),
        "{bare:?}"
    );

    let long = "x".repeat(3000);
    let users = [
        "alice",
        "a b",
        "a}b",
        "{a",
        "zoë",
        "a\r\nb",
        "*",
        "a:sessions",
        &long,
    ];
    for (n, user) in users.into_iter().enumerate() {
        let (mut by_client, ..) = open(&cluster, 0, user, 600).await;
        let (by_cut, ..) = open(&cluster, 1, user, 600).await;
        let (mut by_operator, session, _) = open(&cluster, 1, user, 600).await;
        let (mut by_revocation, revoked, _) = open(&cluster, n % 2, user, 600).await;
        for key in redis.keys().await {
            assert!(key.len() < 300, "{key}");
            assert!(
                key.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{key:?}"
            );
        }
        by_client
            .send_frame(curfew_testkit::OutFrame::close(1000, b""))
            .await;
        by_client.closed().await;
        by_cut.reset();
        cluster[0]
            .admin_ok("DELETE", &format!("/v1/sessions/{session}"), None)
            .await;
        by_operator.expect_close(4404, "disconnected").await;
        let receipt = cluster[0]
            .revoke(json!({"kind":"session","value":revoked}))
            .await;
        assert_eq!(receipt["closed"], 1, "{receipt}");
        by_revocation.expect_close(4403, "revoked").await;
        cluster[1]
            .admin_ok(
                "DELETE",
                &format!("/v1/revocations/session/{revoked}"),
                None,
            )
            .await;
    }
    let (mut by_expiry, ..) = open(&cluster, 0, "brief", 2).await;
    by_expiry.expect_close(4410, "expired").await;
    eventually("only the nodes' own keys", async || {
        (redis.keys().await == bare).then_some(())
    })
    .await;
    assert_eq!(cluster.metric("curfew_sessions").await, 0.0);
}

/// Sessions whose token's `exp` has passed still have the leeway. They count, are listed and are
/// found like all other sessions.
#[tokio::test]
async fn sessions_in_their_leeway_are_in_every_list() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .with(r#"auth.leeway = "60s""#)
        .with("session.max_per_user = 3");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let now = unix_now();
    let token = |at: usize| {
        let claims = json!({"iat":now - 60,"exp":now - 1,"jti":format!("late-{at}")});
        Key::default_secret().user_with("alice", claims)
    };
    let mut connecting = tokio::task::JoinSet::new();
    for at in 0..20 {
        let connect = cluster[at % 2].ws().bearer(&token(at));
        connecting.spawn(async move {
            let mut client = connect.open().await;
            let first = client.next_json().await;
            (Tape::of(client), first)
        });
    }
    let mut open = Vec::new();
    while let Some(connected) = connecting.join_next().await {
        let (client, first) = connected.unwrap();
        if first["type"] == "connected" {
            open.push((client, first["session"].as_str().unwrap().to_owned()));
        } else {
            assert_eq!(first["reason"], "session_limit", "{first}");
        }
    }
    assert_eq!(open.len(), 3, "not as many sessions are open as allowed");
    for node in cluster.nodes() {
        assert_eq!(node.sessions().await.len(), 3);
        let page = node.admin_ok("GET", "/v1/sessions?user=alice", None).await;
        assert_eq!(page["sessions"].as_array().unwrap().len(), 3, "{page}");
        let revocation = json!({"kind":"user","value":"alice","dry_run":true});
        let dry_run = node
            .admin_ok("POST", "/v1/revocations", Some(revocation))
            .await;
        assert_eq!(dry_run["would_close"], 3, "{dry_run}");
        for (_, session) in &open {
            let path = format!("/v1/sessions/{session}");
            let found = node.admin_ok("GET", &path, None).await;
            assert_eq!(found["expires_at"], now - 1, "{found}");
        }
    }
    for (client, session) in open {
        let path = format!("/v1/sessions/{session}");
        cluster[0].admin_ok("DELETE", &path, None).await;
        client.closed_with(4404, "disconnected").await;
    }
    until_gone(&redis, "curfew:user:alice:sessions").await;
}
