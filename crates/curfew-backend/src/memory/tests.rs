use std::time::Duration;

use curfew_model::{
    Claims, NodeId, Principal, PrincipalParts, Revocation, RevocationKey, SessionId, TicketId,
};

use super::*;
use crate::conformance::{self, ManualClock, Member, Recorder};
use crate::{SessionRecord, StreamRange, Streams as _};

fn memory(clock: &Arc<ManualClock>, recorder: &Arc<Recorder>) -> Arc<Memory> {
    let node = NodeInfo {
        node: NodeId::new(),
        name: String::new(),
        address: String::new(),
        version: "1.2.3".to_owned(),
        started_at: clock.unix(),
        sessions: 0,
        channels: None,
    };
    let events = Arc::clone(recorder) as Arc<dyn Events>;
    Memory::new(node, Arc::clone(clock) as _, events, "test:".to_owned())
}

fn record(user: &str, expires_at: u64, leeway: Duration) -> SessionRecord {
    SessionRecord {
        session: SessionId::new(),
        principal: Arc::new(Principal::new(PrincipalParts {
            user: user.into(),
            issuer: "main".into(),
            key_id: None,
            token_id: None,
            issued_at: None,
            expires_at,
            leeway,
            claims: Claims::from_json("{}"),
        })),
        node: NodeId::new(),
        connected_at: 0,
        protocol: "curfew.v1".into(),
        address: None,
    }
}

#[tokio::test]
async fn memory_conforms() {
    conformance::run(
        1,
        async |clock: Arc<ManualClock>, recorders: Vec<Arc<Recorder>>| {
            let memory = memory(&clock, &recorders[0]);
            let node = memory.node.lock().node;
            vec![Member {
                node,
                backends: memory.backends(),
            }]
        },
    )
    .await;
}

#[tokio::test]
async fn a_publication_has_arrived_when_publish_returns() {
    let recorder = Arc::new(Recorder::default());
    let backends = memory(&Arc::default(), &recorder).backends();
    let publication = Publication {
        channel: Channel::parse("c").unwrap(),
        data: "1".into(),
        from: None,
        sender: None,
        is_binary: false,
        entry: None,
        trace: None,
    };
    let published = backends.broker.publish(publication.clone(), Duration::MAX);
    assert_eq!(recorder.publications(), [publication]);
    published.await.unwrap();
}

#[tokio::test]
async fn the_node_is_listed_with_the_address_it_was_given_last() {
    let memory = memory(&Arc::default(), &Arc::default());
    memory.set_address("10.0.0.1:8080");
    let listed = memory.backends().nodes.list().await.unwrap();
    assert_eq!(listed[0].address, "10.0.0.1:8080");
    assert_eq!(listed[0].version, "1.2.3");
}

#[tokio::test]
async fn a_session_is_listed_until_its_leeway_has_passed() {
    let clock = Arc::new(ManualClock::default());
    let backends = memory(&clock, &Arc::default()).backends();
    let record = record("alice", clock.unix() + 1, Duration::from_secs(5));
    backends.sessions.open(record.clone(), 0).await.unwrap();
    clock.advance(Duration::from_secs(5));
    assert!(
        backends
            .sessions
            .get(record.session)
            .await
            .unwrap()
            .is_some()
    );
    clock.advance(Duration::from_secs(1));
    assert!(
        backends
            .sessions
            .get(record.session)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn expired_sessions_and_ended_revocations_do_not_pile_up() {
    let clock = Arc::new(ManualClock::default());
    let memory = memory(&clock, &Arc::default());
    let backends = memory.backends();
    for at in 0..20_000 {
        clock.advance(Duration::from_secs(1));
        let end = clock.unix() + 1;
        let record = record(&at.to_string(), end, Duration::ZERO);
        backends.sessions.open(record, 0).await.unwrap();
        let revocation = Revocation {
            expires_at: Some(end),
            ..Revocation::default()
        };
        let key = RevocationKey::user(&at.to_string());
        backends.revocations.revoke(key, revocation).await.unwrap();
        assert!(
            memory.inventory.len() <= 2048 && memory.book.len() <= 2048,
            "the stores grow without bound: {at} sessions and revocations so far"
        );
    }
    assert_eq!(backends.nodes.list().await.unwrap()[0].sessions, 1);
    assert_eq!(backends.revocations.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn receipts_show_the_key_with_the_configured_prefix() {
    let backends = memory(&Arc::default(), &Arc::default()).backends();
    let receipt = backends
        .revocations
        .revoke(RevocationKey::user("alice"), Revocation::default());
    assert_eq!(receipt.await.unwrap().key, "test:{revoked}:user:alice");
}

#[tokio::test]
async fn tickets_that_nobody_uses_are_dropped_and_their_memory_is_bounded() {
    const LIFETIME: Duration = Duration::from_secs(30);
    const LARGE: [u8; 8 * 1024] = [0; 8 * 1024];
    let clock = Arc::new(ManualClock::default());
    let memory = memory(&clock, &Arc::default());
    let mut number = 0_u64;
    let mut put = || {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        number += 1;
        let id = TicketId::from_bytes(id);
        let tickets = memory.backends().tickets;
        async move { tickets.put(&id, &LARGE, LIFETIME).await }
    };
    let mut kept = 0;
    let full = loop {
        match put().await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, BackendError::Unavailable(_)), "{full:?}");
    assert!(
        (7_000..9_000).contains(&kept),
        "{kept} tickets fit into the store"
    );
    clock.advance(LIFETIME);
    put().await.expect("there is room again");
    assert_eq!(memory.kept.len(), 1);
}

#[tokio::test]
async fn a_wall_clock_set_back_gives_a_ticket_no_more_time() {
    const LIFETIME: Duration = Duration::from_secs(30);
    let clock = Arc::new(ManualClock::default());
    let tickets = memory(&clock, &Arc::default()).backends().tickets;
    let id = TicketId::from_bytes([7; 32]);
    tickets.put(&id, b"sealed", LIFETIME).await.expect("put");
    clock.set_back(Duration::from_secs(3600));
    clock.advance(LIFETIME);
    let taken = tickets.take(&id).await.expect("take");
    assert_eq!(taken, None);
}

#[tokio::test]
async fn streams_that_only_reads_create_are_bounded() {
    let clock = Arc::new(ManualClock::default());
    let memory = memory(&clock, &Arc::default());
    let epoch = async |name: &str| {
        let channel = Channel::parse(name).expect("the name is valid");
        let page = memory.read(&channel, StreamRange::Top).await;
        page.expect("the stream is read").position.epoch
    };
    let first = epoch("first").await;
    assert_eq!(epoch("first").await, first);
    clock.advance(Duration::from_secs(1));
    for n in 0..streams::MAX_BYTES / streams::STREAM_BYTES {
        epoch(&format!("room:{n}")).await;
    }
    // The stream was forgotten for the streams of other channels.
    assert_ne!(epoch("first").await, first);
}
