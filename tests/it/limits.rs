//! Tests of each single limit (CONTRACT §6 `[limits]`, `[session]`).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, opcode};
use curfew_tests::{ADMIN_KEY, Gateway, Settings, Tape, eventually};
use serde_json::json;

fn publish_of(bytes: usize) -> String {
    let empty = r#"{"type":"publish","id":1,"channel":"a","data":""}"#;
    empty.replace(
        "\"\"}",
        &format!("\"{}\"}}", "x".repeat(bytes - empty.len())),
    )
}

#[tokio::test]
async fn a_message_of_the_largest_size_passes_and_one_byte_more_closes_with_1009() {
    for (settings, bytes) in [
        (Settings::default(), 65_536),
        (
            Settings::default().with("limits.message_bytes = 2000"),
            2000,
        ),
    ] {
        let gateway = Gateway::start_with(&settings).await;
        let mut client = gateway.user("alice").await;
        let whole = publish_of(bytes);
        assert_eq!(whole.len(), bytes);
        client.send_text(&whole).await;
        client.expect_json(json!({"type":"ok","id":1})).await;
        client.send_text(&publish_of(bytes + 1)).await;
        assert_eq!(client.closed().await.0, 1009);
    }
}

#[tokio::test]
async fn fragments_are_summed() {
    let settings = Settings::default().with("limits.fragments = 5000");
    let gateway = Gateway::start_with(&settings).await;
    for (bytes, fits) in [(65_536, true), (65_537, false)] {
        let text = publish_of(bytes).into_bytes();
        let chunks: Vec<&[u8]> = text.chunks(bytes.div_ceil(2000)).collect();
        let last = chunks.len() - 1;
        let frames: Vec<OutFrame> = chunks
            .iter()
            .enumerate()
            .map(|(at, chunk)| {
                let opcode = if at == 0 {
                    opcode::TEXT
                } else {
                    opcode::CONTINUATION
                };
                OutFrame::new(opcode, *chunk).fin(at == last)
            })
            .collect();
        assert!(frames.len() > 1900);
        let mut client = gateway.user("alice").await;
        client.send_frames(&frames).await;
        if fits {
            client.expect_json(json!({"type":"ok","id":1})).await;
        } else {
            assert_eq!(client.closed().await.0, 1009);
        }
    }
}

#[tokio::test]
async fn two_thousand_fragments_are_too_many() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    let mut frames = vec![OutFrame::text("{").fin(false)];
    frames.extend((0..2000).map(|_| OutFrame::new(opcode::CONTINUATION, " ").fin(false)));
    client.send_frames(&frames).await;
    assert_eq!(client.closed().await.0, 1009);
    // A message with as many fragments as allowed passes.
    let mut client = gateway.user("alice").await;
    let ping = br#"{"type":"ping"}"#;
    let mut frames = vec![OutFrame::new(opcode::TEXT, &ping[..1]).fin(false)];
    frames.extend((0..62).map(|_| OutFrame::new(opcode::CONTINUATION, "").fin(false)));
    frames.push(OutFrame::new(opcode::CONTINUATION, &ping[1..]));
    client.send_frames(&frames).await;
    client.expect_json(json!({"type":"pong"})).await;
}

#[tokio::test]
async fn a_session_has_as_many_subscriptions_as_allowed() {
    for (settings, limit) in [
        (Settings::default(), 128),
        (Settings::default().with("limits.subscriptions = 2"), 2),
    ] {
        let gateway = Gateway::start_with(&settings).await;
        let mut client = gateway.user("alice").await;
        for n in 0..limit {
            client
                .send(json!({"type":"subscribe","id":n,"channel":format!("room:{n}")}))
                .await;
            client.expect_json(json!({"type":"ok","id":n})).await;
        }
        client
            .send(json!({"type":"subscribe","id":"over","channel":"one:more"}))
            .await;
        client
            .expect_json(json!({"type":"error","id":"over","code":"limit_exceeded"}))
            .await;
        client
            .send(json!({"type":"unsubscribe","id":"free","channel":"room:0"}))
            .await;
        client.expect_json(json!({"type":"ok","id":"free"})).await;
        client
            .send(json!({"type":"subscribe","id":"again","channel":"one:more"}))
            .await;
        client.expect_json(json!({"type":"ok","id":"again"})).await;
        let mut other = gateway.user("alice").await;
        other
            .send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
            .await;
        other.expect_json(json!({"type":"ok"})).await;
    }
}

#[tokio::test]
async fn commands_over_the_rate_are_answered_and_not_acted_on_then_close_with_4429() {
    let settings = Settings::default().with("limits.messages_per_second = 10");
    let gateway = Gateway::start_with(&settings).await;
    let mut listener = gateway.subscriber("bob", "room:1").await;
    let mut client = gateway.user("alice").await;
    let burst: Vec<OutFrame> = (0..50)
        .map(|n| {
            let command = json!({"type":"publish","id":n,"channel":"room:1","data":n});
            OutFrame::text(&command.to_string())
        })
        .collect();
    client.send_frames(&burst).await;
    let mut passed = Vec::new();
    let mut refused = 0;
    for n in 0..50 {
        let reply = client.next_json().await;
        assert_eq!(reply["id"], n, "{reply}");
        match reply["type"].as_str().unwrap() {
            "ok" => passed.push(n),
            _ => {
                assert_eq!(reply["code"], "rate_limited", "{reply}");
                refused += 1;
            }
        }
    }
    assert!(passed.len() >= 10 && refused >= 20, "{passed:?} {refused}");
    let heard: Vec<_> = listener.barrier().await;
    let heard: Vec<i32> = heard
        .iter()
        .map(|message| i32::try_from(message["data"].as_i64().unwrap()).unwrap())
        .collect();
    assert_eq!(heard, passed);

    // Ten seconds of commands over the rate, without a pause, close the connection. A client that
    // pauses stays connected.
    let mut moderate = gateway.user("carol").await;
    let began = Instant::now();
    let flooding = async {
        let ping = OutFrame::text(r#"{"type":"ping","id":1}"#);
        let flood: Vec<OutFrame> = std::iter::repeat_n(ping, 20).collect();
        loop {
            client.send_frames(&flood).await;
            for _ in 0..20 {
                let reply = client.next_json().await;
                if reply["type"] == "closing" {
                    return reply;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(
                began.elapsed() < Duration::from_secs(25),
                "the connection is not closed in time"
            );
        }
    };
    let closing = flooding.await;
    assert_eq!(closing["code"], 4429, "{closing}");
    assert_eq!(closing["reconnect"], true, "{closing}");
    assert!(
        began.elapsed() >= Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.closed().await, (4429, "rate_limited".to_owned()));
    assert!(moderate.barrier().await.is_empty());
}

#[tokio::test]
async fn a_node_has_as_many_connections_as_allowed() {
    let gateway = Gateway::start_with(&Settings::default().with("limits.connections = 2")).await;
    let one = gateway.user("alice").await;
    let _two = gateway.user("bob").await;
    let token = Key::default_secret().user("carol");
    let refused = gateway.ws().bearer(&token).refused().await;
    assert_eq!(refused.status, 503);
    one.reset();
    eventually("another connection to be accepted", async || {
        gateway.ws().bearer(&token).attempt().await.ok()
    })
    .await;
    // Connections to the admin API do not count.
    gateway.admin_ok("GET", "/v1/nodes", None).await;
}

#[tokio::test]
async fn handshakes_over_the_rate_are_told_when_to_come_back() {
    let settings = Settings::default().with("limits.handshakes_per_second = 5");
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    let mut kept = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        match gateway.ws().bearer(&token).attempt().await {
            Ok(client) => kept.push(client),
            Err(answer) => {
                assert_eq!(answer.status, 503);
                let after = answer.header("retry-after").expect("Retry-After");
                assert!(
                    after.parse::<u32>().is_ok_and(|seconds| seconds >= 1),
                    "{after}"
                );
                refused += 1;
            }
        }
    }
    assert!(kept.len() >= 5 && refused > 0, "{} {refused}", kept.len());
    // The node applies the limit before it verifies the token and asks the backend.
    let verified = gateway.metric("curfew_authentications_total").await;
    assert_eq!(verified, kept.len() as f64);
    eventually("another handshake to be accepted", async || {
        gateway.ws().bearer(&token).attempt().await.ok()
    })
    .await;
    assert_eq!(
        gateway
            .admin_as(Some(ADMIN_KEY), "GET", "/v1/nodes", None)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_user_has_as_many_sessions_as_allowed() {
    let gateway = Gateway::start_with(&Settings::default().with("session.max_per_user = 2")).await;
    let one = gateway.tape("alice", "room:1").await;
    let _two = gateway.tape("alice", "room:1").await;
    gateway.user("bob").await;
    let token = Key::default_secret().user("alice");
    let mut third = gateway.ws().bearer(&token).open().await;
    let closing = third.expect_close(4409, "session_limit").await;
    assert_eq!(closing["reconnect"], true, "{closing}");
    assert!(closing["retry_after_ms"].as_u64() > Some(0), "{closing}");
    one.assert_open("asked").await;
    // The log line is written only once, so that clients that connect repeatedly cannot fill the
    // log.
    for _ in 0..5 {
        let mut again = gateway.ws().bearer(&token).open().await;
        again.expect_close(4409, "session_limit").await;
    }
    let lines = gateway.log().lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("connections closed"));
    assert_eq!(told.count(), 1, "{lines:?}");
    drop(one);
    eventually("another session of the user", async || {
        let mut client = gateway.ws().bearer(&token).open().await;
        (client.next_json().await["type"] == "connected").then_some(client)
    })
    .await;
}

/// A phone that changes networks leaves a session without a client. Such a session must not keep
/// its user out.
#[tokio::test]
async fn a_session_that_gives_no_sign_of_life_makes_room() {
    let gateway = Gateway::start_with(&Settings::default().with("session.max_per_user = 2")).await;
    let lives = gateway.tape("alice", "room:1").await;
    // The client does not read, so it answers no ping.
    let mut ghost = gateway.user("alice").await;
    let newcomer = gateway.tape("alice", "room:1").await;
    ghost.expect_close(4510, "no_pong").await;
    lives.assert_open("it answered").await;
    newcomer.assert_open("it was let in").await;
}

/// Regression: a client that answered the node's probes lost its session, because the answers
/// exceeded the limit on pongs.
#[tokio::test]
async fn whoever_comes_again_and_again_does_not_cost_the_session_that_is_there() {
    let settings = Settings::default()
        .with("session.max_per_user = 1")
        .with("limits.control_frames_per_second = 2");
    let gateway = Gateway::start_with(&settings).await;
    let lives = gateway.tape("alice", "room:1").await;
    let token = Key::default_secret().user("alice");
    for _ in 0..50 {
        let mut client = gateway.ws().bearer(&token).open().await;
        client.expect_close(4409, "session_limit").await;
    }
    lives.assert_open("it answered").await;
}

/// A newer session replaces the oldest session. The replaced client must not reconnect by itself.
/// Otherwise two tabs would replace each other for ever.
#[tokio::test]
async fn a_newer_session_replaces_the_oldest_where_that_is_wanted() {
    let settings = Settings::default()
        .with("session.max_per_user = 2")
        .with(r#"session.over_limit = "close_oldest""#);
    let gateway = Gateway::start_with(&settings).await;
    let oldest = gateway.tape("alice", "room:1").await;
    let second = gateway.tape("alice", "room:1").await;
    let third = gateway.tape("alice", "room:1").await;
    oldest.closed_with(4407, "replaced").await;
    let closing = oldest.until(json!({"type":"closing"})).await.frame;
    assert_eq!(closing["reconnect"], false, "{closing}");
    second.assert_open("it stays").await;
    third.assert_open("it was let in").await;
    assert_eq!(gateway.sessions().await.len(), 2);
}

#[tokio::test]
async fn of_many_who_come_at_once_only_the_allowed_number_stays() {
    let gateway = Gateway::start_with(&Settings::default().with("session.max_per_user = 3")).await;
    let token = Key::default_secret().user("alice");
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let connect = gateway.ws().bearer(&token);
        opening.spawn(async move {
            let mut client = connect.open().await;
            let first = client.next_json().await;
            (first["type"] == "connected").then(|| Tape::of(client))
        });
    }
    let stayed: Vec<Tape> = opening.join_all().await.into_iter().flatten().collect();
    assert_eq!(stayed.len(), 3);
    for tape in &stayed {
        tape.assert_open("it stays").await;
    }
}
