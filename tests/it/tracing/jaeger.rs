//! The tree of a publication as Jaeger tells it to whoever looks.
//!
//! Where `CURFEW_JAEGER` is the path of a `jaeger` binary, version 2, `.ci/run` runs this; otherwise
//! it is listed as ignored. No package that `.ci/run` installs has that binary: this was written from
//! Jaeger's documentation, and has not been run against one yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curfew_testkit::http;
use curfew_tests::{Cluster, Redis, eventually_within, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::collector::exporting_to;

/// The path of Jaeger's binary.
const VARIABLE: &str = "CURFEW_JAEGER";

/// How long Jaeger may take to start, and to have a trace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every span of a publication on two nodes, with how many there are.
const SPANS: [(&str, usize); 5] = [
    ("curfew.publish", 1),
    ("authorize", 1),
    ("publish", 1),
    ("process", 2),
    ("deliver", 2),
];

/// A Jaeger that keeps traces in memory, killed when dropped.
struct Jaeger {
    process: Child,
    otlp: SocketAddr,
    ui: SocketAddr,
    directory: TempDir,
}

/// A span in Jaeger's words.
#[derive(Debug)]
struct Span {
    name: String,
    id: String,
    parent: Option<String>,
    /// `service.instance.id`
    node: String,
    kind: String,
}

impl Jaeger {
    async fn start() -> Self {
        let binary = std::env::var_os(VARIABLE)
            .unwrap_or_else(|| panic!("{VARIABLE} must be the path of a jaeger binary"));
        let [otlp, ui, grpc] =
            [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jaeger.json");
        // YAML's subset: no port but these, since others may be taken.
        let configuration = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]},
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_storage": {"backends": {"kept": {"memory": {"max_traces": 1000}}}},
                "jaeger_query": {
                    "storage": {"traces": "kept"},
                    "http": {"endpoint": ui.to_string()},
                    "grpc": {"endpoint": grpc.to_string()},
                },
            },
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": otlp.to_string()}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "kept"}},
        });
        fs::write(&file, configuration.to_string()).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut jaeger = Self {
            process,
            otlp,
            ui,
            directory,
        };
        jaeger.until_it_answers().await;
        jaeger
    }

    async fn until_it_answers(&mut self) {
        eventually_within(PATIENCE, "an answer of Jaeger", async || {
            if let Some(status) = self.process.try_wait().unwrap() {
                let log = fs::read_to_string(self.directory.path().join("log"));
                panic!("{status}: {}", log.unwrap_or_default());
            }
            for address in [self.ui, self.otlp] {
                tokio::net::TcpStream::connect(address).await.ok()?;
            }
            Some(())
        })
        .await;
    }

    /// The spans of the one trace with this operation, once it has so many.
    async fn trace(&self, operation: &str, spans: usize) -> Vec<Span> {
        let path = format!("/api/traces?service=curfew&operation={operation}&limit=20");
        eventually_within(PATIENCE, "a trace in Jaeger", async || {
            let answer = http::request(self.ui, "GET", &path, &[], b"").await;
            if answer.status != 200 {
                return None;
            }
            let answer = answer.json();
            let [trace] = answer["data"].as_array()?.as_slice() else {
                return None;
            };
            let found = read(trace);
            (found.len() >= spans).then_some(found)
        })
        .await
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn read(trace: &Value) -> Vec<Span> {
    let tag = |of: &Value, key: &str| {
        let tags = of["tags"].as_array().unwrap();
        let tag = tags.iter().find(|tag| tag["key"] == key);
        tag.map_or(String::new(), |tag| {
            tag["value"].as_str().unwrap().to_owned()
        })
    };
    let read = |span: &Value| {
        let references = span["references"].as_array().unwrap();
        // A link to another span is a reference as well.
        let parent = references
            .iter()
            .find(|reference| reference["refType"] == "CHILD_OF");
        Span {
            name: span["operationName"].as_str().unwrap().to_owned(),
            id: span["spanID"].as_str().unwrap().to_owned(),
            parent: parent.map(|parent| parent["spanID"].as_str().unwrap().to_owned()),
            node: tag(
                &trace["processes"][span["processID"].as_str().unwrap()],
                "service.instance.id",
            ),
            kind: tag(span, "span.kind"),
        }
    };
    trace["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(read)
        .collect()
}

#[tokio::test]
#[ignore = "needs CURFEW_JAEGER, the path of a jaeger binary: Jaeger was not asked"]
async fn jaeger_shows_a_publication_as_one_tree_across_nodes() {
    let (redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let settings = exporting_to(jaeger.otlp).with("telemetry.trace_sample_ratio = 1.0");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
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
    let spans = jaeger.trace("curfew.publish", count).await;
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
    let (command, publish) = (by_name["curfew.publish"][0], by_name["publish"][0]);
    let ids = [cluster[0].id().await, cluster[1].id().await];
    assert_eq!((&command.parent, &*command.kind), (&None, "server"));
    assert_eq!(
        (&publish.parent, &*publish.kind),
        (&Some(command.id.clone()), "producer")
    );
    assert_eq!(by_name["authorize"][0].parent.as_ref(), Some(&command.id));
    for span in [command, publish, by_name["authorize"][0]] {
        assert_eq!(span.node, ids[0]);
    }
    let mut nodes = BTreeSet::new();
    for process in &by_name["process"] {
        assert_eq!(
            (&process.parent, &*process.kind),
            (&Some(publish.id.clone()), "consumer")
        );
        nodes.insert(process.node.clone());
        let mut delivered = by_name["deliver"].iter();
        let deliver = delivered.find(|span| span.parent.as_ref() == Some(&process.id));
        assert_eq!(deliver.unwrap().node, process.node);
    }
    assert_eq!(nodes, BTreeSet::from(ids));
}
