//! The behaviour of a session while its node holds no delivery lease, and while a revocation that
//! may name the session is being read.

use curfew_hub::DropReason;
use curfew_model::{GapReason, RevocationKey, boottime};

use super::rig::Call;
use super::*;

const PUBLISH: &str = r#"{"type":"publish","id":2,"channel":"room","data":1}"#;
const PING: &str = r#"{"type":"ping","id":3}"#;

impl Harness {
    fn shut(&self) {
        self.lease.expire();
    }

    fn reopen(&self) {
        let until = boottime() + Duration::from_secs(3600);
        let reopened = self.lease.renew(until, self.lease.stretch());
        assert_eq!(reopened, Some(true));
        self.hub().reopened();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_no_command_is_acted_on_and_each_is_answered() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.shut();
    for command in [SUBSCRIBE, PUBLISH, PING] {
        assert_eq!(peer.error(command).await, "unavailable", "{command}");
    }
    assert_eq!(harness.rig.asked(Call::Publish, ""), 0);
    assert_eq!(harness.rig.asked(Call::Subscribe, ""), 0);
    harness.reopen();
    peer.ok(SUBSCRIBE).await;
}

/// Fault F8: the node is stopped for a time shorter than its lease.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_stopped_for_a_moment_says_nothing_until_it_knows_what_it_missed() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    harness.shut();
    harness.reopen();
    // From here on, the node's sign of life to its backend is late.
    assert_eq!(harness.lease.note_alive(Duration::ZERO), None);
    harness.publish("room", "1");
    peer.send(PING).await;
    let mut opening = harness.awaiting();
    let auth = json!({"type": "auth", "token": harness.token(json!({"sub": "bob"}))});
    opening.send(&auth.to_string()).await;
    for peer in [&mut peer, &mut opening] {
        peer.silence(1).await;
    }
    assert!(
        harness
            .lease
            .note_alive(Duration::from_secs(3600))
            .is_some()
    );
    harness.rig.revoke(RevocationKey::user("bob"));
    harness.reopen();
    assert_eq!(peer.expect("message").await["data"], 1);
    peer.expect("pong").await;
    let closed = opening.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["auth_failed", "closing"]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_no_error_waits_for_the_lease() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Publish);
    peer.send(PUBLISH).await;
    peer.silence(1).await;
    harness.shut();
    harness.rig.release(Call::Publish);
    peer.silence(1).await;
    harness.reopen();
    peer.expect("ok").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_published_meanwhile_is_dropped_and_counted() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    harness.shut();
    harness.publish("room", "1");
    peer.silence(1).await;
    assert_eq!(
        harness
            .hub()
            .metrics()
            .messages_dropped
            .get(DropReason::NoLease),
        1
    );
    harness.reopen();
    harness.publish("room", "2");
    assert_eq!(peer.expect("gap").await["channel"], "room");
    assert_eq!(peer.expect("message").await["data"], 2);
    assert_eq!(harness.hub().metrics().gaps.get(GapReason::NoLease), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_is_held_back_and_goes_out_afterwards_in_order() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    harness.shut();
    // Messages that are already in the pipe arrive. Then no further message arrives, even if the
    // pipe has room.
    let mut came = 0;
    while time::timeout(Duration::from_secs(1), peer.text())
        .await
        .is_ok()
    {
        came += 1;
    }
    assert!(
        came < 10,
        "{came} messages arrived while they were to be withheld"
    );
    harness.reopen();
    for at in came..100 {
        assert_eq!(peer.expect("message").await["data"], at);
    }
    peer.ok(r#"{"type":"unsubscribe","id":7,"channel":"room"}"#)
        .await;
}

#[tokio::test(start_paused = true)]
async fn answers_go_past_what_is_held_back() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    // The message is queued, and the lease ends before the session's task runs.
    harness.publish("room", "1");
    harness.shut();
    assert_eq!(peer.error(PING).await, "unavailable");
    peer.silence(1).await;
    harness.reopen();
    assert_eq!(peer.expect("message").await["data"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_revoked_meanwhile_is_told_and_gets_nothing_of_what_was_held_back() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    harness.publish("room", "1");
    harness.shut();
    harness.rig.revoke(RevocationKey::user("alice"));
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["closing"]);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stays_away_ends_the_session_without_what_was_held_back() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    harness.publish("room", "1");
    harness.shut();
    harness.events.isolated();
    let closed = peer.expect_closed(Disconnect::UNAVAILABLE).await;
    assert_eq!(closed.types(), ["closing"]);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_is_never_completed_without_the_lease() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    harness.shut();
    harness.events.isolated();
    peer.cut().await;
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn pings_go_on_without_the_lease() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.shut();
    // The time is longer than the ping interval plus the wait for a pong: a client that answers
    // pings stays connected.
    peer.silence(300).await;
    harness.reopen();
    peer.ok(SUBSCRIBE).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_the_lease_delivers_nothing_that_was_held_back() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    harness.publish("room", "1");
    harness.shut();
    let (closed, ()) = tokio::join!(
        peer.expect_closed(Disconnect::DRAINING),
        harness.context.node.drain(Duration::ZERO)
    );
    assert_eq!(closed.types(), ["closing"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_admitted_without_the_lease_and_it_is_not_the_tokens_fault() {
    let harness = Harness::new();
    harness.shut();
    let mut peer = harness.awaiting();
    let auth = json!({"type":"auth","token":harness.token(json!({}))});
    peer.send(&auth.to_string()).await;
    let closed = peer.expect_closed(Disconnect::UNAVAILABLE).await;
    assert_eq!(closed.types(), ["closing"]);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn while_a_revocation_is_read_the_session_waits() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    let key = RevocationKey::user("alice");
    let (first, second) = (harness.hub().suspend(&key), harness.hub().suspend(&key));
    assert!(harness.hub().suspend(&RevocationKey::user("bob")).is_none());
    harness.publish("room", "1");
    peer.send(PUBLISH).await;
    peer.silence(1).await;
    assert_eq!(harness.rig.asked(Call::Publish, ""), 0);
    // Two revocation keys are being read, and the session waits until both have been read.
    drop(first);
    peer.silence(1).await;
    drop(second);
    assert_eq!(peer.expect("message").await["data"], 1);
    let answers = [peer.text().await, peer.text().await];
    assert!(answers.iter().any(|answer| answer["type"] == "ok"));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_revocation_covers_goes_without_another_word() {
    let harness = Harness::new();
    let mut peer = harness.subscribed().await;
    let key = RevocationKey::user("alice");
    let suspension = harness.hub().suspend(&key);
    harness.publish("room", "1");
    peer.send(PUBLISH).await;
    harness.rig.revoke(key);
    drop(suspension);
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["closing"]);
    assert_eq!(harness.rig.asked(Call::Publish, ""), 0);
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_waits_while_a_revocation_is_read() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    let suspension = harness.hub().suspend(&RevocationKey::user("alice"));
    // Two events could make the session's task write: a wake-up, and room in the pipe.
    let mut came = 0;
    while time::timeout(Duration::from_secs(1), peer.text())
        .await
        .is_ok()
    {
        came += 1;
    }
    assert!(
        came < 10,
        "{came} messages arrived while they were to be withheld"
    );
    drop(suspension);
    for at in came..100 {
        assert_eq!(peer.expect("message").await["data"], at);
    }
}
