//! The metrics of a node.

mod buckets;
mod exemplar;
pub(crate) mod histogram;
pub(crate) mod labels;
mod process;
mod registration;
mod runtime;
pub(crate) mod table;
mod tracer;

use std::sync::{Arc, OnceLock};

use curfew_model::GapReason;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;

use buckets::{
    CONNECTION_SECONDS, DELIVERY_SECONDS, HANDSHAKE_SECONDS, PING_SECONDS, QUEUE_MESSAGES,
    RECIPIENTS, ROUND_TRIP_SECONDS, STALL_SECONDS,
};
use exemplar::OfHistogram;
use histogram::{Histogram, Histograms, NamedHistograms};
use labels::{
    AnswerReason, BackendDropReason, BrokerError, CommandOutcome, Decision, DeliveryPath,
    DropReason, EventOutcome, Initiator, Listener, LogoutOutcome, Opcode, PublishOutcome,
    PublishSource, RedisCommand, RejectReason, Report, ReportFault, RevocationKind, TicketOutcome,
    Unasked,
};
use table::{Authentications, Counters, Named};

use crate::trace::Tracer;

/// The `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Close codes that come from clients and libraries: normal, going away, none given, connection
/// lost (RFC 6455 §7.4.1).
const CLIENT_CLOSE_CODES: [u16; 4] = [1000, 1001, 1005, 1006];

/// The names that other crates own and that appear as labels. What is not listed counts as `other`.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Curfew's version.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The compiler's version.
    pub rustc: &'static str,
    /// Names of protocols.
    pub protocols: Vec<&'static str>,
    /// Names of commands.
    pub commands: Vec<&'static str>,
    /// Names of signature algorithms.
    pub algorithms: Vec<&'static str>,
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
    /// Answers to HTTP requests, by listener and by what was answered.
    pub http_answers: Counters<(Listener, AnswerReason)>,
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
    /// From reading a command to its answer's being queued, seconds.
    pub command_duration: NamedHistograms,
    /// From a ping's being queued to the next pong, seconds.
    pub ping_rtt: Histogram,

    /// Publications.
    pub publishes: Counters<(PublishOutcome, PublishSource)>,
    /// From an authorized publication to the backend's having it, seconds.
    pub publish_duration: Histogram,
    /// Messages put into outbound queues.
    pub messages_delivered: Counter,
    /// Messages that did not reach a session.
    pub messages_dropped: Counters<DropReason>,
    /// Sessions told that publications of a channel may be missing.
    pub gaps: Counters<GapReason>,
    /// From a publication's arrival to a session's socket having it, seconds.
    pub delivery_duration: Histograms<DeliveryPath>,
    /// Sessions a publication was queued for.
    pub fanout_recipients: Histogram,
    /// Messages that a session's task finds in its outbound queue.
    pub send_queue_messages: Histogram,
    /// Bytes in all outbound queues.
    pub send_queue_bytes: Gauge,

    /// Verified and refused tokens.
    pub authentications: Authentications,
    /// Logout tokens of identity providers.
    pub logouts: Counters<LogoutOutcome>,
    /// Reports that their issuers have signed, and that are refused.
    pub reports_refused: Counters<(Report, ReportFault)>,
    /// Security events of identity providers.
    pub security_events: Counters<EventOutcome>,
    /// Users whose sessions an identity provider ends by Global Token Revocation.
    pub global_revocations: Counters<LogoutOutcome>,
    /// Streams of security events that their transmitters have stopped.
    pub event_streams_stopped: Gauge,
    /// Tickets, and requests for them.
    pub tickets: Counters<TicketOutcome>,
    /// Decisions of the policy.
    pub authorizations: Counters<Decision>,
    jwt_keys: Family<[(&'static str, &'static str); 1], Gauge>,
    jwt_keys_last_reload_successful: Gauge,
    jwt_keys_last_reload_success_timestamp: Gauge,

    /// Revocations that ended sessions on this node, by what they name.
    pub revocations_applied: Counters<RevocationKind>,
    /// Sessions ended by a revocation.
    pub sessions_revoked: Counter,
    /// Revocations that were reported once and are yet to be written.
    pub revocations_unwritten: Gauge,
    /// Revocations that were reported and never written.
    pub revocations_lost: Counter,
    /// Revocations in force that this node knows of.
    pub revocations_known: Gauge,
    /// Keys written like a revocation's that can match nobody.
    pub revocations_ineffective: Gauge,
    /// Sessions found revoked by the regular sweep, although no push had named their keys.
    pub revocation_missed_push: Counter,
    /// Revocations written back to a backend that lacked them.
    pub revocations_reasserted: Counter,
    /// From a node's learning of a revocation to its sessions' being told to end, seconds.
    pub revocation_propagation: Histogram,
    /// When the node last knew that it had every revocation, Unix time.
    pub revocation_last_sync_timestamp: Gauge,

    /// 1 while the node vouches for its sessions: it is in touch with the backend and has every
    /// revocation.
    pub backend_synced: Gauge,
    /// How often this process was found to have been stopped for a moment.
    pub node_stops: Counter,
    /// Control connections to the backend so far.
    pub backend_generations: Counter,
    /// How often the backend was found to have lost its data.
    pub backend_data_losses: Counter,
    /// From a heartbeat's sending to its answer, seconds.
    pub backend_heartbeat_duration: Histogram,
    /// Sessions whose records were removed for nodes that are gone.
    pub sessions_reaped: Counter,
    /// Live sessions of this node whose records were missing and were written again.
    pub session_records_restored: Counter,
    /// 1 while publications can be received.
    pub broker_connected: Gauge,
    /// Lost connections for publications that were made anew.
    pub broker_reconnects: Counter,
    /// Publications handed to the backend.
    pub broker_messages_sent: Counter,
    /// Publications that the backend refused since they came after their lease.
    pub broker_messages_fenced: Counter,
    /// Publications that came from the backend.
    pub broker_messages_received: Counter,
    /// What came from the backend and was not used.
    pub broker_messages_dropped: Counters<BackendDropReason>,
    /// What the broker was asked for and failed at, and connections to it that were lost.
    pub broker_errors: Counters<BrokerError>,
    /// From handing a command over to its answer, seconds.
    pub redis_command_duration: Histograms<RedisCommand>,

    /// Spans that the collector has.
    pub trace_spans_exported: Counter,
    /// Spans that were recorded and lost.
    pub trace_spans_dropped: Counter,
    /// Spans that were not recorded since there were too many of the kind, or of one client.
    pub trace_spans_suppressed: Counters<Unasked>,
    tracer: OnceLock<Tracer>,

    /// 1 when the last reading of the configuration succeeded, else 0.
    pub config_last_reload_successful: Gauge,
    /// 1 when the configuration was changed in a way that takes effect at the next start.
    pub config_restart_required: Gauge,

    /// Threads that run tasks.
    runtime_workers: Gauge,
    /// Tasks that wait for any of them.
    runtime_queue_depth: Gauge,
    /// By how much a task runs later than it asked to, seconds.
    runtime_stall: Histogram,
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
            http_answers: Counters::new(),
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
            command_duration: NamedHistograms::new(
                "command",
                names.commands.clone(),
                ROUND_TRIP_SECONDS,
            ),
            ping_rtt: Histogram::new(PING_SECONDS),
            publishes: Counters::new(),
            publish_duration: Histogram::new(ROUND_TRIP_SECONDS),
            messages_delivered: Counter::default(),
            messages_dropped: Counters::new(),
            gaps: Counters::new(),
            delivery_duration: Histograms::new(DELIVERY_SECONDS),
            fanout_recipients: Histogram::new(RECIPIENTS),
            send_queue_messages: Histogram::new(QUEUE_MESSAGES),
            send_queue_bytes: Gauge::default(),
            authentications: Authentications::new(names.auth_failures.clone()),
            logouts: Counters::new(),
            security_events: Counters::new(),
            global_revocations: Counters::new(),
            reports_refused: Counters::new(),
            event_streams_stopped: Gauge::default(),
            tickets: Counters::new(),
            authorizations: Counters::new(),
            jwt_keys: Family::default(),
            jwt_keys_last_reload_successful: Gauge::default(),
            jwt_keys_last_reload_success_timestamp: Gauge::default(),
            revocations_applied: Counters::new(),
            sessions_revoked: Counter::default(),
            revocations_unwritten: Gauge::default(),
            revocations_lost: Counter::default(),
            revocations_known: Gauge::default(),
            revocations_ineffective: Gauge::default(),
            revocation_missed_push: Counter::default(),
            revocations_reasserted: Counter::default(),
            revocation_propagation: Histogram::new(ROUND_TRIP_SECONDS),
            revocation_last_sync_timestamp: Gauge::default(),
            backend_synced: Gauge::default(),
            node_stops: Counter::default(),
            backend_generations: Counter::default(),
            backend_data_losses: Counter::default(),
            backend_heartbeat_duration: Histogram::new(ROUND_TRIP_SECONDS),
            sessions_reaped: Counter::default(),
            session_records_restored: Counter::default(),
            broker_connected: Gauge::default(),
            broker_reconnects: Counter::default(),
            broker_messages_sent: Counter::default(),
            broker_messages_fenced: Counter::default(),
            broker_messages_received: Counter::default(),
            broker_messages_dropped: Counters::new(),
            broker_errors: Counters::new(),
            redis_command_duration: Histograms::new(ROUND_TRIP_SECONDS),
            trace_spans_exported: Counter::default(),
            trace_spans_dropped: Counter::default(),
            trace_spans_suppressed: Counters::new(),
            tracer: OnceLock::new(),
            config_last_reload_successful: Gauge::default(),
            config_restart_required: Gauge::default(),
            runtime_workers: Gauge::default(),
            runtime_queue_depth: Gauge::default(),
            runtime_stall: Histogram::new(STALL_SECONDS),
        };
        for algorithm in &names.algorithms {
            metrics.set_jwt_keys(algorithm, 0);
        }
        metrics.jwt_keys_last_reload_successful.set(1);
        metrics.config_last_reload_successful.set(1);
        metrics.register(names);
        Arc::new(metrics)
    }

    /// Counts a revocation that was applied: the kind of its key and how many sessions it ended.
    pub fn revocation_applied(&self, kind: &str, closed: u64) {
        self.revocations_applied.inc(RevocationKind::of(kind));
        self.sessions_revoked.inc_by(closed);
    }

    /// So many keys can verify what was signed by this algorithm, which is one of
    /// [`Names::algorithms`].
    pub fn set_jwt_keys(&self, algorithm: &'static str, keys: i64) {
        self.jwt_keys.get_or_create(&[("alg", algorithm)]).set(keys);
    }

    /// Keys were read with success, now, in Unix seconds.
    pub fn keys_reloaded(&self, now: u64) {
        self.jwt_keys_last_reload_successful.set(1);
        self.jwt_keys_last_reload_success_timestamp
            .set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Keys could not be read again.
    pub fn keys_not_reloaded(&self) {
        self.jwt_keys_last_reload_successful.set(0);
    }

    /// All metrics as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        // Before the buckets, so that none has an exemplar and no observation.
        let exemplars = vec![
            OfHistogram::new(
                "curfew_publish_duration_seconds",
                self.publish_duration.exemplars(),
            ),
            OfHistogram::new(
                "curfew_delivery_duration_seconds",
                self.delivery_duration.exemplars(),
            ),
        ];
        let mut text = String::with_capacity(64 * 1024);
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        exemplar::add(text, exemplars)
    }
}

#[cfg(test)]
mod tests;
