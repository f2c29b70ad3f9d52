use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::rig::{Call, When, unavailable, unusable};
use super::*;

/// Admits a session while the rig's hooks run, and returns true if it opens.
async fn opens(harness: &Harness) -> bool {
    match harness.try_admit("t1").await {
        Ok(attachment) => attachment.open(Lanes::default()),
        Err(AdmitError::Revoked(_)) => false,
        Err(AdmitError::Ended(ending)) if ending == REVOKED => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_at_any_point_of_the_admission_keeps_the_session_out() {
    for key in [
        RevocationKey::user("alice"),
        RevocationKey::token("t1"),
        RevocationKey::claim(CLAIM, "acme"),
        RevocationKey::All,
    ] {
        for (when, call) in [
            (When::Before, Call::Check),
            (When::After, Call::Check),
            (When::Before, Call::Open),
            (When::After, Call::Open),
        ] {
            let harness = Harness::new();
            let (rig, revoked) = (Arc::clone(&harness.rig), key.clone());
            harness.rig.hook(when, call, move || rig.revoke(revoked));
            assert!(
                !opens(&harness).await,
                "the session opened although {key} was revoked {when:?} {call:?}"
            );
            harness
                .assert_nothing_left(&format!("{key} {when:?} {call:?}"))
                .await;
        }
        let harness = Harness::new();
        harness.rig.revoke(key.clone());
        assert!(
            !opens(&harness).await,
            "the session opened although {key} was revoked before its admission"
        );
        harness.assert_nothing_left("revoked first").await;

        let harness = Harness::new();
        let attachment = harness.try_admit("t1").await.unwrap();
        harness.rig.revoke(key.clone());
        assert!(
            !attachment.open(Lanes::default()),
            "the session opened although {key} was revoked after its admission"
        );
        drop(attachment);
        harness.assert_nothing_left("revoked last").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_revoked_by_its_own_id_while_it_is_recorded_stays_closed() {
    let harness = Harness::new();
    let (rig, hub) = (Arc::clone(&harness.rig), Arc::clone(harness.node.hub()));
    harness.rig.hook(When::After, Call::Open, move || {
        rig.revoke(RevocationKey::session(hub.members()[0].session()));
    });
    assert!(!opens(&harness).await);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_is_told_as_such_and_nothing_is_left_behind() {
    for call in [Call::Check, Call::Open] {
        for error in [unavailable, unusable] {
            let harness = Harness::new();
            harness.rig.fail(call, error);
            let refused = harness.try_admit("t1").await.unwrap_err();
            assert!(
                matches!(refused, AdmitError::Backend(_)),
                "{call:?}: {refused:?}"
            );
            harness.assert_nothing_left(&format!("{call:?}")).await;
            harness.rig.heal(call);
            harness.open("t1").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_admission_given_up_half_way_leaves_nothing_behind() {
    for call in [Call::Check, Call::Open] {
        let harness = Harness::new();
        harness.rig.hold(call);
        let member = {
            let mut admission = pin!(harness.try_admit("t1"));
            let waits = poll_fn(|cx| Poll::Ready(admission.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "{call:?}");
            harness.node.hub().members().remove(0)
        };
        assert_eq!(
            Arc::strong_count(&member),
            1,
            "{call:?}: the hub still refers to the session"
        );
        harness.rig.release(call);
        harness.assert_nothing_left(&format!("{call:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_session_more_than_allowed_is_refused_until_one_ends() {
    let harness = Harness::with_max_per_user(2);
    let first = harness.open("t1").await;
    let second = harness.open("t2").await;
    let refused = harness.try_admit("t3").await.unwrap_err();
    assert!(
        matches!(refused, AdmitError::SessionLimit { limit: 2, .. }),
        "{refused:?}"
    );
    let other = harness
        .node
        .admit(principal("bob", "t4"), harness.wire(), None, harness.limit)
        .await;
    drop((first, other.unwrap()));
    eventually(async || harness.records().await.len() == 1).await;
    drop((harness.open("t3").await, second));
    harness.assert_nothing_left("limit").await;
}

#[tokio::test(start_paused = true)]
async fn the_record_says_who_connected_where_until_the_session_ends() {
    let harness = Harness::new();
    let attachment = harness.open("t1").await;
    let records = harness.records().await;
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!(record.session, attachment.member().session());
    assert_eq!(record.node, harness.node.id());
    assert_eq!(record.principal.user(), "alice");
    assert_eq!(
        (record.connected_at, record.protocol.clone()),
        (START, "curfew.v1".into())
    );
    assert_eq!(harness.metrics.sessions.get(), 1);
    drop(attachment);
    harness.assert_nothing_left("closed").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_sessions_admits_none() {
    let harness = Harness::new();
    harness.node.begin_drain();
    drop(harness.open("t1").await);
    harness.node.refuse_sessions();
    assert!(matches!(
        harness.try_admit("t2").await,
        Err(AdmitError::Draining)
    ));
    assert_eq!(
        harness.rig.asked(Call::Check, ""),
        1,
        "the refused admission asked the backend"
    );
    harness.assert_nothing_left("refused").await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_finds_a_session_that_is_just_being_admitted() {
    let harness = Harness::new();
    harness.rig.hold(Call::Check);
    let mut admission = pin!(harness.try_admit("t1"));
    assert!(poll_fn(|cx| Poll::Ready(admission.as_mut().poll(cx).is_pending())).await);
    harness.node.refuse_sessions();
    let draining = harness.node.drain(Duration::ZERO);
    let admitting = async {
        time::sleep(Duration::from_millis(1)).await;
        harness.rig.release(Call::Check);
        admission.await
    };
    let ((), admitted) = tokio::join!(draining, admitting);
    let refused = admitted.unwrap_err();
    let AdmitError::Ended(ending) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(ending.disconnect, Disconnect::DRAINING);
}

#[tokio::test(start_paused = true)]
async fn sessions_admitted_before_a_change_of_settings_leave_nothing_behind() {
    let harness = Harness::new();
    let attachment = harness.open("t1").await;
    assert_eq!(
        Arc::strong_count(attachment.member()),
        2 + 3,
        "not only the hub, the attachment and three keys refer to the session"
    );
    harness.node.set_kinds(&[]);
    harness.node.until_settled().await;
    assert_eq!(Arc::strong_count(attachment.member()), 2 + 2);
    let member = Arc::clone(attachment.member());
    drop(attachment);
    assert_eq!(Arc::strong_count(&member), 1);
    harness.assert_nothing_left("settings").await;
}

#[tokio::test(start_paused = true)]
async fn anonymous_sessions_are_limited_by_address_and_by_no_user() {
    let harness = Harness::with_max_per_user(1);
    let anonymous = Arc::new(Principal::anonymous(START, START + 60));
    let admit = async |address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        let principal = Arc::clone(&anonymous);
        let node = &harness.node;
        node.admit(principal, harness.wire(), address, harness.limit)
            .await
    };
    let first = admit(Some("192.0.2.1")).await.unwrap();
    let second = admit(Some("192.0.2.1")).await.unwrap();
    let refused = admit(Some("192.0.2.1")).await.unwrap_err();
    assert!(
        matches!(refused, AdmitError::SessionLimit { limit: 2, .. }),
        "{refused:?}"
    );
    let others = (
        admit(Some("192.0.2.2")).await.unwrap(),
        admit(None).await.unwrap(),
        admit(None).await.unwrap(),
        admit(None).await.unwrap(),
        // A session with a user takes no permit.
        harness.open("t1").await,
    );
    drop(first);
    let third = admit(Some("192.0.2.1")).await.unwrap();
    drop((second, third, others));
    harness.assert_nothing_left("limit").await;
}
