use curfew_backend::BackendError;

use super::peer::{BINARY, TEXT, frame};
use super::rig::{Call, unavailable, unusable};
use super::*;

#[tokio::test(start_paused = true)]
async fn commands_in_one_read_are_answered_in_order_also_when_one_has_to_wait() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Subscribe);
    peer.send_all(&[
        r#"{"type":"ping","id":0}"#,
        SUBSCRIBE,
        r#"{"type":"ping","id":2}"#,
        r#"{"type":"publish","id":3,"channel":"room","data":{"a":1}}"#,
        r#"{"type":"unsubscribe","id":4,"channel":"room"}"#,
        r#"{"type":"subscribe","id":5,"channel":"room"}"#,
        r#"{"type":"publish","id":6,"channel":"room","data":2}"#,
    ])
    .await;
    assert_eq!(peer.expect("pong").await["id"], 0);
    peer.silence(5).await;
    // This ping arrives behind a ping that already waits.
    peer.send(r#"{"type":"ping","id":7}"#).await;
    peer.silence(5).await;
    harness.rig.release(Call::Subscribe);
    let mut got = Vec::new();
    for _ in 0..9 {
        let text = peer.text().await;
        got.push(format!(
            "{} {}",
            text["type"].as_str().unwrap(),
            text.get("id").unwrap_or(&text["data"])
        ));
    }
    assert_eq!(
        got,
        [
            "ok 1",
            "pong 2",
            r#"message {"a":1}"#,
            "ok 3",
            "ok 4",
            "ok 5",
            "message 2",
            "ok 6",
            "pong 7"
        ]
    );
    assert_eq!(harness.rig.asked(Call::Subscribe, "room"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_is_told_as_unavailable_and_the_session_goes_on() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    let token = harness.token(json!({"jti": "t2"}));
    for (call, command) in [
        (Call::Subscribe, SUBSCRIBE.to_owned()),
        (
            Call::Publish,
            r#"{"type":"publish","id":1,"channel":"room","data":1}"#.to_owned(),
        ),
        (
            Call::Check,
            json!({"type": "refresh", "id": 1, "token": token}).to_string(),
        ),
        (
            Call::Refresh,
            json!({"type": "refresh", "id": 1, "token": token}).to_string(),
        ),
    ] {
        for (error, code) in [
            (unavailable as fn() -> _, "unavailable"),
            (unusable, "internal"),
        ] {
            harness.rig.fail(call, error);
            assert_eq!(peer.error(&command).await, code, "{call:?}");
            harness.rig.heal(call);
        }
    }
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 0);
    peer.ok(r#"{"type":"subscribe","id":2,"channel":"room"}"#)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_publication_of_which_nobody_knows_is_told_as_that() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.fail(Call::Publish, || {
        BackendError::UnknownOutcome("lost by the test".into())
    });
    let publish = r#"{"type":"publish","id":1,"channel":"room","data":1}"#;
    assert_eq!(peer.error(publish).await, "unknown_outcome");
    let counted = |outcome| {
        let labels = (outcome, PublishSource::Client);
        harness.metrics.publishes.get(labels)
    };
    assert_eq!(counted(PublishOutcome::Unknown), 1);
    assert_eq!(counted(PublishOutcome::Error), 0);
    harness.rig.heal(Call::Publish);
    peer.ok(publish).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_at_open_is_never_told_as_a_fault_of_the_token() {
    for (error, disconnect) in [
        (unavailable as fn() -> _, Disconnect::UNAVAILABLE),
        (unusable, Disconnect::INTERNAL),
    ] {
        for call in [Call::Check, Call::Open] {
            let harness = Harness::new();
            harness.rig.fail(call, error);
            let mut peer = harness.awaiting();
            let token = harness.token(json!({}));
            peer.send(&json!({"type": "auth", "token": token}).to_string())
                .await;
            assert_eq!(peer.expect_closed(disconnect).await.types(), ["closing"]);
            harness.assert_nothing_left().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_instead_of_auth_is_refused_with_its_reason() {
    let [forged, expired] = {
        let harness = Harness::new();
        let mut forged = harness.token(json!({}));
        forged.truncate(forged.len() - 4);
        forged.push_str("AAAA");
        [forged, harness.token(json!({"exp": rig::START - 60}))]
    };
    let auth = |token: &str| json!({"type": "auth", "id": 1, "token": token}).to_string();
    for (first, reason, disconnect) in [
        (
            r#"{"type":"ping","id":1}"#.to_owned(),
            Some("missing_token"),
            Disconnect::AUTH_FAILED,
        ),
        (auth("x"), Some("malformed"), Disconnect::AUTH_FAILED),
        (
            auth(&forged),
            Some("bad_signature"),
            Disconnect::AUTH_FAILED,
        ),
        (auth(&expired), Some("expired"), Disconnect::AUTH_FAILED),
        ("hello".to_owned(), None, Disconnect::BAD_REQUEST),
    ] {
        let harness = Harness::new();
        let mut peer = harness.awaiting();
        peer.send(&first).await;
        let closed = peer.expect_closed(disconnect).await;
        match reason {
            Some(reason) => {
                assert_eq!(closed.types(), ["auth_failed", "closing"], "{first}");
                assert_eq!(closed.texts[0]["reason"], reason, "{first}");
            }
            None => assert_eq!(closed.types(), ["closing"], "{first}"),
        }
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn auth_and_what_is_sent_right_behind_it_may_come_with_the_request() {
    let harness = Harness::new();
    let token = harness.token(json!({}));
    // This data is longer than the limit for a first message.
    let long = "x".repeat(30_000);
    let texts = [
        json!({"type": "auth", "token": token}),
        json!({"type": "subscribe", "id": 1, "channel": "room"}),
        json!({"type": "publish", "id": 2, "channel": "room", "data": long}),
    ];
    let frames: Vec<u8> = texts
        .iter()
        .flat_map(|text| frame(TEXT, text.to_string().as_bytes()))
        .collect();
    for early in [frames.len(), 7, 0] {
        let (early, late) = frames.split_at(early);
        let mut peer = harness.connect(Opening::Awaiting(by_message()), ROOM, early);
        peer.send_bytes(late).await;
        peer.expect("connected").await;
        assert_eq!(peer.expect("ok").await["id"], 1);
        assert_eq!(peer.expect("message").await["data"], long.as_str());
        assert_eq!(peer.expect("ok").await["id"], 2);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_bounded_and_the_first_one_more_tightly() {
    let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(20_000));
    let harness = Harness::new();
    let mut peer = harness.awaiting();
    peer.send(&long).await;
    peer.expect_closed(Disconnect::MESSAGE_TOO_LARGE).await;
    let harness = Harness::with(|settings| settings.limits.message_bytes = 19_000);
    let mut peer = harness.open().await;
    peer.send(&long).await;
    peer.expect_closed(Disconnect::MESSAGE_TOO_LARGE).await;
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn errors_of_form_are_answered_until_there_are_too_many() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    for _ in 0..3 {
        assert_eq!(
            peer.error(r#"{"type":"dance","id":1}"#).await,
            "unknown_type"
        );
        peer.ok(r#"{"type":"publish","id":2,"channel":"room","data":1}"#)
            .await;
    }
    peer.send(r#"{"type":"subscribe","id":1}"#).await;
    let closed = peer.expect_closed(Disconnect::BAD_REQUEST).await;
    assert_eq!(closed.types(), ["error", "closing"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_protocol_ends_the_session_at_once() {
    for message in [frame(TEXT, b"hello"), frame(BINARY, br#"{"type":"ping"}"#)] {
        let harness = Harness::new();
        let mut peer = harness.open().await;
        peer.send_bytes(&message).await;
        peer.expect_closed(Disconnect::BAD_REQUEST).await;
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_over_the_rate_is_not_acted_on() {
    let harness = Harness::with(|settings| settings.limits.messages_per_second = 5);
    let mut peer = harness.open().await;
    let publish = r#"{"type":"publish","id":1,"channel":"room","data":1}"#;
    peer.send_all(&[publish; 8]).await;
    for _ in 0..5 {
        peer.expect("ok").await;
    }
    for _ in 0..3 {
        assert_eq!(peer.expect("error").await["code"], "rate_limited");
    }
    assert_eq!(harness.rig.asked(Call::Publish, ""), 5);
    peer.silence(1).await;
    peer.ok(publish).await;
}

#[tokio::test(start_paused = true)]
async fn ten_seconds_over_the_rate_without_a_pause_end_the_session() {
    let harness = Harness::with(|settings| settings.limits.messages_per_second = 5);
    // Each client sends a command every 100 ms. The second client pauses for two seconds after
    // eight seconds.
    for rests in [false, true] {
        let mut peer = harness.open().await;
        // The burst covers the first second.
        for at in 0..=115 {
            if rests && at == 80 {
                time::sleep(Duration::from_secs(2)).await;
            }
            peer.send(r#"{"type":"ping","id":1}"#).await;
            time::sleep(Duration::from_millis(100)).await;
        }
        if rests {
            let mut pongs = 0;
            while peer.text().await["type"] == "pong" {
                pongs += 1;
            }
            assert!(pongs > 0);
            assert_eq!(
                harness.closed_with(Disconnect::RATE_LIMITED),
                1,
                "only the client without a pause is closed for its rate"
            );
        } else {
            let closed = peer.expect_closed(Disconnect::RATE_LIMITED).await;
            assert!(
                closed
                    .types()
                    .iter()
                    .filter(|kind| **kind == "error")
                    .count()
                    > 40
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_counted_checked_and_left() {
    let harness = Harness::with(|settings| settings.limits.subscriptions = 2);
    let mut peer = harness.open().await;
    let on =
        |kind: &str, channel: &str| json!({"type": kind, "id": 1, "channel": channel}).to_string();
    peer.ok(&on("subscribe", "a")).await;
    assert_eq!(
        peer.error(&on("subscribe", "a")).await,
        "already_subscribed"
    );
    assert_eq!(peer.error(&on("subscribe", "a b")).await, "invalid_channel");
    assert_eq!(peer.error(&on("unsubscribe", "b")).await, "not_subscribed");
    peer.ok(&on("subscribe", "b")).await;
    assert_eq!(peer.error(&on("subscribe", "c")).await, "limit_exceeded");
    peer.ok(&on("unsubscribe", "a")).await;
    peer.ok(&on("subscribe", "c")).await;
    assert_eq!(harness.context.node.metrics().subscriptions.get(), 2);
    assert_eq!(
        peer.error(&json!({"type": "auth", "id": 1, "token": "x"}).to_string())
            .await,
        "bad_request"
    );
    drop(peer);
    harness.assert_nothing_left().await;
}
