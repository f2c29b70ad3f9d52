//! Checks of [`Tickets`](crate::Tickets).

use std::time::Duration;

use curfew_model::TicketId;
use tokio::task::JoinSet;

use super::cluster::{Cluster, eventually};
use crate::{BackendError, Backends};

/// A ticket lifetime that is longer than any check takes.
const LONG: Duration = Duration::from_secs(30);

/// The data of a ticket may be any bytes, including bytes that are not text.
const SEALED: &[u8] = b"\0\xff\r\nsealed";

fn id(number: u8) -> TicketId {
    TicketId::from_bytes([number; 32])
}

async fn put(backends: &Backends, number: u8, lifetime: Duration) {
    let put = backends.tickets.put(&id(number), SEALED, lifetime).await;
    put.expect("store a ticket");
}

async fn take(backends: &Backends, number: u8) -> Option<Vec<u8>> {
    let taken = backends.tickets.take(&id(number)).await;
    taken.expect("take a ticket")
}

pub(super) async fn a_ticket_is_taken_on_any_node_and_once(cluster: Cluster) {
    for (at, member) in (0..).zip(&cluster.members) {
        put(cluster.first(), at, LONG).await;
        let taken = take(&member.backends, at).await;
        assert_eq!(taken.as_deref(), Some(SEALED));
        for member in &cluster.members {
            assert_eq!(take(&member.backends, at).await, None);
        }
    }
    assert_eq!(
        take(cluster.last(), u8::MAX).await,
        None,
        "no ticket was stored under this id"
    );
}

pub(super) async fn of_many_who_take_a_ticket_one_has_it(cluster: Cluster) {
    for round in 0..10 {
        put(cluster.first(), round, LONG).await;
        let mut takes = JoinSet::new();
        for at in 0..20 {
            let backends = cluster.members[at % cluster.members.len()].backends.clone();
            takes.spawn(async move { take(&backends, round).await });
        }
        let taken = takes.join_all().await;
        assert_eq!(taken.into_iter().flatten().count(), 1);
    }
}

pub(super) async fn a_ticket_is_gone_when_its_lifetime_is_over(cluster: Cluster) {
    const SHORT: Duration = Duration::from_secs(1);
    put(cluster.first(), 0, LONG).await;
    put(cluster.first(), 1, SHORT).await;
    put(cluster.first(), 2, SHORT).await;
    cluster.clock.advance(SHORT);
    // `take` would remove the ticket. The check instead stores another ticket under the same id.
    // This succeeds only if the first ticket has expired.
    eventually("the ticket is gone", async || {
        cluster
            .first()
            .tickets
            .put(&id(2), SEALED, LONG)
            .await
            .is_ok()
    })
    .await;
    assert_eq!(
        take(cluster.last(), 1).await,
        None,
        "ticket 1 was stored before ticket 2, so it has expired too"
    );
    assert!(
        take(cluster.last(), 0).await.is_some(),
        "ticket 0 has not expired"
    );
}

pub(super) async fn an_id_is_given_once(cluster: Cluster) {
    put(cluster.first(), 0, LONG).await;
    let again = cluster.last().tickets.put(&id(0), b"other", LONG).await;
    assert!(matches!(again, Err(BackendError::Unusable(_))), "{again:?}");
    assert_eq!(take(cluster.last(), 0).await.as_deref(), Some(SEALED));
}
