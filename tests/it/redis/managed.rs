//! Redis with the restrictions of hosted services: forbidden commands, TLS, a user with few rights,
//! a cluster with one endpoint and with names instead of addresses, and failover by DNS.

use std::path::Path;
use std::time::{Duration, Instant};

use curfew_tests::{
    Cluster, Gateway, Proxy, Redis, RedisCluster, Settings, TestAuthority, eventually_within,
    free_port, revocation_key,
};
use serde_json::json;

use super::topologies::{
    assert_keeps_its_promises, assert_keeps_streams, documented_users, with_streams,
};

/// Deadline for nodes to recover.
const RECOVERY: Duration = Duration::from_secs(20);

/// Commands that hosted services forbid.
const FORBIDDEN: [&str; 10] = [
    "config",
    "bgrewriteaof",
    "bgsave",
    "save",
    "shutdown",
    "slaveof",
    "replicaof",
    "migrate",
    "psync",
    "failover",
];

/// Lines of `redis.conf` that forbid these commands.
fn forbid(commands: &[&str]) -> Vec<String> {
    let lines = commands
        .iter()
        .map(|name| format!("rename-command {name} \"\""));
    lines.collect()
}

/// Regression: a node used a command that hosted services forbid.
#[tokio::test]
async fn where_config_and_its_like_are_forbidden_the_promises_are_kept() {
    let lines = forbid(&FORBIDDEN);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let redis = Redis::start_with(&lines).await;
    let refused = redis.call(&["CONFIG", "GET", "save"]).await.unwrap();
    assert!(
        format!("{refused:?}").contains("unknown command"),
        "{refused:?}"
    );
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let write = async |command: &[&str]| drop(redis.run(command).await);
    let keys = async || redis.keys().await.into_iter().collect();
    assert_keeps_its_promises(&cluster, write, keys).await;
}

/// The rights that the operations guide adds for a node in a cluster.
fn rights_in_a_cluster() -> &'static str {
    let guide = include_str!("../../../deploy/README.md");
    let (_, rest) = guide.split_once("A cluster also needs `").unwrap();
    rest.split_once('`').unwrap().0
}

/// A node uses every right of the documented user, so the user has no more rights than it needs.
///
/// Regression: the guide listed a right that nodes no longer needed.
#[test]
fn the_smallest_user_has_no_right_that_a_node_does_not_use() {
    // These are commands that redis-rs sends on its own.
    let by_the_client = ["hello", "auth", "select", "multi", "exec", "ping"];
    let mut source = String::new();
    read_all(
        Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../crates/curfew-backend-redis/src"
        )),
        &mut source,
    );
    let users = documented_users();
    let node = users.lines().next().unwrap().split(' ');
    for right in node.chain(rights_in_a_cluster().split(' ')) {
        let Some(command) = right.strip_prefix('+') else {
            continue;
        };
        let words = command
            .split('|')
            .map(|word| format!("\"{}\"", word.to_uppercase()));
        let is_used = by_the_client.contains(&command)
            || words.into_iter().all(|word| source.contains(&word))
            // The command may be sent by `redis.call`, by `redis.pcall`, or by a local alias of
            // `redis.call`.
            || source.contains(&format!("call('{}'", command.to_uppercase()));
        assert!(is_used, "no node uses {command}");
    }
}

fn read_all(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_all(&path, into),
            false => into.push_str(&std::fs::read_to_string(&path).unwrap()),
        }
    }
}

/// A cluster like that of a hosted service: TLS with a private authority, a user with few rights,
/// no `CONFIG`, and servers that announce themselves in the form `preferred`.
async fn rented_cluster(authority: &TestAuthority, preferred: &str) -> RedisCluster {
    let users =
        documented_users().replacen("+wait", &format!("+wait {}", rights_in_a_cluster()), 1);
    RedisCluster::start_with(|directory| {
        authority.write(directory);
        std::fs::write(directory.join("users.acl"), &users).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        let mut lines = vec![
            format!("aclfile {}", path("users.acl")),
            format!("tls-port {}", free_port()),
            "tls-cluster yes".to_owned(),
            format!("tls-cert-file {}", path("cert.pem")),
            format!("tls-key-file {}", path("key.pem")),
            format!("tls-ca-cert-file {}", path("ca.pem")),
            "tls-auth-clients no".to_owned(),
            "cluster-announce-hostname localhost".to_owned(),
            format!("cluster-preferred-endpoint-type {preferred}"),
        ];
        lines.extend(forbid(&["config", "shutdown", "migrate"]));
        lines
    })
    .await
}

/// Regression: a cluster whose servers announce names, or no address, was not found from its single
/// endpoint.
async fn assert_a_rented_cluster_is_used(preferred: &str) {
    let authority = TestAuthority::new();
    let redis = rented_cluster(&authority, preferred).await;
    let at = |server: &Redis| server.tls_address().unwrap();
    let endpoint = Proxy::start(at(&redis.servers()[0])).await;
    let directory = tempfile::tempdir().unwrap();
    authority.write(directory.path());
    let settings = with_streams(Settings::default())
        .with(&format!(
            "backend.redis.ca_file = {:?}",
            directory.path().join("ca.pem")
        ))
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"password-of-curfew\"");
    let url = format!("rediss+cluster://{}", endpoint.address());
    let mut cluster = Cluster::start(3, &url, &settings).await;
    let write = async |command: &[&str]| drop(redis.run(command).await);
    assert_keeps_its_promises(&cluster, write, async || redis.keys().await).await;
    assert_keeps_streams(&cluster).await;

    // The endpoint now leads to another server. The running nodes do not notice this, and a node
    // that starts finds the cluster.
    let alice = cluster[1].tape("alice", "room:1").await;
    endpoint.point_to(at(&redis.servers()[1]));
    let late = Gateway::start_with(&settings.clone().on_redis(&url)).await;
    late.until_in_touch(RECOVERY).await;
    late.publish("room:1", json!("from another endpoint")).await;
    alice.until(json!({"data":"from another endpoint"})).await;

    // A drain leaves no key behind, and no command has exceeded the rights of the user.
    let _leaving = cluster[0].tape("bob", "room:1").await;
    let mut node = cluster.remove(0);
    let id = node.id().await;
    node.terminate();
    assert_eq!(node.exited(RECOVERY * 2).await, 0);
    let keys = redis.keys().await;
    let left: Vec<_> = keys.iter().filter(|key| key.contains(&id)).collect();
    assert!(left.is_empty(), "{left:?}");
    for server in redis.servers() {
        let refused = server.run(&["ACL", "LOG"]).await;
        assert_eq!(refused, curfew_tests::Reply::List(Vec::new()));
    }
    alice.assert_open("at the end").await;
}

#[tokio::test]
async fn a_cluster_of_names_behind_one_endpoint_keeps_the_promises() {
    assert_a_rented_cluster_is_used("hostname").await;
}

#[tokio::test]
async fn a_cluster_that_tells_no_addresses_keeps_the_promises() {
    assert_a_rented_cluster_is_used("unknown-endpoint").await;
}

/// The connections of clients to `server`, without the connection that lists them and without the
/// connections of replicas.
async fn connections(server: &Redis) -> Vec<String> {
    let clients = server.run(&["CLIENT", "LIST"]).await.text();
    let others = clients.lines().filter(|line| {
        !line.contains("cmd=client") && !line.contains(" flags=M") && !line.contains(" flags=S")
    });
    others.map(str::to_owned).collect()
}

/// Regression: a node stayed with a primary that had been replaced, because that server still
/// answered.
#[tokio::test]
async fn when_a_name_moves_to_another_primary_every_connection_follows() {
    let mut first = Redis::start().await;
    let follow = |server: &Redis| format!("replicaof 127.0.0.1 {}", server.port());
    let second = Redis::start_with(&[&follow(&first), "repl-diskless-sync-delay 0"]).await;
    let endpoint = Proxy::start(first.address()).await;
    let url = format!("redis://{}", endpoint.address());
    let cluster = Cluster::start(2, &url, &Settings::default()).await;
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let tapes = [
        cluster[0].tape("alice", "room:1").await,
        cluster[1].tape("bob", "room:1").await,
    ];
    second.until_key("curfew:{revoked}:epoch").await;

    // The old primary becomes a replica. Redis does not close its connections.
    second.run(&["REPLICAOF", "NO", "ONE"]).await;
    first
        .run(&["REPLICAOF", "127.0.0.1", &second.port().to_string()])
        .await;
    endpoint.point_to(second.address());
    eventually_within(RECOVERY, "every connection to follow", async || {
        connections(&first).await.is_empty().then_some(())
    })
    .await;
    cluster.synced().await;
    let moved = Instant::now();
    for tape in &tapes {
        tape.message_after(RECOVERY, moved).await;
        tape.assert_open("after the first failover").await;
    }
    second
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    tapes[0].revoked().await;
    cluster[1].assert_refused("alice").await;

    // Now the name moves back, and the server that was the primary is killed at once.
    eventually_within(RECOVERY, "the replica to be in sync", async || {
        first
            .has(&revocation_key("user", "alice"))
            .await
            .then_some(())
    })
    .await;
    let mut second = second;
    second.kill();
    first.run(&["REPLICAOF", "NO", "ONE"]).await;
    endpoint.point_to(first.address());
    cluster.synced().await;
    let moved = Instant::now();
    tapes[1].message_after(RECOVERY, moved).await;
    tapes[1].assert_open("after the second failover").await;
    cluster[0].assert_refused("alice").await;
    cluster.assert_well().await;
    first.kill();
}

/// Regression: a temporary error of Redis counted as permanent.
#[tokio::test]
async fn a_redis_that_is_loading_is_waited_for() {
    // The filler keys below make the server load its data for about three seconds.
    let mut redis = Redis::start_with(&[
        "appendonly yes",
        "key-load-delay 1000",
        "loading-process-events-interval-bytes 1024",
    ])
    .await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let alice = cluster[0].tape("alice", "room:1").await;
    let fill = "for n = 1, 3000 do redis.call('SET', 'filler:' .. n, string.rep('x', 100)) end";
    redis.run(&["EVAL", fill, "0"]).await;
    redis
        .run(&["SET", &revocation_key("user", "bob"), "1"])
        .await;
    redis.run(&["BGREWRITEAOF"]).await;
    eventually_within(RECOVERY, "a base to load", async || {
        let info = redis.run(&["INFO", "persistence"]).await.text();
        info.contains("aof_rewrite_in_progress:0").then_some(())
    })
    .await;
    redis.restart().await;
    cluster.synced().await;
    let log = cluster[0].log().text();
    assert!(
        log.to_lowercase().contains("loading"),
        "Redis never answered that it is loading"
    );
    alice.assert_open("after").await;
    cluster[0].assert_refused("bob").await;
    assert_eq!(
        cluster.metric("curfew_backend_data_losses_total").await,
        0.0
    );
    cluster.assert_well().await;
}

/// Regression: a replica that had lost its primary counted as a primary, or the node blamed a
/// client for the replica's answer.
#[tokio::test]
async fn a_replica_that_lost_its_primary_is_not_used_until_it_is_promoted() {
    let primary = Redis::start().await;
    let cluster = Cluster::start(1, &primary.url(), &Settings::default()).await;
    let alice = cluster[0].tape("alice", "room:1").await;
    primary
        .run(&["CONFIG", "SET", "replica-serve-stale-data", "no"])
        .await;
    let nobody = free_port().to_string();
    primary.run(&["REPLICAOF", "127.0.0.1", &nobody]).await;
    let words = ["masterdown", "master", "primary", "readonly", "replica"];
    cluster[0].until_out_of_touch(RECOVERY, &words).await;
    assert!(cluster[0].attempt("carol").await.is_unavailable());
    primary.run(&["REPLICAOF", "NO", "ONE"]).await;
    cluster.synced().await;
    alice.assert_open("after").await;
    cluster.assert_well().await;
}
