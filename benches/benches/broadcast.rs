//! One publication to N sessions: encoded, queued, woken for, and taken out again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use curfew_hub::{Hub, HubLimits, Member};
use curfew_model::{
    Channel, Claims, Gate, Principal, PrincipalParts, Publication, SessionId, SystemClock,
};
use curfew_protocol::Protocols;
use curfew_protocol::native::Native;
use curfew_telemetry::{DeliveryPath, Metrics, Names};

/// A session's side of its outbox: what its task does when it is woken.
struct Reader {
    member: Arc<Member>,
    taken: VecDeque<Bytes>,
    written: usize,
}

impl Reader {
    fn new(hub: &Hub, user: usize, channel: &Channel) -> Self {
        let session = SessionId::new();
        let principal = Arc::new(principal(&format!("user-{user}")));
        let keys = principal.revocation_keys(session, &[]);
        let member = hub.register(
            session,
            hub.protocols().default_id(),
            &SystemClock,
            principal,
            &keys,
        );
        assert!(member.outbox().open(), "nobody ended it");
        hub.subscribe(channel, &member);
        let mut reader = Self {
            member,
            taken: VecDeque::new(),
            written: 0,
        };
        reader.drain(hub);
        reader
    }

    /// Takes until there is nothing more, then waits; returns the bytes that would be written.
    fn drain(&mut self, hub: &Hub) -> usize {
        let mut bytes = 0;
        while self
            .member
            .take_outgoing(hub, self.written, &mut self.taken)
            .is_some()
        {
            self.written = self.taken.drain(..).map(|frame| frame.len()).sum();
            bytes += self.written;
        }
        self.written = 0;
        let waiting = self
            .member
            .outbox()
            .poll_wake(&Context::from_waker(Waker::noop()), false);
        assert!(waiting.is_pending(), "nothing is left to take");
        bytes
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
        let protocols = Protocols::new(vec![Arc::new(Native)]);
        let limits = HubLimits {
            outbound_bytes: 1024 * 1024,
            node_outbound_bytes: 0,
        };
        let hub = Hub::new(
            protocols,
            limits,
            Arc::new(Gate::always_open()),
            DeliveryPath::Local,
            Metrics::new(&Names::default()),
        );
        let channel = Channel::parse("room:1").expect("a channel's name");
        let mut readers: Vec<Reader> = (0..subscribers)
            .map(|user| Reader::new(&hub, user, &channel))
            .collect();
        let publication = Publication {
            channel,
            data: Bytes::from(format!("\"{}\"", "x".repeat(62))),
            from: Some("alice".into()),
            trace: None,
        };
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(
            BenchmarkId::new("queue and drain", subscribers),
            |bencher| {
                bencher.iter(|| {
                    let delivered = hub.broadcast(&publication);
                    assert_eq!(delivered.queued, subscribers);
                    readers
                        .iter_mut()
                        .map(|reader| reader.drain(&hub))
                        .sum::<usize>()
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
