use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_model::Revocation;

use super::rig::{Call, When, unavailable};
use super::*;

/// The value of the setting that lists `claims` as revocable.
fn by(claims: &[&str]) -> Vec<String> {
    claims.iter().map(|claim| (*claim).to_owned()).collect()
}

fn acme() -> RevocationKey {
    RevocationKey::claim(CLAIM, "acme")
}

/// A harness whose settings have no revocable claim.
async fn without_claims() -> Harness {
    let harness = Harness::new();
    harness.node.set_kinds(&by(&[]));
    harness.node.until_settled().await;
    harness
}

async fn confirmed(harness: &Harness, key: RevocationKey) -> u64 {
    let revocations = &harness.rig.inner().revocations;
    let receipt = revocations.revoke(key, Revocation::default()).await;
    let nodes = receipt.unwrap().nodes;
    let all = [harness.node.id()];
    assert_eq!(
        nodes.missing,
        all[usize::try_from(nodes.confirmed).unwrap()..]
    );
    nodes.confirmed
}

#[tokio::test(start_paused = true)]
async fn sessions_from_before_a_change_are_found_by_the_claims_now_listed() {
    let harness = without_claims().await;
    let attachment = harness.open("t1").await;
    assert_eq!(
        confirmed(&harness, acme()).await,
        0,
        "the node confirmed the revocation although its claim is not revocable"
    );
    assert_eq!(attachment.member().outbox().ending(), None);
    // The revocation was written earlier, and finds the session as soon as its claim is revocable.
    harness.node.set_kinds(&by(&[CLAIM]));
    harness.node.until_settled().await;
    assert_eq!(attachment.member().outbox().ending(), Some(REVOKED));
    assert_eq!(confirmed(&harness, acme()).await, 1);
    drop(attachment);
    harness.assert_nothing_left("changed").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_confirmed_before_all_is_settled() {
    let harness = without_claims().await;
    let attachment = harness.open("t1").await;
    harness.rig.hold(Call::Compare);
    harness.node.set_kinds(&by(&[CLAIM]));
    for key in [acme(), RevocationKey::user("bob")] {
        assert_eq!(confirmed(&harness, key).await, 0);
    }
    harness.rig.release(Call::Compare);
    harness.node.until_settled().await;
    assert_eq!(attachment.member().outbox().ending(), Some(REVOKED));
    assert_eq!(confirmed(&harness, RevocationKey::user("bob")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_fails_is_made_again_and_later_settings_supersede_it() {
    let harness = without_claims().await;
    harness.rig.fail(Call::Compare, unavailable);
    harness.node.set_kinds(&by(&["device"]));
    time::sleep(Duration::from_secs(30)).await;
    assert!(!harness.node.is_settled() && harness.rig.asked(Call::Compare, "") > 10);
    harness.node.set_kinds(&by(&[CLAIM]));
    harness.rig.heal(Call::Compare);
    harness.node.until_settled().await;
    let asked = harness.rig.asked(Call::Compare, "");
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        harness.rig.asked(Call::Compare, ""),
        asked,
        "the superseded comparison continued"
    );
    assert!(harness.node.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_admitted_or_refreshed_during_a_change_is_found() {
    for (when, call) in [
        (When::Before, Call::Check),
        (When::After, Call::Check),
        (When::Before, Call::Open),
        (When::After, Call::Open),
    ] {
        let harness = without_claims().await;
        // The revocation is written before the change of settings, because the check of the
        // admission uses the keys of the old settings.
        harness.rig.revoke(acme());
        let node = Arc::clone(&harness.node);
        harness
            .rig
            .hook(when, call, move || node.set_kinds(&by(&[CLAIM])));
        let admitted = harness.try_admit("t1").await;
        harness.node.until_settled().await;
        if let Ok(attachment) = &admitted {
            let ending = attachment.member().outbox().ending();
            assert_eq!(ending, Some(REVOKED), "{when:?} {call:?}");
        }
        drop(admitted);
        harness
            .assert_nothing_left(&format!("{when:?} {call:?}"))
            .await;
    }
    for (when, call) in [
        (When::Before, Call::Check),
        (When::After, Call::Check),
        (When::Before, Call::Refresh),
        (When::After, Call::Refresh),
    ] {
        let harness = without_claims().await;
        let attachment = harness.open("t1").await;
        harness.rig.revoke(RevocationKey::claim("jti", "t2"));
        let node = Arc::clone(&harness.node);
        harness
            .rig
            .hook(when, call, move || node.set_kinds(&by(&["jti"])));
        // The keys of token `t2` find the session while the refresh is under way, and after `t2` is
        // in force.
        let refreshed = attachment.refresh(principal("alice", "t2")).await;
        harness.node.until_settled().await;
        let ending = attachment.member().outbox().ending();
        assert_eq!(ending, Some(REVOKED), "{when:?} {call:?}: {refreshed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_sessions_are_found_without_holding_others_up() {
    let harness = without_claims().await;
    let mut sessions = Vec::new();
    for _ in 0..1000 {
        sessions.push(harness.open("t1").await);
    }
    let turns = Arc::new(AtomicUsize::new(0));
    let other = {
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    };
    harness.node.set_kinds(&by(&[CLAIM]));
    tokio::select! {
        () = harness.node.until_settled() => {}
        () = other => {}
    }
    assert!(turns.load(Ordering::Relaxed) >= 1000 / 64);
    assert_eq!(harness.found_by(&acme()), 1000);
}
