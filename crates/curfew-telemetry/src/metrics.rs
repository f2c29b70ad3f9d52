//! The metrics of a node.

mod declare;
mod exemplar;
pub(crate) mod histogram;
pub(crate) mod labels;
mod process;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod table;
pub(crate) mod tracing;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Unit;

use histogram::{Histogram, Histograms, ROUND_TRIP_SECONDS};
use labels::{BackendDropReason, BrokerError, RedisCommand};
use table::Counters;

crate::metrics! {
    /// What a node counts beside what the tracer and the runtime's watch do. Counting never blocks;
    /// all series exist from the start.
    pub struct Metrics {
        revocations_known: Gauge, "Revocations in force that the node knows";
        revocations_ineffective: Gauge, "Revocation keys that can match nobody, which the admin API lists with the reason";
        revocation_missed_push: Counter, "Sessions found revoked by the sweep alone";
        revocations_reasserted: Counter, "Revocations written back to a backend that lacked them";
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
    }
}

#[cfg(test)]
mod tests;
