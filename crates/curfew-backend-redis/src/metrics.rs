//! The metrics of Redis, of publications through it and of revocations in it.

use curfew_telemetry::{Counter, Counters, Gauge, Histogram, Histograms, ROUND_TRIP_SECONDS};

curfew_telemetry::labels! {
    /// The reason why data from the backend was not used.
    BackendDropReason = "reason" {
        /// The data is malformed.
        Malformed = "malformed",
        /// The data is larger than anything that Curfew publishes.
        TooLarge = "too_large",
    }

    /// The reason why an operation of the broker, or its connection, failed.
    BrokerError = "error" {
        /// There is no connection.
        NotConnected = "not_connected",
        /// The connection broke, or could not be made.
        Connection = "connection",
        /// No answer came in time.
        Timeout = "timeout",
        /// The server does not serve the key of the command, or no longer serves it.
        Misrouted = "misrouted",
        /// The server refused the command.
        Refused = "refused",
        /// The lease under which the operation was accepted had ended.
        Late = "late",
        /// The answer is malformed.
        Unexpected = "unexpected",
    }

    /// A command to Redis.
    RedisCommand = "command" {
        /// `PUBLISH` or `SPUBLISH`: a publication, which is sent within a script, or a message to
        /// other nodes.
        Publish = "publish",
        /// `SUBSCRIBE` or `SSUBSCRIBE`: the first listener of a channel.
        Subscribe = "subscribe",
        /// `UNSUBSCRIBE` or `SUNSUBSCRIBE`.
        Unsubscribe = "unsubscribe",
        /// `EXISTS`: the check for revocations at admission.
        Exists = "exists",
        /// `HGETALL`: one record.
        Hgetall = "hgetall",
        /// `ZRANGE`: a list.
        Zrange = "zrange",
        /// Several commands in one pipeline: the records of a session.
        Pipeline = "pipeline",
        /// Several commands between `MULTI` and `EXEC`.
        Transaction = "transaction",
        /// Any other command.
        Other = "other",
    }
}

curfew_telemetry::metrics! {
    /// The metrics of a node's backend. With the embedded backend all of them stay 0.
    pub struct RedisMetrics {
        revocations_known: Gauge, "Revocations in force that the node knows";
        revocations_ineffective: Gauge, "Revocations whose key can match no session; GET /v1/revocations lists them with the reason";
        revocation_missed_push: Counter, "Open sessions that a comparison with Redis found revoked although no push had announced the revocation to this node";
        revocations_reasserted: Counter, "Revocations that this node wrote back to a backend that lacked them";
        revocation_last_sync_timestamp: Gauge, Seconds, "Unix time of the latest proof that the node has every revocation; 0 with the embedded backend, which always has them";
        backend_synced: Gauge, "1 while the node is connected to Redis and has every revocation in force, so that its sessions may receive messages; 0 with the embedded backend";
        node_stops: Counter, "Pauses of this process that were longer than a tenth of the lease";
        backend_generations: Counter, "Control connections that were made to the backend, reconnections included";
        backend_data_losses: Counter, "Losses of the backend's data";
        backend_heartbeat_duration: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "Time from sending a heartbeat to its answer";
        sessions_reaped: Counter, "Sessions whose records this node removed from the backend because their own node had died";
        presence_reaped: Counter, "Entries that this node removed from the presence of channels because the node of their sessions had died";
        presence_restored: Counter, "Sessions of this node whose missing entries in the presence of channels were written again";
        session_records_restored: Counter, "Live sessions of this node whose missing records were written again";
        broker_connected: Gauge, "1 while the node can receive publications from the backend";
        broker_reconnects: Counter, "Attempts to restore a lost connection for publications";
        broker_messages_sent: Counter, "Publications handed to the backend";
        broker_messages_fenced: Counter, "Publications that the backend refused because they arrived after the lease under which they were accepted";
        broker_messages_received: Counter, "Publications received from the backend";
        broker_messages_dropped: Counters<BackendDropReason>, "Messages and stream entries from the backend that the node discarded";
        broker_errors: Counters<BrokerError>, "Publications and subscriptions that failed at the backend, and connections for publications that were lost";
        redis_command_duration: Histograms<RedisCommand> = Histograms::new(ROUND_TRIP_SECONDS), Seconds, "Time from handing a command to the shared connections until its answer, including the wait to be sent. Failed commands and heartbeats are not timed";
    }
}

impl RedisCommand {
    /// The name of several commands in one pipeline.
    pub const PIPELINE: &str = "PIPELINE";

    /// The name of several commands in one transaction.
    pub const TRANSACTION: &str = "MULTI";

    /// The label of a command by its name, or of a pipeline or transaction.
    pub fn of(name: &str) -> Self {
        match name {
            "PUBLISH" | "SPUBLISH" => Self::Publish,
            "SUBSCRIBE" | "SSUBSCRIBE" => Self::Subscribe,
            "UNSUBSCRIBE" | "SUNSUBSCRIBE" => Self::Unsubscribe,
            "EXISTS" => Self::Exists,
            "HGETALL" => Self::Hgetall,
            "ZRANGE" => Self::Zrange,
            Self::PIPELINE => Self::Pipeline,
            Self::TRANSACTION => Self::Transaction,
            _ => Self::Other,
        }
    }
}
