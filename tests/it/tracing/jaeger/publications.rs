//! The spans of a publication form one tree.

use std::collections::{BTreeMap, BTreeSet};

use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, Redis};
use serde_json::json;

use super::{Jaeger, Span};

/// The spans of a publication on two nodes: the name and the number of each.
const SPANS: [(&str, usize); 6] = [
    ("curfew.publish", 1),
    ("authorize", 1),
    ("publish", 1),
    ("process", 2),
    ("deliver", 2),
    ("write", 2),
];

/// Regression: the span `process` linked to its own parent. Jaeger therefore showed it without a
/// parent.
#[tokio::test]
async fn jaeger_shows_a_publication_as_one_tree_across_nodes() {
    let (redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let cluster = Cluster::start(2, &redis.url(), &jaeger.settings()).await;
    let mut listeners = [
        cluster[0].subscriber("bob", "room:1").await,
        cluster[1].subscriber("carol", "room:1").await,
    ];
    let mut alice = cluster[0].user("alice").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice.expect_json(json!({"type":"ok","id":1})).await;
    for listener in &mut listeners {
        listener.expect_json(json!({"type":"message"})).await;
    }

    let count = SPANS.iter().map(|(_, count)| count).sum();
    let command = jaeger.span("curfew.publish", &[]).await;
    let spans = jaeger.trace(&command.trace, count).await;
    let mut by_name: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        by_name.entry(&span.name).or_default().push(span);
    }
    let counts = by_name.iter().map(|(name, spans)| (*name, spans.len()));
    assert_eq!(
        counts.collect::<BTreeSet<_>>(),
        BTreeSet::from(SPANS),
        "{spans:#?}"
    );
    let publish = by_name["publish"][0];
    let ids = [cluster[0].id().await, cluster[1].id().await];
    assert_eq!((&command.parent, command.kind()), (&None, "server"));
    assert_eq!(
        (&publish.parent, publish.kind()),
        (&Some(command.id.clone()), "producer")
    );
    assert_eq!(by_name["authorize"][0].parent.as_ref(), Some(&command.id));
    for span in [&command, publish, by_name["authorize"][0]] {
        assert_eq!(span.node, ids[0]);
    }
    let mut nodes = BTreeSet::new();
    for process in &by_name["process"] {
        assert_eq!(
            (&process.parent, process.kind()),
            (&Some(publish.id.clone()), "consumer")
        );
        assert_eq!(process.links, Vec::<String>::new());
        nodes.insert(process.node.clone());
        let mut delivered = by_name["deliver"].iter();
        let deliver = delivered.find(|span| span.parent.as_ref() == Some(&process.id));
        assert_eq!(deliver.unwrap().node, process.node);
        let mut writes = by_name["write"].iter();
        let write = writes.find(|span| span.parent.as_ref() == Some(&process.id));
        let write = write.unwrap();
        assert_eq!(write.node, process.node);
        assert!(write.began_micros >= process.began_micros, "{spans:#?}");
        assert_eq!(write.tag("curfew.write.sessions"), "1");
        for (span, operation) in [
            (publish, "send"),
            (process, "process"),
            (deliver.unwrap(), "process"),
        ] {
            assert_eq!(span.tag("messaging.system"), "redis");
            assert_eq!(span.tag("messaging.operation.type"), operation);
            assert_eq!(span.tag("messaging.operation.name"), span.name);
            assert_eq!(span.tag("messaging.message.body.size"), "1");
            assert!(!span.tags.contains_key("messaging.destination.name"));
        }
    }
    assert_eq!(nodes, BTreeSet::from(ids));
}

/// Regression: a trace ended when the queues had the message, and did not show when the sockets had
/// it.
#[tokio::test]
async fn the_writes_of_a_publication_span_the_first_and_the_last() {
    let jaeger = Jaeger::start().await;
    let settings = jaeger.settings().with("telemetry.trace_user_ids = true");
    let node = Gateway::start_with(&settings).await;
    let mut good = node.subscriber("good", "flood").await;
    let token = Key::default_secret().user("slow");
    // The client's kernel accepts few bytes until the client reads.
    let slow = node.ws().bearer(&token).receive_buffer(16 * 1024);
    let (mut slow, _) = node.connected(slow).await;
    slow.send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.expect_json(json!({"type":"ok"})).await;
    let mut publisher = node.user("publisher").await;
    let pad = "x".repeat(60_000);
    let mut count = 0;
    while node.metric("curfew_send_queue_bytes").await < 200_000.0 {
        publisher
            .send(json!({"type":"publish","channel":"flood","data":[count, pad]}))
            .await;
        assert_eq!(good.next_json().await["data"][0], count);
        count += 1;
    }
    // The client that reads has all messages. The slow client lacks the last messages, so the spans
    // of their writes have not ended.
    let deliveries = jaeger.spans("deliver", &[], count).await;
    let over = jaeger.find("write", &[]).await;
    assert!(over.len() < count, "{count}");
    for n in 0..count {
        assert_eq!(slow.next_json().await["data"][0], n);
    }
    let tags = [("curfew.write.queued", "2"), ("curfew.write.sessions", "2")];
    let writes = jaeger.spans("write", &tags, count).await;
    for deliver in deliveries {
        assert_eq!(deliver.tag("messaging.system"), "curfew");
        assert_eq!(deliver.tag("messaging.destination.name"), "flood");
        let of_it = |write: &&Span| write.trace == deliver.trace;
        assert_eq!(writes.iter().filter(of_it).count(), 1);
    }
    let over: BTreeSet<_> = over.iter().map(|write| &write.id).collect();
    let late = writes.iter().filter(|write| !over.contains(&write.id));
    for write in late {
        assert!(write.took_micros > 0, "{write:#?}");
    }
}
