use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew_model::RevocationKey;

use super::rig::{Call, When};
use super::*;

const PUBLISH: &str = r#"{"type":"publish","id":2,"channel":"room","data":1}"#;

fn refresh(token: &str) -> String {
    json!({"type": "refresh", "id": 9, "token": token}).to_string()
}

/// Upper bound of the number of messages of [`blocked`] that are already in the pipe and cannot be
/// withheld. The last of these messages may be partial.
const BEYOND_RECALL: usize = 256 / 50 + 1;

#[tokio::test(start_paused = true)]
async fn a_session_revoked_in_the_middle_of_a_frame_is_cut_off_there() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    harness.rig.revoke(RevocationKey::user("alice"));
    let texts = peer.cut().await;
    assert!(texts.len() < BEYOND_RECALL, "{texts:?}");
    harness.assert_nothing_left().await;
    // The close is counted under the code of a revocation.
    let closed = &harness.metrics.connections_closed;
    assert_eq!(closed.get(Disconnect::REVOKED.code, Initiator::Server), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_flight_is_withheld_though_the_socket_takes_more_just_then() {
    for access_ends in ["revoked", "expired"] {
        let harness = Harness::new();
        let mut peer = blocked(&harness).await;
        // The pipe gets room and access ends, both before the session's task runs again.
        let room = peer.read_some(256).await;
        assert_eq!(room, 256);
        if access_ends == "revoked" {
            harness.rig.revoke(RevocationKey::token("t1"));
        } else {
            *harness.clock.ahead.lock() += Duration::from_secs(TTL + 10);
        }
        let texts = peer.cut().await;
        assert!(texts.len() < BEYOND_RECALL, "{access_ends}: {texts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_still_delivers_what_was_queued() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    let (closed, ()) = tokio::join!(
        peer.expect_closed(Disconnect::DRAINING),
        harness.context.node.drain(Duration::ZERO)
    );
    assert_eq!(closed.texts.len(), 101);
    assert!(closed.texts[100]["retry_after_ms"].is_u64() && closed.texts[100]["reconnect"] == true);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_withholds_what_a_drain_would_still_deliver() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    let revoking = async {
        time::sleep(Duration::from_millis(100)).await;
        harness.rig.revoke(RevocationKey::user("alice"));
        peer.cut().await
    };
    let (texts, ()) = tokio::join!(revoking, harness.context.node.drain(Duration::ZERO));
    assert!(texts.len() < BEYOND_RECALL, "{texts:?}");
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_a_session_sent_is_acted_on_once_it_is_revoked() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    let rig = Arc::clone(&harness.rig);
    // The revocation arrives while the session acts on the first of three messages that were read
    // together.
    harness.rig.hook(When::Before, Call::Publish, move || {
        rig.revoke(RevocationKey::user("alice"))
    });
    peer.send_all(&[PUBLISH; 3]).await;
    assert_eq!(
        peer.expect_closed(Disconnect::REVOKED).await.types(),
        ["closing"]
    );
    assert_eq!(harness.rig.asked(Call::Publish, ""), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_revoked_while_a_command_waits_ends_at_once() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Subscribe);
    peer.send(SUBSCRIBE).await;
    peer.silence(1).await;
    harness.rig.revoke(RevocationKey::user("alice"));
    assert_eq!(
        peer.expect_closed(Disconnect::REVOKED).await.types(),
        ["closing"]
    );
    harness.rig.release(Call::Subscribe);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_revoked_while_it_opens_is_told_so_and_is_told_nothing_else() {
    for (when, call) in [
        (When::Before, Call::Check),
        (When::After, Call::Check),
        (When::After, Call::Open),
    ] {
        let harness = Harness::new();
        let rig = Arc::clone(&harness.rig);
        harness
            .rig
            .hook(when, call, move || rig.revoke(RevocationKey::user("alice")));
        let mut peer = harness.awaiting();
        peer.send(&json!({"type": "auth", "token": harness.token(json!({}))}).to_string())
            .await;
        let closed = peer.expect_closed(Disconnect::REVOKED).await;
        assert_eq!(
            closed.types(),
            ["auth_failed", "closing"],
            "{when:?} {call:?}"
        );
        assert_eq!(closed.texts[0]["reason"], "revoked");
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_one_session_and_no_other() {
    let harness = Harness::new();
    let mut kept = harness.open().await;
    let kept_id = harness.hub().members()[0].session();
    let mut ended = harness.open().await;
    let ended_id = harness
        .hub()
        .members()
        .iter()
        .map(|m| m.session())
        .find(|id| *id != kept_id)
        .unwrap();
    assert!(
        harness
            .rig
            .inner()
            .sessions
            .disconnect(ended_id)
            .await
            .unwrap()
    );
    ended.expect_closed(Disconnect::DISCONNECTED).await;
    kept.ok(PUBLISH).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_change_takes_subscriptions_and_remembered_permissions_away() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    peer.ok(SUBSCRIBE).await;
    peer.send(PUBLISH).await;
    peer.expect("message").await;
    peer.expect("ok").await;
    harness.reload(&allowing(&[Action::Subscribe]));
    assert_eq!(peer.error(PUBLISH).await, "forbidden");
    harness.reload(&allowing(&[]));
    let unsubscribed = peer.expect("unsubscribed").await;
    assert_eq!(
        unsubscribed,
        json!({"type": "unsubscribed", "channel": "room", "reason": "forbidden"})
    );
    harness.publish("room", "2");
    peer.silence(5).await;
    assert_eq!(peer.error(SUBSCRIBE).await, "forbidden");
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_policy_change_while_the_broker_is_asked_refuses_the_subscription() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Subscribe);
    peer.send(SUBSCRIBE).await;
    peer.silence(1).await;
    harness.reload(&allowing(&[]));
    peer.silence(1).await;
    harness.rig.release(Call::Subscribe);
    assert_eq!(peer.expect("error").await["code"], "forbidden");
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 0);
    assert_eq!(harness.hub().channel_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_policy_change_reaches_a_session_whose_output_is_blocked() {
    let harness = Harness::new();
    let mut peer = blocked(&harness).await;
    // The publication is allowed, and the decision is cached.
    peer.send(r#"{"type":"publish","channel":"room","data":1}"#)
        .await;
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(harness.rig.asked(Call::Publish, ""), 1);
    harness.reload(&allowing(&[]));
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 0);
    peer.send(r#"{"type":"publish","channel":"room","data":1}"#)
        .await;
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(
        harness.rig.asked(Call::Publish, ""),
        1,
        "the publication was allowed by a decision from before the reload"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_decides_every_subscription_anew() {
    let harness = Harness::new();
    harness.reload(&allowing(&[]));
    let grants =
        |channels: &[&str]| json!({"curfew": {"subscribe": channels, "publish": channels}});
    let mut peer = harness.open_with(grants(&["room", "kept"]), ROOM).await;
    peer.ok(SUBSCRIBE).await;
    peer.ok(r#"{"type":"subscribe","id":1,"channel":"kept"}"#)
        .await;
    peer.send(PUBLISH).await;
    peer.expect("message").await;
    peer.expect("ok").await;
    peer.send(&refresh(&harness.token(grants(&["kept"])))).await;
    assert_eq!(peer.expect("refreshed").await["id"], 9);
    assert_eq!(peer.expect("unsubscribed").await["channel"], "room");
    assert_eq!(peer.error(PUBLISH).await, "forbidden");
    harness.publish("room", "1");
    harness.publish("kept", "2");
    assert_eq!(peer.expect("message").await["data"], 2);
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_leaves_the_session_as_it_was() {
    let harness = Harness::new();
    let mut peer = harness.open_with(json!({"sid": "login1"}), ROOM).await;
    let longer = rig::START + 2 * TTL;
    for (claims, code) in [
        (
            json!({"sub": "bob", "sid": "login1", "exp": longer}),
            "different_user",
        ),
        (json!({"sid": "login2", "exp": longer}), "different_user"),
        (json!({"exp": longer}), "different_user"),
        (
            json!({"sid": "login1", "exp": rig::START + TTL - 1}),
            "bad_request",
        ),
        (json!({"sid": "login1", "exp": rig::START - 10}), "expired"),
        (
            json!({"sid": "login1", "exp": longer, "nbf": longer}),
            "not_yet_valid",
        ),
        (json!({"sid": "login1", "exp": null}), "missing_claim"),
    ] {
        let token = harness.token(claims.clone());
        assert_eq!(peer.error(&refresh(&token)).await, code, "{claims}");
    }
    assert_eq!(peer.error(&refresh("x")).await, "malformed");
    peer.ok(PUBLISH).await;
    peer.expect("expiring").await;
    peer.expect_closed(Disconnect::EXPIRED).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_refreshes_with_a_revoked_token_is_out() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.revoke(RevocationKey::token("t2"));
    peer.send(&refresh(&harness.token(json!({"jti": "t2"}))))
        .await;
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["error", "closing"]);
    assert_eq!(
        (&closed.texts[0]["code"], &closed.texts[0]["id"]),
        (&json!("revoked"), &json!(9))
    );
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_of_the_old_token_during_a_refresh_ends_the_session() {
    for (when, call) in [
        (When::Before, Call::Check),
        (When::After, Call::Check),
        (When::After, Call::Refresh),
    ] {
        let harness = Harness::new();
        let mut peer = harness.open().await;
        let rig = Arc::clone(&harness.rig);
        harness
            .rig
            .hook(when, call, move || rig.revoke(RevocationKey::token("t1")));
        peer.send(&refresh(&harness.token(json!({"jti": "t2"}))))
            .await;
        assert_eq!(
            peer.expect_closed(Disconnect::REVOKED).await.types(),
            ["closing"]
        );
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_session_more_than_allowed_is_closed_with_its_own_code() {
    let harness = Harness::with(|settings| settings.session.max_per_user = 1);
    let mut first = harness.open().await;
    let mut second = harness.awaiting();
    second
        .send(&json!({"type": "auth", "token": harness.token(json!({}))}).to_string())
        .await;
    // The first client answers the ping with which the server probes it.
    let (closed, ()) = tokio::join!(
        second.expect_closed(Disconnect::SESSION_LIMIT),
        first.silence(1)
    );
    assert_eq!(closed.types(), ["closing"]);
    assert!(closed.texts[0]["retry_after_ms"].is_u64());
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_sign_of_life_gives_way_to_one_that_is_over_the_limit() {
    let harness = Harness::with(|settings| settings.session.max_per_user = 1);
    let mut silent = harness.open().await;
    silent.answers_pings = false;
    let mut second = harness.awaiting();
    second
        .send(&json!({"type": "auth", "token": harness.token(json!({}))}).to_string())
        .await;
    let (_, closed) = tokio::join!(
        second.expect("connected"),
        silent.expect_closed(Disconnect::NO_PONG)
    );
    assert_eq!(closed.types(), ["closing"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_sees_limits_and_policy_of_one_snapshot() {
    let harness = Harness::new();
    let settings = SessionSettings::clone(&harness.context.settings.load());
    let with = |actions: &[Action], subscriptions: usize| {
        let mut settings = settings.clone();
        settings.policy = Arc::new(Policy::new(&allowing(actions)));
        settings.limits.subscriptions = subscriptions;
        Arc::new(settings)
    };
    // Neither snapshot allows the subscription: the first snapshot's policy denies it, and the
    // second snapshot's limit is zero. Only a command that mixed the first snapshot's limit with
    // the second snapshot's policy would succeed.
    let snapshots = [with(&[], 1), with(&[Action::Subscribe], 0)];
    harness.context.settings.store(Arc::clone(&snapshots[0]));
    let mut peer = harness.open().await;
    let done = Arc::new(AtomicBool::new(false));
    let reloads = {
        let (context, done) = (Arc::clone(&harness.context), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for snapshot in &snapshots {
                    context.settings.store(Arc::clone(snapshot));
                }
            }
        })
    };
    let mut answers = BTreeSet::new();
    let (mut last, mut changes) = (String::new(), 0);
    // The answer changes only if the other thread has replaced the settings since the last command.
    while changes < 500 {
        let answer = peer.error(SUBSCRIBE).await;
        changes += usize::from(answer != last);
        answers.insert(answer.clone());
        last = answer;
    }
    done.store(true, Ordering::Relaxed);
    reloads.join().unwrap();
    assert_eq!(Vec::from_iter(answers), ["forbidden", "limit_exceeded"]);
}
