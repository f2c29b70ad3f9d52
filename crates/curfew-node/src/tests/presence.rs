//! Presence: entries are added with a subscription and removed after it.

use curfew_backend::{Events as _, PresenceList};
use curfew_hub::Member;
use curfew_model::{Revocation, RevocationKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::time;

use super::rig::{Call, unavailable};
use super::{Harness, channel, eventually};
use crate::{ChannelOptions, HubEvents, SubscribeOutcome, Wish};

impl Harness {
    async fn subscribe_present(
        &self,
        member: &Arc<Member>,
        may: bool,
    ) -> Result<SubscribeOutcome, curfew_backend::BackendError> {
        let present = ChannelOptions {
            presence: true,
            ..ChannelOptions::default()
        };
        let wish = Wish::default();
        self.node
            .subscribe(&channel("room"), member, present, wish, || may, |_, _| None)
            .await
    }

    async fn presence(&self) -> PresenceList {
        self.node.presence(&channel("room")).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_there_with_the_answer_and_gone_with_the_answer() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    harness
        .subscribe_present(session.member(), true)
        .await
        .unwrap();
    assert_eq!(harness.presence().await.count, 1);
    let departure = harness
        .node
        .unsubscribe(&channel("room"), session.member())
        .expect("the session has no presence entry");
    departure.wait().await;
    assert_eq!(harness.presence().await, PresenceList::default());
    assert!(harness.node.presence.is_done());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_leaves_no_entry() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    harness.rig.fail(Call::Subscribe, unavailable);
    let failed = harness.subscribe_present(session.member(), true).await;
    assert!(failed.is_err());
    harness.rig.heal(Call::Subscribe);
    let denied = harness.subscribe_present(session.member(), false).await;
    assert_eq!(denied.unwrap(), SubscribeOutcome::Forbidden);
    harness.rig.fail(Call::Enter, unavailable);
    let failed = harness.subscribe_present(session.member(), true).await;
    assert!(failed.is_err());
    eventually(async || harness.node.presence.is_done()).await;
    assert_eq!(harness.presence().await, PresenceList::default());
    assert_eq!(harness.node.hub().presence_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_tried_until_it_succeeds_and_spares_a_later_entry() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    let member = session.member();
    harness.subscribe_present(member, true).await.unwrap();
    harness.rig.fail(Call::Leave, unavailable);
    let departure = harness.node.unsubscribe(&channel("room"), member);
    departure
        .expect("the session has no presence entry")
        .wait()
        .await;
    assert_eq!(
        harness.presence().await.count,
        1,
        "the entry was removed although the backend is unavailable"
    );
    harness.subscribe_present(member, true).await.unwrap();
    harness.rig.heal(Call::Leave);
    eventually(async || harness.node.presence.is_done()).await;
    assert_eq!(
        harness.presence().await.count,
        1,
        "the late removal also removed the later entry"
    );
    let departure = harness.node.unsubscribe(&channel("room"), member);
    departure
        .expect("the session has no presence entry")
        .wait()
        .await;
    assert_eq!(harness.presence().await, PresenceList::default());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_departs_at_once_and_is_told_of_nobody_any_more() {
    let harness = Harness::new();
    let session = harness.open("t1").await;
    let member = session.member();
    harness.subscribe_present(member, true).await.unwrap();
    let departures = harness.node.depart_from_all(member);
    assert_eq!(departures.len(), 1);
    for departure in departures {
        departure.wait().await;
    }
    assert_eq!(harness.presence().await, PresenceList::default());
    assert_eq!(harness.node.hub().presence_count(), 0);
    assert!(harness.node.unsubscribe(&channel("room"), member).is_none());
    assert!(harness.node.depart_from_all(member).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_confirmed_once_entries_are_removed_or_a_second_later() {
    let harness = Harness::new();
    let events = HubEvents::new(
        harness.node.id,
        Arc::clone(&harness.node.hub),
        Arc::clone(&harness.metrics),
    );
    for (user, heals) in [("t1", true), ("t2", false)] {
        let session = harness.open(user).await;
        let member = Arc::clone(session.member());
        harness.subscribe_present(&member, true).await.unwrap();
        harness.rig.fail(Call::Leave, unavailable);
        let key = RevocationKey::session(member.session());
        let mut ended = events.revoked(&key, &Revocation::default(), std::time::Instant::now());
        assert_eq!(ended.count(), 1);
        assert!(!ended.has_left());
        drop(harness.node.depart_from_all(&member));
        drop(session);
        assert!(
            !ended.has_left(),
            "the session counts as left although its presence entry is not removed"
        );
        if heals {
            harness.rig.heal(Call::Leave);
            eventually(async || harness.node.presence.is_done()).await;
        } else {
            time::sleep(Duration::from_millis(1_100)).await;
            assert!(!harness.node.presence.is_done());
        }
        assert!(ended.has_left());
    }
    harness.rig.heal(Call::Leave);
    eventually(async || harness.node.presence.is_done()).await;
    assert_eq!(harness.presence().await, PresenceList::default());
}
