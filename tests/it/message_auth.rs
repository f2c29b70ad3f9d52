//! The token in the first message (CONTRACT §3, SECURITY rows 40-47).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, opcode};
use curfew_tests::{Gateway, Settings, eventually};
use serde_json::json;

fn auth() -> String {
    json!({"type":"auth","token":Key::default_secret().user("alice")}).to_string()
}

#[tokio::test]
async fn the_first_message_may_bring_the_token() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.ws().open().await;
    client.send_text(&auth()).await;
    client
        .expect_json(json!({"type":"connected","user":"alice"}))
        .await;
    assert!(client.barrier().await.is_empty());
}

#[tokio::test]
async fn a_bad_token_in_the_first_message_is_refused_with_its_reason() {
    let gateway = Gateway::start_default().await;
    let expired = Key::default_secret().user_with("alice", json!({"exp":1_700_000_000}));
    for (token, reason) in [
        ("nonsense", "malformed"),
        (&expired, "expired"),
        ("", "missing_token"),
    ] {
        let mut client = gateway.ws().open().await;
        client.send(json!({"type":"auth","token":token})).await;
        let answer = client.next_json().await;
        assert_eq!(answer["type"], "auth_failed");
        let told = answer["reason"].as_str().unwrap();
        // An empty token counts as missing or as malformed.
        assert!(
            told == reason || (token.is_empty() && told == "malformed"),
            "{answer}"
        );
        assert_eq!(client.closed().await.0, 4401);
    }
}

#[tokio::test]
async fn who_sends_no_token_in_time_is_closed_with_4408() {
    let gateway = Gateway::start_with(&Settings::default().with(r#"auth.timeout = "1s""#)).await;
    let began = Instant::now();
    let mut silent = gateway.ws().open().await;
    // A message that arrives slowly, byte by byte, does not extend the deadline.
    let mut slow = gateway.ws().open().await;
    let dripping = async {
        for byte in OutFrame::text(&auth()).to_bytes() {
            if slow.try_send_bytes(&[byte]).await.is_err() || began.elapsed().as_secs() > 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        slow.expect_close(4408, "auth_timeout").await
    };
    let (closing, _) = tokio::join!(silent.expect_close(4408, "auth_timeout"), dripping);
    assert_eq!(closing["reconnect"], true);
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn a_command_before_auth_is_refused_as_a_missing_token() {
    let gateway = Gateway::start_default().await;
    for command in [
        json!({"type":"subscribe","id":1,"channel":"room:1"}),
        json!({"type":"publish","id":1,"channel":"room:1","data":1}),
        json!({"type":"unsubscribe","id":1,"channel":"room:1"}),
        json!({"type":"refresh","id":1,"token":Key::default_secret().user("alice")}),
        json!({"type":"ping","id":1}),
    ] {
        let mut client = gateway.ws().open().await;
        client.send(command).await;
        client.expect_auth_failed("missing_token", 4401).await;
    }
    assert_eq!(gateway.metric("curfew_channels").await, 0.0);
}

#[tokio::test]
async fn a_first_frame_that_is_not_the_protocol_is_closed_with_4400() {
    let gateway = Gateway::start_default().await;
    for frame in [
        OutFrame::new(opcode::BINARY, auth()),
        OutFrame::text("hello"),
        OutFrame::text(""),
    ] {
        let mut client = gateway.ws().open().await;
        client.send_frame(frame).await;
        client.expect_close(4400, "bad_request").await;
    }
}

#[tokio::test]
async fn a_second_auth_is_an_error_and_the_session_stays() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.ws().open().await;
    client.send_text(&auth()).await;
    client.expect_json(json!({"type":"connected"})).await;
    let other = Key::default_secret().user("bob");
    client
        .send(json!({"type":"auth","id":2,"token":other}))
        .await;
    client
        .expect_json(json!({"type":"error","id":2,"code":"bad_request"}))
        .await;
    client
        .send(json!({"type":"subscribe","id":3,"channel":"room:1"}))
        .await;
    client.expect_json(json!({"type":"ok","id":3})).await;
    client
        .send(json!({"type":"publish","channel":"room:1","data":1}))
        .await;
    client
        .expect_json(json!({"type":"message","from":"alice"}))
        .await;

    let mut by_header = gateway.user("alice").await;
    by_header.send_text(&auth()).await;
    by_header
        .expect_json(json!({"type":"error","code":"bad_request"}))
        .await;
    assert!(by_header.barrier().await.is_empty());
}

#[tokio::test]
async fn ten_commands_right_behind_auth_are_handled_in_order() {
    let gateway = Gateway::start_default().await;
    let mut frames = vec![OutFrame::text(&auth())];
    frames.extend((0..10).map(|n| {
        let command = json!({"type":"subscribe","id":n,"channel":format!("room:{n}")});
        OutFrame::text(&command.to_string())
    }));
    // For one client, the frames come in the same segment as the request. For the other client,
    // they come in a later segment.
    let mut early = gateway.ws().behind(&frames).open().await;
    let mut late = gateway.ws().open().await;
    late.send_frames(&frames).await;
    for client in [&mut early, &mut late] {
        client.expect_json(json!({"type":"connected"})).await;
        for n in 0..10 {
            client.expect_json(json!({"type":"ok","id":n})).await;
        }
    }
}

#[tokio::test]
async fn commands_behind_a_request_with_a_token_are_handled_in_order() {
    let gateway = Gateway::start_default().await;
    let frames: Vec<OutFrame> = (0..10)
        .map(|n| {
            let command = json!({"type":"subscribe","id":n,"channel":format!("room:{n}")});
            OutFrame::text(&command.to_string())
        })
        .collect();
    let token = Key::default_secret().user("alice");
    let mut client = gateway.ws().bearer(&token).behind(&frames).open().await;
    client.expect_json(json!({"type":"connected"})).await;
    for n in 0..10 {
        client.expect_json(json!({"type":"ok","id":n})).await;
    }
}

#[tokio::test]
async fn nothing_is_delivered_before_the_token_is_verified() {
    let gateway = Gateway::start_default().await;
    let mut stranger = gateway.ws().open().await;
    let mut member = gateway.subscriber("bob", "room:1").await;
    gateway.publish("room:1", json!("hello")).await;
    member.expect_json(json!({"type":"message"})).await;
    stranger
        .send(json!({"type":"auth","token":"nonsense"}))
        .await;
    stranger.expect_auth_failed("malformed", 4401).await;
}

#[tokio::test]
async fn an_oversized_first_message_is_refused_before_it_is_whole() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.ws().open().await;
    client
        .send_frame(OutFrame::text("{").declaring(64 * 1024 + 1))
        .await;
    // Regression: the message of the close named another limit.
    let closing = client.expect_close(1009, "message_too_large").await;
    let message = closing["message"].as_str().unwrap();
    assert!(message.contains("auth.max_token_bytes plus 1 KiB"));
    let mut client = gateway.ws().open().await;
    let padded = format!("{}{}", " ".repeat(17 * 1024), auth());
    client.send_text(&padded).await;
    let (code, _) = client.closed().await;
    assert!(matches!(code, 1009 | 4400 | 4401), "{code}");
}

#[tokio::test]
async fn strangers_are_counted_for_each_address() {
    let settings = Settings::default().with("limits.unauthenticated_per_address = 3");
    let gateway = Gateway::start_with(&settings).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(gateway.ws().open().await);
    }
    let refused = gateway.ws().refused().await;
    assert_eq!(refused.status, 429);
    // The node ignores a header with another client address.
    let refused = gateway.ws().header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(refused.refused().await.status, 429);
    // A client that has authenticated no longer counts towards the limit.
    strangers[0].send_text(&auth()).await;
    strangers[0].expect_json(json!({"type":"connected"})).await;
    eventually("another connection to be accepted", async || {
        gateway.ws().attempt().await.ok()
    })
    .await;
    let bob = Key::default_secret().user("bob");
    eventually("a connection with a token to be accepted", async || {
        gateway.ws().bearer(&bob).attempt().await.ok()
    })
    .await;
}

#[tokio::test]
async fn strangers_are_counted_over_all_addresses() {
    let settings = Settings::default().with("limits.unauthenticated = 2");
    let gateway = Gateway::start_with(&settings).await;
    let _one = gateway.ws().open().await;
    let two = gateway.ws().open().await;
    let refused = gateway.ws().refused().await;
    assert_eq!(refused.status, 503);
    two.reset();
    eventually("another connection to be accepted", async || {
        gateway.ws().attempt().await.ok()
    })
    .await;
}
