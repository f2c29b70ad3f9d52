//! Checks of [`Streams`](crate::Streams).

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Position, Publication, PublicationKey, Publisher, StreamEntry, boottime};
use tokio::task::JoinSet;

use super::broker::{NO_END, arrived, channel, publication, subscribe};
use super::cluster::{Cluster, eventually};
use crate::{Backends, StreamBounds, StreamRange};

const BOUNDS: StreamBounds = StreamBounds {
    size: 1_000,
    ttl: Duration::from_secs(600),
};

const ALL: StreamRange = StreamRange::After {
    offset: 0,
    limit: u32::MAX,
};

async fn append(backends: &Backends, name: &str, data: impl Into<Bytes>) -> Position {
    append_by(backends, name, data, None).await
}

async fn append_by(
    backends: &Backends,
    name: &str,
    data: impl Into<Bytes>,
    key: Option<PublicationKey>,
) -> Position {
    let publication = publication(name, data);
    let appended = backends.streams.append(publication, NO_END, BOUNDS, key);
    appended.await.expect("append")
}

async fn position(backends: &Backends, name: &str) -> Position {
    let read = backends
        .streams
        .read(&channel(name), StreamRange::Top)
        .await;
    read.expect("read").position
}

async fn read(backends: &Backends, name: &str, range: StreamRange) -> Vec<Publication> {
    let read = backends.streams.read(&channel(name), range).await;
    read.expect("read").publications
}

async fn offsets(backends: &Backends, name: &str, range: StreamRange) -> Vec<u64> {
    offsets_of(&read(backends, name, range).await)
}

fn offsets_of(publications: &[Publication]) -> Vec<u64> {
    publications
        .iter()
        .map(|publication| entry(publication).position.offset)
        .collect()
}

fn entry(publication: &Publication) -> StreamEntry {
    publication
        .entry
        .expect("the publication has an entry in a stream")
}

pub(super) async fn an_unused_stream_has_one_epoch(cluster: Cluster) {
    // An implementation may confuse these names with parts of its own keys.
    for name in ["a", "räume:ä", "}{", "}", "{x}:a", "*"] {
        let first = position(cluster.first(), name).await;
        assert_eq!(first.offset, 0, "{name}");
        assert_eq!(position(cluster.last(), name).await, first, "{name}");
        let appended = append(cluster.last(), name, "1").await;
        let expect = Position { offset: 1, ..first };
        assert_eq!(appended, expect, "{name}");
        assert_eq!(position(cluster.first(), name).await, expect, "{name}");
    }
    let epochs = ["a", "räume:ä", "}"].map(async |name| position(cluster.first(), name).await);
    let mut distinct = HashSet::new();
    for epoch in epochs {
        distinct.insert(epoch.await.epoch);
    }
    assert_eq!(distinct.len(), 3, "each stream has an epoch of its own");
}

pub(super) async fn offsets_have_no_holes_and_arrive_in_order(cluster: Cluster) {
    const EACH: u64 = 200;
    for member in &cluster.members {
        subscribe(&member.backends, "a").await;
    }
    // All nodes append at once.
    let mut appending = JoinSet::new();
    for member in &cluster.members {
        let backends = member.backends.clone();
        appending.spawn(async move {
            let mut positions = Vec::new();
            for n in 0..EACH {
                positions.push(append(&backends, "a", n.to_string()).await);
            }
            positions
        });
    }
    let mut answered = Vec::new();
    for positions in appending.join_all().await {
        let ascending = positions.is_sorted_by_key(|position| position.offset);
        assert!(ascending, "one publisher's offsets ascend");
        answered.extend(positions);
    }
    answered.sort_by_key(|position| position.offset);
    let count = EACH * cluster.members.len() as u64;
    let epoch = answered[0].epoch;
    let expect: Vec<_> = (1..=count)
        .map(|offset| Position { epoch, offset })
        .collect();
    assert_eq!(answered, expect);
    for recorder in &cluster.recorders {
        eventually("all publications arrive", async || {
            arrived(recorder, "a").len() as u64 >= count
        })
        .await;
        let positions: Vec<_> = arrived(recorder, "a")
            .iter()
            .map(|publication| entry(publication).position)
            .collect();
        assert_eq!(positions, expect);
    }
}

pub(super) async fn a_stream_is_read_both_ways(cluster: Cluster) {
    for n in 1..=10 {
        append(cluster.first(), "a", n.to_string()).await;
    }
    let after = |offset, limit| StreamRange::After { offset, limit };
    let before = |offset, limit| StreamRange::Before { offset, limit };
    for (range, expect) in [
        (StreamRange::Top, vec![]),
        (after(0, 3), vec![1, 2, 3]),
        (after(7, 100), vec![8, 9, 10]),
        (after(10, 100), vec![]),
        (after(11, 100), vec![]),
        (after(3, 0), vec![]),
        (before(11, 3), vec![10, 9, 8]),
        (before(u64::MAX, 2), vec![10, 9]),
        (before(3, 100), vec![2, 1]),
        (before(1, 100), vec![]),
        (before(0, 100), vec![]),
    ] {
        let read = cluster.last().streams.read(&channel("a"), range).await;
        let page = read.expect("read");
        assert_eq!(offsets_of(&page.publications), expect, "{range:?}");
        assert_eq!(page.position.offset, 10, "{range:?}");
    }
}

pub(super) async fn a_publication_is_read_back_byte_for_byte(cluster: Cluster) {
    subscribe(cluster.last(), "ä").await;
    let sent = [
        (
            "{ \"b\": 1.0e+5,\n \"a\": \"\\u0041é\" }",
            Some("alice \"a\" ä\n"),
        ),
        ("null", None),
        ("\"}\"", Some("")),
    ];
    for (data, from) in sent {
        let publication = Publication {
            from: from.map(Into::into),
            ..publication("ä", data)
        };
        let streams = &cluster.first().streams;
        let appended = streams.append(publication, NO_END, BOUNDS, None).await;
        appended.expect("append");
    }
    let read = read(cluster.last(), "ä", ALL).await;
    assert_eq!(read.len(), sent.len());
    for (publication, (data, from)) in read.iter().zip(sent) {
        assert_eq!(&publication.data[..], data.as_bytes());
        assert_eq!(publication.from.as_deref(), from);
        let clock = cluster.clock.as_ref();
        let now = curfew_model::Clock::now(clock).as_millis();
        let at = u128::from(entry(publication).at);
        assert!(
            now.abs_diff(at) < 60_000,
            "{at} is not within a minute of {now}"
        );
    }
    eventually("all publications arrive", async || {
        arrived(cluster.last_recorder(), "ä") == read
    })
    .await;
}

pub(super) async fn a_stream_is_trimmed_to_its_size(cluster: Cluster) {
    let bounds = StreamBounds { size: 3, ..BOUNDS };
    for n in 0..10 {
        let publication = publication("a", n.to_string());
        let streams = &cluster.first().streams;
        let appended = streams.append(publication, NO_END, bounds, None).await;
        assert_eq!(appended.expect("append").offset, n + 1);
    }
    assert_eq!(offsets(cluster.last(), "a", ALL).await, [8, 9, 10]);
}

pub(super) async fn publications_are_over_when_their_time_is_and_the_position_stays(
    cluster: Cluster,
) {
    const TTL: Duration = Duration::from_secs(1);
    let bounds = StreamBounds { ttl: TTL, ..BOUNDS };
    let streams = &cluster.first().streams;
    let appended = streams.append(publication("a", "1"), NO_END, bounds, None);
    let first = appended.await.expect("append");
    cluster.clock.advance(TTL);
    eventually("the publication has expired", async || {
        offsets(cluster.last(), "a", ALL).await.is_empty()
    })
    .await;
    assert_eq!(position(cluster.last(), "a").await, first);
    let next = append(cluster.last(), "a", "2").await;
    let expect = Position { offset: 2, ..first };
    assert_eq!(next, expect);
    assert_eq!(offsets(cluster.first(), "a", ALL).await, [2]);
}

pub(super) async fn a_key_is_answered_with_the_first_position(cluster: Cluster) {
    subscribe(cluster.last(), "a").await;
    let key = PublicationKey::new(Publisher::User("bob"), "order-77");
    let first = append_by(cluster.first(), "a", "1", Some(key)).await;
    append(cluster.first(), "a", "2").await;
    for backends in [cluster.first(), cluster.last()] {
        assert_eq!(append_by(backends, "a", "3", Some(key)).await, first);
    }
    let last = append(cluster.last(), "a", "4").await;
    assert_eq!(last.offset, 3);
    eventually("the last publication arrives", async || {
        arrived(cluster.last_recorder(), "a")
            .last()
            .is_some_and(|publication| &publication.data[..] == b"4")
    })
    .await;
    assert_eq!(
        offsets_of(&arrived(cluster.last_recorder(), "a")),
        [1, 2, 3]
    );
    assert_eq!(offsets(cluster.last(), "a", ALL).await, [1, 2, 3]);
}

pub(super) async fn appends_at_once_are_what_they_are_one_by_one(cluster: Cluster) {
    const ALL_AT_ONCE: u64 = 200;
    const KEYED_EVERY: u64 = 10;
    const KEPT: u32 = 7;
    subscribe(cluster.last(), "a").await;
    let bounds = StreamBounds {
        size: KEPT,
        ..BOUNDS
    };
    let mut appending = JoinSet::new();
    for n in 0..ALL_AT_ONCE {
        let backends = cluster.first().clone();
        appending.spawn(async move {
            let is_keyed = n % KEYED_EVERY == 0;
            let key = is_keyed.then(|| PublicationKey::new(Publisher::User("bob"), "k"));
            let publication = publication("a", n.to_string());
            let appended = backends.streams.append(publication, NO_END, bounds, key);
            (is_keyed, appended.await.expect("append"))
        });
    }
    let appended = appending.join_all().await;
    let (keyed, mut rest): (Vec<_>, Vec<_>) = appended.into_iter().partition(|(keyed, _)| *keyed);
    let once = keyed[0].1;
    assert!(keyed.iter().all(|(_, position)| *position == once));
    rest.push((true, once));
    let mut offsets_given: Vec<_> = rest.iter().map(|(_, position)| position.offset).collect();
    offsets_given.sort_unstable();
    let top = ALL_AT_ONCE - ALL_AT_ONCE / KEYED_EVERY + 1;
    assert_eq!(offsets_given, Vec::from_iter(1..=top));
    let kept = offsets(cluster.last(), "a", ALL).await;
    assert_eq!(kept, Vec::from_iter(top - u64::from(KEPT) + 1..=top));
    assert_eq!(position(cluster.last(), "a").await.offset, top);
    eventually("all publications arrive", async || {
        arrived(cluster.last_recorder(), "a").len() as u64 >= top
    })
    .await;
    let heard = offsets_of(&arrived(cluster.last_recorder(), "a"));
    assert_eq!(heard, Vec::from_iter(1..=top));
}

pub(super) async fn a_key_belongs_to_its_publisher_and_channel(cluster: Cluster) {
    let bob = PublicationKey::new(Publisher::User("bob"), "k");
    let eve = PublicationKey::new(Publisher::User("eve"), "k");
    for (name, key, offset) in [
        ("a", bob, 1),
        ("a", eve, 2),
        ("b", bob, 1),
        ("a", bob, 1),
        ("a", eve, 2),
    ] {
        let position = append_by(cluster.last(), name, "1", Some(key)).await;
        assert_eq!(position.offset, offset, "{name}");
    }
}

pub(super) async fn an_append_does_not_outlive_its_lease(cluster: Cluster) {
    const SOON: Duration = Duration::from_secs(1);
    let streams = &cluster.first().streams;
    for n in 0..10 {
        let late = streams.append(publication("a", "late"), boottime(), BOUNDS, None);
        let refused = late
            .await
            .expect_err("the lease of the publication has ended");
        assert_eq!(refused.error_type(), "unavailable", "{refused}");
        let in_time = streams.append(publication("a", "1"), boottime() + SOON, BOUNDS, None);
        let position = in_time
            .await
            .expect("the lease of the publication has not ended");
        assert_eq!(position.offset, n + 1);
    }
}

pub(super) async fn a_cleared_stream_keeps_its_position(cluster: Cluster) {
    for member in &cluster.members {
        subscribe(&member.backends, "a").await;
    }
    append(cluster.first(), "a", "1").await;
    let last = append(cluster.first(), "a", "2").await;
    let cleared = cluster.first().streams.clear(&channel("a")).await;
    cleared.expect("clear");
    for (at, recorder) in cluster.recorders.iter().enumerate() {
        eventually("the node is notified of the clearing", async || {
            let mut cleared = recorder.cleared();
            if at == 0 {
                // Only the node that clears the stream may be notified twice.
                cleared.dedup();
            }
            cleared == [channel("a")]
        })
        .await;
    }
    assert_eq!(offsets(cluster.last(), "a", ALL).await, [0; 0]);
    assert_eq!(position(cluster.last(), "a").await, last);
    let next = append(cluster.last(), "a", "3").await;
    let expect = Position { offset: 3, ..last };
    assert_eq!(next, expect);
    assert_eq!(offsets(cluster.first(), "a", ALL).await, [3]);
}

pub(super) async fn positions_of_many_are_read_in_order(cluster: Cluster) {
    let channels: Vec<_> = (0..50).map(|n| channel(&format!("room:{n}"))).collect();
    for (n, channel) in channels.iter().enumerate() {
        for _ in 0..n % 3 {
            append(cluster.first(), channel.as_str(), "1").await;
        }
    }
    let positions = cluster.last().streams.positions(&channels).await;
    let positions = positions.expect("positions");
    assert_eq!(positions.len(), channels.len());
    for (n, (channel, found)) in channels.iter().zip(positions).enumerate() {
        assert_eq!(found.offset, n as u64 % 3, "{channel}");
        assert_eq!(found, position(cluster.first(), channel.as_str()).await);
    }
    let none = cluster.last().streams.positions(&[]).await;
    assert_eq!(none.expect("positions").len(), 0);
}
