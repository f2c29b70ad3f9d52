use curfew_model::{Disconnect, Revocation};

use super::*;
use crate::Ending;

fn everyone() -> Revocation {
    Revocation::default()
}

fn until(before: u64) -> Revocation {
    Revocation {
        before: Some(before),
        ..Revocation::default()
    }
}

fn is_revoked(member: &Member) -> bool {
    member.outbox().ending() == Some(Ending::new(Disconnect::REVOKED))
}

#[test]
fn a_key_of_each_kind_ends_the_sessions_it_names_and_no_others() {
    let alice = RevocationKey::user("alice");
    for (what, key, expect) in [
        ("user", Some(alice), [true, true, false]),
        (
            "token",
            Some(RevocationKey::token("t2")),
            [false, true, false],
        ),
        (
            "claim",
            Some(RevocationKey::claim(CLAIM, "acme")),
            [true, false, true],
        ),
        ("all", Some(RevocationKey::All), [true, true, true]),
        ("session", None, [false, false, true]),
        (
            "nobody",
            Some(RevocationKey::user("carol")),
            [false, false, false],
        ),
    ] {
        let harness = Harness::new();
        let members = [
            ("alice", "t1", r#"{"tenant":"acme"}"#),
            ("alice", "t2", r#"{"tenant":["other"]}"#),
            ("bob", "t3", r#"{"tenant":["other2","acme"]}"#),
        ]
        .map(|(user, token, claims)| harness.open_as(&principal(user, token, 100, claims)));
        let key = key.unwrap_or_else(|| RevocationKey::session(members[2].session()));
        let closed = harness.hub.revoke(&key, &everyone()).sessions.len();
        assert_eq!(
            members.each_ref().map(|member| is_revoked(member)),
            expect,
            "{what}"
        );
        assert_eq!(closed, expect.iter().filter(|hit| **hit).count(), "{what}");
        assert_eq!(
            harness.hub.revoke(&key, &everyone()).sessions.len(),
            0,
            "{what}: a second revocation ends no session"
        );
    }
}

#[test]
fn a_cutoff_spares_newer_tokens() {
    let harness = Harness::new();
    let [old, new] = [100, 101].map(|iat| harness.open_as(&principal("alice", "t", iat, "{}")));
    assert_eq!(
        harness
            .hub
            .revoke(&RevocationKey::user("alice"), &until(100))
            .sessions
            .len(),
        1
    );
    // Whole seconds do not tell whether the token or the revocation came first.
    assert_eq!(
        old.outbox().ending(),
        Some(Ending::new(Disconnect::REAUTH_REQUIRED))
    );
    assert_eq!(new.outbox().ending(), None);
    let user = RevocationKey::user("alice");
    assert_eq!(
        harness.hub.revoke(&user, &until(100)).sessions.len(),
        0,
        "a second revocation ends no session"
    );
    // A revocation that certainly covers the token replaces the earlier reason.
    assert_eq!(harness.hub.revoke(&user, &until(101)).sessions.len(), 2);
    assert!(is_revoked(&old) && !is_revoked(&new));
}

#[test]
fn a_revocation_lets_go_of_the_queue_and_nothing_is_delivered_afterwards() {
    let harness = Harness::new();
    let room = channel("room");
    let member = harness.open("alice");
    harness.hub.subscribe(&room, &member);
    for _ in 0..3 {
        assert_eq!(harness.publish(&room, "before").queued, 1);
    }
    assert_eq!(
        harness
            .hub
            .revoke(&RevocationKey::user("alice"), &everyone())
            .sessions
            .len(),
        1
    );
    assert_eq!(harness.dropped(DropReason::Revoked), 3);
    assert_eq!(harness.hub.queued_bytes(), 0);
    assert_eq!(
        harness.publish(&room, "after"),
        crate::Delivered {
            queued: 0,
            dropped: 1
        }
    );
    assert!(harness.drain(&member).is_empty());
}

#[test]
fn a_session_that_is_not_open_yet_is_found_and_stays_closed() {
    let harness = Harness::new();
    let member = harness.register(&principal("alice", "t", 100, "{}"), "one");
    let _open = harness.open("alice");
    let revoked = harness
        .hub
        .revoke(&RevocationKey::user("alice"), &everyone());
    assert_eq!((revoked.sessions.len(), revoked.unopened), (2, 1));
    assert!(!member.outbox().open(Lanes::default()));
}

#[test]
fn many_sessions_of_one_user_come_and_go_in_any_order() {
    let harness = Harness::new();
    let mut members: Vec<_> = (0..10).map(|_| harness.open("alice")).collect();
    for at in [3, 0, 7, 2] {
        harness.unregister(&members.remove(at));
    }
    assert_eq!(
        harness
            .hub
            .revoke(&RevocationKey::user("alice"), &everyone())
            .sessions
            .len(),
        6
    );
    while let Some(member) = members.pop() {
        harness.unregister(&member);
        assert_eq!(
            Arc::strong_count(&member),
            1,
            "the hub has released the member"
        );
    }
    assert_eq!(harness.hub.count(), 0);
}

#[test]
fn a_session_found_by_the_hash_of_another_key_is_not_ended() {
    let harness = Harness::new();
    // The index returns this session for another user's key if the hashes of the two keys collide.
    let member = harness.register(&principal("alice", "t", 100, "{}"), "one");
    for key in [
        RevocationKey::user("mallory"),
        RevocationKey::claim("tenant", "acme"),
    ] {
        harness.hub.index.add(&key, &member);
        assert_eq!(
            harness.hub.revoke(&key, &everyone()).sessions.len(),
            0,
            "{key}"
        );
    }
    assert_eq!(member.outbox().ending(), None);
}

#[test]
fn during_a_refresh_both_tokens_name_the_session_and_afterwards_one() {
    let [old, new] = [("t1", 100), ("t2", 200)];
    // Each row states the outcome of the refresh, and if the old and the new token then name the
    // session.
    for (end, expect) in [
        ("pending", [true, true]),
        ("finish", [false, true]),
        ("abandon", [true, false]),
    ] {
        for (at, token) in ["t1", "t2"].into_iter().enumerate() {
            let harness = Harness::new();
            let before = principal("alice", old.0, old.1, "{}");
            let after = principal("alice", new.0, new.1, "{}");
            let member = harness.open_as(&before);
            harness.hub.begin_refresh(&member, after);
            match end {
                "finish" => harness.hub.finish_refresh(&member, &At(0)),
                "abandon" => harness.hub.abandon_refresh(&member),
                _ => {}
            }
            let closed = harness
                .hub
                .revoke(&RevocationKey::token(token), &everyone())
                .sessions
                .len();
            assert_eq!(closed == 1, expect[at], "{token}, {end}");
            let expect_token = if end == "finish" { "t2" } else { "t1" };
            assert_eq!(member.principal().token_id(), Some(expect_token));
        }
    }
}

#[test]
fn a_refresh_survives_a_cutoff_that_covers_the_old_token_once_it_is_finished() {
    let harness = Harness::new();
    let [before, after] =
        [("t1", 100), ("t2", 200)].map(|(id, iat)| principal("alice", id, iat, "{}"));
    let member = harness.open_as(&before);
    harness.hub.begin_refresh(&member, after);
    harness.hub.finish_refresh(&member, &At(0));
    let user = RevocationKey::user("alice");
    assert_eq!(harness.hub.revoke(&user, &until(150)).sessions.len(), 0);
    assert_eq!(harness.hub.revoke(&user, &until(200)).sessions.len(), 1);
    harness.unregister(&member);
    assert_eq!(
        Arc::strong_count(&member),
        1,
        "no key of either token is left in the index"
    );
}
