//! Subscriptions with tokens of their own, and revocations of these tokens.

use curfew_model::{Disconnect, Revocation};

use super::*;
use crate::Ending;
use crate::outbox::Mark;

/// A session of alice that listens to `room` by the token `s1`, and to `hall` by the session's
/// token.
fn subscribed(harness: &Harness) -> Arc<Member> {
    let member = harness.open_as(&principal("alice", "t1", 200, "{}"));
    bind(harness, &member, "s1");
    for name in ["room", "hall"] {
        harness.hub.subscribe(&channel(name), &member);
    }
    member
}

fn bind(harness: &Harness, member: &Arc<Member>, token: &str) -> Arc<Principal> {
    let bound = principal("alice", token, 100, r#"{"tenant":"acme"}"#);
    let keys = harness
        .hub
        .bind(member, &channel("room"), Arc::clone(&bound));
    assert!(keys.contains(&RevocationKey::token(token)));
    bound
}

/// Publishes each pair of channel and data. The message begins with the channel's name and a dot,
/// and the test's protocol recognizes the channel by this beginning.
fn publish(harness: &Harness, messages: &[(&str, &str)]) {
    for (name, data) in messages {
        let data = format!("{name}.{data}");
        assert_eq!(harness.publish(&channel(name), &data).queued, 1);
    }
}

#[test]
fn a_revoked_token_ends_its_subscription_and_lets_go_of_its_frames_alone() {
    for (key, before) in [
        (RevocationKey::token("s1"), None),
        (RevocationKey::claim(CLAIM, "acme"), None),
        // The session's own token was issued after the cutoff, so it remains valid.
        (RevocationKey::user("alice"), Some(150)),
        (RevocationKey::All, Some(150)),
    ] {
        let harness = Harness::new();
        let member = subscribed(&harness);
        publish(
            &harness,
            &[("room", "1"), ("hall", "2"), ("room", "3"), ("hall", "4")],
        );
        let revocation = Revocation {
            before,
            ..Revocation::default()
        };
        let suspension = harness.hub.suspend(&key);
        assert!(suspension.is_some() && harness.drain(&member).is_empty());
        let revoked = harness.hub.revoke(&key, &revocation);
        assert_eq!(
            (revoked.sessions.len(), revoked.subscriptions),
            (0, 1),
            "{key}"
        );
        assert!(harness.hub.leaving(&key, &revocation).is_empty());
        drop(suspension);
        assert_eq!(harness.dropped(DropReason::Revoked), 2);
        assert_eq!(harness.hub.queued_bytes(), 2 * 8);
        assert_eq!(
            member.withdrawn(&channel("room")),
            Some(Disconnect::REVOKED)
        );
        assert_eq!(member.withdrawn(&channel("hall")), None);
        // The session's task must notify the client before it writes any frame.
        let progress = harness.write(&member, &mut Pipe::default());
        assert!(matches!(progress, Progress::Reconsider), "{progress:?}");
        assert_eq!(harness.publish(&channel("room"), "5").queued, 0);
        assert_eq!(payloads(&harness.drain(&member)), ["hall.2", "hall.4"]);
        let again = harness.hub.revoke(&key, &revocation);
        assert_eq!((again.sessions.len(), again.subscriptions), (0, 0));
    }
}

#[test]
fn a_session_that_is_covered_itself_ends_with_its_subscriptions() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    publish(&harness, &[("room", "1"), ("hall", "2")]);
    let key = RevocationKey::user("alice");
    for expect in [1, 0] {
        let revoked = harness.hub.revoke(&key, &Revocation::default());
        assert_eq!((revoked.sessions.len(), revoked.subscriptions), (expect, 0));
    }
    let ending = Ending::new(Disconnect::REVOKED);
    assert_eq!(member.outbox().ending(), Some(ending));
    assert_eq!(harness.dropped(DropReason::Revoked), 2);
}

#[test]
fn a_session_whose_answer_waits_ends_and_comes_back() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    let mark = Mark::Answer(channel("room"));
    let answer = Bytes::from_static(b"\x81\x01a");
    assert!(harness.hub.send_as(&member, answer, Some(mark)));
    let key = RevocationKey::token("s1");
    assert_eq!(
        harness
            .hub
            .revoke(&key, &Revocation::default())
            .subscriptions,
        1
    );
    let ending = Ending::new(Disconnect::INSUFFICIENT_STATE);
    assert_eq!(member.outbox().ending(), Some(ending));
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn a_token_of_the_second_of_a_cutoff_asks_for_a_newer_one() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    let revocation = Revocation {
        before: Some(100),
        ..Revocation::default()
    };
    let revoked = harness
        .hub
        .revoke(&RevocationKey::user("alice"), &revocation);
    assert_eq!(revoked.subscriptions, 1);
    let why = member.withdrawn(&channel("room"));
    assert_eq!(why, Some(Disconnect::REAUTH_REQUIRED));
}

#[test]
fn a_session_amid_a_frame_of_the_subscription_ends_without_its_rest() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    publish(&harness, &[("room", "123456"), ("hall", "2")]);
    let mut socket = Pipe::with_room(3);
    harness.write(&member, &mut socket);
    let key = RevocationKey::token("s1");
    let revoked = harness.hub.revoke(&key, &Revocation::default());
    assert_eq!((revoked.sessions.len(), revoked.subscriptions), (0, 1));
    let ending = Ending::new(Disconnect::INSUFFICIENT_STATE);
    assert_eq!(member.outbox().ending(), Some(ending));
    // The receipt of the revocation waits for this session.
    let leaving = harness.hub.leaving(&key, &Revocation::default());
    assert_eq!(leaving.len(), 1);
    let mut rest = Pipe::default();
    member.write_last(&harness.hub, &At(1_000), &mut rest);
    assert!(rest.taken.is_empty(), "{rest:?}");
    harness.unregister(&member);
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn a_session_amid_another_frame_goes_on_behind_it() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    publish(
        &harness,
        &[("hall", "123456"), ("room", "2"), ("hall", "3")],
    );
    let mut socket = Pipe::with_room(3);
    harness.write(&member, &mut socket);
    let key = RevocationKey::token("s1");
    harness.hub.revoke(&key, &Revocation::default());
    assert_eq!(member.outbox().ending(), None);
    harness.drain(&member);
    let mut rest = Pipe::default();
    harness.write(&member, &mut rest);
    let taken = [socket.taken, rest.taken].concat();
    let whole = Pipe {
        taken,
        ..Pipe::default()
    };
    assert_eq!(payloads(&whole.frames()), ["hall.123456", "hall.3"]);
}

#[test]
fn notices_keep_their_turn_beside_frames_that_are_taken_out() {
    let harness = Harness::new();
    let member = subscribed(&harness);
    publish(&harness, &[("room", "1"), ("hall", "2")]);
    harness.hub.send_notice(&member, Bytes::from_static(b"x"));
    publish(&harness, &[("room", "3"), ("hall", "4")]);
    let suspension = harness.hub.suspend(&RevocationKey::token("s1"));
    let notice = harness.drain(&member);
    assert_eq!(
        notice,
        ["x"],
        "the notice is sent while the other frames wait"
    );
    harness
        .hub
        .revoke(&RevocationKey::token("s1"), &Revocation::default());
    drop(suspension);
    assert!(matches!(
        harness.write(&member, &mut Pipe::default()),
        Progress::Reconsider
    ));
    assert_eq!(payloads(&harness.drain(&member)), ["hall.2", "hall.4"]);
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn a_newer_token_takes_the_place_of_the_older_one() {
    let harness = Harness::new();
    let member = harness.open_as(&principal("alice", "t1", 200, "{}"));
    let before = harness.hub.index.entries();
    let old = bind(&harness, &member, "s1");
    harness.hub.subscribe(&channel("room"), &member);
    let new = bind(&harness, &member, "s2");
    harness.hub.unbind(&member, &channel("room"), &old);
    publish(&harness, &[("room", "1")]);
    let revoke = |token| {
        let key = RevocationKey::token(token);
        harness.hub.revoke(&key, &Revocation::default())
    };
    assert_eq!(revoke("s1").subscriptions, 0);
    assert_eq!(payloads(&harness.drain(&member)), ["room.1"]);
    // Once the token is removed, no revocation would find a waiting frame, so `unbind` drops the
    // frame.
    publish(&harness, &[("room", "2")]);
    harness.hub.unbind(&member, &channel("room"), &new);
    assert_eq!(revoke("s2").subscriptions, 0);
    assert!(harness.drain(&member).is_empty());
    assert_eq!(harness.hub.index.entries(), before);
}

#[test]
fn a_session_that_leaves_takes_the_keys_of_its_subscriptions_along() {
    let harness = Harness::new();
    let member = harness.open("alice");
    let bound = bind(&harness, &member, "s1");
    harness.unregister(&member);
    assert_eq!(harness.hub.index.entries(), 0);
    harness.hub.unbind(&member, &channel("room"), &bound);
    // The token's verification ends after the session has left.
    let keys = harness.hub.bind(&member, &channel("room"), bound);
    assert_eq!((keys.len(), harness.hub.index.entries()), (0, 0));
}
