//! Publications in flight together, and the requests behind them.

use super::peer::{CLOSE, TEXT, frame};
use super::rig::{Call, unavailable};
use super::*;

fn publish(id: usize) -> String {
    json!({"type": "publish", "id": id, "channel": "room", "data": id}).to_string()
}

/// The next `count` text messages: a reply as `type id`, and a publication as `message data`.
async fn told(peer: &mut Peer, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        let text = peer.text().await;
        let kind = text["type"].as_str().unwrap();
        told.push(format!(
            "{kind} {}",
            text.get("id").unwrap_or(&text["data"])
        ));
    }
    told
}

/// A session that has read `commands` and whose publications wait for the broker.
async fn held(harness: &Harness, commands: &[&str]) -> Peer {
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Publish);
    peer.send_all(commands).await;
    peer.silence(1).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn those_read_together_are_under_way_together_and_answered_in_order() {
    let harness = Harness::new();
    let mut listener = harness.subscribed().await;
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Publish);
    peer.send_all(&[
        &publish(1),
        // This publication is not handed to the broker. The answer to this publication waits for
        // the answers to earlier commands.
        r#"{"type":"publish","id":2,"channel":"no channel","data":0}"#,
        &publish(3),
        // These requests wait until the publications are answered.
        r#"{"type":"ping","id":4}"#,
        &publish(5),
        r#"{"type":"subscribe","id":6,"channel":"room"}"#,
    ])
    .await;
    peer.send(r#"{"type":"ping","id":7}"#).await;
    peer.silence(5).await;
    assert_eq!(harness.rig.asked(Call::Publish, "room"), 2);
    harness.rig.release(Call::Publish);
    assert_eq!(
        told(&mut peer, 7).await,
        [
            "ok 1", "error 2", "ok 3", "pong 4", "ok 5", "ok 6", "pong 7"
        ]
    );
    assert_eq!(
        told(&mut listener, 3).await,
        ["message 1", "message 3", "message 5"]
    );
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_and_the_rest_follow() {
    let harness = Harness::new();
    let mut listener = harness.subscribed().await;
    let publications: Vec<String> = (0..150).map(publish).collect();
    let publications: Vec<&str> = publications.iter().map(String::as_str).collect();
    let mut peer = held(&harness, &publications).await;
    assert_eq!(harness.rig.asked(Call::Publish, "room"), 65);
    harness.rig.release(Call::Publish);
    let expect = |kind: &str| -> Vec<String> { (0..150).map(|n| format!("{kind} {n}")).collect() };
    assert_eq!(told(&mut peer, 150).await, expect("ok"));
    assert_eq!(told(&mut listener, 150).await, expect("message"));
}

#[tokio::test(start_paused = true)]
async fn each_is_told_of_its_own_failure() {
    let harness = Harness::new();
    harness.rig.fail(Call::Publish, unavailable);
    let mut peer = held(&harness, &[&publish(1), &publish(2)]).await;
    harness.rig.release(Call::Publish);
    for id in [1, 2] {
        let error = peer.expect("error").await;
        assert_eq!(
            (&error["id"], &error["code"]),
            (&json!(id), &"unavailable".into())
        );
    }
    harness.rig.heal(Call::Publish);
    peer.ok(&publish(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_or_the_end_behind_them_loses_none() {
    let garbage = frame(TEXT, b"no JSON");
    let close = frame(CLOSE, &1000_u16.to_be_bytes());
    for (behind, code) in [(close, Some(1000)), (garbage, Some(4400)), (vec![], None)] {
        let harness = Harness::new();
        let mut listener = harness.subscribed().await;
        let mut peer = harness.open().await;
        harness.rig.hold(Call::Publish);
        let publications = [1, 2, 3].map(|n| frame(TEXT, publish(n).as_bytes()));
        peer.send_bytes(&[publications.concat(), behind].concat())
            .await;
        peer.silence(1).await;
        match code {
            None => drop(peer),
            Some(code) => {
                harness.rig.release(Call::Publish);
                let closed = peer.closed().await;
                assert_eq!(closed.types()[..3], ["ok"; 3]);
                assert_eq!(closed.code, code);
            }
        }
        harness.rig.release(Call::Publish);
        assert_eq!(
            told(&mut listener, 3).await,
            ["message 1", "message 2", "message 3"]
        );
        drop(listener);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_does_not_wait_for_them() {
    let harness = Harness::new();
    let commands = [&publish(1), &publish(2), r#"{"type":"ping","id":3}"#];
    let mut peer = held(&harness, &commands).await;
    harness
        .rig
        .revoke(curfew_model::RevocationKey::user("alice"));
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["closing"]);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_them_waits_while_the_session_is_suspended() {
    let harness = Harness::new();
    let commands = [&publish(1), r#"{"type":"ping","id":2}"#, &publish(3)];
    let mut peer = held(&harness, &commands).await;
    let alice = curfew_model::RevocationKey::user("alice");
    let suspension = harness.hub().suspend(&alice);
    harness.rig.release(Call::Publish);
    peer.silence(1).await;
    assert_eq!(harness.rig.asked(Call::Publish, "room"), 1);
    drop(suspension);
    assert_eq!(told(&mut peer, 3).await, ["ok 1", "pong 2", "ok 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_begun_behind_them_has_its_time_from_when_it_is_read_on() {
    let harness =
        Harness::with(|settings| settings.limits.message_timeout = Duration::from_secs(2));
    let mut peer = harness.open().await;
    harness.rig.hold(Call::Publish);
    let ping = frame(TEXT, br#"{"type":"ping","id":2}"#);
    let (begun, rest) = ping.split_at(10);
    peer.send_bytes(&[&frame(TEXT, publish(1).as_bytes()), begun].concat())
        .await;
    peer.silence(5).await;
    harness.rig.release(Call::Publish);
    assert_eq!(told(&mut peer, 1).await, ["ok 1"]);
    peer.send_bytes(rest).await;
    assert_eq!(told(&mut peer, 1).await, ["pong 2"]);
}

#[tokio::test(start_paused = true)]
async fn much_at_once_is_published_in_turns_that_listeners_keep_up_with() {
    let harness = Harness::new();
    let mut listener = harness.open_with(json!({}), 4 * 1024 * 1024).await;
    listener.ok(SUBSCRIBE).await;
    let padding = "x".repeat(50_000);
    let large = (0..60).flat_map(|n| {
        let data = json!({"n": n, "padding": padding});
        let publish = json!({"type": "publish", "channel": "room", "data": data});
        frame(TEXT, publish.to_string().as_bytes())
    });
    let large: Vec<u8> = large.collect();
    let mut peer = harness.open_with(json!({}), large.len()).await;
    peer.send_bytes(&large).await;
    for n in 0..60 {
        assert_eq!(listener.expect("message").await["data"]["n"], n);
    }
    assert_eq!(harness.closed_with(Disconnect::SLOW_CONSUMER), 0);
}
