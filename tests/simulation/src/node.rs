//! A node: the gateway's own parts, assembled as in `crates/curfew/src/app.rs`, without
//! listeners, HTTP and configuration files.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use curfew_auth::{Authenticator, Issuer};
use curfew_backend::NodeInfo;
use curfew_backend_redis::{
    OnDataLoss, Parts, Redis, RedisBackendConfig, RedisConfig, RedisMetrics, RedisUrl,
};
use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Wire, Wires};
use curfew_model::{
    Action, Clock, DeliveryLease, NodeId, Revocation, RevocationKey, Secret, SystemClock,
};
use curfew_node::{
    ChannelConfig, ChannelEntries, HistoryConfig, HubEvents, JoinLeave, Node, NodeMetrics,
};
use curfew_policy::{Policy, Rule};
use curfew_protocol::native::Native;
use curfew_session::{
    Context, Credentials, Guards, LimitsConfig, Opening, Session, SessionMetrics, SessionSettings,
};
use curfew_telemetry::Registry;
use curfew_ws::{Transport, Upgraded};

use crate::client::{CHANNELS, LOBBY, SECRET, STREAM};
use crate::machine::elapsed;
use crate::plan::Plan;
use crate::record::{Receipt, Reload, Target};
use crate::words::TokenedNative;
use crate::world::{ConnectionId, RedisDial, Shared, Socket};

/// `backend.lease` in every run.
pub const LEASE: Duration = Duration::from_secs(3);

/// `backend.grace` in every run.
pub const GRACE: Duration = Duration::from_secs(4);

/// `auth.leeway`.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The `ttl` of a channel's publications. It is so short that some publications expire.
const HISTORY_TTL: Duration = Duration::from_secs(20);

/// `limits.outbound_bytes`. It is so small that some queues overflow.
const OUTBOUND_BYTES: usize = 96 * 1024;

/// The process of a node.
#[derive(Debug)]
pub struct Process {
    context: Arc<Context>,
    /// The node's number among the machines.
    pub machine: usize,
    channels: ChannelEntries,
}

impl Process {
    /// Starts a node. The caller must run as the process `machine`, in the runtime.
    pub fn start(machine: usize, plan: &Plan) -> Self {
        let tenants = plan.tenants;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = RedisMetrics::register(&Registry::default());
        let of_node = NodeMetrics::register(metrics.registry());
        let counted = SessionMetrics::register(metrics.registry());
        let lease = Arc::new(DeliveryLease::not_held());
        let limits = HubLimits {
            outbound_bytes: OUTBOUND_BYTES,
            node_outbound_bytes: 0,
            window_bytes: plan.window_bytes,
        };
        let wire = match plan.vault {
            true => Wire::websocket(TokenedNative),
            false => Wire::websocket(Native),
        };
        let wires = Wires::new(vec![wire]);
        let hub = Arc::new(Hub::new(
            wires,
            limits,
            Arc::clone(&lease),
            DeliveryPath::Broker,
            HubMetrics::register(metrics.registry()),
        ));
        let id = NodeId::new();
        let events = Arc::new(HubEvents::new(id, Arc::clone(&hub), Arc::clone(&of_node)));
        let parts = Parts {
            config: RedisBackendConfig {
                lease: LEASE,
                grace: GRACE,
                on_data_loss: OnDataLoss::Reassert,
                redis: RedisConfig {
                    url: RedisUrl::new("redis://redis:6379"),
                    ..RedisConfig::default()
                },
            },
            info: NodeInfo {
                node: id,
                name: String::new(),
                address: format!("node-{machine}"),
                version: "0".to_owned(),
                started_at: clock.unix(),
                sessions: 0,
                channels: None,
            },
            events: Arc::clone(&events) as _,
            local: events,
            lease,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let redis = Redis::start_over(parts, Some(Arc::new(RedisDial))).expect("the URL is valid");
        let node = Node::start(
            id,
            hub,
            redis.backends(),
            Arc::clone(&clock),
            of_node,
            &claims(tenants),
            plan.max_admissions,
        );
        let auth = curfew_auth::AuthConfig {
            issuers: vec![Issuer {
                name: "main".to_owned(),
                secret: Some(Secret::new(SECRET)),
                ..Issuer::default()
            }],
            leeway: LEEWAY,
            ..curfew_auth::AuthConfig::default()
        };
        let channels = channels(plan);
        let context = Arc::new(Context {
            node,
            authenticator: Arc::new(
                Authenticator::new(&auth, clock).expect("the configuration is valid"),
            ),
            metrics: counted,
            settings: ArcSwap::from_pointee(session_settings(tenants, &channels)),
        });
        Self {
            context,
            machine,
            channels,
        }
    }

    /// The node's id in Redis.
    pub fn id(&self) -> NodeId {
        self.context.node.id()
    }

    /// Serves a client's connection. The caller must run as this process.
    pub fn accept(&self, connection: ConnectionId) {
        let node = &self.context.node;
        let session = Session::new(
            Arc::clone(&self.context),
            Upgraded {
                transport: Transport::Memory(Box::new(Socket(connection))),
                answer: Bytes::new(),
                early: Bytes::new(),
            },
            node.hub().wires().default_id(),
            Opening::Awaiting(Credentials {
                of_request: None,
                takes_message: true,
            }),
            Guards {
                connection: Box::new(()),
                unauthenticated: None,
            },
        );
        node.spawn(curfew_session::run(Box::new(session)));
    }

    /// Puts other settings in force, as a reload does. The caller must run as this process.
    pub fn reload(&self, tenants: bool) {
        self.context
            .settings
            .store(Arc::new(session_settings(tenants, &self.channels)));
        self.context.node.set_kinds(&claims(tenants));
        self.context.node.hub().reconsider_all();
        let shared = Shared::get();
        let number = {
            let mut world = shared.world();
            world.record.reloads.push(Reload {
                node: self.machine,
                at: elapsed(),
                tenants,
                settled_at: None,
            });
            world.record.reloads.len() - 1
        };
        let node = Arc::clone(&self.context.node);
        self.context.node.spawn(async move {
            node.until_settled().await;
            let shared = Shared::get();
            shared.world().record.reloads[number].settled_at = Some(elapsed());
        });
    }

    /// Revokes through this node, as its admin API does. The caller must run as this process.
    /// `nodes` maps the ids of nodes to their numbers.
    pub fn revoke(
        &self,
        key: RevocationKey,
        target: Target,
        nodes: impl Fn(NodeId) -> Option<usize> + Send + 'static,
    ) {
        let node = Arc::clone(&self.context.node);
        let asked_at = elapsed();
        self.context.node.spawn(async move {
            let everyone = Revocation::default();
            let Ok(receipt) = node.backends().revocations.revoke(key, everyone).await else {
                return;
            };
            let missing = receipt.nodes.missing.into_iter().filter_map(nodes);
            let receipt = Receipt {
                at: elapsed(),
                target,
                missing: missing.collect(),
                asked_at,
            };
            Shared::get().world().record.receipts.push(receipt);
        });
    }
}

fn claims(tenants: bool) -> Vec<String> {
    match tenants {
        true => vec!["tenant".to_owned()],
        false => Vec::new(),
    }
}

/// The section `[[channels]]` of the configuration.
fn channels(plan: &Plan) -> ChannelEntries {
    let stream = ChannelConfig {
        pattern: CHANNELS[STREAM].to_owned(),
        history: Some(HistoryConfig {
            size: plan.history,
            ttl: HISTORY_TTL,
        }),
        ..ChannelConfig::default()
    };
    let lobby = ChannelConfig {
        pattern: LOBBY.to_owned(),
        presence: true,
        join_leave: JoinLeave::Asked,
        ..ChannelConfig::default()
    };
    let stream = (plan.history > 0).then_some(stream);
    let lobby = plan.presence.then_some(lobby);
    let entries: Vec<ChannelConfig> = stream.into_iter().chain(lobby).collect();
    ChannelEntries::new(&entries)
}

fn session_settings(tenants: bool, channels: &ChannelEntries) -> SessionSettings {
    SessionSettings {
        shows_sender: false,
        personal_channels: false,
        subscription_tokens: true,
        channels: channels.clone(),
        session: curfew_session::SessionConfig {
            revocable_claims: claims(tenants),
            ..curfew_session::SessionConfig::default()
        },
        limits: LimitsConfig::default(),
        auth_timeout: Duration::from_secs(10),
        anonymous: None,
        auth_frame_bytes: curfew_auth::AuthConfig::default().auth_frame_bytes(),
        login_claim: "sid".to_owned(),
        policy: Arc::new(Policy::new(&everywhere())),
        listeners: Arc::new(()),
    }
}

/// A policy that allows everything to everyone.
fn everywhere() -> curfew_policy::PolicyConfig {
    curfew_policy::PolicyConfig {
        rules: vec![Rule {
            name: "everywhere".to_owned(),
            channels: vec!["*".to_owned()],
            actions: vec![Action::Subscribe, Action::Publish, Action::Presence],
            ..Rule::default()
        }],
        ..curfew_policy::PolicyConfig::default()
    }
}
