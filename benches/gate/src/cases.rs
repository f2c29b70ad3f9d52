//! The cases of the benchmark. Each case is one step in the handling of a message, and needs no
//! socket.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Lanes, Member, Progress, Wire, Wires};
use curfew_model::{
    Action, Channel, Claims, Clock, DataForm, DeliveryLease, Message, Present, Principal,
    PrincipalParts, Publication, Push, SessionId,
};
use curfew_policy::{Policy, PolicyConfig, Rule};
use curfew_protocol::Protocol as _;
use curfew_protocol::native::Native;
use curfew_protocol_centrifuge::{Centrifuge, Encoding, Over};
use curfew_telemetry::Registry;
use curfew_ws::{Decoder, Input, Limits, Socket, WriteBatch};

/// The native protocol.
const NATIVE: &str = "curfew.v1";

/// The Centrifuge protocol in its two encodings.
const CENTRIFUGE_JSON: &str = "centrifuge-json";
const CENTRIFUGE_PROTOBUF: &str = "centrifuge-protobuf";

/// Number of listeners of the channel.
const LISTENERS: usize = 100;

const DATA: &str = r#""xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#;

const CLAIMS: &str = r#"{"sub":"alice","exp":2000000000,"tenant":"acme","roles":["guest","member"],
    "curfew":{"subscribe":["room:*"],"publish":["room:*"]}}"#;

pub(crate) fn names() -> &'static [&'static str] {
    &[
        "decode publish",
        "decode subscribe",
        "read a masked frame",
        "authorize by pattern",
        "authorize by condition",
        "authorize by grant",
        "encode a message",
        "broadcast to 100",
        "broadcast to 100 of Centrifuge in JSON",
        "broadcast to 100 of Centrifuge in Protobuf",
        "broadcast to 50 and 50 of Centrifuge",
    ]
}

/// Repeats the step of a case `rounds` times. Returns the number of allocations.
pub(crate) fn run(case: &str, rounds: u64) -> anyhow::Result<u64> {
    Ok(match case {
        "decode publish" => decode(
            rounds,
            &format!(r#"{{"type":"publish","id":7,"channel":"room:1","data":{DATA}}}"#),
        ),
        "decode subscribe" => decode(rounds, r#"{"type":"subscribe","id":1,"channel":"room:1"}"#),
        "read a masked frame" => read(rounds),
        "authorize by pattern" => authorize(rounds, vec![rule(None)]),
        "authorize by condition" => {
            let condition = "claims.tenant == params.tenant && 'member' in claims.roles";
            authorize(rounds, vec![rule(Some(condition))])
        }
        "authorize by grant" => authorize(rounds, Vec::new()),
        "encode a message" => encode(rounds),
        "broadcast to 100" => broadcast(rounds, &[NATIVE]),
        "broadcast to 100 of Centrifuge in JSON" => broadcast(rounds, &[CENTRIFUGE_JSON]),
        "broadcast to 100 of Centrifuge in Protobuf" => broadcast(rounds, &[CENTRIFUGE_PROTOBUF]),
        "broadcast to 50 and 50 of Centrifuge" => broadcast(rounds, &[NATIVE, CENTRIFUGE_JSON]),
        other => bail!("there is no case {other:?}"),
    })
}

/// Repeats `step` `rounds` times. Returns the number of allocations, including reallocations.
fn count(rounds: u64, mut step: impl FnMut()) -> u64 {
    let counted = allocation_counter::measure(|| {
        for _ in 0..rounds {
            step();
        }
    });
    counted.count_total
}

fn decode(rounds: u64, text: &str) -> u64 {
    count(rounds, || {
        let request = Native.decode(&mut Message::Text(black_box(text)));
        assert!(black_box(&request).is_ok());
    })
}

fn read(rounds: u64) -> u64 {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut masked = vec![0x81, 0x80 | DATA.len() as u8];
    masked.extend(mask);
    let payload = DATA.bytes().zip(mask.iter().cycle());
    masked.extend(payload.map(|(byte, mask)| byte ^ mask));
    let mut decoder = Decoder::new();
    let limits = Limits::default();
    let mut bytes = masked.clone();
    count(rounds, || {
        // The frame is unmasked in place, so each round needs a masked copy.
        bytes.copy_from_slice(&masked);
        let mut input = Input::new(black_box(&mut bytes));
        let event = decoder.next(&mut input, &limits);
        assert!(event.is_ok_and(|event| event.is_some()));
    })
}

fn rule(when: Option<&str>) -> Rule {
    Rule {
        name: "members talk in their tenant's rooms".to_owned(),
        channels: vec!["room:{tenant}:*".to_owned()],
        actions: vec![Action::Subscribe, Action::Publish],
        when: when.map(str::to_owned),
        ..Rule::default()
    }
}

fn authorize(rounds: u64, rules: Vec<Rule>) -> u64 {
    let policy = Policy::new(&PolicyConfig {
        rules,
        ..PolicyConfig::default()
    });
    let principal = principal("alice");
    let channel = Channel::parse("room:acme:1").expect("the channel's name is valid");
    count(rounds, || {
        let decision = policy.decide(black_box(&principal), Action::Publish, &channel);
        assert!(decision.allowed);
    })
}

fn encode(rounds: u64) -> u64 {
    let channel = Channel::parse("room:1").expect("the channel's name is valid");
    let push = Push::Message {
        channel: &channel,
        data: DATA.as_bytes(),
        from: Some("alice"),
        position: None,
        sender: None,
        form: DataForm::Plain,
    };
    let wire = Wire::websocket(Native);
    count(rounds, || {
        black_box(wire.push(black_box(&push)));
    })
}

fn principal(user: &str) -> Principal {
    Principal::new(PrincipalParts {
        user: user.into(),
        issuer: "main".into(),
        key_id: None,
        token_id: None,
        issued_at: Some(1),
        expires_at: 2_000_000_000,
        leeway: Duration::from_secs(5),
        claims: Claims::from_json(CLAIMS),
    })
}

/// Publishes to many listeners. Each publication is encoded for each protocol and queued, then each
/// outbox is drained and its waker is set again. The protocols in `protocols` are assigned to the
/// listeners in turn.
fn broadcast(rounds: u64, protocols: &[&str]) -> u64 {
    let limits = HubLimits {
        outbound_bytes: 1024 * 1024,
        node_outbound_bytes: 0,
        window_bytes: 64 * 1024 * 1024,
    };
    let hub = Hub::new(
        wires(),
        limits,
        Arc::new(DeliveryLease::perpetual()),
        DeliveryPath::Local,
        HubMetrics::register(&Registry::default()),
    );
    let channel = Channel::parse("room:1").expect("the channel's name is valid");
    let members: Vec<Arc<Member>> = (0..LISTENERS)
        .map(|user| listener(&hub, user, protocols[user % protocols.len()], &channel))
        .collect();
    let publication = Publication {
        channel,
        data: Bytes::from_static(DATA.as_bytes()),
        from: Some("alice".into()),
        sender: Some(Arc::new(Present {
            session: SessionId::new(),
            user: "alice".into(),
            info: None,
            channel_info: None,
        })),
        is_binary: false,
        entry: None,
        trace: None,
    };
    for member in &members {
        drain(&hub, member);
    }
    count(rounds, || {
        let delivered = hub.broadcast(black_box(&publication));
        assert_eq!(delivered.queued, LISTENERS);
        for member in &members {
            drain(&hub, member);
        }
    })
}

fn wires() -> Wires {
    let centrifuge = |encoding| {
        Wire::websocket(Centrifuge {
            encoding,
            transport: Over::WebSocket,
        })
    };
    Wires::new(vec![
        Wire::websocket(Native),
        centrifuge(Encoding::Json),
        centrifuge(Encoding::Protobuf),
    ])
}

fn listener(hub: &Hub, user: usize, protocol: &str, channel: &Channel) -> Arc<Member> {
    let session = SessionId::new();
    let principal = Arc::new(principal(&format!("user-{user}")));
    let protocol = hub
        .wires()
        .find(protocol)
        .expect("the hub has the protocol");
    let (member, _) = hub.register(session, protocol, &Still, principal);
    assert!(
        member.outbox().open(Lanes::default()),
        "the session was told to end before it opened"
    );
    hub.subscribe(channel, &member);
    member
}

/// Does the work of a session's task that was woken, without the system call.
fn drain(hub: &Hub, member: &Arc<Member>) {
    let progress = member.write(hub, &Still, &mut Sink);
    assert!(matches!(progress, Progress::Done));
    let context = Context::from_waker(Waker::noop());
    assert!(member.outbox().poll_wake(&context, false).is_pending());
}

/// A clock that stands still. The real clock calls `clock_gettime` in the vDSO, which valgrind
/// cannot follow.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn boottime(&self) -> Duration {
        Duration::ZERO
    }
}

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
