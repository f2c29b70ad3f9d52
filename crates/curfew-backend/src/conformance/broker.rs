//! Checks of [`Broker`](crate::Broker) and [`Nodes`](crate::Nodes).

use std::collections::HashSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Channel, Publication, boottime};

use super::cluster::{Cluster, Recorder, eventually};
use crate::Backends;

/// The `until` of a publication that is accepted under a lease without an end. Only the backend's
/// own lease can then refuse the publication.
pub(super) const NO_END: Duration = Duration::MAX;

pub(super) fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("the name is a valid channel name")
}

pub(super) fn publication(name: &str, data: impl Into<Bytes>) -> Publication {
    Publication {
        channel: channel(name),
        data: data.into(),
        from: None,
        sender: None,
        is_binary: false,
        entry: None,
        trace: None,
    }
}

pub(super) async fn subscribe(backends: &Backends, name: &str) {
    backends
        .broker
        .subscribe(&channel(name))
        .await
        .expect("subscribe");
}

async fn publish(backends: &Backends, publication: Publication) {
    let published = backends.broker.publish(publication, NO_END).await;
    published.expect("publish");
}

/// Publishes all publications concurrently: polls each `publish` future once before it waits for
/// any of them.
async fn publish_together(backends: &Backends, publications: Vec<Publication>) {
    let mut under_way: Vec<_> = publications
        .into_iter()
        .map(|publication| Some(backends.broker.publish(publication, NO_END)))
        .collect();
    poll_fn(|cx| {
        for publish in &mut under_way {
            if let Some(future) = publish
                && let Poll::Ready(result) = future.as_mut().poll(cx)
            {
                result.expect("publish");
                *publish = None;
            }
        }
        match under_way.iter().any(Option::is_some) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
}

/// The received publications of one channel. A node may also receive publications of other
/// channels.
pub(super) fn arrived(recorder: &Recorder, name: &str) -> Vec<Publication> {
    let mut publications = recorder.publications();
    publications.retain(|publication| publication.channel.as_str() == name);
    publications
}

pub(super) async fn a_publication_reaches_every_node_that_listens(cluster: Cluster) {
    for member in &cluster.members {
        subscribe(&member.backends, "room:ä").await;
    }
    let sent = [
        Publication {
            from: Some("alice \"a\" ä".into()),
            ..publication("room:ä", "{ \"b\": 1.0e+5,\n \"a\": \"\\u0041é\" }")
        },
        publication("room:ä", "null"),
    ];
    for publication in &sent {
        publish(cluster.first(), publication.clone()).await;
    }
    for recorder in &cluster.recorders {
        eventually("both publications arrive", async || {
            arrived(recorder, "room:ä").len() >= sent.len()
        })
        .await;
        assert_eq!(arrived(recorder, "room:ä"), sent);
    }
}

pub(super) async fn publications_arrive_in_order_and_once(cluster: Cluster) {
    const ONE_BY_ONE: usize = 250;
    const COUNT: usize = 5_000;
    for name in ["a", "b"] {
        subscribe(cluster.last(), name).await;
    }
    let both = |n: usize| ["a", "b"].map(|name| publication(name, n.to_string()));
    for n in 0..ONE_BY_ONE {
        for one in both(n) {
            publish(cluster.first(), one).await;
        }
    }
    publish_together(
        cluster.first(),
        (ONE_BY_ONE..COUNT).flat_map(both).collect(),
    )
    .await;
    let expect: Vec<Bytes> = (0..COUNT).map(|n| n.to_string().into()).collect();
    for name in ["a", "b"] {
        let recorder = cluster.last_recorder();
        eventually("all publications arrive", async || {
            arrived(recorder, name).len() >= COUNT
        })
        .await;
        let data = arrived(recorder, name)
            .into_iter()
            .map(|publication| publication.data);
        assert_eq!(data.collect::<Vec<_>>(), expect, "channel {name}");
    }
}

pub(super) async fn a_publication_does_not_outlive_its_lease(cluster: Cluster) {
    const SOON: Duration = Duration::from_secs(1);
    subscribe(cluster.last(), "a").await;
    let broker = &cluster.first().broker;
    for n in 0..10 {
        let late = broker.publish(publication("a", format!("{n}")), boottime());
        let refused = late
            .await
            .expect_err("the lease of the publication has ended");
        assert_eq!(refused.error_type(), "unavailable", "{refused}");
        let in_time = broker.publish(publication("a", format!("-{n}")), boottime() + SOON);
        in_time
            .await
            .expect("the lease of the publication has not ended");
    }
    let expect: Vec<Bytes> = (0..10).map(|n| format!("-{n}").into()).collect();
    eventually("every publication within its lease arrives", async || {
        arrived(cluster.last_recorder(), "a").len() >= expect.len()
    })
    .await;
    let data = arrived(cluster.last_recorder(), "a")
        .into_iter()
        .map(|publication| publication.data);
    assert_eq!(data.collect::<Vec<_>>(), expect);
}

pub(super) async fn a_channel_can_be_left_and_joined_again(cluster: Cluster) {
    let backends = cluster.last();
    subscribe(backends, "a").await;
    backends
        .broker
        .unsubscribe(&channel("a"))
        .await
        .expect("unsubscribe");
    subscribe(backends, "a").await;
    publish(cluster.first(), publication("a", "1")).await;
    eventually("the publication arrives", async || {
        !arrived(cluster.last_recorder(), "a").is_empty()
    })
    .await;
}

pub(super) async fn every_node_is_listed(cluster: Cluster) {
    let record = cluster.record("alice", 60);
    let node = record.node;
    cluster
        .first()
        .sessions
        .open(record, 0)
        .await
        .expect("open");
    let members: HashSet<_> = cluster.members.iter().map(|member| member.node).collect();
    for member in &cluster.members {
        eventually("every node is listed, with its sessions", async || {
            let listed = member.backends.nodes.list().await.expect("list nodes");
            let ids: HashSet<_> = listed.iter().map(|info| info.node).collect();
            ids == members
                && listed.len() == members.len()
                && listed
                    .iter()
                    .all(|info| info.sessions == u64::from(info.node == node))
        })
        .await;
    }
}
