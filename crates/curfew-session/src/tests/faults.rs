use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::BytesMut;
use curfew_model::{ClientRequest, CommandId, Message, MessageKind, Push, Reply};
use curfew_protocol::{DecodeError, Protocol};

use super::peer::{CLOSE, TEXT, frame};
use super::rig::Call;
use super::*;

const PING: &str = r#"{"type":"ping","id":1}"#;

/// The native protocol with a bug that a client can trigger.
#[derive(Debug)]
struct Fragile(Native);

impl Protocol for Fragile {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn kind(&self) -> MessageKind {
        self.0.kind()
    }

    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        match message {
            Message::Text(text) => assert!(
                !text.contains("panic in decode"),
                "the test makes `decode` panic"
            ),
            Message::Binary(_) => {}
        }
        self.0.decode(message)
    }

    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
        let fatal = id.is_some_and(|id| id.as_json().contains("panic in reply"));
        assert!(!fatal, "the test makes `encode_reply` panic");
        self.0.encode_reply(id, reply, out)
    }

    fn is_of(&self, message: &[u8], channel: &Channel) -> bool {
        self.0.is_of(message, channel)
    }

    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        if let Push::Message { data, .. } = push {
            assert!(
                *data != b"\"panic in push\"",
                "the test makes `encode_push` panic"
            );
        }
        self.0.encode_push(push, out)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_closes_the_session_it_happened_in_and_no_other() {
    let publish = r#"{"type":"publish","id":1,"channel":"room","data":"panic in push"}"#;
    for fatal in [
        r#"{"type":"ping","id":"panic in decode"}"#,
        r#"{"type":"ping","id":"panic in reply"}"#,
        publish,
    ] {
        let harness = Harness::build(|_| {}, vec![Wire::websocket(Fragile(Native))]);
        let mut other = harness.open().await;
        let mut peer = harness.open().await;
        for peer in [&mut other, &mut peer] {
            peer.ok(SUBSCRIBE).await;
        }
        peer.send(fatal).await;
        peer.expect_closed(Disconnect::INTERNAL).await;
        time::sleep(Duration::from_millis(10)).await;
        assert_eq!(harness.connections(), 1, "{fatal}");
        harness.publish("room", "1");
        other.expect("message").await;
        other
            .ok(r#"{"type":"unsubscribe","id":1,"channel":"room"}"#)
            .await;
        drop(other);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clients_close_is_answered_by_its_code_behind_what_was_asked_before() {
    for (payload, expect) in [(&4000_u16.to_be_bytes()[..], 4000), (&[], 1000)] {
        let harness = Harness::new();
        let mut peer = harness.open().await;
        let bytes = [
            frame(TEXT, PING.as_bytes()),
            frame(CLOSE, payload),
            frame(TEXT, PING.as_bytes()),
        ];
        peer.send_bytes(&bytes.concat()).await;
        let closed = peer.closed().await;
        assert_eq!((closed.code, closed.types()), (expect, vec!["pong"]));
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_leaves_nothing_behind_and_what_was_queued_is_counted() {
    let harness = Harness::new();
    let mut peer = harness.open_with(json!({}), 256).await;
    peer.ok(SUBSCRIBE).await;
    for _ in 0..2 {
        for _ in 0..50 {
            harness.publish("room", "1");
        }
        // The pipe accepts the first five messages.
        time::sleep(Duration::from_millis(1)).await;
    }
    drop(peer);
    harness.assert_nothing_left().await;
    let dropped = harness
        .hub()
        .metrics()
        .messages_dropped
        .get(curfew_hub::DropReason::Closed);
    assert_eq!(dropped, 95);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_overflows_ends_the_session_as_a_slow_consumer_and_not_its_neighbours() {
    let harness = Harness::with(|settings| settings.limits.outbound_bytes = 2_000);
    let mut slow = harness.open_with(json!({}), 256).await;
    slow.ok(SUBSCRIBE).await;
    let mut quick = harness.open().await;
    quick.ok(SUBSCRIBE).await;
    for at in 0..100 {
        harness.publish("room", &at.to_string());
        assert_eq!(quick.expect("message").await["data"], at);
    }
    let closed = slow.expect_closed(Disconnect::SLOW_CONSUMER).await;
    assert!(closed.texts.len() < 10, "{closed:?}");
    quick
        .ok(r#"{"type":"unsubscribe","id":1,"channel":"room"}"#)
        .await;
    drop(quick);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_replies_is_bounded_too() {
    let harness = Harness::with(|settings| settings.limits.outbound_bytes = 2_000);
    let mut peer = harness.open_with(json!({}), 256).await;
    peer.send_all(&[PING; 1_000]).await;
    harness.assert_nothing_left().await;
    assert_eq!(harness.closed_with(Disconnect::SLOW_CONSUMER), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_pauses_lets_others_run() {
    let harness = Harness::new();
    let publish = frame(TEXT, br#"{"type":"publish","channel":"room","data":1}"#);
    let count = 5_000;
    let mut peer = harness.open_with(json!({}), count * publish.len()).await;
    let (turns, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    peer.send_bytes(&publish.repeat(count)).await;
    let other = async {
        while !done.load(Ordering::Relaxed) {
            turns.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let busy = async {
        peer.send(PING).await;
        peer.expect("pong").await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(other, busy);
    assert_eq!(harness.rig.asked(Call::Publish, ""), count);
    // The runtime grants a task 128 steps at a time.
    let turns = turns.load(Ordering::Relaxed);
    assert!(
        turns >= count / 128,
        "the other task ran only {turns} times"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_holds_little_memory() {
    let harness = Harness::new();
    let (ours, _theirs) = tokio::io::duplex(1);
    let session = Session::new(
        Arc::clone(&harness.context),
        Upgraded {
            transport: ours.into(),
            answer: Bytes::new(),
            early: Bytes::new(),
        },
        harness.hub().wires().default_id(),
        Opening::Awaiting(by_message()),
        Guards {
            connection: Box::new(()),
            unauthenticated: None,
        },
    );
    let session_bytes = size_of_val(&session);
    let future = crate::run(Box::new(session));
    let future_bytes = size_of_val(&future);
    println!("session: {session_bytes} bytes, the future of its task: {future_bytes} bytes");
    // The sizes were 576 and 160 bytes when this test was written. Every byte added to them is
    // needed again for each session.
    assert!(
        session_bytes + future_bytes <= 800,
        "{session_bytes} + {future_bytes}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_place_of_an_unauthenticated_connection_is_free_once_it_has_authenticated() {
    let harness = Harness::new();
    let mut peer = harness.awaiting();
    assert_eq!(Arc::strong_count(&harness.unauthenticated), 2);
    peer.send(&json!({"type": "auth", "token": harness.token(json!({}))}).to_string())
        .await;
    peer.expect("connected").await;
    assert_eq!(Arc::strong_count(&harness.unauthenticated), 1);
    assert_eq!(harness.connections(), 1);
    drop(peer);
    harness.assert_nothing_left().await;
}
