//! The metrics of a node.

pub(crate) mod histogram;
pub(crate) mod labels;
mod process;
pub(crate) mod table;
mod tracer;

use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;

use histogram::Histogram;
use labels::{
    BackendDropReason, CommandOutcome, Decision, DropReason, Initiator, LogoutOutcome, Opcode,
    PublishOutcome, PublishSource, RejectReason, RevocationKind,
};
use process::Process;
use table::{Authentications, Counters, Named};

use crate::trace::Tracer;

/// The `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Close codes that come from clients and libraries: normal, going away, none given, connection
/// lost (RFC 6455 §7.4.1).
const CLIENT_CLOSE_CODES: [u16; 4] = [1000, 1001, 1005, 1006];

/// A second to a day.
const CONNECTION_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];

/// From accepting a connection to its session: half a millisecond to the opening deadline.
const HANDSHAKE_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A round trip to the backend: a twentieth of a millisecond to beyond its deadline.
const ROUND_TRIP_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
];

/// One to a hundred thousand.
const RECIPIENTS: &[f64] = &[
    0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0,
];

/// The names that other crates own and that appear as labels. What is not listed counts as `other`.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Curfew's version.
    pub version: &'static str,
    /// Names of protocols.
    pub protocols: Vec<&'static str>,
    /// Names of commands.
    pub commands: Vec<&'static str>,
    /// Reasons for which a token is refused.
    pub auth_failures: Vec<&'static str>,
    /// Close codes that a node sends.
    pub close_codes: Vec<u16>,
}

/// Every metric of a node. Fields are named as in `/metrics`, without prefix, unit and `_total`.
/// Counting never blocks; all series exist from the start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,

    /// Open WebSocket connections.
    pub connections: Gauge,
    /// Connections whose token has not been verified yet.
    pub unauthenticated_connections: Gauge,
    /// `limits.connections`; 0: no limit.
    pub connections_limit: Gauge,
    /// Upgraded connections, by protocol.
    pub connections_accepted: Named<&'static str>,
    /// Connections that were not upgraded.
    pub connections_rejected: Counters<RejectReason>,
    /// Closed connections, by close code and by who closed.
    pub connections_closed: Named<u16, Initiator>,
    /// From upgrade to close, seconds.
    pub connection_duration: Histogram,
    /// From accepting the connection to the upgrade, seconds.
    pub handshake_duration: Histogram,
    /// 1 while the node leaves service.
    pub draining: Gauge,

    /// Open sessions.
    pub sessions: Gauge,
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// Channels with at least one subscription on this node.
    pub channels: Gauge,

    /// Frames received.
    pub frames_received: Counters<Opcode>,
    /// Frames sent.
    pub frames_sent: Counters<Opcode>,
    /// Bytes of frames received.
    pub received_bytes: Counter,
    /// Bytes of frames sent.
    pub sent_bytes: Counter,
    /// Commands, by name and outcome.
    pub commands: Named<&'static str, CommandOutcome>,

    /// Publications.
    pub publishes: Counters<(PublishOutcome, PublishSource)>,
    /// Messages put into outbound queues.
    pub messages_delivered: Counter,
    /// Messages that did not reach a session.
    pub messages_dropped: Counters<DropReason>,
    /// Sessions a publication was queued for.
    pub fanout_recipients: Histogram,
    /// Bytes in all outbound queues.
    pub send_queue_bytes: Gauge,

    /// Verified and refused tokens.
    pub authentications: Authentications,
    /// Logout tokens of identity providers.
    pub logouts: Counters<LogoutOutcome>,
    /// Decisions of the policy.
    pub authorizations: Counters<Decision>,
    /// Keys that tokens are verified with.
    pub jwt_keys: Gauge,
    /// 1 when the last reading of keys succeeded, else 0.
    pub jwt_keys_last_reload_successful: Gauge,

    /// Revocations applied on this node, by what they name.
    pub revocations_applied: Counters<RevocationKind>,
    /// Sessions ended by a revocation.
    pub sessions_revoked: Counter,
    /// Revocations in force that this node knows of.
    pub revocations_known: Gauge,
    /// Sessions found revoked by the regular sweep, although no push had named their keys.
    pub revocation_missed_push: Counter,
    /// Revocations written back to a backend that lacked them.
    pub revocations_reasserted: Counter,

    /// 1 while the node vouches for its sessions: it is in touch with the backend and has every
    /// revocation.
    pub backend_synced: Gauge,
    /// Control connections to the backend so far.
    pub backend_generations: Counter,
    /// How often the backend was found to have lost its data.
    pub backend_data_losses: Counter,
    /// From a heartbeat's sending to its answer, seconds.
    pub backend_heartbeat_duration: Histogram,
    /// Sessions whose records were removed for nodes that are gone.
    pub sessions_reaped: Counter,
    /// 1 while publications can be received.
    pub broker_connected: Gauge,
    /// Lost connections for publications that were made anew.
    pub broker_reconnects: Counter,
    /// Publications handed to the backend.
    pub broker_messages_sent: Counter,
    /// Publications that came from the backend.
    pub broker_messages_received: Counter,
    /// What came from the backend and was not used.
    pub broker_messages_dropped: Counters<BackendDropReason>,

    /// Spans that the collector has.
    pub trace_spans_exported: Counter,
    /// Spans that were recorded and lost.
    pub trace_spans_dropped: Counter,
    tracer: OnceLock<Tracer>,

    /// 1 when the last reading of the configuration succeeded, else 0.
    pub config_last_reload_successful: Gauge,
    /// 1 when the configuration was changed in a way that takes effect at the next start.
    pub config_restart_required: Gauge,
}

impl Metrics {
    /// All metrics at 0, except that keys and configuration count as read.
    pub fn new(names: &Names) -> Arc<Self> {
        let mut close_codes = CLIENT_CLOSE_CODES.to_vec();
        close_codes.extend(
            names
                .close_codes
                .iter()
                .filter(|code| !CLIENT_CLOSE_CODES.contains(code)),
        );

        let mut metrics = Self {
            registry: Registry::default(),
            connections: Gauge::default(),
            unauthenticated_connections: Gauge::default(),
            connections_limit: Gauge::default(),
            connections_accepted: Named::new("protocol", names.protocols.clone()),
            connections_rejected: Counters::new(),
            connections_closed: Named::new("code", close_codes),
            connection_duration: Histogram::new(CONNECTION_SECONDS),
            handshake_duration: Histogram::new(HANDSHAKE_SECONDS),
            draining: Gauge::default(),
            sessions: Gauge::default(),
            subscriptions: Gauge::default(),
            channels: Gauge::default(),
            frames_received: Counters::new(),
            frames_sent: Counters::new(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            commands: Named::new("command", names.commands.clone()),
            publishes: Counters::new(),
            messages_delivered: Counter::default(),
            messages_dropped: Counters::new(),
            fanout_recipients: Histogram::new(RECIPIENTS),
            send_queue_bytes: Gauge::default(),
            authentications: Authentications::new(names.auth_failures.clone()),
            logouts: Counters::new(),
            authorizations: Counters::new(),
            jwt_keys: Gauge::default(),
            jwt_keys_last_reload_successful: Gauge::default(),
            revocations_applied: Counters::new(),
            sessions_revoked: Counter::default(),
            revocations_known: Gauge::default(),
            revocation_missed_push: Counter::default(),
            revocations_reasserted: Counter::default(),
            backend_synced: Gauge::default(),
            backend_generations: Counter::default(),
            backend_data_losses: Counter::default(),
            backend_heartbeat_duration: Histogram::new(ROUND_TRIP_SECONDS),
            sessions_reaped: Counter::default(),
            broker_connected: Gauge::default(),
            broker_reconnects: Counter::default(),
            broker_messages_sent: Counter::default(),
            broker_messages_received: Counter::default(),
            broker_messages_dropped: Counters::new(),
            trace_spans_exported: Counter::default(),
            trace_spans_dropped: Counter::default(),
            tracer: OnceLock::new(),
            config_last_reload_successful: Gauge::default(),
            config_restart_required: Gauge::default(),
        };
        metrics.jwt_keys_last_reload_successful.set(1);
        metrics.config_last_reload_successful.set(1);
        metrics.register(names.version);
        Arc::new(metrics)
    }

    /// Counts a revocation that was applied: the kind of its key and how many sessions it ended.
    pub fn revocation_applied(&self, kind: &str, closed: u64) {
        self.revocations_applied.inc(RevocationKind::of(kind));
        self.sessions_revoked.inc_by(closed);
    }

    /// All metrics as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(32 * 1024);
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    /// Gives every field its name in `/metrics`. `_total`, the unit and the full stop are appended.
    fn register(&mut self, version: &'static str) {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process::new()));
        let mut names = Register(root.sub_registry_with_prefix("curfew"));

        names.0.register(
            "build",
            "The running version",
            Info::new([("version", version)]),
        );
        names.add(
            "connections",
            "Open WebSocket connections",
            &self.connections,
        );
        names.add(
            "unauthenticated_connections",
            "Connections whose token has not been verified yet",
            &self.unauthenticated_connections,
        );
        names.add(
            "connections_limit",
            "limits.connections; 0 is no limit",
            &self.connections_limit,
        );
        names.add(
            "connections_accepted",
            "Upgraded connections",
            &self.connections_accepted,
        );
        names.add(
            "connections_rejected",
            "Connections that were not upgraded",
            &self.connections_rejected,
        );
        names.add(
            "connections_closed",
            "Closed connections",
            &self.connections_closed,
        );
        names.seconds(
            "connection_duration",
            "From upgrade to close",
            &self.connection_duration,
        );
        names.seconds(
            "handshake_duration",
            "From accepting a connection to its upgrade",
            &self.handshake_duration,
        );
        names.add(
            "draining",
            "1 while the node leaves service",
            &self.draining,
        );
        names.add("sessions", "Open sessions", &self.sessions);
        names.add(
            "subscriptions",
            "Subscriptions of all sessions",
            &self.subscriptions,
        );
        names.add(
            "channels",
            "Channels with a subscription on this node",
            &self.channels,
        );
        names.add("frames_received", "Frames received", &self.frames_received);
        names.add("frames_sent", "Frames sent", &self.frames_sent);
        names.bytes("received", "Bytes of frames received", &self.received_bytes);
        names.bytes("sent", "Bytes of frames sent", &self.sent_bytes);
        names.add("commands", "Commands of clients", &self.commands);
        names.add("publishes", "Publications", &self.publishes);
        names.add(
            "messages_delivered",
            "Messages put into outbound queues",
            &self.messages_delivered,
        );
        names.add(
            "messages_dropped",
            "Messages that did not reach a session",
            &self.messages_dropped,
        );
        names.add(
            "fanout_recipients",
            "Sessions a publication was queued for",
            &self.fanout_recipients,
        );
        names.bytes(
            "send_queue",
            "Bytes in all outbound queues",
            &self.send_queue_bytes,
        );
        names.add(
            "authentications",
            "Verified and refused tokens",
            &self.authentications,
        );
        names.add(
            "logouts",
            "Logout tokens of identity providers",
            &self.logouts,
        );
        names.add(
            "authorizations",
            "Decisions of the policy",
            &self.authorizations,
        );
        names.add(
            "jwt_keys",
            "Keys that tokens are verified with",
            &self.jwt_keys,
        );
        names.add(
            "jwt_keys_last_reload_successful",
            "Whether the last reading of keys succeeded",
            &self.jwt_keys_last_reload_successful,
        );
        names.add(
            "revocations_applied",
            "Revocations applied on this node",
            &self.revocations_applied,
        );
        names.add(
            "sessions_revoked",
            "Sessions ended by a revocation",
            &self.sessions_revoked,
        );
        names.add(
            "revocations_known",
            "Revocations in force that the node knows",
            &self.revocations_known,
        );
        names.add(
            "revocation_missed_push",
            "Sessions found revoked by the sweep alone",
            &self.revocation_missed_push,
        );
        names.add(
            "revocations_reasserted",
            "Revocations written back to a backend that lacked them",
            &self.revocations_reasserted,
        );
        names.add(
            "backend_synced",
            "1 while the node vouches for its sessions",
            &self.backend_synced,
        );
        names.add(
            "backend_generations",
            "Control connections to the backend",
            &self.backend_generations,
        );
        names.add(
            "backend_data_losses",
            "How often the backend had lost its data",
            &self.backend_data_losses,
        );
        names.seconds(
            "backend_heartbeat_duration",
            "From a heartbeat's sending to its answer",
            &self.backend_heartbeat_duration,
        );
        names.add(
            "sessions_reaped",
            "Sessions whose records were removed for nodes that are gone",
            &self.sessions_reaped,
        );
        names.add(
            "broker_connected",
            "1 while publications can be received",
            &self.broker_connected,
        );
        names.add(
            "broker_reconnects",
            "Lost connections for publications that were made anew",
            &self.broker_reconnects,
        );
        names.add(
            "broker_messages_sent",
            "Publications handed to the backend",
            &self.broker_messages_sent,
        );
        names.add(
            "broker_messages_received",
            "Publications that came from the backend",
            &self.broker_messages_received,
        );
        names.add(
            "broker_messages_dropped",
            "What came from the backend and was not used",
            &self.broker_messages_dropped,
        );
        names.add(
            "trace_spans_exported",
            "Spans that the collector has",
            &self.trace_spans_exported,
        );
        names.add(
            "trace_spans_dropped",
            "Spans that were recorded and could not be exported",
            &self.trace_spans_dropped,
        );
        names.add(
            "config_last_reload_successful",
            "Whether the last reading of the configuration succeeded",
            &self.config_last_reload_successful,
        );
        names.add(
            "config_restart_required",
            "Whether a changed setting waits for the next start",
            &self.config_restart_required,
        );
        self.registry = root;
    }
}

struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn add<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }

    fn seconds<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
    }

    fn bytes<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0
            .register_with_unit(name, help, Unit::Bytes, metric.clone());
    }
}

/// What can be registered: a handle that shares its value with its clones.
trait Registered: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static {}

impl<M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static> Registered for M {}

#[cfg(test)]
mod tests;
