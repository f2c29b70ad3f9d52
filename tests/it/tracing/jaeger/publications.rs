//! The tree of a publication.

use std::collections::{BTreeMap, BTreeSet};

use curfew_tests::{Cluster, Redis};
use serde_json::json;

use super::{Jaeger, Span};

/// Every span of a publication on two nodes, with how many there are.
const SPANS: [(&str, usize); 5] = [
    ("curfew.publish", 1),
    ("authorize", 1),
    ("publish", 1),
    ("process", 2),
    ("deliver", 2),
];

/// The fault was `process` linked to the span that was its parent, so that it had none in Jaeger.
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
    }
    assert_eq!(nodes, BTreeSet::from(ids));
}
