//! A collector that receives OTLP over gRPC and decodes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curfew_tests::{Settings, eventually};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Exported;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A span, as the tests use it.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    /// The ids of the spans that this span links to.
    pub(super) links: Vec<String>,
    pub(super) links_traces: Vec<String>,
    pub(super) attributes: BTreeMap<String, String>,
    /// The node that recorded the span.
    pub(super) node: String,
    /// The span's `tracestate`.
    pub(super) state: String,
    /// The resource attributes of the node.
    pub(super) resource: BTreeMap<String, String>,
    pub(super) took_nanos: u64,
    /// The kind. 1: internal, 2: server, 4: producer, 5: consumer.
    pub(super) kind: i32,
    /// The whole span as text, to search for forbidden content.
    pub(super) text: String,
}

/// The delay of the answers to calls, and the headers of the last call.
#[derive(Debug, Default)]
struct Calls {
    /// Time in milliseconds before each call is answered.
    delay: AtomicU64,
    /// The headers of the last call that the collector received.
    headers: Mutex<HeaderMap>,
}

/// A collector that receives the spans of nodes.
#[derive(Debug)]
pub(super) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    calls: Arc<Calls>,
    _serving: JoinSet<()>,
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let calls = Arc::new(Calls::default());
        let (taken, how) = (Arc::clone(&spans), Arc::clone(&calls));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&taken), Arc::clone(&how)));
            }
        });
        Self {
            address,
            spans,
            calls,
            _serving: serving,
        }
    }

    /// Settings of nodes that send all spans to this collector.
    pub(super) fn settings(&self) -> Settings {
        exporting_to(self.address).with("telemetry.trace_sample_ratio = 1.0")
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays the answer to each later call by `delay`.
    pub(super) fn slow_down(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.calls.delay.store(delay, Ordering::Relaxed);
    }

    /// The value of a header of the last call.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let headers = self.calls.headers.lock();
        let value = headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    pub(super) fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// Waits for at least `count` spans called `name`.
    pub(super) async fn wait(&self, name: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans {name}");
        let spans = eventually(&what, async || {
            let spans = self.named(name);
            (spans.len() >= count).then_some(spans)
        })
        .await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    /// Waits for the first span for which `wanted` returns true.
    pub(super) async fn wait_for(&self, wanted: impl Fn(&Span) -> bool) -> Span {
        eventually("a span", async || self.spans().into_iter().find(&wanted)).await
    }

    /// Waits for the only span called `name` whose parent is `parent`.
    pub(super) async fn wait_below(&self, name: &str, parent: &Span) -> Span {
        let what = format!("a span {name} below {}", parent.name);
        let mut parts = eventually(&what, async || {
            let mut parts = self.named(name);
            parts.retain(|span| span.parent == parent.id);
            (!parts.is_empty()).then_some(parts)
        })
        .await;
        assert_eq!(parts.len(), 1, "{parts:#?}");
        let part = parts.remove(0);
        assert_eq!(part.trace, parent.trace);
        part
    }
}

/// Settings of nodes that send all recorded spans to `address`.
pub(super) fn exporting_to(address: SocketAddr) -> Settings {
    Settings::default().with(&format!("telemetry.otlp_endpoint = \"http://{address}\""))
}

async fn serve(stream: TcpStream, spans: Arc<Mutex<Vec<Span>>>, how: Arc<Calls>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls.spawn(take(request, respond, Arc::clone(&spans), Arc::clone(&how)));
    }
}

async fn take(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    spans: Arc<Mutex<Vec<Span>>>,
    how: Arc<Calls>,
) {
    *how.headers.lock() = request.headers().clone();
    let delay = Duration::from_millis(how.delay.load(Ordering::Relaxed));
    tokio::time::sleep(delay).await;
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(request.uri().path(), path);
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap();
        message.extend_from_slice(&chunk);
    }
    // The first five bytes are the prefix of gRPC: a flag for compression and the length.
    let exported = ExportTraceServiceRequest::decode(&message[5..]).unwrap();
    spans.lock().extend(read(exported));
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    let mut answer = respond.send_response(response, false).unwrap();
    answer
        .send_data(Bytes::from_static(&[0; 5]), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    answer.send_trailers(trailers).unwrap();
}

fn read(exported: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in exported.resource_spans {
        let of_node = attributes(&resource.resource.unwrap().attributes);
        for scope in resource.scope_spans {
            for span in scope.spans {
                spans.push(Span::read(span, of_node.clone()));
            }
        }
    }
    spans
}

impl Span {
    fn read(span: Exported, resource: BTreeMap<String, String>) -> Self {
        Self {
            text: format!("{span:?}"),
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            links_traces: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
            attributes: attributes(&span.attributes),
            node: resource["curfew.node.id"].clone(),
            resource,
            state: span.trace_state,
            took_nanos: span.end_time_unix_nano - span.start_time_unix_nano,
            kind: span.kind,
        }
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        other => format!("{other:?}"),
    };
    pairs
        .iter()
        .map(|pair| (pair.key.clone(), text(&pair.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all text");
        text
    })
}
