use tokio::time::Instant;

use super::peer::{PING, TEXT, fragment, frame};
use super::rig::Call;
use super::*;

fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

#[track_caller]
fn assert_about(seconds: f64, expect: f64) {
    assert!(
        (seconds - expect).abs() < 0.1,
        "the event came after {seconds} s instead of {expect} s"
    );
}

#[tokio::test(start_paused = true)]
async fn without_any_traffic_a_session_is_told_that_it_expires_and_then_ends() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    let start = Instant::now();
    let expiring = peer.expect("expiring").await;
    assert_about(seconds_since(start), 540.0);
    assert_eq!(expiring["expires_at"], rig::START + TTL);
    let closed = peer.expect_closed(Disconnect::EXPIRED).await;
    assert_eq!(closed.types(), ["closing"], "`expiring` is sent only once");
    // The session ends at `exp` plus the leeway.
    assert_about(seconds_since(start), 605.0);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_soon_is_told_at_once_and_with_no_notice_never() {
    let harness = Harness::new();
    let mut peer = harness
        .open_with(json!({"exp": rig::START + 30}), ROOM)
        .await;
    let start = Instant::now();
    peer.expect("expiring").await;
    assert_about(seconds_since(start), 0.0);
    peer.expect_closed(Disconnect::EXPIRED).await;

    let harness = Harness::with(|settings| settings.session.expiring_notice = Duration::ZERO);
    let mut peer = harness.open().await;
    assert_eq!(
        peer.expect_closed(Disconnect::EXPIRED).await.types(),
        ["closing"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_forward_ends_a_session_within_a_minute_or_at_its_next_message() {
    let harness = Harness::new();
    let [mut idle, mut busy] = [harness.open().await, harness.open().await];
    let start = Instant::now();
    *harness.clock.ahead.lock() += Duration::from_secs(TTL + 10);
    busy.send(r#"{"type":"ping","id":1}"#).await;
    assert_eq!(
        busy.expect_closed(Disconnect::EXPIRED).await.types(),
        ["closing"]
    );
    assert_about(seconds_since(start), 0.0);
    idle.expect_closed(Disconnect::EXPIRED).await;
    assert!(seconds_since(start) <= 60.0);
}

#[tokio::test(start_paused = true)]
async fn nothing_published_after_the_expiry_is_delivered_even_before_the_timer() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    peer.ok(SUBSCRIBE).await;
    *harness.clock.ahead.lock() += Duration::from_secs(TTL + 10);
    harness.publish("room", "1");
    assert_eq!(
        peer.expect_closed(Disconnect::EXPIRED).await.types(),
        ["closing"]
    );
}

/// Time by which tests set the wall clock back. It is longer than any token's lifetime in these
/// tests, so that a session which ended only by the wall clock would stay open for hours.
const BACK: Duration = Duration::from_secs(3 * 3600);

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_gives_a_session_no_more_time() {
    for corrected in [false, true] {
        let harness = Harness::new();
        let mut peer = harness.open().await;
        let start = Instant::now();
        peer.silence(60).await;
        *harness.clock.behind.lock() = BACK;
        peer.ok(SUBSCRIBE).await;
        if corrected {
            peer.silence(60).await;
            *harness.clock.behind.lock() = Duration::ZERO;
        }
        let expiring = peer.expect("expiring").await;
        assert_eq!(expiring["expires_at"], rig::START + TTL);
        peer.expect_closed(Disconnect::EXPIRED).await;
        assert_about(seconds_since(start), 605.0);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_ahead_for_a_moment_ends_a_session_neither_early_nor_late() {
    let harness = Harness::new();
    let attachment = harness.admit(json!({})).await;
    let start = Instant::now();
    // The wall clock is ahead while the timer is set.
    *harness.clock.ahead.lock() = Duration::from_secs(TTL - 100);
    let mut peer = harness.connect(Opening::Admitted(attachment), ROOM, &[]);
    peer.expect("connected").await;
    *harness.clock.ahead.lock() = Duration::ZERO;
    peer.expect_closed(Disconnect::EXPIRED).await;
    assert_about(seconds_since(start), 605.0);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_nothing_is_delivered_or_accepted_though_the_wall_clock_was_set_back() {
    for what in ["message", "command"] {
        let harness = Harness::new();
        let mut peer = harness.open().await;
        peer.ok(SUBSCRIBE).await;
        // The machine was suspended: the timer has not advanced.
        *harness.clock.behind.lock() = BACK;
        *harness.clock.suspended.lock() = Duration::from_secs(TTL + 10);
        match what {
            "message" => harness.publish("room", "1"),
            _ => peer.send(r#"{"type":"ping","id":1}"#).await,
        }
        let closed = peer.expect_closed(Disconnect::EXPIRED).await;
        assert_eq!(closed.types(), ["closing"], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_after_the_wall_clock_was_set_back_gives_the_new_token_its_own_time() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    *harness.clock.behind.lock() = Duration::from_secs(100);
    let start = Instant::now();
    // The end of the new token is computed from the wall clock as it is now.
    let token = harness.token(json!({"jti": "t2", "exp": rig::START + TTL + 50}));
    peer.send(&json!({"type": "refresh", "id": 1, "token": token}).to_string())
        .await;
    peer.expect("refreshed").await;
    peer.expect_closed(Disconnect::EXPIRED).await;
    assert_about(seconds_since(start), 755.0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_puts_the_end_off_and_is_followed_by_a_notice_of_its_own() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    peer.expect("expiring").await;
    let start = Instant::now();
    let token = harness.token(json!({"jti": "t2"}));
    peer.send(&json!({"type": "refresh", "id": 1, "token": token}).to_string())
        .await;
    let refreshed = peer.expect("refreshed").await;
    assert_eq!(refreshed["expires_at"], rig::START + 540 + TTL);
    peer.expect("expiring").await;
    assert_about(seconds_since(start), 540.0);
    peer.expect_closed(Disconnect::EXPIRED).await;
    assert_about(seconds_since(start), 605.0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_token_is_closed_whatever_else_it_sends() {
    for what in ["nothing", "pings", "half a message"] {
        let harness = Harness::new();
        let mut peer = harness.awaiting();
        let start = Instant::now();
        match what {
            "pings" => {
                for _ in 0..4 {
                    peer.send_bytes(&frame(PING, b"")).await;
                    time::sleep(Duration::from_secs(1)).await;
                }
            }
            "half a message" => peer.send_bytes(&frame(TEXT, b"0123456789")[..10]).await,
            _ => {}
        }
        peer.expect_closed(Disconnect::AUTH_TIMEOUT).await;
        assert_about(seconds_since(start), 5.0);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_in_time_is_not_late_because_the_backend_is_slow() {
    let harness = Harness::new();
    for released in [true, false] {
        harness.rig.hold(Call::Check);
        let mut peer = harness.awaiting();
        let start = Instant::now();
        time::sleep(Duration::from_millis(4_900)).await;
        let token = harness.token(json!({}));
        peer.send(&json!({"type": "auth", "token": token}).to_string())
            .await;
        peer.silence(1).await;
        if released {
            harness.rig.release(Call::Check);
            peer.expect("connected").await;
            peer.silence(20).await;
        } else {
            // A fault of the node is not reported as a fault of the token.
            let closed = peer.expect_closed(Disconnect::UNAVAILABLE).await;
            assert_eq!(closed.types(), ["closing"]);
            assert_about(seconds_since(start), 9.9);
        }
    }
    harness.rig.release(Call::Check);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_closed_and_one_that_does_is_not() {
    let harness = Harness::new();
    let mut alive = harness.open().await;
    alive.silence(300).await;
    let mut dead = harness.open().await;
    dead.answers_pings = false;
    let start = Instant::now();
    assert_eq!(dead.frame().await.unwrap().0, PING);
    let pinged = seconds_since(start);
    assert!(
        (22.5..=27.6).contains(&pinged),
        "the ping came after {pinged} s"
    );
    dead.expect_closed(Disconnect::NO_PONG).await;
    assert_about(seconds_since(start) - pinged, 8.0);
}

#[tokio::test(start_paused = true)]
async fn a_pong_timeout_longer_than_the_ping_interval_runs_out_too() {
    let harness = Harness::with(|settings| {
        settings.session.ping_interval = Duration::from_secs(1);
        settings.session.pong_timeout = Duration::from_secs(5);
    });
    let mut dead = harness.open().await;
    dead.answers_pings = false;
    let start = Instant::now();
    dead.expect_closed(Disconnect::NO_PONG).await;
    assert!(
        (5.8..6.3).contains(&seconds_since(start)),
        "{}",
        seconds_since(start)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_is_not_read_because_the_backend_is_slow_is_not_missed() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Publish);
    peer.send(r#"{"type":"publish","id":1,"channel":"room","data":1}"#)
        .await;
    peer.silence(120).await;
    harness.rig.release(Call::Publish);
    peer.expect("ok").await;
    peer.silence(120).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_closed_when_the_write_timeout_has_passed() {
    let harness = Harness::new();
    let mut stalled = harness.open_with(json!({}), 512).await;
    stalled.ok(SUBSCRIBE).await;
    let mut other = harness.open().await;
    other.ok(SUBSCRIBE).await;
    let start = Instant::now();
    for at in 0..100 {
        harness.publish("room", &at.to_string());
    }
    for at in 0..100 {
        assert_eq!(
            other.expect("message").await["data"],
            at,
            "the other client receives every publication meanwhile"
        );
    }
    assert_about(seconds_since(start), 0.0);
    while harness.connections() > 1 {
        time::sleep(Duration::from_millis(100)).await;
    }
    // The session ends after the write timeout and the second in which the server tries to write
    // the close frame.
    assert!(
        (10.9..11.3).contains(&seconds_since(start)),
        "{}",
        seconds_since(start)
    );
    assert_eq!(harness.closed_with(Disconnect::SLOW_CONSUMER), 1);
    drop((stalled, other));
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_but_reads_stays() {
    let harness = Harness::new();
    let mut slow = harness.open_with(json!({}), 128).await;
    slow.ok(SUBSCRIBE).await;
    for at in 0..100 {
        harness.publish("room", &at.to_string());
    }
    for _ in 0..40 {
        time::sleep(Duration::from_secs(9)).await;
        assert!(slow.read_some(40).await > 0);
    }
    for at in 0..100 {
        assert_eq!(slow.expect("message").await["data"], at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_begun_must_be_complete_in_time() {
    let harness = Harness::new();
    // The first client sends half a frame. The second client sends endless fragments with pings
    // between them.
    let mut half = harness.open().await;
    half.answers_pings = false;
    let start = Instant::now();
    half.send_bytes(&frame(TEXT, b"0123456789")[..10]).await;
    half.expect_closed(Disconnect::POLICY).await;
    assert_about(seconds_since(start), 30.0);

    let mut endless = harness.open().await;
    let start = Instant::now();
    endless.send_bytes(&fragment(TEXT, b"{")).await;
    while seconds_since(start) < 29.0 {
        time::sleep(Duration::from_secs(2)).await;
        endless.send_bytes(&fragment(0, b" ")).await;
        endless.send_bytes(&frame(PING, b"")).await;
    }
    endless.expect_closed(Disconnect::POLICY).await;
    assert_about(seconds_since(start), 30.0);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn messages_in_pieces_are_each_given_the_whole_time() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    let ping = frame(TEXT, br#"{"type":"ping"}"#);
    let (head, tail) = ping.split_at(7);
    // The server would read a pong as the rest of the frame.
    peer.answers_pings = false;
    peer.send_bytes(head).await;
    for _ in 0..8 {
        time::sleep(Duration::from_secs(7)).await;
        peer.send_bytes(&[tail, head].concat()).await;
        peer.expect("pong").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_in_the_middle_of_a_long_frame_is_alive() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    let message = frame(TEXT, br#"{"type":"ping", "id":1}"#);
    time::sleep(Duration::from_secs(10)).await;
    // The message takes 28 seconds. The client cannot answer the ping that arrives in this time.
    for byte in message.chunks(2) {
        time::sleep(Duration::from_secs(2)).await;
        peer.send_bytes(byte).await;
    }
    peer.expect("pong").await;
}

#[tokio::test(start_paused = true)]
async fn more_control_frames_than_allowed_end_the_connection() {
    for authenticated in [true, false] {
        let harness = Harness::new();
        let mut peer = if authenticated {
            harness.open().await
        } else {
            harness.awaiting()
        };
        // The burst is twice the rate of 10.
        let pings: Vec<u8> = (0..20).flat_map(|_| frame(PING, b"x")).collect();
        peer.send_bytes(&pings).await;
        for _ in 0..20 {
            assert_eq!(peer.frame().await.unwrap(), (peer::PONG, b"x".to_vec()));
        }
        peer.send_bytes(&frame(PING, b"x")).await;
        peer.expect_closed(Disconnect::POLICY).await;
        harness.assert_nothing_left().await;
    }
}

/// The value of a metric, found by the start of its line.
fn metric(harness: &Harness, name: &str) -> f64 {
    let text = harness.metrics.registry().encode();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .expect("the metric is not among the node's metrics")
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_timed_from_the_ping_and_one_that_nobody_asked_for_is_not() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    peer.answers_pings = false;
    peer.send_bytes(&frame(peer::PONG, b"")).await;
    peer.ok(SUBSCRIBE).await;
    assert_eq!(metric(&harness, "curfew_ping_rtt_seconds_count"), 0.0);
    while peer.frame().await.unwrap().0 != PING {}
    time::sleep(Duration::from_millis(300)).await;
    for _ in 0..2 {
        peer.send_bytes(&frame(peer::PONG, b"")).await;
    }
    peer.ok(r#"{"type":"unsubscribe","id":2,"channel":"room"}"#)
        .await;
    assert_eq!(metric(&harness, "curfew_ping_rtt_seconds_count"), 1.0);
    assert_about(metric(&harness, "curfew_ping_rtt_seconds_sum"), 0.3);
}

#[tokio::test(start_paused = true)]
async fn a_command_is_timed_with_what_it_waits_for() {
    let harness = Harness::new();
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Subscribe);
    peer.send(SUBSCRIBE).await;
    peer.silence(2).await;
    harness.rig.release(Call::Subscribe);
    peer.expect("ok").await;
    peer.send(r#"{"type":"ping","id":2}"#).await;
    peer.expect("pong").await;
    for (command, seconds) in [("subscribe", 2.0), ("ping", 0.0)] {
        let of = |part: &str| {
            let name = format!("curfew_command_duration_seconds_{part}");
            metric(&harness, &format!("{name}{{command=\"{command}\"}}"))
        };
        assert_eq!(of("count"), 1.0);
        assert_about(of("sum"), seconds);
    }
}
