//! Channels and histories, as the admin API shows them.

use curfew_tests::{ADMIN_KEY, Cluster, Gateway, Redis};
use serde_json::{Value, json};

use super::{join, offsets, position, with_streams};

async fn publish(node: &Gateway, channel: &str, count: u64) -> Value {
    let mut last = Value::Null;
    for data in 1..=count {
        let body = json!({"channel":channel,"data":data});
        last = node.admin_ok("POST", "/v1/publish", Some(body)).await;
    }
    last
}

#[tokio::test]
async fn a_channel_is_shown_with_its_stream() {
    let gateway = Gateway::start_with(&with_streams(3)).await;
    let _alice = gateway.subscriber("alice", "room:ä/1").await;
    let path = "/v1/channels/room%3A%C3%A4%2F1";
    let placed = publish(&gateway, "room:ä/1", 5).await;
    let shown = gateway.admin_ok("GET", path, None).await;
    let stream = json!({"epoch":placed["epoch"],"offset":5,"kept":3});
    assert_eq!(
        shown,
        json!({"channel":"room:ä/1","subscribers":1,"stream":stream})
    );
    let plain = gateway.admin_ok("GET", "/v1/channels/plain", None).await;
    assert_eq!(plain, json!({"channel":"plain","subscribers":0}));
    let (status, problem) = gateway.admin("GET", "/v1/channels/a%20b", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_channel")));
    let (status, problem) = gateway
        .admin("GET", "/v1/channels/plain/history", None)
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_available")));
}

#[tokio::test]
async fn a_history_is_read_as_by_clients() {
    let gateway = Gateway::start_with(&with_streams(10)).await;
    let placed = publish(&gateway, "room:1", 5).await;
    let epoch = placed["epoch"].as_str().unwrap();
    for (query, expect) in [
        ("", vec![5, 4, 3, 2, 1]),
        ("?limit=0", vec![]),
        ("?limit=2", vec![5, 4]),
        ("?before=3", vec![2, 1]),
        (&*format!("?since={epoch}:3"), vec![4, 5]),
        (&*format!("?since={epoch}%3A1&limit=1"), vec![2]),
        ("?since=zzzzzzzz:1", vec![]),
    ] {
        let path = format!("/v1/channels/room:1/history{query}");
        let history = gateway.admin_ok("GET", &path, None).await;
        assert_eq!(
            (&history["epoch"], &history["offset"]),
            (&json!(epoch), &json!(5))
        );
        let publications = history["publications"].as_array().unwrap();
        let offsets: Vec<_> = publications
            .iter()
            .map(|one| one["offset"].as_i64().unwrap())
            .collect();
        assert_eq!(offsets, expect, "{query}");
        assert!(publications.iter().all(|one| one["data"] == one["offset"]));
    }
    for bad in [
        "?limit=-1",
        "?limit=x",
        "?before=1.5",
        "?since=x",
        "?since=abcdefgh:-1",
        "?since=abcdefgh:1&before=1",
    ] {
        let path = format!("/v1/channels/room:1/history{bad}");
        let (status, problem) = gateway.admin("GET", &path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (400, &json!("bad_request")),
            "{bad}"
        );
    }
    let response = gateway
        .admin_as(Some(ADMIN_KEY), "GET", "/v1/channels/room:1/history", None)
        .await;
    assert!(
        response.text().contains(r#""offset":5,"data":5,"at":"#),
        "{}",
        response.text()
    );
}

#[tokio::test]
async fn a_history_that_is_deleted_is_recovered_by_nobody_and_missed_by_no_subscriber() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(10)).await;
    let (alice, joined) = join(&cluster[0], "alice", None).await;
    let placed = publish(&cluster[0], "room:1", 3).await;
    alice.until(json!({"offset":3})).await;
    // The other node deletes the history, while this node still has the publications in its window.
    let deleted = cluster[1]
        .admin_ok("DELETE", "/v1/channels/room:1/history", None)
        .await;
    assert_eq!(
        deleted,
        json!({"epoch":placed["epoch"],"offset":3,"publications":[]})
    );
    curfew_tests::eventually("the window to be emptied", async || {
        let (_, answer) = join(&cluster[0], "bob", Some(&position(&joined))).await;
        (answer["recovered"] == false).then_some(())
    })
    .await;
    assert_eq!(publish(&cluster[1], "room:1", 1).await["offset"], 4);
    alice.until(json!({"offset":4})).await;
    assert_eq!(offsets(&alice, "room:1"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_history_is_cut_at_half_of_the_bytes_of_a_queue() {
    let settings = with_streams(100).with("limits.outbound_bytes = 65536");
    let gateway = Gateway::start_with(&settings).await;
    let data = "x".repeat(10_000);
    for _ in 0..5 {
        let body = json!({"channel":"room:1","data":data});
        gateway.admin_ok("POST", "/v1/publish", Some(body)).await;
    }
    let read = async |query: &str| {
        let path = format!("/v1/channels/room:1/history{query}");
        let history = gateway.admin_ok("GET", &path, None).await;
        let offsets = history["publications"].as_array().unwrap();
        let offsets: Vec<_> = offsets
            .iter()
            .filter_map(|one| one["offset"].as_i64())
            .collect();
        (offsets, history["truncated"].clone())
    };
    assert_eq!(read("").await, (vec![5, 4, 3], json!(true)));
    assert_eq!(read("?before=3").await, (vec![2, 1], Value::Null));
}

/// Regression: entries that others had written were skipped, and nothing reported them.
#[tokio::test]
async fn entries_that_cannot_be_read_are_counted_and_logged() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(10)).await;
    publish(&cluster[0], "room:1", 3).await;
    let keys = redis.keys().await;
    let stream = keys.iter().find(|key| key.ends_with("}:room:1")).unwrap();
    let replace = "local all = redis.call('XRANGE', KEYS[1], '-', '+') redis.call('DEL', KEYS[1]) \
                   for at, one in ipairs(all) do redis.call('XADD', KEYS[1], one[1], 'e', \
                   at == 2 and 'nonsense' or one[2][2]) end";
    redis.run(&["EVAL", replace, "1", stream]).await;
    let path = "/v1/channels/room:1/history";
    for reads in 1..=2 {
        let history = cluster[0].admin_ok("GET", path, None).await;
        let offsets = history["publications"].as_array().unwrap();
        let offsets: Vec<_> = offsets.iter().map(|one| one["offset"].as_i64()).collect();
        assert_eq!(offsets, [Some(3), Some(1)]);
        let dropped = "curfew_broker_messages_dropped_total{reason=\"malformed\"}";
        assert_eq!(cluster[0].metric(dropped).await, f64::from(reads));
    }
    let lines = cluster[0].log().entries();
    let told = lines
        .iter()
        .filter(|line| line["entries"] == 1 && line["channel"] == "room:1");
    assert_eq!(told.count(), 1);
}
