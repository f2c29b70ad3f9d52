//! The cost of one publication to N sessions: it is encoded and queued, the sessions' tasks are
//! woken, and the queues are drained.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Lanes, Member, Progress, Wire, Wires};
use curfew_model::{
    Channel, Claims, DeliveryLease, Principal, PrincipalParts, Publication, SessionId, SystemClock,
};
use curfew_protocol::native::Native;
use curfew_telemetry::Registry;
use curfew_ws::{Socket, WriteBatch};

/// A socket that accepts every byte.
struct Sink;

impl Socket for Sink {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(match batch {
            WriteBatch::Bytes(bytes) => bytes.len(),
            WriteBatch::Slices(slices) => slices.iter().map(|slice| slice.len()).sum(),
        }))
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        false
    }
}

/// A subscriber. It does the work that a session's task does when the task is woken.
struct Reader(Arc<Member>);

impl Reader {
    fn new(hub: &Hub, user: usize, channel: &Channel) -> Self {
        let session = SessionId::new();
        let principal = Arc::new(principal(&format!("user-{user}")));
        let protocol = hub.wires().default_id();
        let (member, _) = hub.register(session, protocol, &SystemClock, principal);
        assert!(
            member.outbox().open(Lanes::default()),
            "the session was told to end before it opened"
        );
        hub.subscribe(channel, &member);
        let mut reader = Self(member);
        reader.drain(hub);
        reader
    }

    /// Writes until the outbox is empty, then sets the outbox's waker again.
    fn drain(&mut self, hub: &Hub) {
        let progress = self.0.write(hub, &SystemClock, &mut Sink);
        assert!(matches!(progress, Progress::Done));
        let waiting = self
            .0
            .outbox()
            .poll_wake(&Context::from_waker(Waker::noop()), false);
        assert!(waiting.is_pending(), "nothing is left to write");
    }
}

fn principal(user: &str) -> Principal {
    Principal::new(PrincipalParts {
        user: user.into(),
        issuer: "main".into(),
        key_id: None,
        token_id: None,
        issued_at: Some(1),
        expires_at: u64::MAX / 2,
        leeway: Duration::from_secs(5),
        claims: Claims::from_json("{}"),
    })
}

fn broadcast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broadcast");
    for subscribers in [1, 10, 1000] {
        let wires = Wires::new(vec![Wire::websocket(Native)]);
        let limits = HubLimits {
            outbound_bytes: 1024 * 1024,
            node_outbound_bytes: 0,
            window_bytes: 64 * 1024 * 1024,
        };
        let hub = Hub::new(
            wires,
            limits,
            Arc::new(DeliveryLease::perpetual()),
            DeliveryPath::Local,
            HubMetrics::register(&Registry::default()),
        );
        let channel = Channel::parse("room:1").expect("the channel's name is valid");
        let mut readers: Vec<Reader> = (0..subscribers)
            .map(|user| Reader::new(&hub, user, &channel))
            .collect();
        let publication = Publication {
            channel,
            data: Bytes::from(format!("\"{}\"", "x".repeat(62))),
            from: Some("alice".into()),
            sender: None,
            is_binary: false,
            entry: None,
            trace: None,
        };
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(
            BenchmarkId::new("queue and drain", subscribers),
            |bencher| {
                bencher.iter(|| {
                    let delivered = hub.broadcast(&publication);
                    assert_eq!(delivered.queued, subscribers);
                    readers.iter_mut().for_each(|reader| reader.drain(&hub));
                });
            },
        );
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    broadcast(&mut criterion);
    criterion.final_summary();
}
