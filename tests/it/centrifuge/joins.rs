//! Joins and leaves. A channel sends them to all subscribers, or only to subscribers that ask for
//! them.

use curfew_testkit::json;
use curfew_tests::{Gateway, Settings};
use serde_json::{Value, json};

use super::raw::{BOTH, Encoding, Raw};
use super::with_channels;

fn settings() -> Settings {
    with_channels(
        "[[channels]]\npattern = \"all:*\"\npresence = true\njoin_leave = \"all\"\n\
         [[channels]]\npattern = \"asked:*\"\npresence = true\njoin_leave = true\n\
         [[channels]]\npattern = \"*\"\npresence = true\njoin_leave = \"all\"\n",
    )
    .with("centrifuge.personal_channels = true")
}

fn user(pushed: &Value) -> &Value {
    &pushed["info"]["user"]
}

#[tokio::test]
async fn all_subscribers_are_told_where_the_channel_says_so() {
    let gateway = Gateway::start_with(&settings()).await;
    for (encoding, channel) in BOTH.into_iter().zip(["all:json", "all:protobuf"]) {
        let mut alice = Raw::open(&gateway, encoding, "alice").await;
        // The client first receives the join of its own personal channel.
        alice.push("join").await;
        alice.subscribe(channel, json!({})).await;
        assert_eq!(user(&alice.push("join").await), "alice");
        let mut native = gateway.user("bob").await;
        native
            .send(json!({"type":"subscribe","id":1,"channel":channel}))
            .await;
        native.expect_json(json!({"type":"ok","id":1})).await;
        let own = native.next_json().await;
        assert!(json::contains(&json!({"type":"join","user":"bob"}), &own));
        assert_eq!(user(&alice.push("join").await), "bob");
        native
            .send(json!({"type":"unsubscribe","channel":channel}))
            .await;
        assert_eq!(user(&alice.push("leave").await), "bob");
    }
}

#[tokio::test]
async fn others_are_told_only_if_they_ask() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut asks = Raw::open(&gateway, Encoding::Json, "alice").await;
    asks.push("join").await;
    asks.subscribe("asked:1", json!({"join_leave":true})).await;
    assert_eq!(user(&asks.push("join").await), "alice");
    let mut silent = Raw::open(&gateway, Encoding::Json, "bob").await;
    silent.push("join").await;
    silent.subscribe("asked:1", json!({})).await;
    assert_eq!(user(&asks.push("join").await), "bob");
    // The client that did not ask gets no join: its next message is the publication.
    gateway.publish("asked:1", json!(1)).await;
    assert_eq!(silent.push("pub").await["data"], 1);
}

#[tokio::test]
async fn joins_of_server_side_subscriptions_follow_the_answer_to_connect() {
    let gateway = Gateway::start_with(&settings()).await;
    for encoding in BOTH {
        for _ in 0..10 {
            let subs = json!({"all:1":{}});
            // The first message is the answer to `connect`.
            let (mut client, connected) = Raw::connect(&gateway, encoding, "alice", subs).await;
            assert!(connected["subs"]["all:1"].is_object(), "{connected}");
            assert!(connected["subs"]["#alice"].is_object(), "{connected}");
            let mut own = 0;
            while own < 2 {
                let join = client.push("join").await;
                own += usize::from(join["info"]["client"] == connected["client"]);
            }
        }
    }
}
