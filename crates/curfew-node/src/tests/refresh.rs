use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::rig::{Call, When, unavailable};
use super::*;

/// Asserts that `token`, one of `t1` (old) and `t2` (new), is in force and names the session.
fn assert_in_force(harness: &Harness, attachment: &Attachment, token: &str) {
    let other = if token == "t1" { "t2" } else { "t1" };
    assert_eq!(attachment.member().principal().token_id(), Some(token));
    assert_eq!(
        harness.found_by(&RevocationKey::token(other)),
        0,
        "{other} names no session"
    );
    assert_eq!(
        harness.found_by(&RevocationKey::token(token)),
        1,
        "{token} names the session"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_puts_the_new_token_in_force_and_on_record() {
    let harness = Harness::new();
    let attachment = harness.open("t1").await;
    attachment.refresh(principal("alice", "t2")).await.unwrap();
    assert_eq!(harness.records().await[0].principal.token_id(), Some("t2"));
    assert_in_force(&harness, &attachment, "t2");
    drop(attachment);
    harness.assert_nothing_left("refreshed").await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_keeps_the_old_token() {
    for call in [Call::Check, Call::Refresh] {
        let harness = Harness::new();
        let attachment = harness.open("t1").await;
        harness.rig.fail(call, unavailable);
        let failed = attachment
            .refresh(principal("alice", "t2"))
            .await
            .unwrap_err();
        assert!(
            matches!(failed, AdmitError::Backend(_)),
            "{call:?}: {failed:?}"
        );
        assert_eq!(attachment.member().outbox().ending(), None);
        assert_eq!(harness.records().await[0].principal.token_id(), Some("t1"));
        assert_in_force(&harness, &attachment, "t1");
        drop(attachment);
        harness.assert_nothing_left(&format!("{call:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_with_a_revoked_token_keeps_the_old_one() {
    let harness = Harness::new();
    let attachment = harness.open("t1").await;
    harness.rig.revoke(RevocationKey::token("t2"));
    let refused = attachment
        .refresh(principal("alice", "t2"))
        .await
        .unwrap_err();
    assert!(matches!(refused, AdmitError::Revoked(_)), "{refused:?}");
    assert_in_force(&harness, &attachment, "t1");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_given_up_half_way_keeps_the_old_token() {
    for call in [Call::Check, Call::Refresh] {
        let harness = Harness::new();
        let attachment = harness.open("t1").await;
        harness.rig.hold(call);
        {
            let mut refresh = pin!(attachment.refresh(principal("alice", "t2")));
            assert!(poll_fn(|cx| Poll::Ready(refresh.as_mut().poll(cx).is_pending())).await);
        }
        assert_in_force(&harness, &attachment, "t1");
        drop(attachment);
        harness.assert_nothing_left(&format!("{call:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_of_either_token_during_a_refresh_ends_the_session() {
    for token in ["t1", "t2"] {
        for (when, call) in [
            (When::Before, Call::Check),
            (When::After, Call::Check),
            (When::Before, Call::Refresh),
            (When::After, Call::Refresh),
        ] {
            let what = format!("{token} revoked {when:?} {call:?}");
            let harness = Harness::new();
            let attachment = harness.open("t1").await;
            let rig = Arc::clone(&harness.rig);
            harness
                .rig
                .hook(when, call, move || rig.revoke(RevocationKey::token(token)));
            let refused = attachment
                .refresh(principal("alice", "t2"))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, AdmitError::Revoked(_))
                    || matches!(refused, AdmitError::Ended(ending) if ending == REVOKED),
                "{what}: {refused:?}"
            );
            assert_eq!(
                attachment.member().outbox().ending(),
                Some(REVOKED),
                "{what}"
            );
            drop(attachment);
            harness.assert_nothing_left(&what).await;
        }
    }
}
