//! The metrics of a node.

mod buckets;
mod declare;
mod exemplar;
pub(crate) mod histogram;
pub(crate) mod labels;
mod process;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod table;
pub(crate) mod tracing;

use std::sync::Arc;

pub use buckets::ROUND_TRIP_SECONDS;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Unit;

use buckets::{HANDSHAKE_SECONDS, RECIPIENTS};
use histogram::{Histogram, Histograms};
use labels::{
    AnswerReason, BackendDropReason, BrokerError, EventOutcome, Listener, LogoutOutcome,
    RedisCommand, RejectReason, Report, ReportFault, RevocationKind, TicketOutcome,
};
use registry::{Build, Registry};
use table::{Counters, Named, NamedGauges};

/// The names that other crates own and that appear as labels. What is not listed counts as `other`.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Names of protocols.
    pub protocols: Vec<&'static str>,
    /// Names of signature algorithms.
    pub algorithms: Vec<&'static str>,
}

crate::metrics! {
    /// What a node counts beside what the tracer and the runtime's watch do. Counting never blocks;
    /// all series exist from the start.
    pub struct Metrics(names: &Names) {
        connections: Gauge, "Open WebSocket connections";
        unauthenticated_connections: Gauge, "Connections whose token has not been verified yet";
        connections_limit: Gauge, "limits.connections; 0 is no limit";
        connections_accepted: Named<&'static str> = Named::new("protocol", names.protocols.clone()), "Upgraded connections";
        connections_rejected: Counters<RejectReason>, "Connections that were not upgraded";
        http_answers: Counters<(Listener, AnswerReason)>, "Answers to HTTP requests on either listener";
        handshake_duration: Histogram = Histogram::new(HANDSHAKE_SECONDS), Seconds, "From accepting a connection to its upgrade";
        draining: Gauge, "1 while the node leaves service";
        sessions: Gauge, "Open sessions";
        subscriptions: Gauge, "Subscriptions of all sessions";
        channels: Gauge, "Channels with a subscription on this node";
        publish_duration: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "From a publication's command or API call to the backend's having it. With the embedded backend that includes queueing it for everyone. Of a session's publications the first is timed, one in 16, and those that are traced";
        messages_delivered: Counter, "Messages put into outbound queues";
        fanout_recipients: Histogram = Histogram::new(RECIPIENTS), "Sessions a publication was queued for";
        send_queue_bytes: Gauge, Bytes, "Bytes in all outbound queues";
        logouts: Counters<LogoutOutcome>, "Logout tokens of identity providers";
        reports_refused: Counters<(Report, ReportFault)>, "Reports of identity providers that they have signed and that are refused";
        tickets: Counters<TicketOutcome>, "Tickets, and requests for them";
        security_events: Counters<EventOutcome>, "Security events of identity providers";
        global_revocations: Counters<LogoutOutcome>, "Requests of identity providers to end all of a user's sessions";
        event_streams_stopped: Gauge, "Streams of security events that their transmitters have stopped";
        jwt_keys: NamedGauges = NamedGauges::new("alg", &names.algorithms), "Keys that tokens are verified with, under each algorithm that a key can be used with";
        jwt_keys_last_reload_successful: Gauge, "Whether the last reading of keys succeeded";
        jwt_keys_last_reload_success_timestamp: Gauge, Seconds, "When keys were last read with success, Unix time";
        revocations_applied: Counters<RevocationKind>, "Revocations that ended sessions on this node";
        sessions_revoked: Counter, "Sessions ended by a revocation";
        revocations_unwritten: Gauge, "Revocations of identity providers that wait for the backend";
        revocations_lost: Counter, "Revocations of identity providers that were never written";
        revocations_known: Gauge, "Revocations in force that the node knows";
        revocations_ineffective: Gauge, "Revocation keys that can match nobody, which the admin API lists with the reason";
        revocation_missed_push: Counter, "Sessions found revoked by the sweep alone";
        revocations_reasserted: Counter, "Revocations written back to a backend that lacked them";
        revocation_propagation: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "From a node's learning of a revocation, by Redis' word or by a call to the embedded backend, to its sessions' being told to end. Only of revocations that ended a session here";
        revocation_last_sync_timestamp: Gauge, Seconds, "When the node last knew that it had every revocation, Unix time; 0 with the embedded backend, which always has";
        backend_synced: Gauge, "1 while the node vouches for its sessions";
        node_stops: Counter, "How often this process did not run for longer than a tenth of the lease";
        backend_generations: Counter, "Control connections to the backend";
        backend_data_losses: Counter, "How often the backend had lost its data";
        backend_heartbeat_duration: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "From a heartbeat's sending to its answer";
        sessions_reaped: Counter, "Sessions whose records were removed for nodes that are gone";
        session_records_restored: Counter, "Live sessions of this node whose records were missing and were written again";
        broker_connected: Gauge, "1 while publications can be received";
        broker_reconnects: Counter, "Lost connections for publications that were made anew";
        broker_messages_sent: Counter, "Publications handed to the backend";
        broker_messages_fenced: Counter, "Publications that the backend refused since they came after the lease under which they were accepted";
        broker_messages_received: Counter, "Publications that came from the backend";
        broker_messages_dropped: Counters<BackendDropReason>, "What came from the backend and was not used";
        broker_errors: Counters<BrokerError>, "Publications and subscriptions that failed at the backend, and connections for publications that were lost";
        redis_command_duration: Histograms<RedisCommand> = Histograms::new(ROUND_TRIP_SECONDS), Seconds, "From handing a command to the connections that sessions and publications share to its answer, waiting included. What failed is not in it, nor are heartbeats";
        config_last_reload_successful: Gauge, "Whether the last reading of the configuration succeeded, and every session is found by it";
        config_restart_required: Gauge, "Whether a changed setting waits for the next start";
    }
}

impl Metrics {
    /// All metrics at 0, except that keys and configuration count as read. Traces nothing.
    pub fn new(names: &Names) -> Arc<Self> {
        Self::of(&Registry::new(Build::default()), names)
    }

    /// As [`Metrics::new`], in this registry.
    pub fn of(registry: &Registry, names: &Names) -> Arc<Self> {
        let metrics = Self::register(registry, names);
        metrics.jwt_keys_last_reload_successful.set(1);
        metrics.config_last_reload_successful.set(1);
        metrics
    }

    /// Counts a revocation that was applied: the kind of its key and how many sessions it ended.
    pub fn revocation_applied(&self, kind: &str, closed: u64) {
        self.revocations_applied.inc(RevocationKind::of(kind));
        self.sessions_revoked.inc_by(closed);
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

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        self.registry.encode()
    }
}

#[cfg(test)]
mod tests;
