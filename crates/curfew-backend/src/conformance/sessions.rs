//! Checks of [`Sessions`](crate::Sessions).

use std::time::Duration;

use curfew_model::{Disconnect, SessionId};
use tokio::task::JoinSet;

use super::cluster::{Cluster, closed, eventually};
use crate::{Backends, OpenError, SessionFilter, SessionRecord};

async fn open(
    backends: &Backends,
    record: &SessionRecord,
    max_per_user: u32,
) -> Result<(), OpenError> {
    backends.sessions.open(record.clone(), max_per_user).await
}

async fn get(backends: &Backends, session: SessionId) -> Option<SessionRecord> {
    backends
        .sessions
        .get(session)
        .await
        .expect("get the session")
}

async fn list(backends: &Backends, user: Option<&str>) -> Vec<SessionId> {
    let filter = SessionFilter {
        user: user.map(str::to_owned),
        after: None,
        limit: 1000,
    };
    let page = backends
        .sessions
        .list(&filter)
        .await
        .expect("list sessions");
    assert_eq!(page.cursor, None, "all sessions fit on one page");
    page.sessions.iter().map(|record| record.session).collect()
}

fn assert_same(found: &SessionRecord, expect: &SessionRecord) {
    let fields = |record: &SessionRecord| {
        let principal = &record.principal;
        (
            (
                record.session,
                record.node,
                record.connected_at,
                record.protocol.clone(),
            ),
            principal.user().to_owned(),
            principal.token_id().map(str::to_owned),
            (principal.issued_at(), principal.expires_at()),
            principal.claims().clone(),
        )
    };
    assert_eq!(fields(found), fields(expect));
}

pub(super) async fn a_record_is_seen_everywhere_until_it_is_closed(cluster: Cluster) {
    let record = cluster.record("alice", 60);
    let other = cluster.record("alice", 60);
    for record in [&record, &other] {
        open(cluster.first(), record, 0).await.expect("open");
    }
    for member in &cluster.members {
        let found = get(&member.backends, record.session)
            .await
            .expect("the record is there");
        assert_same(&found, &record);
        assert_eq!(
            list(&member.backends, None).await,
            [record.session, other.session]
        );
    }
    let gone = [closed(&record), closed(&cluster.record("carol", 60))];
    cluster.first().sessions.close(&gone).await.expect("close");
    for member in &cluster.members {
        assert!(get(&member.backends, record.session).await.is_none());
        assert_eq!(list(&member.backends, None).await, [other.session]);
        assert_eq!(list(&member.backends, Some("alice")).await, [other.session]);
    }
    cluster
        .first()
        .sessions
        .close(&gone)
        .await
        .expect("close again");
}

pub(super) async fn a_record_is_gone_when_the_token_has_expired(cluster: Cluster) {
    let record = cluster.record("alice", 2);
    open(cluster.first(), &record, 1).await.expect("open");
    assert!(get(cluster.last(), record.session).await.is_some());
    cluster.clock.advance(Duration::from_secs(2));
    eventually("the record is gone", async || {
        get(cluster.last(), record.session).await.is_none()
            && list(cluster.last(), None).await.is_empty()
            && list(cluster.last(), Some("alice")).await.is_empty()
    })
    .await;
    // The expired record no longer counts towards the limit.
    open(cluster.first(), &cluster.record("alice", 60), 1)
        .await
        .expect("open a session after the first record has expired");
}

pub(super) async fn concurrent_opens_never_exceed_the_limit(cluster: Cluster) {
    const LIMIT: u32 = 3;
    let mut opens = JoinSet::new();
    for at in 0..40 {
        let backends = cluster.members[at % cluster.members.len()].backends.clone();
        let record = cluster.record("alice", 60);
        opens.spawn(async move { open(&backends, &record, LIMIT).await });
    }
    let mut opened = 0;
    for result in opens.join_all().await {
        match result {
            Ok(()) => opened += 1,
            Err(OpenError::SessionLimit { limit }) => assert_eq!(limit, LIMIT),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(opened, LIMIT);
    assert_eq!(
        list(cluster.last(), Some("alice")).await.len(),
        LIMIT as usize
    );
}

pub(super) async fn the_limit_is_per_user_and_counts_open_sessions(cluster: Cluster) {
    let (first, second) = (cluster.record("alice", 60), cluster.record("alice", 60));
    open(cluster.first(), &first, 1).await.expect("open");
    let refused = open(cluster.last(), &second, 1).await;
    assert!(matches!(refused, Err(OpenError::SessionLimit { limit: 1 })));
    assert!(get(cluster.first(), second.session).await.is_none());
    open(cluster.last(), &cluster.record("bob", 60), 1)
        .await
        .expect("open a session of another user");
    cluster
        .first()
        .sessions
        .close(&[closed(&first)])
        .await
        .expect("close");
    open(cluster.last(), &second, 1)
        .await
        .expect("open after a close");
}

pub(super) async fn without_a_limit_any_number_opens(cluster: Cluster) {
    for _ in 0..20 {
        open(cluster.first(), &cluster.record("alice", 60), 0)
            .await
            .expect("open");
    }
    assert_eq!(list(cluster.last(), Some("alice")).await.len(), 20);
}

pub(super) async fn a_refresh_replaces_the_record(cluster: Cluster) {
    let old = cluster.record("alice", 2);
    open(cluster.first(), &old, 0).await.expect("open");
    let new = SessionRecord {
        session: old.session,
        ..cluster.record("alice", 3600)
    };
    cluster
        .first()
        .sessions
        .refresh(new.clone())
        .await
        .expect("refresh");
    assert_same(
        &get(cluster.last(), old.session)
            .await
            .expect("the record is there"),
        &new,
    );
    // The record lasts as long as the new token.
    cluster.clock.advance(Duration::from_secs(2));
    assert!(get(cluster.last(), old.session).await.is_some());
    assert_eq!(list(cluster.last(), Some("alice")).await, [old.session]);
}

pub(super) async fn a_refresh_does_not_bring_a_record_back(cluster: Cluster) {
    let record = cluster.record("alice", 60);
    open(cluster.first(), &record, 0).await.expect("open");
    cluster
        .first()
        .sessions
        .close(&[closed(&record)])
        .await
        .expect("close");
    cluster
        .first()
        .sessions
        .refresh(record.clone())
        .await
        .expect("refresh");
    assert!(get(cluster.last(), record.session).await.is_none());
    assert!(list(cluster.last(), Some("alice")).await.is_empty());
}

pub(super) async fn lists_are_ordered_filtered_and_paged(cluster: Cluster) {
    let mut records: Vec<SessionRecord> = (0..25)
        .map(|at| cluster.record(if at % 5 == 0 { "alice" } else { "bob" }, 60))
        .collect();
    records.reverse();
    for record in &records {
        open(cluster.first(), record, 0).await.expect("open");
    }
    records.sort_by_key(|record| record.session);
    for (user, limit) in [
        (None, 10),
        (None, 25),
        (None, 1),
        (Some("alice"), 2),
        (Some("bob"), 20),
        (Some("carol"), 5),
    ] {
        let of_user =
            |record: &&SessionRecord| user.is_none_or(|user| record.principal.user() == user);
        let expect: Vec<_> = records
            .iter()
            .filter(of_user)
            .map(|record| record.session)
            .collect();
        let mut filter = SessionFilter {
            user: user.map(str::to_owned),
            after: None,
            limit,
        };
        let mut listed = Vec::new();
        loop {
            let page = cluster
                .last()
                .sessions
                .list(&filter)
                .await
                .expect("list sessions");
            assert!(page.sessions.len() <= limit);
            listed.extend(page.sessions.iter().map(|record| record.session));
            assert!(
                listed.len() <= expect.len(),
                "the pages list more sessions than there are"
            );
            filter.after = page.cursor;
            if page.cursor.is_none() {
                break;
            }
            assert_eq!(page.cursor, listed.last().copied());
        }
        assert_eq!(listed, expect, "user {user:?}, limit {limit}");
    }
}

pub(super) async fn a_disconnect_reaches_the_session_wherever_it_lives(cluster: Cluster) {
    for (member, recorder) in cluster.members.iter().zip(&cluster.recorders) {
        let record = SessionRecord {
            node: member.node,
            ..cluster.record("alice", 60)
        };
        recorder.hold(record.session);
        open(&member.backends, &record, 0).await.expect("open");
        let found = cluster.first().sessions.disconnect(record.session).await;
        assert!(found.expect("disconnect"), "the session is found");
        eventually(
            "the session's node is told to end the session",
            async || recorder.disconnected() == [(record.session, Disconnect::DISCONNECTED)],
        )
        .await;
    }
    let found = cluster.first().sessions.disconnect(SessionId::new()).await;
    assert!(!found.expect("disconnect"), "there is no such session");
}
