use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use curfew_backend::StreamBounds;

use super::rig::{Call, unavailable};
use super::*;
use crate::{ChannelOptions, Wish};

/// Time within which an unsubscription reaches the broker.
const A_WHILE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn the_broker_is_asked_once_and_told_once_a_second_after_the_last_listener_left() {
    let harness = Harness::new();
    let room = channel("room");
    let sessions = [harness.open("t1").await, harness.open("t2").await];
    for session in &sessions {
        harness.subscribe(&room, session.member()).await.unwrap();
    }
    assert_eq!(harness.rig.asked(Call::Subscribe, "room"), 1);
    assert_eq!(harness.metrics.subscriptions.get(), 2);
    harness.node.unsubscribe(&room, sessions[0].member());
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, ""), 0);
    harness.node.unsubscribe(&room, sessions[1].member());
    time::sleep(Duration::from_millis(990)).await;
    assert_eq!(
        harness.rig.asked(Call::Unsubscribe, ""),
        0,
        "the broker was asked to stop listening within a second"
    );
    time::sleep(Duration::from_millis(20)).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, "room"), 1);
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, ""), 1);
    assert_eq!(harness.metrics.subscriptions.get(), 0);
    harness
        .subscribe(&room, sessions[0].member())
        .await
        .unwrap();
    assert_eq!(harness.rig.asked(Call::Subscribe, "room"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_broker_is_not_told_when_somebody_listens_again_meanwhile() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    harness.subscribe(&room, session.member()).await.unwrap();
    for _ in 0..10 {
        harness.node.unsubscribe(&room, session.member());
        time::sleep(Duration::from_millis(700)).await;
        harness.subscribe(&room, session.member()).await.unwrap();
        time::sleep(Duration::from_millis(200)).await;
    }
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Subscribe, ""), 1);
    assert_eq!(harness.rig.asked(Call::Unsubscribe, ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_is_none_and_the_broker_is_told_to_stop() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    harness.rig.fail(Call::Subscribe, unavailable);
    for _ in 0..5 {
        assert!(harness.subscribe(&room, session.member()).await.is_err());
    }
    assert!(!harness.node.hub().has_subscribers(&room));
    assert_eq!(harness.metrics.subscriptions.get(), 0);
    // The broker may listen in spite of the failure.
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, "room"), 1);
    harness.rig.heal(Call::Subscribe);
    harness.subscribe(&room, session.member()).await.unwrap();
    time::sleep(A_WHILE).await;
    assert!(harness.node.hub().has_subscribers(&room));
    assert_eq!(harness.rig.asked(Call::Unsubscribe, "room"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_given_up_half_way_does_not_stay_with_the_broker() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    harness.rig.hold(Call::Subscribe);
    {
        let mut subscribing = pin!(harness.subscribe(&room, session.member()));
        assert!(poll_fn(|cx| Poll::Ready(subscribing.as_mut().poll(cx).is_pending())).await);
    }
    assert!(!harness.node.hub().has_subscribers(&room));
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, "room"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unsubscription_that_fails_is_tried_again_unless_somebody_listens_again() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    let rooms = [channel("left"), channel("rejoined")];
    for room in &rooms {
        harness.subscribe(room, session.member()).await.unwrap();
        harness.node.unsubscribe(room, session.member());
    }
    harness.rig.fail(Call::Unsubscribe, unavailable);
    time::sleep(A_WHILE).await;
    assert!(harness.rig.asked(Call::Unsubscribe, "left") >= 2);
    harness
        .subscribe(&rooms[1], session.member())
        .await
        .unwrap();
    let before = rooms
        .each_ref()
        .map(|room| harness.rig.asked(Call::Unsubscribe, room.as_str()));
    harness.rig.heal(Call::Unsubscribe);
    time::sleep(A_WHILE).await;
    let after = rooms
        .each_ref()
        .map(|room| harness.rig.asked(Call::Unsubscribe, room.as_str()));
    assert_eq!(after, [before[0] + 1, before[1]]);
    assert_eq!(
        harness.rig.asked(Call::Subscribe, "rejoined"),
        2,
        "after a failed unsubscription, the broker is asked to listen again"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_subscribes_while_the_broker_is_told_to_stop_is_subscribed_afterwards() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    harness.subscribe(&room, session.member()).await.unwrap();
    harness.node.unsubscribe(&room, session.member());
    harness.rig.hold(Call::Unsubscribe);
    eventually(async || harness.rig.asked(Call::Unsubscribe, "room") == 1).await;
    let mut subscribing = pin!(harness.subscribe(&room, session.member()));
    assert!(poll_fn(|cx| Poll::Ready(subscribing.as_mut().poll(cx).is_pending())).await);
    assert_eq!(
        harness.rig.asked(Call::Subscribe, "room"),
        1,
        "the subscription did not wait for the end of the unsubscription"
    );
    harness.rig.release(Call::Unsubscribe);
    subscribing.await.unwrap();
    assert_eq!(harness.rig.asked(Call::Subscribe, "room"), 2);
    time::sleep(A_WHILE).await;
    assert_eq!(harness.rig.asked(Call::Unsubscribe, "room"), 1);
}

/// Detects this fault: the feed of a channel without listeners is never removed.
#[tokio::test(start_paused = true)]
async fn a_join_given_up_before_the_broker_is_asked_leaves_no_feed() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    let options = ChannelOptions {
        stream: Some(StreamBounds {
            size: 10,
            ttl: Duration::from_secs(600),
        }),
        ..ChannelOptions::default()
    };
    let (node, member) = (&harness.node, session.member());
    let join = || {
        node.subscribe(
            &room,
            member,
            options,
            Wish::default(),
            || true,
            |_, _| None,
        )
    };
    join().await.unwrap();
    node.unsubscribe(&room, member);
    harness.rig.hold(Call::Unsubscribe);
    eventually(async || harness.rig.asked(Call::Unsubscribe, "room") == 1).await;
    {
        let mut joining = pin!(join());
        assert!(poll_fn(|cx| Poll::Ready(joining.as_mut().poll(cx).is_pending())).await);
    }
    assert_eq!(
        harness.rig.asked(Call::Subscribe, "room"),
        1,
        "the join asked the broker before the end of the unsubscription"
    );
    harness.rig.release(Call::Unsubscribe);
    time::sleep(A_WHILE).await;
    assert!(!node.hub().doubt(&room), "the channel still has a feed");
}
