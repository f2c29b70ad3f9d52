//! Frames that are queued when the server ends the subscription to their channel (SR19). The
//! session must not write these frames afterwards. The subscription ends because of a reload or a
//! newer token, also while the whole session is ending.

use curfew_hub::{DropReason, Ending};
use curfew_policy::PolicyConfig;

use super::*;

/// Size of a pipe that holds only a part of a long frame, in bytes.
const NARROW: usize = 256;

/// A policy that allows subscriptions to the channel `hall` alone.
fn hall_alone() -> PolicyConfig {
    let mut rules = allowing(&[Action::Subscribe]);
    rules.rules[0].channels = vec!["hall".to_owned()];
    rules
}

/// Data larger than the pipe, so that its frame is written in part.
fn long() -> String {
    json!("x".repeat(NARROW + 50)).to_string()
}

impl Harness {
    /// Opens a client that listens to `hall` and `room` and stops reading. A long frame of the
    /// channel `first` is written in part. Two frames of each channel wait behind the long frame.
    async fn amid_frame_of(&self, first: &str) -> Peer {
        let mut peer = self.open_with(json!({}), NARROW).await;
        for channel in ["hall", "room"] {
            peer.ok(&json!({"type":"subscribe","id":1,"channel":channel}).to_string())
                .await;
        }
        self.publish(first, &long());
        for at in ["1", "2"] {
            self.publish("room", at);
            self.publish("hall", at);
        }
        time::sleep(Duration::from_millis(10)).await;
        assert!(self.hub().queued_bytes() > 150);
        peer
    }

    fn forbidden(&self) -> u64 {
        let metrics = self.hub().metrics();
        metrics.messages_dropped.get(DropReason::Forbidden)
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_of_a_channel_is_not_written_once_a_reload_takes_it_away() {
    let harness = Harness::new();
    let mut peer = harness.amid_frame_of("hall").await;
    harness.reload(&hall_alone());
    for data in [json!("x".repeat(NARROW + 50)), json!(1), json!(2)] {
        let message = peer.expect("message").await;
        assert_eq!(
            (&message["channel"], &message["data"]),
            (&json!("hall"), &data)
        );
    }
    let lost = json!({"type":"unsubscribed","channel":"room","reason":"forbidden"});
    assert_eq!(peer.text().await, lost);
    assert_eq!(harness.forbidden(), 2);
    harness.publish("room", "3");
    harness.publish("hall", "3");
    assert_eq!(peer.expect("message").await["channel"], "hall");
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_amid_a_frame_of_the_channel_is_cut_off_and_comes_back() {
    let harness = Harness::new();
    let mut peer = harness.amid_frame_of("room").await;
    harness.reload(&hall_alone());
    assert!(peer.cut().await.is_empty());
    assert_eq!(harness.closed_with(Disconnect::INSUFFICIENT_STATE), 1);
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_of_a_channel_is_not_written_once_a_newer_token_lacks_it() {
    let harness = Harness::with(|settings| {
        let mut rules = allowing(&[Action::Subscribe]);
        rules.rules[0].when = Some("channel == 'hall' || claims.room == true".to_owned());
        settings.policy = Arc::new(Policy::new(&rules));
    });
    let mut peer = harness.open_with(json!({"room": true}), NARROW).await;
    for channel in ["hall", "room"] {
        peer.ok(&json!({"type":"subscribe","id":1,"channel":channel}).to_string())
            .await;
    }
    // The queue fills while the backend checks the new token.
    let hub = Arc::clone(harness.context.node.hub());
    let publish = move || {
        for (channel, data) in [("hall", long()), ("room", "1".into()), ("hall", "2".into())] {
            hub.broadcast(&publication(channel, &data));
        }
    };
    harness
        .rig
        .hook(rig::When::After, rig::Call::Check, publish);
    let refresh = json!({"type":"refresh","id":2,"token":harness.token(json!({"jti":"t2"}))});
    peer.send(&refresh.to_string()).await;
    let mut came = Vec::new();
    for _ in 0..4 {
        let text = peer.text().await;
        came.push((text["type"].clone(), text["channel"].clone()));
    }
    let expect = [
        ("message", json!("hall")),
        ("message", json!("hall")),
        ("refreshed", Value::Null),
        ("unsubscribed", json!("room")),
    ];
    assert_eq!(came, expect.map(|(kind, channel)| (json!(kind), channel)));
    assert_eq!(harness.forbidden(), 1);
}

/// The session ends for a reason for which queued frames are still sent. The rules change before
/// the session's last writes begin, or between two of these writes.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_writes_nothing_of_a_channel_that_a_reload_takes_away() {
    for is_first in [true, false] {
        let harness = Harness::new();
        let mut peer = harness.amid_frame_of("hall").await;
        let member = harness.hub().members().remove(0);
        harness
            .hub()
            .end(&member, Ending::new(Disconnect::DISCONNECTED));
        if !is_first {
            time::sleep(Duration::from_millis(1)).await;
        }
        drop(member);
        harness.reload(&hall_alone());
        let closed = peer.expect_closed(Disconnect::DISCONNECTED).await;
        let channels = closed.texts.iter().map(|text| &text["channel"]);
        assert!(
            channels.clone().all(|channel| *channel != "room"),
            "{closed:?}"
        );
        assert_eq!(channels.filter(|channel| **channel == "hall").count(), 3);
        drop(peer);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_amid_a_frame_of_the_channel_is_cut_off() {
    let harness = Harness::new();
    let mut peer = harness.amid_frame_of("room").await;
    let member = harness.hub().members().remove(0);
    harness
        .hub()
        .end(&member, Ending::new(Disconnect::DISCONNECTED));
    drop(member);
    harness.reload(&hall_alone());
    assert!(peer.cut().await.is_empty());
    drop(peer);
    harness.assert_nothing_left().await;
}
