//! A wall clock that is set back or forward must not let a session outlive its token (CONTRACT §4).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Attempt, Gateway, Settings, eventually};
use serde_json::json;

/// Lifetime of the tokens of these tests, in seconds.
const LIVES: u64 = 4;

/// An hour, in seconds.
const HOUR: i64 = 3600;

/// Longest delay of a session's close on a busy machine.
const LATE: Duration = Duration::from_secs(3);

async fn gateway() -> Gateway {
    let settings = Settings::default().with(r#"auth.leeway = "0s""#);
    Gateway::start_with_own_clock(&settings).await
}

fn token(seconds: u64) -> String {
    Key::default_secret().user_with("alice", json!({"exp":unix_now() + seconds}))
}

/// A session that subscribes to `room:1`, and the latest time at which its token expires.
async fn listener(gateway: &Gateway) -> (WsClient, Instant) {
    let token = token(LIVES);
    let ends = Instant::now() + Duration::from_secs(LIVES);
    let mut client = gateway.session(&token).await;
    client
        .send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
        .await;
    client.until_json(json!({"type":"ok","id":1})).await;
    (client, ends)
}

/// Publishes until the session is closed as expired. Fails if a publication is delivered more than
/// [`LATE`] after `ends`.
async fn until_expired(gateway: &Gateway, client: &mut WsClient, ends: Instant) {
    let mut closed = None;
    while closed.is_none() {
        assert!(
            Instant::now() < ends + LATE,
            "the session is still open {:?} after its token's end",
            ends.elapsed()
        );
        gateway.publish("room:1", json!("late?")).await;
        // All deliveries arrive before the answer to the ping. If the session has ended, the close
        // arrives instead of the answer.
        client.send(json!({"type":"ping"})).await;
        closed = loop {
            let frame = client.next_json().await;
            match frame["type"].as_str() {
                Some("closing") => break Some(frame),
                Some("pong") => break None,
                Some("message") => assert!(
                    Instant::now() < ends + LATE,
                    "a publication is delivered {:?} after the token's end",
                    ends.elapsed()
                ),
                _ => {}
            }
        };
    }
    let closing = closed.expect("the loop ends with the close");
    assert_eq!(closing["code"], 4410, "{closing}");
}

#[tokio::test]
async fn a_wall_clock_set_back_gives_no_session_more_time() {
    for back in [600, HOUR] {
        let gateway = gateway().await;
        let (mut busy, ends) = listener(&gateway).await;
        let (mut idle, _) = listener(&gateway).await;
        gateway.set_clock(-back);
        until_expired(&gateway, &mut busy, ends).await;
        idle.until_json(json!({"type":"closing","code":4410})).await;
        assert!(Instant::now() < ends + LATE + LATE, "{:?}", ends.elapsed());
    }
}

#[tokio::test]
async fn a_wall_clock_set_back_and_right_again_changes_nothing() {
    let gateway = gateway().await;
    let (mut client, ends) = listener(&gateway).await;
    gateway.set_clock(-HOUR);
    client.send(json!({"type":"ping","id":2})).await;
    client.until_json(json!({"type":"pong","id":2})).await;
    gateway.set_clock(0);
    until_expired(&gateway, &mut client, ends).await;
    let short = Duration::from_millis(1100);
    assert!(
        Instant::now() + short > ends,
        "the session is closed {:?} too early",
        ends - Instant::now()
    );
}

#[tokio::test]
async fn a_wall_clock_set_forward_ends_a_session_at_its_next_message() {
    let gateway = gateway().await;
    let mut client = gateway.session(&token(600)).await;
    gateway.set_clock(HOUR);
    client.send(json!({"type":"ping","id":1})).await;
    client
        .until_json(json!({"type":"closing","code":4410,"reason":"expired"}))
        .await;
}

#[tokio::test]
async fn a_token_admitted_while_the_clock_is_behind_has_what_is_left_of_it_by_that_clock() {
    let gateway = gateway().await;
    gateway.set_clock(-10);
    // The token expired 6 s ago by the correct clock, and expires in 4 s by the node's clock.
    let claims = json!({"iat":unix_now() - 60,"exp":unix_now() - 6});
    let over = Key::default_secret().user_with("alice", claims);
    let began = Instant::now();
    let mut client = gateway.session(&over).await;
    gateway.set_clock(-HOUR);
    client
        .until_json(json!({"type":"closing","code":4410}))
        .await;
    let lasted = began.elapsed();
    assert!(lasted < Duration::from_secs(4) + LATE, "{lasted:?}");
    // Once the node's clock is correct, the node refuses the token.
    gateway.set_clock(0);
    let refused = eventually(
        "the node to refuse the expired token",
        async || match Attempt::make(gateway.ws().bearer(&over)).await {
            Attempt::Refused(reason, code) => Some((reason, code)),
            _ => None,
        },
    );
    assert_eq!(refused.await, ("expired".to_owned(), 4401));
}
