//! Redis Cluster, TLS, and a Redis user with only the rights that a node needs.

use std::time::{Duration, Instant};

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{
    Cluster, Gateway, Redis, RedisCluster, Reply, Settings, Tape, TestAuthority, eventually,
    eventually_within, revocation_key,
};
use serde_json::json;

/// Deadline for a cluster to recover.
const RECOVERY: Duration = Duration::from_secs(15);

/// The users in the operations guide: the user of a node, and an operator who may only write
/// revocations. Passwords replace the guide's placeholders.
pub(super) fn documented_users() -> String {
    let guide = include_str!("../../../deploy/README.md");
    let users = guide.lines().filter(|line| line.starts_with("user "));
    let users: Vec<String> = users
        .map(|line| {
            let name = line.split(' ').nth(1).unwrap();
            line.replace("CHANGE_ME", &format!("password-of-{name}"))
        })
        .collect();
    assert_eq!(users.len(), 2, "{users:?}");
    users.join("\n")
}

/// Tests fan-out, records, receipts and bare keys, which work on every kind of Redis.
pub(super) async fn assert_keeps_its_promises(
    cluster: &Cluster,
    write: impl AsyncFn(&[&str]),
    keys: impl AsyncFn() -> Vec<String>,
) {
    let last = cluster.nodes().len() - 1;
    let (alice, bob) = (
        cluster[0].tape("alice", "room:1").await,
        cluster[last].tape("bob", "room:1").await,
    );
    let mut channels = Vec::new();
    for n in 0..12 {
        let channel = format!("room:{n}");
        channels.push(cluster[last].subscriber("listener", &channel).await);
    }
    let mut publisher = cluster[0].user("carol").await;
    for n in 0..100 {
        publisher
            .send(json!({"type":"publish","channel":"room:1","data":n}))
            .await;
    }
    for tape in [&alice, &bob] {
        tape.until(json!({"type":"message","data":99})).await;
        let numbers: Vec<u64> = tape
            .messages()
            .iter()
            .map(|seen| seen.frame["data"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
    }
    for (n, listener) in channels.iter_mut().enumerate() {
        let channel = format!("room:{n}");
        cluster[0].publish(&channel, json!("hello")).await;
        listener
            .until_json(json!({"type":"message","channel":channel,"data":"hello"}))
            .await;
    }
    assert_eq!(cluster[0].sessions().await.len(), 15);
    let records = keys()
        .await
        .iter()
        .filter(|key| key.starts_with("curfew:session:"))
        .count();
    assert_eq!(records, 15);

    let written = Instant::now();
    write(&["SET", &revocation_key("user", "alice"), "1", "EX", "600"]).await;
    let took = alice.revoked().await.duration_since(written);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for node in cluster.nodes() {
        node.assert_refused("alice").await;
    }
    write(&["DEL", &revocation_key("user", "alice")]).await;
    cluster[last].assert_admits("alice").await;
    bob.assert_open("after").await;

    let count = cluster.nodes().len();
    let receipt = cluster[0]
        .revoke(json!({"kind":"user","value":"listener","ttl":"1h"}))
        .await;
    assert_eq!(
        receipt["nodes"],
        json!({"live":count,"confirmed":count,"missing":[]}),
        "{receipt}"
    );
    assert_eq!(receipt["closed"], 12, "{receipt}");
    for listener in &mut channels {
        listener.expect_close(4403, "revoked").await;
    }
    let listed = cluster[last].admin_ok("GET", "/v1/revocations", None).await;
    assert_eq!(listed["revocations"][0]["value"], "listener", "{listed}");
    cluster[last]
        .admin_ok("DELETE", "/v1/revocations/user/listener", None)
        .await;
    drop((alice, bob, publisher));
    eventually("the removal of the sessions' records", async || {
        let keys = keys().await;
        let left = keys
            .iter()
            .any(|key| key.starts_with("curfew:session:") || key.starts_with("curfew:user:"));
        (!left).then_some(())
    })
    .await;
    cluster.assert_well().await;
}

/// `settings` with a stream for each channel `log:*`, and the right to read the streams.
pub(super) fn with_streams(settings: Settings) -> Settings {
    settings.rules(
        "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
         actions = [\"subscribe\", \"publish\", \"history\"]\n\
         [[channels]]\npattern = \"log:*\"\nhistory = { size = 100, ttl = \"10m\" }\n",
    )
}

/// Uses every command of streams once: appending with and without an idempotency key, recovery on
/// another node, and reading in both directions.
pub(super) async fn assert_keeps_streams(cluster: &Cluster) {
    let last = cluster.nodes().len() - 1;
    for n in 0..12 {
        let channel = format!("log:{n}");
        let subscribe = json!({"type":"subscribe","channel":channel});
        let alice = Tape::of(cluster[0].user("alice").await);
        let joined = alice.ask("join", subscribe.clone()).await;
        assert_eq!(joined["offset"], 0, "{joined}");
        let publish = json!({"type":"publish","channel":channel,"data":n,"key":"first"});
        for id in ["first", "again"] {
            let published = alice.ask(id, publish.clone()).await;
            assert_eq!(published["offset"], 1, "{published}");
        }
        cluster[last].publish(&channel, json!("second")).await;
        alice
            .until(json!({"type":"message","channel":channel,"offset":2}))
            .await;
        let back = Tape::of(cluster[last].user("alice").await);
        let since = json!({"epoch":joined["epoch"],"offset":0});
        let mut recover = subscribe;
        recover["since"] = since.clone();
        let recovered = back.ask("back", recover).await;
        assert_eq!(recovered["recovered"], true, "{recovered}");
        back.until(json!({"type":"message","channel":channel,"offset":2}))
            .await;
        for (id, from, value) in [("since", "since", since), ("before", "before", json!(3))] {
            let mut read = json!({"type":"history","channel":channel});
            read[from] = value;
            let read = back.ask(id, read).await;
            let publications = read["publications"].as_array().map(Vec::len);
            assert_eq!(publications, Some(2), "{read}");
        }
    }
}

#[tokio::test]
async fn a_redis_cluster_keeps_the_promises() {
    let mut redis = RedisCluster::start().await;
    let cluster = Cluster::start(3, &redis.url(), &Settings::default()).await;
    let write = async |command: &[&str]| drop(redis.run(command).await);
    assert_keeps_its_promises(&cluster, write, async || redis.keys().await).await;

    // The connections to one primary after another are killed, also those to the primary that has
    // the revocations.
    let publisher = cluster[1].publisher("carol", "room:1").await;
    let (alice, bob) = (
        cluster[0].tape("alice", "room:1").await,
        cluster[2].tape("bob", "room:1").await,
    );
    for server in redis.servers() {
        for kind in ["normal", "pubsub"] {
            server.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        let killed = Instant::now();
        bob.message_after(RECOVERY, killed).await;
        cluster.synced().await;
    }
    let written = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    alice.revoked().await;
    alice.assert_revoked_within_the_lease(written, "after the kills");
    bob.assert_open("after").await;
    drop(publisher);

    // The primary that has the revocations restarts without its data.
    let key = revocation_key("user", "alice");
    redis.restart_owner_empty(&["SET", &key]).await;
    eventually_within(RECOVERY * 2, "the revocation", async || {
        for server in redis.servers() {
            // The other servers answer that they do not own the key's slot.
            if let Ok(Reply::Integer(1)) = server.call(&["EXISTS", &key]).await {
                return Some(());
            }
        }
        None
    })
    .await;
    cluster.synced().await;
    for node in cluster.nodes() {
        node.assert_refused("alice").await;
        node.assert_admits("erin").await;
    }
    bob.assert_open("at the end").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn over_tls_as_a_user_with_the_least_rights_the_promises_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    TestAuthority::new().write(directory.path());
    std::fs::write(directory.path().join("users.acl"), documented_users()).unwrap();
    let port = curfew_tests::free_port();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let settings = [
        format!("aclfile {}", path("users.acl")),
        format!("tls-port {port}"),
        format!("tls-cert-file {}", path("cert.pem")),
        format!("tls-key-file {}", path("key.pem")),
        format!("tls-ca-cert-file {}", path("ca.pem")),
        "tls-auth-clients no".to_owned(),
    ];
    let ca = path("ca.pem");
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let redis = Redis::start_in(directory, &settings).await;
    let secure = with_streams(Settings::default())
        .with(&format!("backend.redis.ca_file = {ca:?}"))
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"password-of-curfew\"")
        .with("auth.tickets = true");
    let url = format!("rediss://127.0.0.1:{port}");
    let cluster = Cluster::start(2, &url, &secure).await;
    let write = async |command: &[&str]| {
        let mut operator = redis.connect().await;
        let login = ["AUTH", "operator", "password-of-operator"];
        operator.call(&login).await.unwrap().accepted();
        operator.call(command).await.unwrap().accepted();
    };
    let keys = async || redis.keys().await.into_iter().collect();
    assert_keeps_its_promises(&cluster, write, keys).await;
    let bearer = format!("Bearer {}", Key::default_secret().user("dave"));
    let headers = [("Authorization", bearer.as_str())];
    let given = http::request(cluster[0].address(), "POST", "/v1/tickets", &headers, b"").await;
    let ticket = given.json()["ticket"].as_str().unwrap().to_owned();
    let with_ticket = cluster[1].ws().path(format!("/ws?ticket={ticket}"));
    cluster[1].connected(with_ticket).await;
    assert_keeps_streams(&cluster).await;
    let refused = redis.run(&["ACL", "LOG"]).await;
    assert_eq!(
        refused,
        curfew_tests::Reply::List(Vec::new()),
        "a node used a command without the right to it"
    );

    // Without the authority's certificate, a node does not trust the server.
    let stranger = Settings::default()
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"password-of-curfew\"")
        .on_redis(&url);
    let node = Gateway::start_with(&stranger).await;
    node.until_unready(RECOVERY, &["certificate", "tls"]).await;
    let token = Key::default_secret().user("alice");
    assert!(node.attempt_with(&token).await.is_unavailable());
}

#[tokio::test]
async fn the_password_may_be_in_the_url_or_in_a_file() {
    let redis = Redis::start().await;
    let user = [
        "ACL",
        "SETUSER",
        "curfew",
        "reset",
        "on",
        ">p@ss:w/rd",
        "~*",
        "&*",
        "+@all",
    ];
    redis.run(&user).await;
    let url = format!("redis://curfew:p%40ss%3Aw%2Frd@{}", redis.address());
    let by_url = Gateway::start_with(&Settings::default().on_redis(&url)).await;
    by_url.until_in_touch(RECOVERY).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "p@ss:w/rd\n").unwrap();
    let settings = Settings::default()
        .on_redis(&redis.url())
        .with("backend.redis.username = \"curfew\"")
        .with(&format!("backend.redis.password_file = {file:?}"));
    let by_file = Gateway::start_in(directory, &settings.to_toml()).await;
    by_file.until_in_touch(RECOVERY).await;
    let tape = Tape::of(by_file.subscriber("alice", "room:1").await);
    by_url.publish("room:1", json!(1)).await;
    tape.until(json!({"type":"message","data":1})).await;
    for node in [&by_url, &by_file] {
        let log = node.log().text();
        assert!(!log.contains("p@ss") && !log.contains("p%40ss"), "{log}");
    }
}

#[tokio::test]
async fn the_database_of_the_url_is_the_one_that_counts() {
    let redis = Redis::start().await;
    let url = format!("{}/5", redis.url());
    let cluster = Cluster::start(2, &url, &Settings::default()).await;
    let alice = cluster[0].tape("alice", "room:1").await;
    let key = revocation_key("user", "alice");
    redis.run(&["SET", &key, "1"]).await;
    alice.assert_open("in database 0").await;
    assert_eq!(
        redis.keys().await.len(),
        1,
        "the revocation is not the only key in database 0"
    );
    redis.run(&["MOVE", &key, "5"]).await;
    alice.revoked().await;
    cluster[1].assert_refused("alice").await;
    cluster.assert_well().await;
}
