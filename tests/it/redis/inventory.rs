//! Any node lists the sessions, nodes and channels of the whole cluster (CONTRACT §2).

use std::collections::BTreeSet;

use curfew_testkit::WsClient;
use curfew_testkit::mint::Key;
use curfew_tests::{ADMIN_KEY, Cluster, Gateway, Redis, Settings, Tape, curfew_with, eventually};
use serde_json::{Value, json};

fn ids(page: &Value) -> Vec<String> {
    let sessions = page["sessions"].as_array().unwrap();
    let id = |session: &Value| session["session"].as_str().unwrap().to_owned();
    sessions.iter().map(id).collect()
}

#[tokio::test]
async fn any_node_lists_shows_and_closes_any_session() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(3, &redis.url(), &Settings::default()).await;
    let mut clients: Vec<(WsClient, String)> = Vec::new();
    for n in 0..30 {
        let node = &cluster[n % 3];
        let user = if n < 5 { "alice" } else { "bob" };
        let mut client = node
            .ws()
            .bearer(&Key::default_secret().user(user))
            .open()
            .await;
        let connected = client.expect_json(json!({"type":"connected"})).await;
        clients.push((client, connected["session"].as_str().unwrap().to_owned()));
    }
    let all: BTreeSet<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    for node in cluster.nodes() {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/sessions?limit=7{cursor}");
            let page = node.admin_ok("GET", &path, None).await;
            let listed = ids(&page);
            assert!((1..=7).contains(&listed.len()), "{page}");
            found.extend(listed);
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found.len(), 30, "not every session is listed exactly once");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
        let alices = node.admin_ok("GET", "/v1/sessions?user=alice", None).await;
        assert_eq!(ids(&alices).len(), 5);
        assert_eq!(
            ids(&node.admin_ok("GET", "/v1/sessions?user=ali", None).await).len(),
            0
        );
    }
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        nodes.push(node.id().await);
    }
    for n in 0..3 {
        let (client, id) = &mut clients[n];
        let path = format!("/v1/sessions/{id}");
        let other = &cluster[n + 1 - 3 * usize::from(n == 2)];
        let one = other.admin_ok("GET", &path, None).await;
        assert_eq!(
            (one["node"].as_str(), one["user"].as_str()),
            (Some(nodes[n].as_str()), Some("alice"))
        );
        other.admin_ok("DELETE", &path, None).await;
        let closing = client.expect_close(4404, "disconnected").await;
        assert_eq!(closing["reconnect"], true);
        eventually("the end of the record", async || {
            (other.admin("GET", &path, None).await.0 == 404).then_some(())
        })
        .await;
        assert_eq!(other.admin("DELETE", &path, None).await.0, 404);
    }
    assert!(clients[3].0.barrier().await.is_empty());
    eventually("each node to count its nine", async || {
        let listed = cluster[0].nodes().await;
        let nine = listed.iter().filter(|node| node["sessions"] == 9).count();
        (nine == 3).then_some(())
    })
    .await;
}

/// Regression: the node waited in vain for a session that had just ended on another node, and
/// reported an outage of Redis.
#[tokio::test]
async fn who_ends_a_session_that_has_just_ended_hears_that_there_is_none() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let token = Key::default_secret().user("alice");
    let (mut gone, mut tries) = (0, 0);
    // Only in some attempts does the second call find the record of the session although the
    // session has already ended, so the test makes many attempts.
    while gone < 10 {
        let node = &cluster[0];
        let (client, connected) = node.connected(node.ws().bearer(&token)).await;
        let path = format!("/v1/sessions/{}", connected["session"].as_str().unwrap());
        cluster[0].admin_ok("DELETE", &path, None).await;
        match cluster[1].admin("DELETE", &path, None).await {
            (404, _) => gone += 1,
            // The session had not yet ended when the second call came.
            (200, _) => {}
            other => panic!("{other:?}"),
        }
        drop(client);
        tries += 1;
        assert!(tries < 100, "only {gone} of {tries} sessions were gone");
    }
}

#[tokio::test]
async fn sessions_of_a_user_are_limited_over_the_cluster() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("session.max_per_user = 3");
    let cluster = Cluster::start(3, &redis.url(), &settings).await;
    let mut open = Vec::new();
    for node in cluster.nodes() {
        open.push(node.tape("alice", "room:1").await);
    }
    for node in cluster.nodes() {
        let token = Key::default_secret().user("alice");
        let mut fourth = node.ws().bearer(&token).open().await;
        assert_eq!(fourth.closed().await.0, 4409);
        node.assert_admits("bob").await;
    }
    drop(open.pop());
    let again = eventually("a third session", async || {
        try_open(&cluster, 0, "alice").await
    })
    .await;
    drop(again);

    // Clients connect at the same time on all nodes. At most three of their sessions are open.
    for round in 0..5 {
        let user = format!("user-{round}");
        let (a, b, c) = tokio::join!(
            rush(&cluster, 0, &user),
            rush(&cluster, 1, &user),
            rush(&cluster, 2, &user),
        );
        let held = a.len() + b.len() + c.len();
        assert!((1..=3).contains(&held), "{held} sessions are open");
    }
}

/// Requests four sessions of one user at the same time. Returns the sessions that were opened.
async fn rush(cluster: &Cluster, node: usize, user: &str) -> Vec<Tape> {
    let (a, b, c, d) = tokio::join!(
        try_open(cluster, node, user),
        try_open(cluster, node, user),
        try_open(cluster, node, user),
        try_open(cluster, node, user),
    );
    [a, b, c, d].into_iter().flatten().collect()
}

/// Opens a session; `None` if the user has too many sessions.
async fn try_open(cluster: &Cluster, node: usize, user: &str) -> Option<Tape> {
    let token = Key::default_secret().user(user);
    let mut client = cluster[node].ws().bearer(&token).open().await;
    let first = client.next_json().await;
    match first["type"].as_str() {
        Some("connected") => Some(Tape::of(client)),
        Some("closing") => {
            assert_eq!(first["code"], 4409, "{first}");
            None
        }
        _ => panic!("{first}"),
    }
}

/// Regression: in a list for operators, two pods could not be told apart.
#[tokio::test]
async fn nodes_are_told_apart_by_name_and_address() {
    let redis = Redis::start().await;
    let named = |name: &str, address: &str| {
        Settings::default()
            .with(&format!("server.node_name = \"{name}\""))
            .with(&format!("server.node_address = \"{address}\""))
            .on_redis(&redis.url())
    };
    let one = Gateway::start_with(&named("curfew-7d9-x2k", "10.1.0.7")).await;
    let two = Gateway::start_with(&named("Knoten \u{fc}ber", "10.1.0.8")).await;
    let three = Gateway::start_with(&Settings::default().on_redis(&redis.url())).await;
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let listed = eventually("three nodes", async || {
        let nodes = one.nodes().await;
        (nodes.len() == 3).then_some(nodes)
    })
    .await;
    let of = |id: &str| listed.iter().find(|node| node["node"] == id).unwrap();
    for (node, name, address) in [
        (&one, "curfew-7d9-x2k", "10.1.0.7".to_owned()),
        (&two, "Knoten \u{fc}ber", "10.1.0.8".to_owned()),
        (&three, machine.trim_end(), three.address().to_string()),
    ] {
        let told = of(&node.id().await);
        assert_eq!(told["name"], name, "{told}");
        assert_eq!(told["address"], address, "{told}");
    }
    let url = format!("http://{}", three.admin_address());
    let environment = [("CURFEW_ADMIN_KEY", ADMIN_KEY), ("CURFEW_ADMIN_URL", &url)];
    let table = curfew_with(&["nodes"], &environment).await.stdout;
    for text in ["NAME", "curfew-7d9-x2k", "10.1.0.8", machine.trim_end()] {
        assert!(table.contains(text), "{text} is not in {table}");
    }
}
