use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A tracer whose spans stay in the queue.
fn tracer(ratio: f64, trust_clients: bool, room: usize) -> (Tracer, mpsc::Receiver<SpanData>) {
    let (queue, spans) = mpsc::channel(room);
    let recorder = Recorder {
        ratio,
        trust_clients,
        user_ids: false,
        unasked: Budget::new(2),
        by_clients: Budget::new(2),
        scope: InstrumentationScope::builder(SCOPE).build(),
        queue,
        dropped: crate::Counter::default(),
        stop: Notify::new(),
        stopped: Notify::new(),
    };
    (Tracer(Some(Arc::new(recorder))), spans)
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
    let (tracer, mut spans) = tracer(1.0, false, 8);
    drop(tracer.request("a", Origin::Client(parent())));
    let span = spans.try_recv().unwrap();
    assert_ne!(span.span_context.trace_id().to_bytes(), parent().trace_id());
    assert_eq!(span.links.len(), 1);
    drop(tracer.request("a", Origin::Operator(parent())));
    let span = spans.try_recv().unwrap();
    assert_eq!(span.span_context.trace_id().to_bytes(), parent().trace_id());
    assert_eq!(span.parent_span_id.to_bytes(), parent().span_id());
    assert!(
        !tracer
            .request("a", Origin::Operator(unsampled()))
            .is_recorded()
    );
}

#[test]
fn trusted_clients_are_joined_but_cannot_flood() {
    let (tracer, mut spans) = tracer(0.0, true, 8);
    for _ in 0..5 {
        drop(tracer.request("a", Origin::Client(parent())));
    }
    drop(tracer.request("a", Origin::Unknown));
    let span = spans.try_recv().unwrap();
    assert_eq!(span.parent_span_id.to_bytes(), parent().span_id());
    assert!(spans.try_recv().is_ok() && spans.try_recv().is_err());
}

#[test]
fn refusals_are_recorded_up_to_a_number_each_second() {
    let (tracer, mut spans) = tracer(0.0, false, 8);
    let started = span::now() - Duration::from_secs(3);
    for _ in 0..5 {
        drop(tracer.unasked("a", Origin::Unknown, started));
    }
    let span = spans.try_recv().unwrap();
    assert_eq!(span.start_time, started);
    assert!(spans.try_recv().is_ok() && spans.try_recv().is_err());
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (tracer, mut spans) = tracer(1.0, false, 1);
    let dropped = tracer.0.as_ref().unwrap().dropped.clone();
    let span = tracer.request("a", Origin::Unknown);
    drop(span.child("b", SpanKind::Internal));
    let context = span.context().unwrap();
    drop(span);
    assert_eq!(dropped.get(), 1);
    let child = spans.try_recv().unwrap();
    assert_eq!(child.parent_span_id.to_bytes(), context.span_id());
    assert!(!child.parent_span_is_remote);
}
