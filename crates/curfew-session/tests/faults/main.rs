//! Sessions whose backend fails, hangs or panics, and whose time runs out: what no one can provoke
//! through the binary's own door.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by unwrapping, and spawns its sessions itself"
)]

mod support;

use std::time::Duration;

use curfew_policy::Config as PolicyConfig;
use serde_json::json;
use support::{Fault, Harness};

#[tokio::test(start_paused = true)]
async fn an_unavailable_backend_at_open_is_never_told_as_a_fault_of_the_token() {
    for fault in [Fault::Revocations, Fault::Sessions] {
        let harness = Harness::new();
        harness.break_down(fault);
        let mut client = harness.connect();
        client
            .send(&json!({"type":"auth","token":harness.token("alice", 3600)}))
            .await;
        let closing = client.frame().await;
        assert_eq!(closing["type"], "closing", "{fault:?}");
        assert_eq!(closing["code"], 4503);
        assert_eq!(closing["reason"], "unavailable");
        assert_eq!(closing["reconnect"], true);
        assert_eq!(client.closed().await, 4503);
        assert_eq!(harness.node.hub().count(), 0, "nothing is left behind");
        harness.repair();
        let mut again = harness.open("alice").await;
        again.expect_pong().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_broker_is_answered_unavailable_and_the_session_stays() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Broker);
    for command in [
        json!({"type":"subscribe","id":1,"channel":"a"}),
        json!({"type":"publish","id":1,"channel":"a","data":1}),
    ] {
        client.send(&command).await;
        let error = client.frame().await;
        assert_eq!(error["code"], "unavailable", "{command}");
        assert_eq!(error["id"], 1);
    }
    harness.repair();
    client
        .send(&json!({"type":"subscribe","id":2,"channel":"a"}))
        .await;
    assert_eq!(client.frame().await, json!({"type":"ok","id":2}));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_cannot_be_checked_leaves_the_old_token_in_force() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Revocations);
    client
        .send(&json!({"type":"refresh","id":1,"token":harness.token("alice", 7200)}))
        .await;
    assert_eq!(client.frame().await["code"], "unavailable");
    harness.repair();
    client.expect_pong().await;
    harness.advance(Duration::from_secs(3606)).await;
    client.skip_to("closing").await;
    assert_eq!(client.closed().await, 4410);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_runs_out_is_announced_and_ends_the_session_without_traffic() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.advance(Duration::from_secs(3541)).await;
    assert_eq!(client.skip_to("expiring").await["type"], "expiring");
    harness.advance(Duration::from_secs(63)).await;
    client.expect_pong().await;
    harness.advance(Duration::from_secs(2)).await;
    let closing = client.skip_to("closing").await;
    assert_eq!(
        (&closing["code"], &closing["reason"]),
        (&json!(4410), &json!("expired"))
    );
    assert_eq!(client.closed().await, 4410);
    harness.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed_after_the_pong_timeout() {
    let harness = Harness::pinging(Duration::from_secs(25));
    let mut client = harness.open("alice").await;
    client.answers_pings = false;
    harness.advance(Duration::from_secs(25 + 3 + 8 + 1)).await;
    assert_eq!(client.skip_to("closing").await["code"], 4510);
    assert_eq!(client.closed().await, 4510);
    harness.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_session_and_no_other() {
    let harness = Harness::new();
    let mut other = harness.open("bob").await;
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Panic);
    client
        .send(&json!({"type":"publish","channel":"a","data":1}))
        .await;
    assert_eq!(client.skip_to("closing").await["code"], 1011);
    assert_eq!(client.closed().await, 1011);
    harness.repair();
    other.expect_pong().await;
    assert_eq!(harness.node.hub().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn rules_that_change_while_a_subscription_waits_for_the_broker_decide() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Hang);
    client
        .send(&json!({"type":"subscribe","id":1,"channel":"a"}))
        .await;
    harness.until_waiting().await;
    harness.policy.reload(&PolicyConfig::default());
    harness.node.hub().reconsider_all();
    harness.repair();
    assert_eq!(client.frame().await, json!({"type":"ok","id":1}));
    let lost = client.frame().await;
    assert_eq!(
        lost,
        json!({"type":"unsubscribed","channel":"a","reason":"forbidden"})
    );
    assert!(harness.node.hub().channels().is_empty());
}

#[tokio::test(start_paused = true)]
async fn commands_behind_one_that_waits_are_answered_in_order() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Hang);
    client
        .send_all(&[
            json!({"type":"subscribe","id":1,"channel":"a"}),
            json!({"type":"ping","id":2}),
            json!({"type":"unsubscribe","id":3,"channel":"a"}),
        ])
        .await;
    harness.until_waiting().await;
    harness.repair();
    for id in 1..=3 {
        assert_eq!(client.frame().await["id"], id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_revoked_while_a_command_waits_is_closed_at_once() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::Hang);
    client
        .send(&json!({"type":"subscribe","id":1,"channel":"a"}))
        .await;
    harness.until_waiting().await;
    assert_eq!(harness.revoke_user("alice").await, 1);
    let closing = client.frame().await;
    assert_eq!(
        (&closing["type"], &closing["code"]),
        (&json!("closing"), &json!(4403))
    );
    assert_eq!(client.closed().await, 4403);
    harness.gone().await;
    assert!(harness.node.hub().channels().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_for_a_reader_that_stopped_is_not_delivered_after_a_revocation() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    client
        .send(&json!({"type":"subscribe","id":1,"channel":"a"}))
        .await;
    assert_eq!(client.frame().await["type"], "ok");
    // More than the pipe holds, so that most of it waits.
    for _ in 0..40 {
        harness.publish("a", &"x".repeat(4000)).await;
    }
    tokio::task::yield_now().await;
    assert!(harness.node.hub().queued_bytes() > 64 * 1024);
    assert_eq!(harness.revoke_user("alice").await, 1);
    let mut delivered = 0;
    let closing = loop {
        let frame = client.frame().await;
        if frame["type"] == "closing" {
            break frame;
        }
        delivered += 1;
    };
    assert_eq!(closing["code"], 4403);
    // What the pipe had taken is past recall; nothing that was still ours went out.
    assert!(
        delivered * 4000 <= support::PIPE_BYTES + 4000,
        "{delivered} delivered"
    );
    assert_eq!(client.closed().await, 4403);
    harness.gone().await;
    assert_eq!(harness.node.hub().queued_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_at_any_point_of_the_admission_keeps_the_session_out() {
    for point in [
        Fault::RevokedAfterCheck,
        Fault::RevokedBeforeRecord,
        Fault::RevokedAfterRecord,
    ] {
        let harness = Harness::new();
        harness.break_down(point);
        let mut client = harness.connect();
        client
            .send(&json!({"type":"auth","token":harness.token("alice", 3600)}))
            .await;
        let refused = client.frame().await;
        assert_eq!(refused["type"], "auth_failed", "{point:?}");
        assert_eq!(refused["reason"], "revoked");
        assert_eq!(client.skip_to("closing").await["code"], 4403);
        assert_eq!(client.closed().await, 4403);
        harness.gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_races_with_a_revocation_of_the_user_closes_the_session() {
    let harness = Harness::new();
    let mut client = harness.open("alice").await;
    harness.break_down(Fault::RevokedAfterCheck);
    client
        .send(&json!({"type":"refresh","id":1,"token":harness.token("alice", 7200)}))
        .await;
    assert_eq!(client.skip_to("closing").await["code"], 4403);
    assert_eq!(client.closed().await, 4403);
    harness.gone().await;
}

#[test]
fn the_task_of_an_idle_session_is_small() {
    fn size<T>(_: impl Fn(curfew_session::Session) -> T) -> usize {
        size_of::<T>()
    }
    // Together 632 bytes when this was written. Every byte more is paid by every connection.
    assert!(size(curfew_session::run) <= 192);
    assert!(size_of::<curfew_session::Session>() <= 512);
}
