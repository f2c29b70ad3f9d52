//! Presence: the sessions in a channel on every node, and their joins and leaves.

mod attack;

use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, WsClient};
use curfew_tests::{
    Cluster, Flow, Gateway, Kind, Link, Redis, RedisCluster, Settings, Tape, eventually,
    eventually_within,
};
use serde_json::{Value, json};

/// Longest time for which the sessions of a crashed node stay listed (STREAMS.md, ST6), and some
/// time for a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(45);

/// Longest time until two checks in a row have found that an entry is missing, and some time for a
/// busy machine.
const RESTORED_WITHIN: Duration = Duration::from_secs(90);

/// Settings with presence for the channels `room:*`, and rules that allow everything.
fn with_presence() -> Settings {
    let rules = "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
         actions = [\"subscribe\", \"publish\", \"history\", \"presence\"]\n\
         [[channels]]\npattern = \"room:quiet\"\npresence = true\n\
         [[channels]]\npattern = \"room:*\"\npresence = true\njoin_leave = true\n\
         history = { size = 10, ttl = \"10m\" }\n";
    Settings::default().rules(rules)
}

async fn ask(client: &mut WsClient, command: Value) -> Value {
    client.send(command).await;
    client.next_json().await
}

/// Opens a session that subscribes to `channel`. Returns the client and the session's id.
async fn enter(node: &Gateway, user: &str, channel: &str) -> (WsClient, String) {
    let token = Key::default_secret().user(user);
    let (mut client, connected) = node.connected(node.ws().bearer(&token)).await;
    let command = json!({"type":"subscribe","id":1,"channel":channel});
    let answer = ask(&mut client, command).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    (client, connected["session"].as_str().unwrap().to_owned())
}

async fn presence(client: &mut WsClient, channel: &str) -> Value {
    let command = json!({"type":"presence","id":"p","channel":channel});
    ask(client, command).await
}

/// The presence of a channel, as the admin API lists it.
async fn listed(node: &Gateway, channel: &str) -> Value {
    let path = format!("/v1/channels/{channel}");
    node.admin_ok("GET", &path, None).await["presence"].clone()
}

fn empty() -> Value {
    json!({"type":"presence","id":"p","sessions":[],"users":0,"truncated":false})
}

#[tokio::test]
async fn a_session_is_listed_with_the_answer_and_gone_with_the_answer() {
    let gateway = Gateway::start_with(&with_presence()).await;
    listed_and_gone_with_the_answer(&gateway).await;
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_presence()).await;
    listed_and_gone_with_the_answer(&cluster[0]).await;
    // The other node confirms the revocation before `revoke` returns, so the session is no longer
    // listed then.
    let mut eve = cluster[0].user("eve").await;
    for n in 0..20 {
        let (_mallory, session) = enter(&cluster[1], "mallory", "room:2").await;
        let revocation = json!({"kind":"session","value":session});
        cluster[0].revoke(revocation).await;
        assert_eq!(presence(&mut eve, "room:2").await, empty(), "{n}");
    }
}

async fn listed_and_gone_with_the_answer(gateway: &Gateway) {
    let mut eve = gateway.user("eve").await;
    assert_eq!(presence(&mut eve, "room:1").await, empty());
    for _ in 0..20 {
        let (mut bob, session) = enter(gateway, "bob", "room:1").await;
        let expect = json!({"type":"presence","id":"p","users":1,"truncated":false,
            "sessions":[{"session":session,"user":"bob"}]});
        assert_eq!(presence(&mut eve, "room:1").await, expect);
        let command = json!({"type":"unsubscribe","id":2,"channel":"room:1"});
        assert_eq!(ask(&mut bob, command).await, json!({"type":"ok","id":2}));
        assert_eq!(presence(&mut eve, "room:1").await, empty());
    }
    for _ in 0..20 {
        let (mut bob, _) = enter(gateway, "bob", "room:1").await;
        assert_eq!(listed(gateway, "room:1").await["count"], 1);
        bob.send_frame(OutFrame::close(1000, b"")).await;
        assert_eq!(bob.closed().await.0, 1000);
        assert_eq!(presence(&mut eve, "room:1").await, empty());
    }
    let (bob, _) = enter(gateway, "bob", "room:1").await;
    drop(bob);
    eventually("bob to be removed", async || {
        (presence(&mut eve, "room:1").await == empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn presence_is_for_those_who_may_read_it_and_channels_that_have_it() {
    let rules = "[[policy.rules]]\nname = \"listeners\"\nchannels = [\"*\"]\n\
         actions = [\"subscribe\"]\n\
         [[channels]]\npattern = \"room:*\"\npresence = true\n";
    let gateway = Gateway::start_with(&Settings::default().rules(rules)).await;
    let (mut bob, _) = enter(&gateway, "bob", "room:1").await;
    assert_eq!(presence(&mut bob, "room:1").await["code"], "forbidden");
    let gateway = Gateway::start_with(&with_presence()).await;
    let (mut bob, _) = enter(&gateway, "bob", "plain").await;
    assert_eq!(presence(&mut bob, "plain").await["code"], "not_available");
    assert_eq!(listed(&gateway, "plain").await, Value::Null);
    assert_eq!(presence(&mut bob, "a b").await["code"], "invalid_channel");
    for wrong in ["1", "null", "\"true\""] {
        let command =
            format!(r#"{{"type":"subscribe","id":1,"channel":"room:1","join_leave":{wrong}}}"#);
        bob.send_text(&command).await;
        assert_eq!(bob.next_json().await["code"], "bad_request", "{wrong}");
    }
}

#[tokio::test]
async fn others_see_one_claim_and_no_other() {
    let settings = with_presence().with("session.info_claim = \"card\"");
    let gateway = Gateway::start_with(&settings).await;
    let more = json!({"card":{"name":"B \"ä\"","n":[1.5]},"secret":"s3cret"});
    let token = Key::default_secret().user_with("bob", more);
    let (mut bob, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    let command = json!({"type":"subscribe","id":1,"channel":"room:1"});
    assert_eq!(ask(&mut bob, command).await["type"], "ok");
    let info = json!({"name":"B \"ä\"","n":[1.5]});
    let seen = json!([{"session":connected["session"],"user":"bob","info":info}]);
    assert_eq!(presence(&mut bob, "room:1").await["sessions"], seen);
    assert_eq!(listed(&gateway, "room:1").await["sessions"], seen);
}

#[tokio::test]
async fn joins_and_leaves_are_told_to_those_who_ask() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_presence()).await;
    let tape = Tape::of(cluster[0].user("alice").await);
    let command = json!({"type":"subscribe","channel":"room:1","join_leave":true});
    assert_eq!(tape.ask("a", command).await["type"], "ok");
    let own = tape
        .until(json!({"type":"join","channel":"room:1","user":"alice"}))
        .await;
    assert_eq!(own.frame["type"], "join");
    let silent = Tape::of(cluster[1].user("mallory").await);
    let command = json!({"type":"subscribe","channel":"room:1"});
    assert_eq!(silent.ask("a", command).await["type"], "ok");
    let (mut bob, session) = enter(&cluster[1], "bob", "room:1").await;
    let join = json!({"type":"join","channel":"room:1","session":session,"user":"bob"});
    tape.until(join).await;
    bob.send(json!({"type":"unsubscribe","channel":"room:1"}))
        .await;
    let leave = json!({"type":"leave","channel":"room:1","session":session,"user":"bob"});
    tape.until(leave.clone()).await;
    // Bob subscribes again, and his connection then ends without a close frame.
    bob.send(json!({"type":"subscribe","channel":"room:1"}))
        .await;
    drop(bob);
    eventually("two leaves of bob", async || {
        let leaves = tape.seen();
        let leaves = leaves.iter().filter(|seen| seen.frame == leave);
        (leaves.count() == 2).then_some(())
    })
    .await;
    let told = silent.seen();
    assert!(
        told.iter().all(|seen| seen.frame["type"] != "join"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_list_is_of_all_nodes_and_ends_with_access() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(3, &redis.url(), &with_presence()).await;
    let mut kept = Vec::new();
    for (at, node) in cluster.nodes().iter().enumerate() {
        // One channel's name has braces, and another name is not ASCII.
        for channel in ["room:}{", "room:ä", "room:1"] {
            kept.push(enter(node, &format!("user-{}", at % 2), channel).await);
        }
    }
    for channel in ["room:%7D%7B", "room:%C3%A4", "room:1"] {
        let seen = listed(&cluster[0], channel).await;
        assert_eq!((&seen["count"], &seen["users"]), (&json!(3), &json!(2)));
    }
    cluster[0]
        .revoke(json!({"kind":"user","value":"user-0"}))
        .await;
    eventually("the revoked users to be removed", async || {
        let seen = listed(&cluster[2], "room:1").await;
        (seen["count"] == 1 && seen["users"] == 1).then_some(())
    })
    .await;
    drop(kept);
    eventually("the removal of every key in Redis", async || {
        let keys = redis.keys().await;
        (!keys.iter().any(|key| key.contains("presence"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crashed_nodes_sessions_leave_while_another_node_lives() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_presence()).await;
    let tape = Tape::of(cluster[0].user("alice").await);
    let command = json!({"type":"subscribe","channel":"room:1","join_leave":true});
    assert_eq!(tape.ask("a", command).await["type"], "ok");
    let (_bob, session) = enter(&cluster[1], "bob", "room:1").await;
    tape.until(json!({"type":"join","session":session})).await;
    cluster[1].signal("KILL");
    let leave = json!({"type":"leave","channel":"room:1","session":session,"user":"bob"});
    eventually_within(GONE_WITHIN, "bob's leave", async || {
        let seen = tape.seen();
        seen.iter().any(|seen| seen.frame == leave).then_some(())
    })
    .await;
    assert_eq!(listed(&cluster[0], "room:1").await["count"], 1);
    assert_eq!(cluster[0].metric("curfew_presence_reaped_total").await, 1.0);
}

#[tokio::test]
async fn what_a_dead_node_has_sent_and_comes_late_leaves_no_ghost() {
    /// The call of the script that writes the entry has more bytes than this. Everything else that
    /// the node sends while the test waits for the call has fewer bytes.
    const SCRIPT_BYTES: usize = 1_000;
    let redis = Redis::start().await;
    // With this timeout, the node does not give up the write before it is killed. It therefore
    // sends no removal after the entry.
    let settings = with_presence().with("backend.redis.timeout = \"30s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let (_bob, _) = enter(&cluster[1], "bob", "room:1").await;
    let mut eve = cluster[1].user("eve").await;
    let proxy = cluster.proxy(1);
    proxy.set_only(Kind::Other, Link::only_up(Flow::Stall));
    let before = proxy.sent();
    eve.send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
        .await;
    eventually("the node to send the entry", async || {
        (proxy.sent() > before + SCRIPT_BYTES).then_some(())
    })
    .await;
    cluster[1].signal("KILL");
    eventually_within(GONE_WITHIN, "the other node to clean up", async || {
        let reaped = cluster[0].metric("curfew_presence_reaped_total").await;
        (reaped == 1.0).then_some(())
    })
    .await;
    let is_note = |key: &String| key.starts_with("curfew:node:") && key.ends_with(":presence");
    assert!(!redis.keys().await.iter().any(is_note));
    proxy.set(Link::PASS);
    eventually("the entry that was held back", async || {
        redis.keys().await.iter().any(is_note).then_some(())
    })
    .await;
    eventually_within(GONE_WITHIN, "the removal of the late entry", async || {
        let keys = redis.keys().await;
        (!keys.iter().any(|key| key.contains("presence"))).then_some(())
    })
    .await;
    assert_eq!(cluster[0].metric("curfew_presence_reaped_total").await, 1.0);
}

#[tokio::test]
async fn what_a_dead_node_has_left_in_a_cluster_is_found_and_told() {
    let servers = RedisCluster::start().await;
    let cluster = Cluster::start(1, &servers.url(), &with_presence()).await;
    let tape = Tape::of(cluster[0].user("alice").await);
    let command = json!({"type":"subscribe","channel":"room:1","join_leave":true});
    assert_eq!(tape.ask("a", command).await["type"], "ok");
    let mut keys = Vec::new();
    for server in servers.servers() {
        keys.extend(server.keys().await);
    }
    let users = keys.iter().find(|key| key.contains("presence-users"));
    let users = users.expect("alice is listed as a user");
    // The dead node had removed the entry of the session `known`, but had not yet published its
    // leave. The entry of the session `unknown` still exists, but a failover has lost its member of
    // the set `notes`.
    let node = "01a22b2c-0000-7000-8000-000000000001";
    let [known, unknown] = [2, 3].map(|n| format!("01a22b2c-0000-7000-8000-00000000000{n}"));
    let entry = json!({"node":node,"number":1,"told":true,"user":"eve"}).to_string();
    let left = users.replace("presence-users", "presence-left");
    let beginning = format!(r#"{{"node":"{node}","number":1,"#);
    let notes = format!("curfew:node:{node}:presence");
    let note = format!("{known}:1:room:1");
    let sessions = "curfew:presence:{room:1}";
    for command in [
        ["HSET", &left, &beginning, &entry].as_slice(),
        ["HSET", sessions, &unknown, &entry].as_slice(),
        ["SADD", &notes, &note].as_slice(),
        ["SADD", "curfew:nodes", node].as_slice(),
    ] {
        servers.run(command).await;
    }
    assert_eq!(listed(&cluster[0], "room:1").await["count"], 2);
    eventually_within(GONE_WITHIN, "the leaves of both sessions", async || {
        let seen = tape.matching(&json!({"type":"leave","channel":"room:1","user":"eve"}));
        let gone = |session: &str| seen.iter().any(|seen| seen.frame["session"] == session);
        (gone(&known) && gone(&unknown)).then_some(())
    })
    .await;
    assert_eq!(listed(&cluster[0], "room:1").await["count"], 1);
    let left = servers.run(&["EXISTS", &left]).await;
    assert_eq!(left.integer(), 0);
}

#[tokio::test]
async fn entries_that_redis_lost_are_written_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_presence()).await;
    let (mut bob, _) = enter(&cluster[0], "bob", "room:1").await;
    redis.run(&["FLUSHALL"]).await;
    eventually("bob to be listed again", async || {
        let seen = presence(&mut bob, "room:1").await;
        (seen["users"] == 1).then_some(())
    })
    .await;
    // The node replaces a key of another type.
    redis.run(&["SET", "curfew:presence:{room:2}", "x"]).await;
    let (mut eve, _) = enter(&cluster[0], "eve", "room:2").await;
    assert_eq!(listed(&cluster[0], "room:2").await["count"], 1);
    for key in redis.keys().await {
        if key.starts_with("curfew:presence") && key.contains("room:2") {
            redis.run(&["SET", &key, "x"]).await;
        }
    }
    let command = json!({"type":"unsubscribe","id":2,"channel":"room:2"});
    assert_eq!(ask(&mut eve, command).await["type"], "ok");
    eventually("every change to be written", async || {
        let keys = redis.keys().await;
        let of_room = |key: &String| key.contains("presence") && key.contains("room:2");
        (!keys.iter().any(of_room)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_redis_is_away_the_client_is_told_to_try_again_and_no_ghost_stays() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_presence()).await;
    let (mut bob, _) = enter(&cluster[0], "bob", "room:1").await;
    let key = "curfew:presence:{room:1}";
    redis.freeze();
    let command = json!({"type":"unsubscribe","id":2,"channel":"room:1"});
    bob.send(command).await;
    redis.thaw();
    assert_eq!(bob.next_json().await["type"], "ok");
    eventually("the removal of bob's entry in Redis", async || {
        let left = redis.run(&["HLEN", key]).await.integer();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_entry_that_is_gone_without_the_node_is_written_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_presence()).await;
    let (_bob, _) = enter(&cluster[0], "bob", "room:1").await;
    redis.run(&["DEL", "curfew:presence:{room:1}"]).await;
    eventually_within(RESTORED_WITHIN, "bob to be listed again", async || {
        let seen = listed(&cluster[0], "room:1").await;
        (seen["count"] == 1 && seen["users"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_leaves_while_redis_is_full_leaves_no_ghost() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_presence()).await;
    let (mut bob, _) = enter(&cluster[0], "bob", "room:1").await;
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let command = json!({"type":"unsubscribe","id":2,"channel":"room:1"});
    assert_eq!(ask(&mut bob, command).await["type"], "ok");
    let left = redis.run(&["HLEN", "curfew:presence:{room:1}"]).await;
    assert_eq!(left.integer(), 0);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    eventually("the removal of every key of presence", async || {
        let keys = redis.keys().await;
        (!keys.iter().any(|key| key.contains("presence"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_right_that_presence_lacks_costs_other_channels_nothing() {
    let redis = Redis::start().await;
    let all = [
        "ACL", "SETUSER", "curfew", "on", ">secret", "~*", "&*", "+@all", "-eval",
    ];
    redis.run(&all).await;
    let settings = with_presence()
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"");
    let cluster = Cluster::start(1, &redis.url(), &settings).await;
    let mut bob = cluster[0].user("bob").await;
    for _ in 0..20 {
        let command = json!({"type":"subscribe","id":1,"channel":"room:quiet"});
        assert_eq!(ask(&mut bob, command).await["code"], "unavailable");
        let command = json!({"type":"publish","id":2,"channel":"plain","data":1});
        assert_eq!(ask(&mut bob, command).await["type"], "ok");
    }
}
