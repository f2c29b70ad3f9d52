use std::net::IpAddr;

use opentelemetry_sdk::trace::SpanData;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::metrics::table::Counters;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A tracer and its subscriber. Ended spans stay in the queue, where a test can take them.
struct Rig {
    tracer: Tracer,
    ended: mpsc::Receiver<SpanData>,
    dropped: crate::Counter,
    suppressed: Counters<Unasked>,
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
        let suppressed = Counters::default();
        let recorder = Recorder {
            ratio,
            trust_clients,
            user_ids: false,
            pages: "https://jaeger.example/trace/{trace_id}".parse().ok(),
            unasked: Budgets::new(4, 2, suppressed.clone()),
            by_clients: Budget::new(2, 2),
            stop: Notify::new(),
            stopped: Notify::new(),
        };
        Self {
            tracer: Tracer(Some(Arc::new(recorder))),
            ended,
            dropped,
            suppressed,
            _subscriber: set_default(subscriber),
        }
    }

    /// Takes the next ended span from the queue.
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
    assert!(!off.revocation("a", None, false).is_recorded());
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
fn one_clients_refusals_leave_room_for_those_of_others() {
    let mut rig = Rig::new(0.0, false, 16);
    let started = span::now() - Duration::from_secs(3);
    let refuse = |rig: &Rig, last: u8, user: Option<&str>| {
        let address = Some(IpAddr::from([192, 0, 2, last]));
        let whose = Whose { address, user };
        drop(
            rig.tracer
                .fault(false, "a", Origin::Unknown, started, whose),
        );
    };
    for _ in 0..50 {
        refuse(&rig, 1, None);
    }
    assert_eq!(rig.next().start_time, started);
    rig.next();
    rig.assert_no_more();
    assert_eq!(rig.suppressed.get(Unasked::Refusal), 48);
    // The first of these refusals is of another user at the same address, the second of a client at
    // another address.
    refuse(&rig, 1, Some("alice"));
    refuse(&rig, 2, None);
    rig.next();
    rig.next();
    // All clients together have reached the limit, so a further client's span is suppressed.
    refuse(&rig, 3, None);
    rig.assert_no_more();
    assert_eq!(rig.suppressed.get(Unasked::Refusal), 49);
    // Failures and ends of sessions have their own limits, which are not reached.
    drop(
        rig.tracer
            .fault(true, "a", Origin::Unknown, started, Whose::OURS),
    );
    rig.next();
    drop(rig.tracer.session_end("a", None, started, Whose::OURS));
    assert_eq!(rig.next().links.len(), 0);
}

#[test]
fn the_end_of_a_session_whose_upgrade_is_recorded_is_recorded() {
    let mut rig = Rig::new(0.0, false, 16);
    for _ in 0..9 {
        let end = |upgrade| {
            rig.tracer
                .session_end("a", upgrade, span::now(), Whose::OURS)
        };
        drop(end(Some(&parent())));
    }
    for _ in 0..9 {
        let span = rig.next();
        assert_eq!(span.links.len(), 1);
        assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::INVALID);
    }
    assert_eq!(rig.suppressed.get(Unasked::SessionEnd), 0);
}

#[test]
fn the_parts_of_a_sessions_span_are_of_the_session() {
    let mut rig = Rig::new(1.0, false, 8);
    let session = SessionId::new();
    let mut span = rig.tracer.request("a", Origin::Unknown);
    drop(span.child("before", SpanKind::Internal));
    span.of_session(session);
    let part = span.child("b", SpanKind::Internal);
    part.scope()
        .in_scope(|| drop(rig.tracer.within("EXISTS", SpanKind::Client)));
    drop(part);
    drop(span);
    assert_eq!(rig.next().attributes.len(), 0);
    for name in ["EXISTS", "b", "a"] {
        let span = rig.next();
        assert_eq!(span.name, name);
        let [attribute] = span.attributes.as_slice() else {
            panic!("{span:?}");
        };
        assert_eq!(attribute.key.as_str(), "curfew.session.id");
        assert_eq!(attribute.value.as_str(), session.to_string());
    }
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
    // A log line within the span must not become an event of the span.
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
    // Within a span that is not Curfew's own, no child is recorded.
    let other = tracing::error_span!("other");
    other.in_scope(|| assert!(!part(&rig).is_recorded()));
    let child = rig.next();
    assert_eq!(child.name, "EXISTS");
    assert_eq!(child.parent_span_id.to_bytes(), context.span_id());
    rig.assert_no_more();
}
