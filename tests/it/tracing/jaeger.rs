//! Traces in a real Jaeger, version 1.76. It listens on free ports and stores traces in memory.
//!
//! `.ci/run` builds Jaeger. Without it these tests fail.

mod commands;
mod connects;
mod ends;
mod publications;
mod revocations;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curfew_testkit::http;
use curfew_tests::{Settings, eventually_within, free_port};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::collector::exporting_to;

/// Deadline for Jaeger to start, and to find a trace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum number of traces in an answer of Jaeger.
const MOST_TRACES: usize = 1000;

/// A Jaeger that stores traces in memory. It is killed when this value is dropped.
pub(super) struct Jaeger {
    process: Child,
    /// The address of OTLP over gRPC.
    pub(super) otlp: SocketAddr,
    /// The address of OTLP over HTTP.
    pub(super) http: SocketAddr,
    /// The address of Jaeger's page, and of the API that the page uses.
    pub(super) ui: SocketAddr,
    directory: TempDir,
}

/// A span as Jaeger's API returns it.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    name: String,
    id: String,
    parent: Option<String>,
    /// The ids of the spans that this span follows from.
    links: Vec<String>,
    /// The value of `service.instance.id`.
    node: String,
    /// The span's tags as text, including `span.kind`.
    tags: BTreeMap<String, String>,
    began_micros: u64,
    took_micros: u64,
    /// The whole span as text, to search for forbidden content.
    text: String,
}

/// The path `CURFEW_TOOLS/jaeger/jaeger`, or the path that `.ci/run` uses by default.
fn binary() -> PathBuf {
    let tools = std::env::var_os("CURFEW_TOOLS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools")),
        PathBuf::from,
    );
    let binary = tools.join("jaeger/jaeger");
    assert!(
        binary.exists(),
        "{} is missing: run .ci/run, which builds it",
        binary.display()
    );
    binary
}

impl Jaeger {
    pub(super) async fn start() -> Self {
        let [otlp, http, ui, grpc] =
            [(); 4].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jaeger.json");
        // Jaeger accepts JSON, because JSON is a subset of YAML. All other ports are off, because
        // they may be in use.
        let configuration = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]},
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_storage": {"backends": {"kept": {"memory": {"max_traces": 10000}}}},
                "jaeger_query": {
                    "storage": {"traces": "kept"},
                    "http": {"endpoint": ui.to_string()},
                    "grpc": {"endpoint": grpc.to_string()},
                },
            },
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": otlp.to_string()},
                "http": {"endpoint": http.to_string()},
            }}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "kept"}},
        });
        fs::write(&file, configuration.to_string()).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(binary())
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
            http,
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
            for address in [self.ui, self.otlp, self.http] {
                tokio::net::TcpStream::connect(address).await.ok()?;
            }
            Some(())
        })
        .await;
    }

    /// Settings of nodes that send all spans to this Jaeger.
    fn settings(&self) -> Settings {
        self.rarely().with("telemetry.trace_sample_ratio = 1.0")
    }

    /// Settings of nodes that send only the spans that are recorded at every sampling ratio.
    fn rarely(&self) -> Settings {
        exporting_to(self.otlp).with("telemetry.trace_sample_ratio = 0.0")
    }

    /// The spans of this operation with these tags, as the search on Jaeger's page finds them.
    async fn find(&self, operation: &str, tags: &[(&str, &str)]) -> Vec<Span> {
        let mut path = format!(
            "/api/traces?service=curfew&operation={}&limit={MOST_TRACES}",
            utf8_percent_encode(operation, NON_ALPHANUMERIC)
        );
        if !tags.is_empty() {
            let tags: BTreeMap<_, _> = tags.iter().copied().collect();
            let tags = json!(tags).to_string();
            path += &format!("&tags={}", utf8_percent_encode(&tags, NON_ALPHANUMERIC));
        }
        let mut spans = self.get(&path).await;
        spans.retain(|span| span.name == operation && span.has(tags));
        spans
    }

    /// Waits for at least `count` spans of this operation with these tags.
    async fn spans(&self, operation: &str, tags: &[(&str, &str)], count: usize) -> Vec<Span> {
        let what = format!("{count} spans {operation} {tags:?} in Jaeger");
        let spans = eventually_within(PATIENCE, &what, async || {
            let spans = self.find(operation, tags).await;
            (spans.len() >= count).then_some(spans)
        })
        .await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    /// Waits for the first span of this operation with these tags.
    async fn span(&self, operation: &str, tags: &[(&str, &str)]) -> Span {
        self.spans(operation, tags, 1).await.remove(0)
    }

    /// Waits until a trace has at least `count` spans, and returns the spans.
    async fn trace(&self, id: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans of trace {id} in Jaeger");
        eventually_within(PATIENCE, &what, async || {
            let spans = self.get(&format!("/api/traces/{id}")).await;
            (spans.len() >= count).then_some(spans)
        })
        .await
    }

    async fn get(&self, path: &str) -> Vec<Span> {
        let answer = http::request(self.ui, "GET", path, &[], b"").await;
        if answer.status != 200 {
            return Vec::new();
        }
        let answer = answer.json();
        let traces = answer["data"].as_array().into_iter().flatten();
        traces.flat_map(read).collect()
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // These calls fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Span {
    fn has(&self, tags: &[(&str, &str)]) -> bool {
        let has = |(key, value): &(&str, &str)| self.tags.get(*key).is_some_and(|v| v == value);
        tags.iter().all(has)
    }

    /// The value of a tag, which the span must have.
    #[track_caller]
    fn tag(&self, key: &str) -> &str {
        let tag = self.tags.get(key);
        tag.unwrap_or_else(|| panic!("the span has no tag {key}: {self:#?}"))
    }

    fn kind(&self) -> &str {
        self.tag("span.kind")
    }

    /// Fails unless the span is marked as failed with this `error.type`.
    #[track_caller]
    fn assert_failed(&self, error_type: &str) {
        assert!(
            self.has(&[("error.type", error_type), ("error", "true")]),
            "{self:#?}"
        );
    }
}

fn read(trace: &Value) -> Vec<Span> {
    let spans = trace["spans"].as_array().unwrap();
    spans.iter().map(|span| read_span(trace, span)).collect()
}

fn read_span(trace: &Value, span: &Value) -> Span {
    let references = |wanted: &str| -> Vec<String> {
        let references = span["references"].as_array().unwrap();
        let wanted = references.iter().filter(|r| r["refType"] == wanted);
        wanted.map(|r| text(&r["spanID"])).collect()
    };
    let process = &trace["processes"][span["processID"].as_str().unwrap()];
    Span {
        trace: text(&span["traceID"]),
        name: text(&span["operationName"]),
        id: text(&span["spanID"]),
        parent: references("CHILD_OF").pop(),
        links: references("FOLLOWS_FROM"),
        node: tags(process)["service.instance.id"].clone(),
        tags: tags(span),
        began_micros: span["startTime"].as_u64().unwrap(),
        took_micros: span["duration"].as_u64().unwrap(),
        text: span.to_string(),
    }
}

fn tags(of: &Value) -> BTreeMap<String, String> {
    let tags = of["tags"].as_array().unwrap();
    let pair = |tag: &Value| (text(&tag["key"]), text(&tag["value"]));
    tags.iter().map(pair).collect()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
