//! A publication takes effect within the lease under which it was accepted, or it never takes
//! effect. The node tells the publisher no more than it knows (CONTRACT §8 R1, R5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use curfew_testkit::{Incoming, WsClient, opcode};
use curfew_tests::{
    ADMIN_KEY, Cluster, Gateway, LEASE, Link, Redis, RedisCluster, Reply, Resp, Sentinel, Settings,
    Tape, eventually_within, revocation_key,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// Deadline for a node to recover.
const RECOVERY: Duration = Duration::from_secs(20);

/// Time by which a busy machine may delay an answer.
const SLACK: Duration = Duration::from_secs(1);

/// A time longer than a node waits for an answer of Redis, and shorter than the lease.
const UNSURE: Duration = Duration::from_millis(1500);

/// A time after which no publication may be executed any more.
const TOO_LATE: Duration = LEASE.saturating_add(Duration::from_millis(1500));

/// Publishes the numbers below `count`, without waiting for answers.
fn publish_all(tape: &Tape, channel: &str, count: usize) {
    for n in 0..count {
        tape.send(json!({"type":"publish","id":n,"channel":channel,"data":n}));
    }
}

/// The codes of the answers to [`publish_all`], in order. `ok` means that a number was published.
async fn answers(tape: &Tape, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let answer = tape.until_within(TOO_LATE, json!({ "id": n })).await.frame;
        codes.push(code(&answer));
    }
    let again = tape.matching(&json!({"type":"ok"})).len();
    let refused = tape.matching(&json!({"type":"error"})).len();
    assert_eq!(again + refused, count, "answers missing: {:?}", tape.seen());
    codes
}

fn code(answer: &Value) -> String {
    match answer["type"].as_str() {
        Some("ok") => "ok".to_owned(),
        _ => answer["code"].as_str().unwrap().to_owned(),
    }
}

/// Publishes until `bob` receives a publication. The connection to Redis of the subscriber's node
/// may recover later than that of the publisher's node.
async fn until_heard(node: &Gateway, channel: &str, bob: &Tape) {
    eventually_within(RECOVERY, "a publication that arrives", async || {
        let body = json!({"channel":channel,"data":"the end"});
        let (status, _) = node.admin("POST", "/v1/publish", Some(body)).await;
        let came = !bob.matching(&json!({"data":"the end"})).is_empty();
        (status == 200 && came).then_some(())
    })
    .await;
}

/// Fails unless `bob` has received exactly the data in `expect`, and receives a later publication.
async fn assert_heard_only(node: &Gateway, channel: &str, bob: &Tape, expect: &[Value]) {
    until_heard(node, channel, bob).await;
    let heard: Vec<Value> = bob
        .messages()
        .iter()
        .map(|seen| seen.frame["data"].clone())
        .filter(|data| data != "the end")
        .collect();
    assert_eq!(heard, expect);
}

#[tokio::test]
async fn what_a_bad_link_has_held_back_is_never_delivered() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let alice = cluster[0].tape("alice", "room:2").await;
    let bob = cluster[1].tape("bob", "room:1").await;
    cluster.proxy(0).set(Link::STALLED);
    let written = Instant::now();
    let key = revocation_key("user", "alice");
    redis.run(&["SET", &key, "1"]).await;
    // The node has not received the revocation, and still holds its lease.
    publish_all(&alice, "room:1", 5);
    let unknown = r#"curfew_publishes_total{outcome="unknown",source="client"}"#;
    cluster[0].until_metric(unknown, |count| count == 5.0).await;
    let took = written.elapsed();
    assert!(took < LEASE + SLACK, "outcomes known after {took:?}");
    // The publisher gets each error even if the lease ends at that moment, because the node sends
    // errors without waiting for the lease.
    eventually_within(RECOVERY, "five answers", async || {
        let told = alice.matching(&json!({"type":"error","code":"unknown_outcome"}));
        (told.len() == 5).then_some(())
    })
    .await;
    // Without the lease, the node writes nothing. It may lose the connection for commands earlier.
    let words = ["disconnected from redis"];
    cluster[0].until_out_of_touch(RECOVERY, &words).await;
    let late = alice
        .ask(
            "late",
            json!({"type":"publish","channel":"room:1","data":1}),
        )
        .await;
    assert_eq!(late["code"], "unavailable", "{late}");

    sleep_until((written + Duration::from_secs(5)).into()).await;
    cluster.proxy(0).set(Link::PASS);
    cluster[0].until_in_touch(RECOVERY).await;
    alice.revoked().await;
    assert_heard_only(&cluster[0], "room:1", &bob, &[]).await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_frozen_redis_delivers_in_time_or_never() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    for frozen in [Duration::from_millis(300), UNSURE, TOO_LATE] {
        let alice = cluster[0].tape("alice", "room:2").await;
        let bob = cluster[1].tape("bob", "room:1").await;
        redis.freeze();
        let struck = Instant::now();
        publish_all(&alice, "room:1", 3);
        let body = json!({"channel":"room:1","data":3});
        let (by_server, ()) = tokio::join!(
            cluster[0].admin_as(Some(ADMIN_KEY), "POST", "/v1/publish", Some(body)),
            async {
                sleep_until((struck + frozen).into()).await;
                redis.thaw();
            }
        );
        let mut codes = answers(&alice, 3).await;
        let told = by_server.json();
        if by_server.status == 200 {
            codes.push("ok".to_owned());
        } else {
            assert_eq!(by_server.status, 504, "{told}");
            assert_eq!(by_server.header("retry-after"), None);
            codes.push(code(&told));
        }
        cluster.synced().await;
        until_heard(&cluster[0], "room:1", &bob).await;
        let heard: BTreeSet<u64> = bob
            .messages()
            .iter()
            .filter_map(|seen| seen.frame["data"].as_u64())
            .collect();
        for (n, code) in (0..).zip(&codes) {
            match code.as_str() {
                "ok" => assert!(heard.contains(&n), "{n} of {codes:?}: {heard:?}"),
                "unknown_outcome" => assert!(frozen >= UNSURE, "{frozen:?}: {codes:?}"),
                _ => panic!("{frozen:?}: {codes:?}"),
            }
        }
        // The first publication was sent at once, so Redis may still execute it. A later one may
        // be sent only after the node has given up the first, and is executed within the lease.
        if frozen >= UNSURE {
            assert_eq!(codes[0], "unknown_outcome", "{frozen:?}: {codes:?}");
        }
        if frozen > LEASE {
            assert!(heard.is_empty(), "delivered after the lease: {heard:?}");
        }
        bob.assert_open("after").await;
    }
    cluster.assert_well().await;
}

/// Subscribes to a channel at Redis itself, to see the publications that are executed.
async fn listen(redis: &Redis, channel: &str) -> Resp {
    let mut listener = redis.connect().await;
    let subscribed = listener.call(&["SUBSCRIBE", channel]).await.unwrap();
    assert!(matches!(subscribed, Reply::List(_)), "{subscribed:?}");
    listener
}

/// Publishes as fast as the node accepts, until the connection ends.
async fn flood(mut client: WsClient) {
    let data = "x".repeat(200);
    let publish = json!({"type":"publish","channel":"room:1","data":data}).to_string();
    loop {
        for _ in 0..64 {
            client.send_text(&publish).await;
        }
        // The node answers with errors. At the end it sends a close, or resets the connection if
        // the client is too slow.
        loop {
            match client.incoming(Duration::from_millis(1)).await {
                Incoming::Frame(frame) if frame.opcode != opcode::CLOSE => {}
                Incoming::Silence => break,
                Incoming::Frame(_) | Incoming::End | Incoming::Cut(_) => return,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_publishes_nothing_of_revoked_users_when_it_wakes() {
    const ROUNDS: usize = 3;
    const USERS: usize = 8;
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let node = &cluster[0];
    for round in 0..ROUNDS {
        let mut listener = listen(&redis, "curfew:channel:room:1").await;
        let mut flooding = JoinSet::new();
        let users: Vec<String> = (0..USERS).map(|n| format!("flood-{round}-{n}")).collect();
        let mut clients = Vec::new();
        for user in &users {
            clients.push(node.user(user).await);
        }
        for client in clients {
            flooding.spawn(flood(client));
        }
        // The test waits until the clients are publishing.
        for _ in 0..2_000 {
            listener.reply().await.unwrap();
        }
        node.signal("STOP");
        let keys: Vec<_> = users
            .iter()
            .map(|user| vec!["SET".to_owned(), revocation_key("user", user), "1".into()])
            .collect();
        redis.connect().await.pipeline(&keys).await.unwrap();
        let written = Instant::now();
        // Publications that arrive before the end of the lease are allowed.
        let over = (written + LEASE).into();
        while let Ok(reply) = tokio::time::timeout_at(over, listener.reply()).await {
            reply.unwrap();
        }
        sleep_until((written + TOO_LATE).into()).await;
        node.signal("CONT");
        node.until_in_touch(RECOVERY).await;
        let mut late = 0;
        while timeout(SLACK, listener.reply()).await.is_ok() {
            late += 1;
        }
        assert_eq!(late, 0, "round {round}: executed after the lease");
        flooding.join_all().await;
    }
    cluster.assert_well().await;
}

/// Publishes numbers while `work` runs, with up to 200 unanswered. Returns each number's code.
async fn numbers_during(
    node: &Gateway,
    channel: &str,
    work: impl Future<Output = ()>,
) -> BTreeMap<u64, String> {
    const UNDER_WAY: usize = 200;
    let tape = Tape::of(node.user("alice").await);
    let mut work = std::pin::pin!(work);
    let (mut sent, mut busy) = (0, true);
    while busy {
        let answered = tape.matching(&json!({})).len();
        let room = (answered + UNDER_WAY).saturating_sub(sent);
        for _ in 0..room {
            tape.send(json!({"type":"publish","id":sent,"channel":channel,"data":sent}));
            sent += 1;
        }
        tokio::select! {
            biased;
            () = &mut work => busy = false,
            () = sleep(Duration::from_millis(2)) => {}
        }
    }
    eventually_within(RECOVERY, "an answer to each publication", async || {
        (tape.seen().len() >= sent).then_some(())
    })
    .await;
    let mut outcomes = BTreeMap::new();
    for seen in tape.seen() {
        let id = seen.frame["id"].as_u64().expect("an answer");
        let before = outcomes.insert(id, code(&seen.frame));
        assert_eq!(before, None, "answered twice: {}", seen.frame);
    }
    assert_eq!(outcomes.len(), sent);
    outcomes
}

/// Fails unless the received numbers are unique and in order. Each number with the answer `ok` must
/// be received. A number that was refused must not be received.
async fn assert_consistent(bob: &Tape, outcomes: &BTreeMap<u64, String>) {
    let done = outcomes.iter().filter(|(_, code)| *code == "ok");
    let last = done.clone().next_back().expect("some are executed").0;
    bob.until(json!({ "data": last })).await;
    let heard: Vec<u64> = bob
        .messages()
        .iter()
        .filter_map(|seen| seen.frame["data"].as_u64())
        .collect();
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{heard:?}");
    for n in &heard {
        let code = &outcomes[n];
        assert!(
            ["ok", "unknown_outcome"].contains(&code.as_str()),
            "{n} {code}"
        );
    }
    for (n, code) in done {
        assert!(heard.binary_search(n).is_ok(), "{n}: {code}, but is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_script_costs_no_publication() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let bob = cluster[1].tape("bob", "room:1").await;
    let flushing = async {
        for _ in 0..20 {
            redis.run(&["SCRIPT", "FLUSH"]).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let outcomes = numbers_during(&cluster[0], "room:1", flushing).await;
    assert_consistent(&bob, &outcomes).await;
    let done = outcomes.values().filter(|code| *code == "ok").count();
    assert!(
        done * 10 >= outcomes.len() * 9,
        "only {done} of {} publications were executed",
        outcomes.len()
    );
    cluster.assert_well().await;

    let servers = RedisCluster::start().await;
    let cluster = Cluster::start(2, &servers.url(), &Settings::default()).await;
    let bob = cluster[1].tape("bob", "room:1").await;
    let flushing = async {
        for _ in 0..20 {
            for server in servers.servers() {
                server.run(&["SCRIPT", "FLUSH"]).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let outcomes = numbers_during(&cluster[0], "room:1", flushing).await;
    assert_consistent(&bob, &outcomes).await;
    cluster.assert_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_leaves_no_publication_without_an_answer() {
    let mut sentinel = Sentinel::start().await;
    let cluster = Cluster::start(2, &sentinel.url(), &Settings::default()).await;
    let bob = cluster[1].tape("bob", "room:1").await;
    sentinel.replica.until_key("curfew:{revoked}:epoch").await;
    let failing_over = async {
        sleep(Duration::from_millis(300)).await;
        sentinel.primary.kill();
        sentinel.promoted().await;
        cluster.synced().await;
    };
    let outcomes = numbers_during(&cluster[0], "room:1", failing_over).await;
    let heard: Vec<u64> = bob
        .messages()
        .iter()
        .filter_map(|seen| seen.frame["data"].as_u64())
        .collect();
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{heard:?}");
    for n in &heard {
        let code = &outcomes[n];
        assert!(
            ["ok", "unknown_outcome"].contains(&code.as_str()),
            "{n} {code}"
        );
    }
    assert!(outcomes.values().any(|code| code == "ok"));
    until_heard(&cluster[0], "room:1", &bob).await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn each_shard_of_a_cluster_has_its_fence() {
    let servers = RedisCluster::start().await;
    let cluster = Cluster::start(2, &servers.url(), &Settings::default()).await;
    for channel in ["room:1", "room:2", "room:3", "room:4", "room:5", "room:6"] {
        let alice = cluster[0].tape("alice", "room:0").await;
        let bob = cluster[1].tape("bob", channel).await;
        let name = format!("curfew:channel:{channel}");
        let owner = servers.owner(&["GET", &name]).await;
        owner.freeze();
        let struck = Instant::now();
        publish_all(&alice, channel, 3);
        let codes = answers(&alice, 3).await;
        assert_eq!(codes, ["unknown_outcome"; 3], "{channel}");
        sleep_until((struck + TOO_LATE).into()).await;
        owner.thaw();
        servers.agreed().await;
        cluster.synced().await;
        assert_heard_only(&cluster[0], channel, &bob, &[]).await;
        bob.assert_open("after").await;
    }
}

#[tokio::test]
async fn publications_of_one_batch_are_refused_one_by_one() {
    let redis = Redis::start().await;
    let user = |channel: &str| {
        let channel = format!("&{channel}");
        let words = ["ACL", "SETUSER", "curfew", "on", ">secret", "~*", "+@all"];
        let more = [
            "resetchannels",
            "&curfew:control",
            "&curfew:probe:*",
            "&curfew:relay:*",
            &channel,
        ];
        let all = words.into_iter().chain(more).map(str::to_owned);
        all.collect::<Vec<_>>()
    };
    redis.run(&user("curfew:channel:*")).await;
    let settings = Settings::default()
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"");
    let cluster = Cluster::start(1, &redis.url(), &settings).await;
    let bob = cluster[0].tape("bob", "room:yes").await;
    redis.run(&user("curfew:channel:room:yes")).await;
    let alice = Tape::of(cluster[0].user("alice").await);
    for n in 0..100 {
        let channel = ["room:yes", "room:no", "room:never"][n % 3];
        alice.send(json!({"type":"publish","id":n,"channel":channel,"data":n}));
    }
    let codes = answers(&alice, 100).await;
    for (n, code) in codes.iter().enumerate() {
        let expect = ["ok", "unavailable", "unavailable"][n % 3];
        assert_eq!(code, expect, "{n}");
    }
    assert_heard_only(
        &cluster[0],
        "room:yes",
        &bob,
        &(0..100).step_by(3).map(Value::from).collect::<Vec<_>>(),
    )
    .await;

    // The answer to a publication in several channels says in how many channels it was published.
    let body = json!({"channels":["room:yes","room:no"],"data":"both"});
    let (status, told) = cluster[0].admin("POST", "/v1/broadcast", Some(body)).await;
    assert_eq!((status, &told["code"]), (504, &json!("unknown_outcome")));
    assert!(told["detail"].as_str().unwrap().contains("first 1 of 2"));
    let body = json!({"channels":["room:no","room:yes"],"data":"none"});
    let (status, told) = cluster[0].admin("POST", "/v1/broadcast", Some(body)).await;
    assert_eq!((status, &told["code"]), (503, &json!("unavailable")));
}

#[tokio::test]
async fn large_publications_go_through_together() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let mut bob = cluster[0].subscriber("bob", "room:1").await;
    let mut senders = Vec::new();
    for n in 0..8 {
        senders.push((cluster[0].user(&format!("alice-{n}")).await, 0));
    }
    let large = "x".repeat(60_000);
    let mut expect = [0; 8];
    for round in 0..8 {
        for (n, (sender, _)) in senders.iter_mut().enumerate() {
            let data = json!([n, round, large]);
            sender
                .send(json!({"type":"publish","id":round,"channel":"room:1","data":data}))
                .await;
        }
        for _ in 0..senders.len() {
            let message = bob.next_json().await;
            let n = usize::try_from(message["data"][0].as_u64().unwrap()).unwrap();
            assert_eq!(message["data"][1], expect[n], "{n} is out of order");
            expect[n] += 1;
        }
    }
    for (sender, _) in &mut senders {
        for round in 0..8 {
            sender.expect_json(json!({"type":"ok","id":round})).await;
        }
    }
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_user_without_the_right_to_publish_by_script_is_told_of() {
    let redis = Redis::start().await;
    let words = "ACL SETUSER curfew on >secret ~* &* +@all -evalsha";
    let words: Vec<&str> = words.split(' ').collect();
    redis.run(&words).await;
    let settings = Settings::default()
        .on_redis(&redis.url())
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"");
    let node = Gateway::start_with(&settings).await;
    node.until_unready(RECOVERY, &["evalsha"]).await;
    redis.run(&["ACL", "SETUSER", "curfew", "+evalsha"]).await;
    node.until_in_touch(RECOVERY).await;
}
