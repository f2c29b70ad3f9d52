//! Checks of [`Revocations`](crate::Revocations).

use std::collections::BTreeMap;
use std::time::Duration;

use curfew_model::{Clock as _, Revocation, RevocationKey, SessionId};

use tokio::time::timeout;

use super::DEADLINE;
use super::cluster::{Cluster, eventually};
use crate::{Backends, Receipt, ReceiptNodes, Revoked};

fn user(name: &str) -> RevocationKey {
    RevocationKey::user(name)
}

fn cutoff(before: u64) -> Revocation {
    Revocation {
        before: Some(before),
        ..Revocation::default()
    }
}

fn until(expires_at: u64) -> Revocation {
    Revocation {
        expires_at: Some(expires_at),
        ..Revocation::default()
    }
}

async fn revoke(backends: &Backends, key: &RevocationKey, revocation: Revocation) -> Receipt {
    let receipt = backends.revocations.revoke(key.clone(), revocation).await;
    receipt.expect("revoke")
}

async fn check(
    backends: &Backends,
    keys: &[RevocationKey],
    issued_at: Option<u64>,
) -> Option<Revoked> {
    backends
        .revocations
        .check(keys, issued_at)
        .await
        .expect("check")
}

async fn list(backends: &Backends) -> Vec<Revoked> {
    let listed = backends.revocations.list().await;
    let listed = listed.expect("list revocations").into_iter();
    let revoked = listed.map(|listed| Revoked {
        key: RevocationKey::parse(
            &listed.kind,
            &listed.value,
            std::slice::from_ref(&listed.kind),
        )
        .expect("the listed revocation has a valid key"),
        revocation: listed.revocation,
    });
    revoked.collect()
}

pub(super) async fn a_revocation_is_named_by_every_check_that_follows(cluster: Cluster) {
    let keys = [
        RevocationKey::All,
        RevocationKey::Anonymous,
        user("alice"),
        user("zoë \n"),
        user(&"x".repeat(500)),
        RevocationKey::session(SessionId::new()),
        RevocationKey::token("t:1"),
        RevocationKey::claim("tenant", "acme {1}"),
    ];
    for key in &keys {
        assert_eq!(
            check(cluster.last(), &keys, None).await,
            None,
            "{key} is not revoked yet"
        );
        revoke(cluster.first(), key, Revocation::default()).await;
        for member in &cluster.members {
            let found = check(&member.backends, &keys, Some(u64::MAX)).await;
            assert_eq!(found.map(|found| found.key).as_ref(), Some(key));
            assert_eq!(
                check(&member.backends, &[user("somebody")], None).await,
                None
            );
            assert_eq!(check(&member.backends, &[], None).await, None);
        }
        assert!(
            cluster
                .first()
                .revocations
                .restore(key)
                .await
                .expect("restore")
        );
    }
}

pub(super) async fn a_check_names_the_first_key_that_covers(cluster: Cluster) {
    let keys = [user("a"), user("b"), user("c")];
    revoke(cluster.first(), &keys[0], cutoff(1_000_000_000)).await;
    revoke(cluster.first(), &keys[2], Revocation::default()).await;
    revoke(cluster.first(), &keys[1], Revocation::default()).await;
    let named = |found: Option<Revoked>| found.map(|found| found.key);
    let found = check(cluster.last(), &keys, Some(1_000_000_000)).await;
    assert_eq!(named(found).as_ref(), Some(&keys[0]));
    let found = check(cluster.last(), &keys, Some(1_000_000_001)).await;
    assert_eq!(named(found).as_ref(), Some(&keys[1]));
}

pub(super) async fn a_cutoff_covers_what_was_issued_until_then(cluster: Cluster) {
    let keys = [user("alice")];
    revoke(cluster.first(), &keys[0], cutoff(1_764_000_000)).await;
    for (issued_at, covered) in [
        (None, true),
        (Some(0), true),
        (Some(1_764_000_000), true),
        (Some(1_764_000_001), false),
    ] {
        let found = check(cluster.last(), &keys, issued_at).await;
        assert_eq!(found.is_some(), covered, "issued at {issued_at:?}");
    }
}

pub(super) async fn every_node_hears_of_a_revocation(cluster: Cluster) {
    let (key, revocation) = (user("alice"), cutoff(1_764_000_000));
    revoke(cluster.first(), &key, revocation.clone()).await;
    for recorder in &cluster.recorders {
        // A backend may report a revocation more than once.
        eventually("the node receives the revocation", async || {
            let revoked = recorder.revoked();
            revoked
                .iter()
                .any(|(heard, how)| *heard == key && how.before == revocation.before)
        })
        .await;
        assert!(recorder.revoked().iter().all(|(heard, _)| *heard == key));
    }
}

pub(super) async fn the_receipt_counts_nodes_and_sessions(cluster: Cluster) {
    let key = user("alice");
    for recorder in &cluster.recorders {
        recorder.hold_named(key.clone(), 3);
    }
    let receipt = revoke(cluster.first(), &key, Revocation::default()).await;
    let nodes = cluster.members.len() as u64;
    let all = ReceiptNodes {
        live: nodes,
        confirmed: nodes,
        missing: Vec::new(),
        names: BTreeMap::new(),
    };
    assert_eq!(receipt.nodes, all);
    assert_eq!(receipt.closed, 3 * nodes);
    assert!(receipt.key.ends_with(&key.redis_key("")), "{}", receipt.key);
    // Each node that the receipt counts received the revocation before the receipt was returned.
    for recorder in &cluster.recorders {
        assert!(!recorder.revoked().is_empty());
    }
}

pub(super) async fn the_receipt_names_nodes_that_do_not_find_the_sessions(cluster: Cluster) {
    cluster.last_recorder().lose("tenant");
    let missing = cluster.members[cluster.members.len() - 1].node;
    let nodes = cluster.members.len() as u64;
    for (key, confirmed, missing) in [
        (
            RevocationKey::claim("tenant", "acme"),
            nodes - 1,
            vec![missing],
        ),
        (user("alice"), nodes, Vec::new()),
    ] {
        let receipt = revoke(cluster.first(), &key, Revocation::default()).await;
        let expect = ReceiptNodes {
            live: nodes,
            confirmed,
            missing,
            names: BTreeMap::new(),
        };
        assert_eq!(receipt.nodes, expect, "{key}");
    }
}

pub(super) async fn a_comparison_finds_what_was_revoked_before(cluster: Cluster) {
    /// Number of sessions besides `session`. A backend should not compare so large a number of
    /// sessions in one step.
    const OTHERS: usize = 20_000;
    let session = SessionId::new();
    let (recorder, key) = (cluster.last_recorder(), RevocationKey::session(session));
    revoke(cluster.first(), &key, Revocation::default()).await;
    recorder.hold(session);
    for _ in 0..OTHERS {
        recorder.hold(SessionId::new());
    }
    for compared in [true, false] {
        recorder.forget_revoked();
        let compare = timeout(DEADLINE, cluster.last().revocations.compare());
        compare
            .await
            .expect("the comparison ends in time")
            .expect("compare");
        let revoked = recorder.revoked();
        let found = revoked.iter().any(|(revoked, _)| *revoked == key);
        assert_eq!(found, compared, "{revoked:?}");
        let restored = cluster.first().revocations.restore(&key).await;
        assert_eq!(restored.expect("restore"), compared);
    }
}

pub(super) async fn a_revocation_ends_by_itself(cluster: Cluster) {
    let keys = [user("alice")];
    let expires_at = cluster.clock.unix() + 2;
    revoke(cluster.first(), &keys[0], until(expires_at)).await;
    let found = check(cluster.last(), &keys, None)
        .await
        .expect("the revocation is in force");
    assert_eq!(found.revocation.expires_at, Some(expires_at));
    cluster.clock.advance(Duration::from_secs(2));
    eventually("the revocation has ended", async || {
        check(cluster.last(), &keys, None).await.is_none() && list(cluster.last()).await.is_empty()
    })
    .await;
    assert!(
        !cluster
            .first()
            .revocations
            .restore(&keys[0])
            .await
            .expect("restore")
    );
}

pub(super) async fn a_lifted_revocation_is_gone(cluster: Cluster) {
    let keys = [user("alice"), user("bob")];
    for key in &keys {
        revoke(cluster.first(), key, Revocation::default()).await;
    }
    let restore = || cluster.first().revocations.restore(&keys[0]);
    assert!(
        restore().await.expect("restore"),
        "the revocation was in force"
    );
    assert!(
        !restore().await.expect("restore"),
        "the revocation was already lifted"
    );
    for member in &cluster.members {
        assert_eq!(check(&member.backends, &keys[..1], None).await, None);
        assert!(check(&member.backends, &keys[1..], None).await.is_some());
        assert_eq!(list(&member.backends).await.len(), 1);
    }
}

pub(super) async fn a_later_revocation_never_covers_less(cluster: Cluster) {
    let now = cluster.clock.unix();
    let (soon, late) = (Some(now + 1000), Some(now + 2000));
    let all = None;
    for (at, (earlier, later, expect)) in [
        ((Some(now), None), (Some(now - 10), None), (Some(now), None)),
        ((Some(now - 10), None), (Some(now), None), (Some(now), None)),
        ((all, None), (Some(now), None), (all, None)),
        ((Some(now), None), (all, None), (all, None)),
        ((all, late), (all, soon), (all, late)),
        ((all, soon), (all, late), (all, late)),
        ((all, None), (all, soon), (all, None)),
        ((all, soon), (all, None), (all, None)),
        ((Some(now), soon), (Some(now - 10), late), (Some(now), late)),
    ]
    .into_iter()
    .enumerate()
    {
        let key = user(&at.to_string());
        for (before, expires_at) in [earlier, later] {
            let revocation = Revocation {
                before,
                reason: None,
                expires_at,
                trace: None,
            };
            revoke(cluster.first(), &key, revocation).await;
        }
        let found = check(cluster.last(), &[key], None)
            .await
            .expect("the revocation is in force")
            .revocation;
        assert_eq!((found.before, found.expires_at), expect, "case {at}");
    }
}

pub(super) async fn an_ended_revocation_does_not_widen_the_next(cluster: Cluster) {
    let keys = [user("alice")];
    let now = cluster.clock.unix();
    revoke(cluster.first(), &keys[0], until(now + 2)).await;
    cluster.clock.advance(Duration::from_secs(2));
    eventually("the revocation has ended", async || {
        check(cluster.last(), &keys, None).await.is_none()
    })
    .await;
    revoke(cluster.first(), &keys[0], cutoff(now)).await;
    assert_eq!(check(cluster.last(), &keys, Some(now + 1)).await, None);
    assert!(check(cluster.last(), &keys, Some(now)).await.is_some());
}

pub(super) async fn revocations_are_listed_in_order_of_their_keys(cluster: Cluster) {
    let expires_at = cluster.clock.unix() + 60;
    let mut expect = Vec::new();
    for (key, before, reason, expires_at) in [
        (
            RevocationKey::claim("tenant", "acme"),
            Some(1_764_000_000),
            Some("left \"ä\""),
            Some(expires_at),
        ),
        (user("bob"), None, Some("lost phone"), None),
        (user("alice"), Some(1_764_000_000), None, None),
        (RevocationKey::All, None, None, Some(expires_at)),
        (RevocationKey::token("t1"), None, None, None),
    ] {
        let revocation = Revocation {
            before,
            reason: reason.map(Into::into),
            expires_at,
            trace: None,
        };
        revoke(cluster.first(), &key, revocation.clone()).await;
        expect.push(Revoked { key, revocation });
    }
    expect.sort_by_key(|revoked| revoked.key.to_string());
    for member in &cluster.members {
        assert_eq!(list(&member.backends).await, expect);
    }
}

pub(super) async fn the_time_is_one_for_all_nodes(cluster: Cluster) {
    let time = async |backends: &Backends| backends.revocations.time().await.expect("time");
    let began = time(cluster.first()).await;
    let between = time(cluster.last()).await;
    let ended = time(cluster.first()).await;
    assert!(
        began <= between && between <= ended,
        "{began:?} {between:?} {ended:?}"
    );
    // The backend's time can be compared with the suite's clock, because that clock starts at the
    // real time.
    let apart = began.abs_diff(cluster.clock.now());
    assert!(apart < DEADLINE, "{apart:?}");
}
