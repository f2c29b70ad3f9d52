//! The rules of the Centrifuge protocol that a session follows.

use curfew_model::{Position, StreamEntry};
use curfew_node::{ChannelConfig, ChannelEntries, HistoryConfig};
use curfew_protocol_centrifuge::{Centrifuge, Encoding, Over};

use super::rig::{Call, When};
use super::*;

/// A node that speaks the JSON encoding, with history in the channel `stream`.
fn harness() -> Harness {
    harness_with(|_| {})
}

fn harness_with(more: impl FnOnce(&mut SessionSettings)) -> Harness {
    let change = |settings: &mut SessionSettings| {
        settings.channels = ChannelEntries::new(&[ChannelConfig {
            pattern: "stream".to_owned(),
            history: Some(HistoryConfig {
                size: 100,
                ttl: Duration::from_secs(60),
            }),
            ..ChannelConfig::default()
        }]);
        settings.limits.subscriptions = 4;
        more(settings);
    };
    let wire = Wire::websocket(Centrifuge {
        encoding: Encoding::Json,
        transport: Over::WebSocket,
    });
    Harness::build(change, vec![wire])
}

impl Harness {
    /// A connection that has sent `connect` with a token that contains `claims`.
    async fn connecting(&self, claims: Value) -> Peer {
        let mut peer = self.awaiting();
        let connect = json!({"id":1,"connect":{"token":self.token(claims)}});
        peer.send(&connect.to_string()).await;
        peer
    }

    /// A session whose `connect` was answered, and the content of the reply.
    async fn connected(&self, claims: Value) -> (Peer, Value) {
        let mut peer = self.connecting(claims).await;
        let mut answer = peer.text().await;
        (peer, answer["connect"].take())
    }

    /// Makes the node receive a publication at `position` of the channel `stream`, and then give up
    /// waiting for the missing publication before it.
    fn miss(&self, position: Position) {
        let publication = Publication {
            entry: Some(StreamEntry { position, at: 0 }),
            ..publication("stream", "7")
        };
        let hub = self.hub();
        let deliver = |publication: &Publication| {
            hub.broadcast_in_turn(publication, None);
        };
        hub.arrive(&publication, deliver);
        hub.give_up_missing(&publication.channel, deliver);
    }
}

/// The position in a reply, moved two publications ahead.
fn ahead(answer: &Value) -> Position {
    let offset = answer["offset"].as_u64().unwrap_or(0);
    Position {
        epoch: answer["epoch"].as_str().unwrap().parse().unwrap(),
        offset: offset + 2,
    }
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_comes_while_a_session_opens_follows_the_answer() {
    let harness = harness();
    let context = Arc::clone(&harness.context);
    // At this moment the session has joined the channel `a`, but not yet the channel `stream`.
    harness.rig.hook(When::After, Call::Read, move || {
        let delivered = context.node.hub().broadcast(&publication("a", "7"));
        assert_eq!(delivered.queued, 1);
    });
    let channels = json!({"channels": ["stream", "a"]});
    let (mut peer, answer) = harness.connected(channels).await;
    let subscriptions = answer["subs"].as_object().unwrap();
    assert_eq!(subscriptions.keys().collect::<Vec<_>>(), ["a", "stream"]);
    let push = peer.text().await;
    assert_eq!(push["push"]["channel"], "a", "{push}");
    assert_eq!(push["push"]["pub"]["data"], 7, "{push}");
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_ends_the_subscription_which_the_client_can_make_again() {
    let harness = harness();
    let (mut peer, _) = harness.connected(json!({})).await;
    let subscribe = r#"{"id":2,"subscribe":{"channel":"stream"}}"#;
    peer.send(subscribe).await;
    let answer = peer.text().await;
    harness.miss(ahead(&answer["subscribe"]));
    let expect = json!({"push":{"channel":"stream","unsubscribe":{"code":2500,"reason":"insufficient state"}}});
    assert_eq!(peer.text().await, expect);
    peer.send(subscribe).await;
    let answer = peer.text().await;
    assert_eq!(answer["subscribe"]["positioned"], true, "{answer}");
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_a_channel_of_the_server_ends_the_session() {
    let harness = harness();
    let (mut peer, answer) = harness.connected(json!({"channels": ["stream"]})).await;
    harness.miss(ahead(&answer["subs"]["stream"]));
    let closed = peer.closed().await;
    assert_eq!((closed.code, closed.texts.len()), (3010, 0));
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn more_channels_than_a_session_may_have_open_none() {
    let harness = harness();
    let channels = json!({"channels": ["a", "b", "c", "d", "e"]});
    let mut peer = harness.connecting(channels).await;
    let closed = peer.closed().await;
    assert_eq!((closed.code, closed.texts.len()), (3505, 0));
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_in_an_answer_is_left_to_close() {
    let harness = harness();
    let mut peer = harness.connecting(json!({"exp": 1, "iat": 0})).await;
    let answer = peer.text().await;
    assert_eq!(answer["error"]["code"], 109, "{answer}");
    // Commands after the refused `connect` are not answered.
    peer.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    peer.silence(4).await;
    let closed = peer.closed().await;
    assert_eq!((closed.code, closed.texts.len()), (3005, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_counted_and_a_probe_asks_for_one() {
    let harness = harness();
    let (mut peer, _) = harness.connected(json!({})).await;
    // The first message is a ping.
    assert_eq!(peer.text().await, json!({}));
    peer.send("{}").await;
    peer.silence(1).await;
    peer.send("{}").await;
    let closed = peer.closed().await;
    assert_eq!((closed.code, &*closed.reason), (3501, "bad request"));
}

#[tokio::test(start_paused = true)]
async fn unsubscribes_succeed_over_the_rate_and_count_against_it() {
    let harness = harness_with(|settings| settings.limits.messages_per_second = 5);
    let (mut peer, _) = harness.connected(json!({})).await;
    let unsubscribe = r#"{"id":2,"unsubscribe":{"channel":"room"}}"#;
    peer.send_all(&[unsubscribe; 8]).await;
    for _ in 0..8 {
        assert_eq!(peer.text().await, json!({"id":2,"unsubscribe":{}}));
    }
    peer.send(r#"{"id":3,"publish":{"channel":"room","data":1}}"#)
        .await;
    assert_eq!(peer.text().await["error"]["code"], 111);
    assert_eq!(harness.rig.asked(Call::Publish, ""), 0);
    peer.silence(2).await;
    // The client sends one command every 100 ms, for more than ten seconds.
    for _ in 0..=115 {
        peer.send(unsubscribe).await;
        time::sleep(Duration::from_millis(100)).await;
    }
    let closed = peer.closed().await;
    assert_eq!(closed.code, 3013);
    let are_answers = closed
        .texts
        .iter()
        .all(|text| text["unsubscribe"] == json!({}));
    assert!(are_answers && closed.texts.len() > 100, "{closed:?}");
    assert_eq!(harness.closed_with(Disconnect::RATE_LIMITED), 1);
}
