//! Malformed frames (SECURITY rows 67-75, 79, 80, 94).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, opcode};
use curfew_tests::{Gateway, Settings, eventually};
use serde_json::json;

/// Malformed frames, with the code of the close that follows each. The code is the same before and
/// after authentication.
fn bad_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let ping = || OutFrame::text(r#"{"type":"ping"}"#);
    let mut cases = vec![
        ("unmasked text", ping().unmasked().to_bytes(), 1002),
        (
            "unmasked ping",
            OutFrame::new(opcode::PING, "").unmasked().to_bytes(),
            1002,
        ),
        (
            "unmasked close",
            OutFrame::close(1000, b"").unmasked().to_bytes(),
            1002,
        ),
        ("RSV1", ping().rsv(4).to_bytes(), 1002),
        ("RSV2", ping().rsv(2).to_bytes(), 1002),
        ("RSV3", ping().rsv(1).to_bytes(), 1002),
        (
            "RSV1 on a ping",
            OutFrame::new(opcode::PING, "").rsv(4).to_bytes(),
            1002,
        ),
        (
            "length 2^63",
            OutFrame::text("").declaring(1 << 63).to_bytes(),
            1002,
        ),
        (
            "length 2^64-1",
            OutFrame::text("").declaring(u64::MAX).to_bytes(),
            1002,
        ),
        (
            "length 4 GiB",
            OutFrame::text("{").declaring(1 << 32).to_bytes(),
            1009,
        ),
        (
            "length 2^63-1",
            OutFrame::text("{").declaring((1 << 63) - 1).to_bytes(),
            1009,
        ),
        (
            "two bytes of length for 15",
            ping().in_two_bytes().to_bytes(),
            1002,
        ),
        (
            "eight bytes of length for 15",
            ping().in_eight_bytes().to_bytes(),
            1002,
        ),
        (
            "eight bytes of length for 200",
            OutFrame::text(&" ".repeat(200)).in_eight_bytes().to_bytes(),
            1002,
        ),
        (
            "a ping of 126 bytes",
            OutFrame::new(opcode::PING, [0; 126]).to_bytes(),
            1002,
        ),
        (
            "a fragmented ping",
            OutFrame::new(opcode::PING, "").fin(false).to_bytes(),
            1002,
        ),
        (
            "a fragmented close",
            OutFrame::close(1000, b"").fin(false).to_bytes(),
            1002,
        ),
        (
            "a continuation of nothing",
            OutFrame::new(opcode::CONTINUATION, "x").to_bytes(),
            1002,
        ),
        (
            "a text inside a fragmented one",
            [ping().fin(false).to_bytes(), ping().to_bytes()].concat(),
            1002,
        ),
        ("close code 0", OutFrame::close(0, b"").to_bytes(), 1002),
        ("close code 999", OutFrame::close(999, b"").to_bytes(), 1002),
        (
            "close code 1004",
            OutFrame::close(1004, b"").to_bytes(),
            1002,
        ),
        (
            "close code 1005",
            OutFrame::close(1005, b"").to_bytes(),
            1002,
        ),
        (
            "close code 1006",
            OutFrame::close(1006, b"").to_bytes(),
            1002,
        ),
        (
            "close code 1015",
            OutFrame::close(1015, b"").to_bytes(),
            1002,
        ),
        (
            "close code 2999",
            OutFrame::close(2999, b"").to_bytes(),
            1002,
        ),
        (
            "close code 5000",
            OutFrame::close(5000, b"").to_bytes(),
            1002,
        ),
        (
            "a close of one byte",
            OutFrame::new(opcode::CLOSE, [3]).to_bytes(),
            1002,
        ),
        (
            "a close reason not UTF-8",
            OutFrame::close(1000, b"\xff").to_bytes(),
            1007,
        ),
    ];
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((
            "a reserved opcode",
            OutFrame::new(reserved, "").to_bytes(),
            1002,
        ));
    }
    cases
}

#[tokio::test]
async fn bad_frames_are_closed_with_the_rfcs_code_and_harm_nobody() {
    let gateway = Gateway::start_default().await;
    let mut witness = gateway.subscriber("bob", "room:1").await;
    let before = gateway.rss_kib();
    for (what, bytes, code) in bad_frames() {
        let mut client = gateway.user("alice").await;
        client.send_bytes(&bytes).await;
        assert_eq!(client.closed().await.0, code, "{what}");
        let mut stranger = gateway.ws().open().await;
        stranger.send_bytes(&bytes).await;
        assert_eq!(stranger.closed().await.0, code, "{what}, unauthenticated");
        // The same frame is sent in the bytes that follow the upgrade request.
        let token = Key::default_secret().user("alice");
        let mut early = gateway
            .ws()
            .bearer(&token)
            .behind_bytes(&bytes)
            .open()
            .await;
        assert_eq!(early.closed().await.0, code, "{what}, behind the request");
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB");
    assert!(witness.barrier().await.is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn a_good_frame_in_the_same_segment_as_a_bad_one_is_still_acted_on() {
    let gateway = Gateway::start_default().await;
    let mut witness = gateway.subscriber("bob", "room:1").await;
    let mut client = gateway.user("alice").await;
    client
        .send_frames(&[
            OutFrame::text(r#"{"type":"publish","channel":"room:1","data":1}"#),
            OutFrame::new(3, ""),
            OutFrame::text(r#"{"type":"publish","channel":"room:1","data":2}"#),
        ])
        .await;
    assert_eq!(client.closed().await.0, 1002);
    witness
        .expect_json(json!({"type":"message","data":1}))
        .await;
    assert!(witness.barrier().await.is_empty());
}

#[tokio::test]
async fn declared_bytes_are_not_allocated() {
    let gateway = Gateway::start_with(
        &Settings::default()
            .with("limits.message_bytes = 67108864")
            .with("limits.outbound_bytes = 67108864"),
    )
    .await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.user("alice").await);
    }
    let before = gateway.rss_kib();
    for client in &mut clients {
        client
            .send_frame(OutFrame::text("{").declaring(60 * 1024 * 1024))
            .await;
    }
    // This connection is opened after the frames were sent. Once the node serves the connection,
    // the node has read the frames.
    let mut after = gateway.user("bob").await;
    assert!(after.barrier().await.is_empty());
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte_and_between_fragments_come_pings() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    for byte in OutFrame::text(r#"{"type":"ping","id":1}"#).to_bytes() {
        client.send_bytes(&[byte]).await;
    }
    client.expect_json(json!({"type":"pong","id":1})).await;
    let text = br#"{"type":"ping","id":2}"#;
    client
        .send_frames(&[
            OutFrame::new(opcode::TEXT, &text[..5]).fin(false),
            OutFrame::new(opcode::PING, "between"),
            OutFrame::new(opcode::CONTINUATION, &text[5..]),
        ])
        .await;
    let pong = client.next_frame().await;
    assert_eq!((pong.opcode, pong.text()), (opcode::PONG, "between"));
    client.expect_json(json!({"type":"pong","id":2})).await;
    // The node accepts a pong that answers no ping.
    client
        .send_frame(OutFrame::new(opcode::PONG, "unasked"))
        .await;
    assert!(client.barrier().await.is_empty());
}

#[tokio::test]
async fn a_message_that_never_ends_is_closed_with_1008() {
    let settings = Settings::default().with(r#"limits.message_timeout = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let began = Instant::now();
    let (mut fragments, mut partial, mut good) = (
        gateway.user("alice").await,
        gateway.user("alice").await,
        gateway.user("bob").await,
    );
    fragments.send_frame(OutFrame::text("{").fin(false)).await;
    partial
        .send_frame(OutFrame::text("{\"type\"").declaring(4000))
        .await;
    // Further fragments do not extend the deadline.
    let dripping = async {
        while began.elapsed() < Duration::from_secs(5) {
            let more = OutFrame::new(opcode::CONTINUATION, " ")
                .fin(false)
                .to_bytes();
            if fragments.try_send_bytes(&more).await.is_err() {
                break;
            }
            match fragments.incoming(Duration::from_millis(200)).await {
                curfew_testkit::Incoming::Silence => {}
                curfew_testkit::Incoming::Frame(frame) if frame.opcode == opcode::CLOSE => {
                    return frame.close().0;
                }
                curfew_testkit::Incoming::Frame(_) => {}
                _ => break,
            }
        }
        0
    };
    let (fragments, (partial, _)) = tokio::join!(dripping, partial.closed());
    assert_eq!((fragments, partial), (1008, 1008));
    assert!(began.elapsed() >= Duration::from_millis(900));
    assert!(good.barrier().await.is_empty());
}

#[tokio::test]
async fn a_flood_of_control_frames_is_closed_with_1008() {
    let gateway = Gateway::start_default().await;
    let mut witness = gateway.user("bob").await;
    for opcode in [opcode::PING, opcode::PONG] {
        for authenticated in [true, false] {
            let mut client = if authenticated {
                gateway.user("alice").await
            } else {
                gateway.ws().open().await
            };
            let flood: Vec<OutFrame> = (0..1000).map(|_| OutFrame::new(opcode, "")).collect();
            client.send_frames(&flood).await;
            assert_eq!(client.closed().await.0, 1008, "{opcode} {authenticated}");
        }
    }
    // The burst that the limit allows does not end the connection.
    let mut client = gateway.user("alice").await;
    let burst: Vec<OutFrame> = (0..15).map(|_| OutFrame::new(opcode::PING, "")).collect();
    client.send_frames(&burst).await;
    assert!(client.barrier().await.is_empty());
    assert!(witness.barrier().await.is_empty());
}

#[tokio::test]
async fn a_clients_close_is_answered_and_the_connection_ends() {
    let gateway = Gateway::start_default().await;
    for (frame, code) in [
        (OutFrame::close(1000, b""), 1000),
        (OutFrame::close(1001, b"going away"), 1001),
        (OutFrame::close(3000, b""), 3000),
        (OutFrame::close(4999, b""), 4999),
        (OutFrame::new(opcode::CLOSE, ""), 1005),
    ] {
        let mut client = gateway.user("alice").await;
        client.send_frame(frame).await;
        let answer = client.next_message().await;
        assert_eq!(answer.opcode, opcode::CLOSE);
        let answered = answer.close().0;
        assert!(
            answered == code || answered == 1000,
            "the close {code} was answered by {answered}"
        );
        assert!(client.ended_within(Duration::from_secs(5)).await);
    }
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_close_is_cut() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    client.send_text("hello").await;
    while client.next_frame().await.opcode != opcode::CLOSE {}
    assert!(client.ended_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn however_a_connection_ends_nothing_of_it_is_kept() {
    let gateway = Gateway::start_default().await;
    // The first connections fill caches, which must not count as a leak.
    for _ in 0..5 {
        gateway.user("alice").await.reset();
    }
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    let before = settled_fds(&gateway).await;
    let mut kept = Vec::new();
    for round in 0..40 {
        let mut client = gateway.subscriber("alice", "room:1").await;
        match round % 5 {
            0 => client.reset(),
            1 => drop(client),
            2 => {
                client.send_bytes(&[0x81, 0x85, 1, 2]).await;
                client.reset();
            }
            3 => {
                // The client has closed its sending half. The node could still send, but the client
                // will never answer.
                client.half_close().await;
                kept.push(client);
            }
            _ => {
                client.send_bytes(&[0x81]).await;
                drop(client);
            }
        }
    }
    for client in &mut kept {
        assert!(client.ended_within(Duration::from_secs(5)).await);
    }
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    gateway
        .until_metric("curfew_subscriptions", |n| n == 0.0)
        .await;
    gateway.until_metric("curfew_channels", |n| n == 0.0).await;
    eventually("all file descriptors back", async || {
        (settled_fds(&gateway).await <= before).then_some(())
    })
    .await;
    let sessions = gateway.admin_ok("GET", "/v1/sessions", None).await;
    assert_eq!(sessions["sessions"], json!([]));
}

/// The number of open file descriptors, once the admin connections of this test are closed.
async fn settled_fds(gateway: &Gateway) -> usize {
    let mut last = gateway.open_fds();
    eventually("a settled number of descriptors", async || {
        let now = gateway.open_fds();
        let same = now == last;
        last = now;
        same.then_some(now)
    })
    .await
}

/// The `closing` message names the rule that a client broke, in words and not only by a code.
#[tokio::test]
async fn the_announcement_of_a_close_names_the_rule_or_the_bound() {
    let settings = Settings::default()
        .with("limits.control_frames_per_second = 1")
        .with("limits.fragments = 2");
    let gateway = Gateway::start_with(&settings).await;
    let ping = || OutFrame::text(r#"{"type":"ping"}"#);
    let empty_ping = || OutFrame::new(opcode::PING, "").to_bytes();
    for (sent, code, words) in [
        (ping().unmasked().to_bytes(), 1002, "masked (RFC 6455"),
        (ping().rsv(4).to_bytes(), 1002, "reserved bits"),
        (ping().in_two_bytes().to_bytes(), 1002, "shortest form"),
        (
            OutFrame::close(1005, b"").to_bytes(),
            1002,
            "close frame has a code",
        ),
        (
            OutFrame::text("{").declaring(1 << 32).to_bytes(),
            1009,
            "limits.message_bytes",
        ),
        (
            empty_ping().repeat(10),
            1008,
            "limits.control_frames_per_second",
        ),
        (OutFrame::text("hello").to_bytes(), 4400, "not JSON"),
        (
            OutFrame::text("{}").to_bytes().repeat(10),
            4400,
            "limits.bad_frames",
        ),
    ] {
        let mut client = gateway.user("alice").await;
        client.send_bytes(&sent).await;
        let closing = client.until_json(json!({"type":"closing"})).await;
        assert_eq!(closing["code"], code, "{words}: {closing}");
        let message = closing["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{words}: {closing}");
    }
}
