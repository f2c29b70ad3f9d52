//! Tests of the node through its public interface, over the embedded backend behind a [`rig::Rig`].

mod admit;
mod cleanup;
mod drain;
mod pending_revocations;
mod presence;
mod recovery;
mod refresh;
mod rig;
mod settings;
mod subscriptions;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use curfew_backend::memory::Memory;
use curfew_backend::{NodeInfo, SessionFilter, SessionRecord};
use curfew_hub::{DeliveryPath, Ending, Hub, HubLimits, HubMetrics, Lanes, Wire, WireId, Wires};
use curfew_model::{
    Channel, Claims, DeliveryLease, Disconnect, NodeId, Principal, PrincipalParts, RevocationKey,
};
use curfew_protocol::native::Native;
use curfew_telemetry::Registry;
use tokio::time;

use crate::{AdmitError, Attachment, HubEvents, Node, NodeMetrics, SubscribeOutcome, UserLimit};
use rig::{Rig, RigClock, START};

/// A claim by which sessions can be revoked.
const CLAIM: &str = "tenant";

const REVOKED: Ending = Ending {
    disconnect: Disconnect::REVOKED,
    retry_after_ms: None,
};

/// A node with the backend, metrics and limits that the tests use.
pub(super) struct Harness {
    pub(super) node: Arc<Node>,
    pub(super) rig: Arc<Rig>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) limit: UserLimit,
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::with_max_per_user(0)
    }

    pub(super) fn with_max_per_user(max_per_user: u32) -> Self {
        let clock = RigClock::new();
        let metrics = NodeMetrics::register(&Registry::default());
        let limits = HubLimits {
            outbound_bytes: 1 << 20,
            node_outbound_bytes: 0,
            window_bytes: 64 * 1024 * 1024,
        };
        let wires = Wires::new(vec![Wire::websocket(Native)]);
        let lease = Arc::new(DeliveryLease::perpetual());
        let hub = Arc::new(Hub::new(
            wires,
            limits,
            lease,
            DeliveryPath::Local,
            HubMetrics::register(metrics.registry()),
        ));
        let limit = UserLimit {
            max_per_user,
            over_limit: curfew_backend::OverLimit::Refuse,
            anonymous_per_address: 2,
        };
        let id = NodeId::new();
        let events = HubEvents::new(id, Arc::clone(&hub), Arc::clone(&metrics));
        let info = NodeInfo {
            node: id,
            name: String::new(),
            address: String::new(),
            version: String::new(),
            started_at: START,
            sessions: 0,
            channels: None,
        };
        let memory = Memory::new(
            info,
            Arc::clone(&clock) as _,
            Arc::new(events),
            "curfew:".to_owned(),
        );
        let rig = Rig::new(memory.backends());
        let node = Node::start(
            id,
            hub,
            rig.backends(),
            clock as _,
            Arc::clone(&metrics),
            &[CLAIM.to_owned()],
            0,
        );
        Self {
            node,
            rig,
            metrics,
            limit,
        }
    }

    /// Subscribes a session, and ignores the reply.
    pub(super) async fn subscribe(
        &self,
        channel: &Channel,
        member: &Arc<curfew_hub::Member>,
    ) -> Result<SubscribeOutcome, curfew_backend::BackendError> {
        self.node
            .subscribe(
                channel,
                member,
                crate::ChannelOptions::default(),
                crate::Wish::default(),
                || true,
                |_, _| None,
            )
            .await
    }

    pub(super) fn wire(&self) -> WireId {
        self.node.hub().wires().default_id()
    }

    pub(super) async fn try_admit(&self, token: &str) -> Result<Attachment, AdmitError> {
        self.node
            .admit(principal("alice", token), self.wire(), None, self.limit)
            .await
    }

    /// Opens a session of alice with `token`.
    pub(super) async fn open(&self, token: &str) -> Attachment {
        let attachment = self.try_admit(token).await.unwrap();
        assert!(attachment.open(Lanes::default()));
        attachment
    }

    pub(super) async fn records(&self) -> Vec<SessionRecord> {
        let filter = SessionFilter {
            limit: 10_000,
            ..SessionFilter::default()
        };
        self.rig
            .inner()
            .sessions
            .list(&filter)
            .await
            .unwrap()
            .sessions
    }

    /// Revokes `key` on this node, and returns the number of sessions that this ends.
    pub(super) fn found_by(&self, key: &RevocationKey) -> usize {
        self.node
            .hub()
            .revoke(key, &curfew_model::Revocation::default())
            .sessions
            .len()
    }

    /// Waits for the removal of records, then asserts that no trace of any session is left.
    pub(super) async fn assert_nothing_left(&self, what: &str) {
        eventually(async || self.records().await.is_empty()).await;
        assert_eq!(
            self.node.hub().count(),
            0,
            "{what}: the hub still has sessions"
        );
        assert_eq!(
            self.metrics.sessions.get(),
            0,
            "{what}: the gauge of sessions is not 0"
        );
        assert_eq!(
            self.metrics.subscriptions.get(),
            0,
            "{what}: the gauge of subscriptions is not 0"
        );
        assert_eq!(
            self.node.hub().queued_bytes(),
            0,
            "{what}: the hub still has queued bytes"
        );
        for key in [
            RevocationKey::user("alice"),
            RevocationKey::claim(CLAIM, "acme"),
        ] {
            assert_eq!(
                self.found_by(&key),
                0,
                "{what}: {key} still finds a session"
            );
        }
    }
}

/// Waits, in the runtime's time, until `condition` holds.
pub(super) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("the condition is not true within 60 s");
}

pub(super) fn principal(user: &str, token: &str) -> Arc<Principal> {
    Arc::new(Principal::new(PrincipalParts {
        user: user.into(),
        issuer: "main".into(),
        key_id: None,
        token_id: Some(token.into()),
        issued_at: Some(START),
        expires_at: START + 3600,
        leeway: Duration::ZERO,
        claims: Claims::from_json(format!(r#"{{"tenant":"acme","jti":"{token}"}}"#)),
    }))
}

pub(super) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}
