//! The commands and frames of streams, on a single node with the embedded backend.

use curfew_testkit::WsClient;
use curfew_tests::Gateway;
use serde_json::{Value, json};

use super::{position, with_streams};

async fn ask(client: &mut WsClient, command: Value) -> Value {
    client.send(command).await;
    client.next_json().await
}

async fn publish(client: &mut WsClient, count: u64) {
    for n in 1..=count {
        let command = json!({"type":"publish","id":n,"channel":"room:1","data":n});
        let answer = ask(client, command).await;
        assert_eq!(answer["type"], "ok", "{answer}");
    }
}

fn subscribe(since: &Value) -> Value {
    json!({"type":"subscribe","id":"s","channel":"room:1","since":since})
}

#[tokio::test]
async fn positions_are_told_and_count_up() {
    let gateway = Gateway::start_with(&with_streams(10)).await;
    let mut alice = gateway.user("alice").await;
    let mut bob = gateway.user("bob").await;
    let joined = ask(
        &mut alice,
        json!({"type":"subscribe","id":1,"channel":"room:1"}),
    )
    .await;
    let epoch = joined["epoch"].as_str().unwrap().to_owned();
    assert_eq!(epoch.len(), 8);
    assert_eq!(joined, json!({"type":"ok","id":1,"epoch":epoch,"offset":0}));
    for n in 1..=3 {
        let command = json!({"type":"publish","id":n,"channel":"room:1","data":{"n":n}});
        assert_eq!(
            ask(&mut bob, command).await,
            json!({"type":"ok","id":n,"offset":n})
        );
        let message =
            json!({"type":"message","channel":"room:1","data":{"n":n},"from":"bob","offset":n});
        assert_eq!(alice.next_json().await, message);
    }
    let body = json!({"channel":"room:1","data":4});
    let published = gateway.admin_ok("POST", "/v1/publish", Some(body)).await;
    assert_eq!(published, json!({"published":1,"epoch":epoch,"offset":4}));
    let message = json!({"type":"message","channel":"room:1","data":4,"offset":4});
    assert_eq!(alice.next_json().await, message);
    // A channel without a stream has no positions.
    let plain = json!({"type":"subscribe","id":2,"channel":"plain"});
    assert_eq!(ask(&mut alice, plain).await, json!({"type":"ok","id":2}));
    let command = json!({"type":"publish","id":3,"channel":"plain","data":1});
    assert_eq!(ask(&mut bob, command).await, json!({"type":"ok","id":3}));
    let message = json!({"type":"message","channel":"plain","data":1,"from":"bob"});
    assert_eq!(alice.next_json().await, message);
}

#[tokio::test]
async fn a_client_that_comes_back_has_what_it_missed() {
    let gateway = Gateway::start_with(&with_streams(10)).await;
    let mut bob = gateway.user("bob").await;
    let mut alice = gateway.user("alice").await;
    let joined = ask(
        &mut alice,
        json!({"type":"subscribe","id":1,"channel":"room:1"}),
    )
    .await;
    let since = position(&joined);
    drop(alice);
    publish(&mut bob, 3).await;
    let mut alice = gateway.user("alice").await;
    let recovered = ask(&mut alice, subscribe(&since)).await;
    let expect = json!({"type":"ok","id":"s","epoch":since["epoch"],"offset":3,"recovered":true});
    assert_eq!(recovered, expect);
    for n in 1..=3 {
        let message = json!({"type":"message","channel":"room:1","data":n,"from":"bob","offset":n});
        assert_eq!(alice.next_json().await, message);
    }
    publish(&mut bob, 1).await;
    alice
        .expect_json(json!({"type":"message","offset":4}))
        .await;
    // A client that missed nothing is answered with `recovered` as well.
    let mut eve = gateway.user("eve").await;
    let since = json!({"epoch":since["epoch"],"offset":4});
    let recovered = ask(&mut eve, subscribe(&since)).await;
    assert_eq!(
        (&recovered["offset"], &recovered["recovered"]),
        (&json!(4), &json!(true))
    );
}

#[tokio::test]
async fn a_position_of_no_use_is_told_as_such() {
    let gateway = Gateway::start_with(&with_streams(3)).await;
    let mut bob = gateway.user("bob").await;
    publish(&mut bob, 5).await;
    let history = ask(
        &mut bob,
        json!({"type":"history","id":1,"channel":"room:1","limit":0}),
    )
    .await;
    let epoch = history["epoch"].as_str().unwrap().to_owned();
    for (epoch, offset, recovered) in [
        (&*epoch, 1, false),
        (&*epoch, 2, true),
        (&*epoch, 5, true),
        (&*epoch, 6, false),
        ("zzzzzzzz", 5, false),
        ("ä", 5, false),
        ("", 0, false),
    ] {
        let mut alice = gateway.user("alice").await;
        let answer = ask(
            &mut alice,
            subscribe(&json!({"epoch":epoch,"offset":offset})),
        )
        .await;
        assert_eq!(answer["recovered"], recovered, "{epoch} {offset}: {answer}");
        assert_eq!(answer["offset"], 5);
        let missed = if recovered { 5 - offset } else { 0 };
        let pong = alice.barrier().await;
        assert_eq!(pong.len(), missed, "{epoch} {offset}: {pong:?}");
    }
    let mut alice = gateway.user("alice").await;
    let plain =
        json!({"type":"subscribe","id":1,"channel":"plain","since":{"epoch":epoch,"offset":1}});
    assert_eq!(
        ask(&mut alice, plain).await,
        json!({"type":"ok","id":1,"recovered":false})
    );
    for bad in ["-1", "1.5", "9007199254740992", "\"1\""] {
        let text = format!(
            r#"{{"type":"subscribe","id":2,"channel":"room:1","since":{{"epoch":"a","offset":{bad}}}}}"#
        );
        alice.send_text(&text).await;
        let refused = alice.next_json().await;
        assert_eq!(refused["code"], "bad_request", "{bad}: {refused}");
    }
}

#[tokio::test]
async fn more_than_a_queue_holds_is_not_recovered_and_closes_nothing() {
    let settings = with_streams(100).with("limits.outbound_bytes = 65536");
    let gateway = Gateway::start_with(&settings).await;
    let mut bob = gateway.user("bob").await;
    let data = "x".repeat(10_000);
    let mut epoch = Value::Null;
    for n in 0..10 {
        let body = json!({"channel":"room:1","data":data});
        let published = gateway.admin_ok("POST", "/v1/publish", Some(body)).await;
        assert_eq!(published["offset"], n + 1);
        epoch = published["epoch"].clone();
    }
    let answer = ask(&mut bob, subscribe(&json!({"epoch":epoch,"offset":1}))).await;
    assert_eq!(
        (&answer["recovered"], &answer["offset"]),
        (&json!(false), &json!(10))
    );
    assert_eq!(bob.barrier().await.len(), 0);
    let mut eve = gateway.user("eve").await;
    let answer = ask(&mut eve, subscribe(&json!({"epoch":epoch,"offset":5}))).await;
    assert_eq!(answer["recovered"], true);
    assert_eq!(eve.barrier().await.len(), 5);
    // The answer to `history` may use half of the queue.
    let history = json!({"type":"history","id":1,"channel":"room:1","before":11});
    let history = ask(&mut bob, history).await;
    assert_eq!(history["truncated"], true);
    assert_eq!(history["publications"].as_array().unwrap().len(), 3);
    assert_eq!(history["publications"][0]["offset"], 10);
}

#[tokio::test]
async fn history_is_read_in_both_directions() {
    let gateway = Gateway::start_with(&with_streams(100)).await;
    let mut bob = gateway.user("bob").await;
    publish(&mut bob, 5).await;
    let top = ask(
        &mut bob,
        json!({"type":"history","id":1,"channel":"room:1","limit":0}),
    )
    .await;
    let epoch = top["epoch"].clone();
    let expect = json!({"type":"history","id":1,"epoch":epoch,"offset":5,"publications":[]});
    assert_eq!(top, expect);
    for (range, expect) in [
        (json!({"limit":2}), vec![5, 4]),
        (json!({}), vec![5, 4, 3, 2, 1]),
        (json!({"limit":100_000}), vec![5, 4, 3, 2, 1]),
        (json!({"before":3}), vec![2, 1]),
        (json!({"before":1}), vec![]),
        (json!({"since":{"epoch":epoch,"offset":3}}), vec![4, 5]),
        (
            json!({"since":{"epoch":epoch,"offset":1},"limit":2}),
            vec![2, 3],
        ),
        (json!({"since":{"epoch":epoch,"offset":99}}), vec![]),
        (json!({"since":{"epoch":"zzzzzzzz","offset":1}}), vec![]),
    ] {
        let mut command = json!({"type":"history","id":1,"channel":"room:1"});
        let members = command.as_object_mut().unwrap();
        members.extend(range.as_object().unwrap().clone());
        let history = ask(&mut bob, command).await;
        let publications = history["publications"].as_array().unwrap();
        let offsets: Vec<_> = publications
            .iter()
            .map(|one| one["offset"].as_i64().unwrap())
            .collect();
        assert_eq!(offsets, expect, "{range}");
        assert!(history.get("truncated").is_none());
        for one in publications {
            assert_eq!(
                (&one["data"], &one["from"]),
                (&one["offset"], &json!("bob"))
            );
            assert!(one["at"].as_u64().unwrap() > 1_600_000_000_000, "{one}");
        }
    }
}

#[tokio::test]
async fn history_and_keys_need_a_stream_and_history_a_rule() {
    let rules = "[[policy.rules]]\nname = \"no history\"\nchannels = [\"*\"]\n\
                 actions = [\"subscribe\", \"publish\"]\n\
                 [[channels]]\npattern = \"room:{x}\"\nhistory = { size = 5, ttl = \"1m\" }\n\
                 [[channels]]\npattern = \"log:*\"\nhistory = { size = 5, ttl = \"1m\" }\nrecover = false\n";
    let gateway = Gateway::start_with(&with_streams(5).rules(rules)).await;
    let mut bob = gateway.user("bob").await;
    let history = json!({"type":"history","id":1,"channel":"room:1"});
    assert_eq!(ask(&mut bob, history).await["code"], "forbidden");
    let keyed = json!({"type":"publish","id":2,"channel":"room:1:2","data":1,"key":"k"});
    assert_eq!(ask(&mut bob, keyed).await["code"], "not_available");
    let body = json!({"channel":"room:1:2","data":1,"key":"k"});
    let (status, problem) = gateway.admin("POST", "/v1/publish", Some(body)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_available")));
    // Only the history is configured here, so a subscription recovers nothing.
    let joined = ask(
        &mut bob,
        json!({"type":"subscribe","id":3,"channel":"log:a"}),
    )
    .await;
    let since = position(&joined);
    let mut eve = gateway.user("eve").await;
    let command = json!({"type":"publish","id":4,"channel":"log:a","data":1});
    assert_eq!(ask(&mut eve, command).await["offset"], 1);
    let again = json!({"type":"subscribe","id":5,"channel":"log:a","since":since});
    let answer = ask(&mut eve, again).await;
    assert_eq!(
        (&answer["recovered"], &answer["offset"]),
        (&json!(false), &json!(1))
    );
    let gateway = Gateway::start_with(&with_streams(5)).await;
    let mut bob = gateway.user("bob").await;
    let history = json!({"type":"history","id":1,"channel":"plain"});
    assert_eq!(ask(&mut bob, history).await["code"], "not_available");
}

#[tokio::test]
async fn a_publication_with_a_key_is_taken_once() {
    let gateway = Gateway::start_with(&with_streams(10)).await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    let mut bob = gateway.user("bob").await;
    let keyed = |id: u64, key: &str| json!({"type":"publish","id":id,"channel":"room:1","data":id,"key":key});
    for (id, key, offset) in [(1, "a", 1), (2, "a", 1), (3, "b", 2), (4, "a", 1)] {
        let answer = ask(&mut bob, keyed(id, key)).await;
        assert_eq!(answer, json!({"type":"ok","id":id,"offset":offset}));
    }
    // The same key from another user, or from the admin API, is another key.
    let mut eve = gateway.user("eve").await;
    assert_eq!(ask(&mut eve, keyed(5, "a")).await["offset"], 3);
    for (data, offset) in [(6, 4), (7, 4)] {
        let body = json!({"channel":"room:1","data":data,"key":"a"});
        let published = gateway.admin_ok("POST", "/v1/publish", Some(body)).await;
        assert_eq!(published["offset"], offset);
    }
    let messages = alice.barrier().await;
    let data: Vec<_> = messages
        .iter()
        .map(|message| message["data"].clone())
        .collect();
    assert_eq!(data, [1, 3, 5, 6]);
}
