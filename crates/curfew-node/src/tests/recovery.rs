use std::sync::atomic::{AtomicBool, Ordering};

use curfew_backend::{BackendError, StreamBounds};
use curfew_hub::{Joined, Member};
use curfew_model::{Position, Publication};

use super::rig::{Call, When};
use super::*;
use crate::{ChannelOptions, SubscribeOutcome, Wish};

const BOUNDS: StreamBounds = StreamBounds {
    size: 10,
    ttl: Duration::from_secs(600),
};

/// Publishes to the channel's stream. The embedded backend has stored the publication when this
/// function returns.
fn publish(rig: &Rig, room: &Channel) {
    let publication = Publication {
        channel: room.clone(),
        data: "1".into(),
        from: None,
        sender: None,
        is_binary: false,
        entry: None,
        trace: None,
    };
    let streams = &rig.inner().streams;
    drop(streams.append(publication, Duration::MAX, BOUNDS, None));
}

/// Subscribes `member` with the beginning of the stream as its position.
async fn recover(
    harness: &Harness,
    room: &Channel,
    member: &Arc<Member>,
    may: impl Fn() -> bool,
) -> Result<SubscribeOutcome, BackendError> {
    let position = harness.node.history(
        room,
        curfew_model::HistoryRange::Before(u64::MAX),
        0,
        usize::MAX,
    );
    let since = Position {
        offset: 0,
        ..position.await?.position
    };
    let options = ChannelOptions {
        stream: Some(BOUNDS),
        recover: true,
        ..ChannelOptions::default()
    };
    let wish = Wish {
        since: Some(since),
        ..Wish::default()
    };
    let node = &harness.node;
    node.subscribe(room, member, options, wish, may, |_, _| None)
        .await
}

fn joined(outcome: Result<SubscribeOutcome, BackendError>) -> Joined {
    match outcome {
        Ok(SubscribeOutcome::Joined(joined)) => joined,
        other => panic!("the session was not subscribed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_broker_listens_before_the_stream_is_read() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    // The session's position was read from the stream before this publication.
    let rig = Arc::clone(&harness.rig);
    let of_channel = room.clone();
    harness.rig.hook(When::After, Call::Subscribe, move || {
        assert_eq!(rig.asked(Call::Read, of_channel.as_str()), 1);
        publish(&rig, &of_channel);
    });
    let joined = recover(&harness, &room, session.member(), || true).await;
    let joined = self::joined(joined);
    assert_eq!(joined.recovered, Some(true));
    assert_eq!(joined.position.unwrap().offset, 1);
}

#[tokio::test(start_paused = true)]
async fn a_publication_after_the_read_is_recovered_with_what_was_read() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    publish(&harness.rig, &room);
    harness.rig.hook(When::After, Call::Subscribe, {
        let (rig, room) = (Arc::clone(&harness.rig), room.clone());
        move || {
            let again = Arc::clone(&rig);
            rig.hook(When::After, Call::Read, move || publish(&again, &room));
        }
    });
    let joined = recover(&harness, &room, session.member(), || true).await;
    let joined = self::joined(joined);
    assert_eq!(joined.recovered, Some(true));
    assert_eq!(joined.position.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn rules_that_change_while_the_stream_is_read_give_nothing() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    publish(&harness.rig, &room);
    let may = Arc::new(AtomicBool::new(true));
    harness.rig.hook(When::After, Call::Subscribe, {
        let (rig, may) = (Arc::clone(&harness.rig), Arc::clone(&may));
        move || {
            let withdraw = move || may.store(false, Ordering::Relaxed);
            rig.hook(When::After, Call::Read, withdraw);
        }
    });
    let member = session.member();
    let joined = recover(&harness, &room, member, || may.load(Ordering::Relaxed)).await;
    assert_eq!(joined.unwrap(), SubscribeOutcome::Forbidden);
    assert!(!harness.node.hub().has_subscribers(&room));
    assert_eq!(harness.node.hub().queued_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_while_the_stream_is_read_wins() {
    let harness = Harness::new();
    let room = channel("room");
    let session = harness.open("t1").await;
    publish(&harness.rig, &room);
    harness.rig.hook(When::After, Call::Subscribe, {
        let rig = Arc::clone(&harness.rig);
        move || {
            let revoked = Arc::clone(&rig);
            let revoke = move || revoked.revoke(RevocationKey::user("alice"));
            rig.hook(When::After, Call::Read, revoke);
        }
    });
    let member = session.member();
    let joined = recover(&harness, &room, member, || true).await;
    self::joined(joined);
    assert_eq!(member.outbox().ending(), Some(REVOKED));
    assert_eq!(harness.node.hub().queued_bytes(), 0);
}

/// Regression: one stream that could not be read kept all quiet channels from being compared, so
/// the loss of a channel's last publication was never noticed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_read_keeps_no_other_channel_from_being_compared() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    let rooms: Vec<_> = (0..300).map(|n| channel(&format!("room:{n}"))).collect();
    for room in &rooms {
        joined(recover(&harness, room, session.member(), || true).await);
    }
    let joined_at = std::time::Instant::now();
    *harness.rig.refused.lock() = Some(rooms[7].clone());
    harness.node.compare_streams(&rooms).await;
    let quiet = harness.node.hub().quiet_since(joined_at);
    assert_eq!(quiet, [rooms[7].clone()]);
}
