use opentelemetry_sdk::trace::SpanData;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A tracer whose spans stay in the queue, and the subscriber they are made by.
struct Rig {
    tracer: Tracer,
    ended: mpsc::Receiver<SpanData>,
    dropped: crate::Counter,
    _subscriber: DefaultGuard,
}

impl Rig {
    fn new(ratio: f64, trust_clients: bool, room: usize) -> Self {
        let spans = Spans::default();
        let subscriber = tracing_subscriber::registry().with(layer(&spans));
        let (queue, ended) = mpsc::channel(room);
        let dropped = crate::Counter::default();
        spans.lead_to(Queue {
            ended: queue,
            dropped: dropped.clone(),
        });
        let recorder = Recorder {
            ratio,
            trust_clients,
            user_ids: false,
            trace_url: Some("https://jaeger.example/trace/{trace_id}".to_owned()),
            refusals: Budget::new(2),
            failures: Budget::new(2),
            by_clients: Budget::new(2),
            stop: Notify::new(),
            stopped: Notify::new(),
        };
        Self {
            tracer: Tracer(Some(Arc::new(recorder))),
            ended,
            dropped,
            _subscriber: set_default(subscriber),
        }
    }

    /// The span that ended next.
    fn next(&mut self) -> SpanData {
        self.ended.try_recv().unwrap()
    }

    fn assert_no_more(&mut self) {
        assert!(self.ended.try_recv().is_err());
    }
}

fn parent() -> TraceContext {
    TraceContext::parse(PARENT).unwrap()
}

fn unsampled() -> TraceContext {
    TraceContext::parse(&PARENT.replace("-01", "-00")).unwrap()
}

#[test]
fn without_an_endpoint_nothing_is_recorded() {
    let off = Tracer::OFF;
    assert!(!off.always("a", Origin::Operator(parent())).is_recorded());
    assert!(!off.root("a", SpanKind::Internal).is_recorded());
    assert_eq!(
        off.child("a", SpanKind::Internal, &parent()).context(),
        None
    );
}

#[test]
fn a_client_is_linked_to_and_an_operator_joined() {
    let mut rig = Rig::new(1.0, false, 8);
    drop(rig.tracer.request("a", Origin::Client(parent())));
    let span = rig.next();
    assert_ne!(span.span_context.trace_id().to_bytes(), parent().trace_id());
    assert_eq!(span.links.len(), 1);
    drop(rig.tracer.request("a", Origin::Operator(parent())));
    let span = rig.next();
    assert_eq!(span.span_context.trace_id().to_bytes(), parent().trace_id());
    assert_eq!(span.parent_span_id.to_bytes(), parent().span_id());
    assert!(
        !rig.tracer
            .request("a", Origin::Operator(unsampled()))
            .is_recorded()
    );
}

#[test]
fn trusted_clients_are_joined_but_cannot_flood() {
    let mut rig = Rig::new(0.0, true, 8);
    for _ in 0..5 {
        drop(rig.tracer.request("a", Origin::Client(parent())));
    }
    drop(rig.tracer.request("a", Origin::Unknown));
    let span = rig.next();
    assert_eq!(span.parent_span_id.to_bytes(), parent().span_id());
    rig.next();
    rig.assert_no_more();
}

#[test]
fn refusals_are_recorded_up_to_a_number_each_second() {
    let mut rig = Rig::new(0.0, false, 8);
    let started = span::now() - Duration::from_secs(3);
    for _ in 0..5 {
        drop(rig.tracer.refusal("a", Origin::Unknown, started));
    }
    let span = rig.next();
    assert_eq!(span.start_time, started);
    rig.next();
    rig.assert_no_more();
    // What fails is recorded all the same.
    drop(rig.tracer.failure("a", Origin::Unknown, started));
    rig.next();
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut rig = Rig::new(1.0, false, 1);
    let span = rig.tracer.request("a", Origin::Unknown);
    drop(span.child("b", SpanKind::Internal));
    let context = span.context().unwrap();
    drop(span);
    assert_eq!(rig.dropped.get(), 1);
    let child = rig.next();
    assert_eq!(child.parent_span_id.to_bytes(), context.span_id());
    assert!(!child.parent_span_is_remote);
}

#[test]
fn a_span_says_what_was_set_and_nothing_of_how_it_is_made() {
    let mut rig = Rig::new(1.0, false, 8);
    let mut span = rig.tracer.request("GET /ws", Origin::Unknown);
    span.set("http.route", "/ws");
    span.began(span::now() - Duration::from_secs(1));
    span.failed("unavailable");
    // What is logged within stays in the log.
    span.scope().in_scope(|| tracing::error!("canary"));
    drop(span);
    let span = rig.next();
    assert_eq!(span.name, "GET /ws");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.events.len(), 0);
    assert_eq!(span.status, opentelemetry::trace::Status::error(""));
    let mut attributes: Vec<_> = span.attributes.iter().map(|a| a.key.as_str()).collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["error.type", "http.route"]);
}

#[test]
fn what_runs_within_a_span_is_a_part_of_it() {
    let mut rig = Rig::new(1.0, false, 8);
    let part = |rig: &Rig| rig.tracer.within("EXISTS", SpanKind::Client);
    assert!(!part(&rig).is_recorded());
    let span = rig.tracer.request("a", Origin::Unknown);
    span.scope().in_scope(|| drop(part(&rig)));
    let context = span.context().unwrap();
    // Another library's span hides it: what it does is not ours.
    let other = tracing::error_span!("other");
    other.in_scope(|| assert!(!part(&rig).is_recorded()));
    let child = rig.next();
    assert_eq!(child.name, "EXISTS");
    assert_eq!(child.parent_span_id.to_bytes(), context.span_id());
    rig.assert_no_more();
}
