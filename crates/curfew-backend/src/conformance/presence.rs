//! Checks of [`Presence`](crate::Presence).

use std::collections::BTreeSet;
use std::time::Duration;

use curfew_model::{Clock as _, PresenceChange, PresenceEntry, Present, SessionId};

use super::broker::{channel, subscribe};
use super::cluster::{Cluster, eventually};
use crate::{Backends, PresenceList};

/// A presence entry of the first node. Nodes that listen to the channel are notified when the entry
/// is added and when it is removed.
fn entry(cluster: &Cluster, name: &str, user: &str, number: u64) -> PresenceEntry {
    PresenceEntry {
        channel: channel(name),
        present: Present {
            session: SessionId::new(),
            user: user.into(),
            info: None,
            channel_info: None,
        },
        node: cluster.members[0].node,
        number,
        is_told: true,
        ends_at: cluster.clock.now() + Duration::from_secs(600),
    }
}

async fn enter(backends: &Backends, entries: &[PresenceEntry]) {
    backends.presence.enter(entries).await.expect("enter");
}

async fn leave(backends: &Backends, entries: &[PresenceEntry]) {
    backends.presence.leave(entries).await.expect("leave");
}

async fn list(backends: &Backends, name: &str, limit: usize) -> PresenceList {
    let list = backends.presence.list(&channel(name), limit).await;
    list.expect("list")
}

fn sessions(list: &PresenceList) -> BTreeSet<SessionId> {
    list.sessions
        .iter()
        .map(|present| present.session)
        .collect()
}

pub(super) async fn an_entry_is_listed_everywhere_until_it_leaves(cluster: Cluster) {
    // An implementation may confuse these names with parts of its own keys.
    for name in ["a", "räume:ä", "}{", "}", "{x}:a", "a:users"] {
        let (first, last) = (cluster.first(), cluster.last());
        assert_eq!(list(last, name, 10).await, PresenceList::default());
        let mut bob = entry(&cluster, name, "bob \"ä\"", 1);
        bob.present.info = Some(r#"{"name":"B \u00e9 ä","n":[1.0e5]}"#.into());
        bob.present.channel_info = Some(r#"["seat \u00e9",1.0e5]"#.into());
        enter(first, std::slice::from_ref(&bob)).await;
        let expect = PresenceList {
            sessions: vec![bob.present.clone()],
            count: 1,
            users: 1,
        };
        assert_eq!(list(last, name, 10).await, expect, "{name}");
        leave(first, &[bob]).await;
        assert_eq!(list(last, name, 10).await, PresenceList::default());
    }
}

pub(super) async fn counts_are_of_all_sessions_and_users(cluster: Cluster) {
    let first = cluster.first();
    let entries: Vec<_> = (0..1_000)
        .map(|number| entry(&cluster, "a", &format!("user-{}", number % 300), number))
        .collect();
    enter(first, &entries).await;
    let all: BTreeSet<_> = entries.iter().map(|entry| entry.present.session).collect();
    let whole = list(cluster.last(), "a", 1_000).await;
    assert_eq!(
        (sessions(&whole), whole.count, whole.users),
        (all, 1_000, 300)
    );
    let part = list(cluster.last(), "a", 10).await;
    let part = (sessions(&part).len(), part.count, part.users);
    assert_eq!(part, (10, 1_000, 300));
    leave(first, &entries[..700]).await;
    let rest = list(cluster.last(), "a", 1).await;
    assert_eq!((rest.count, rest.users), (300, 300));
    leave(first, &entries[300..]).await;
    assert_eq!(list(cluster.last(), "a", 1).await, PresenceList::default());
}

pub(super) async fn a_late_removal_leaves_a_later_entry(cluster: Cluster) {
    let first = cluster.first();
    let earlier = entry(&cluster, "a", "bob", 1);
    let later = PresenceEntry {
        number: 2,
        ..earlier.clone()
    };
    enter(first, std::slice::from_ref(&earlier)).await;
    enter(first, std::slice::from_ref(&later)).await;
    leave(first, &[earlier]).await;
    assert_eq!(list(cluster.last(), "a", 10).await.count, 1);
    leave(first, std::slice::from_ref(&later)).await;
    leave(first, &[later]).await;
    assert_eq!(list(cluster.last(), "a", 10).await, PresenceList::default());
}

pub(super) async fn nodes_that_listen_are_told_who_comes_and_goes(cluster: Cluster) {
    let first = cluster.first();
    subscribe(cluster.last(), "a").await;
    let told = entry(&cluster, "a", "bob", 1);
    let quiet = PresenceEntry {
        is_told: false,
        ..entry(&cluster, "a", "eve", 2)
    };
    let elsewhere = entry(&cluster, "b", "eve", 3);
    let entries = [&quiet, &told, &told, &elsewhere].map(Clone::clone);
    enter(first, &entries).await;
    leave(first, &[quiet, told.clone(), told.clone()]).await;
    let of_a = || {
        let mut heard = cluster.last_recorder().presence();
        heard.retain(|(told_of, _, _)| *told_of == channel("a"));
        heard
    };
    let expect = [PresenceChange::Join, PresenceChange::Leave]
        .map(|change| (channel("a"), change, told.present.clone()));
    eventually(
        "the node is notified of one join and one leave",
        async || of_a() == expect,
    )
    .await;
}
