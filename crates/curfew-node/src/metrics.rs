//! The metrics of a node: its sessions, its publications and its revocations.

use curfew_hub::Revoked;
use curfew_telemetry::{Counter, Counters, Gauge, Histogram, ROUND_TRIP_SECONDS};

/// Histogram buckets for 0 to 100,000 recipients.
const RECIPIENTS: &[f64] = &[
    0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0,
];

curfew_telemetry::labels! {
    /// The outcome of the recovery of a subscriber that named a position.
    RecoveryOutcome = "outcome" {
        /// Every missed publication was recovered from this node's memory.
        Window = "window",
        /// Every missed publication was recovered; some were read from the stream.
        Read = "read",
        /// No missed publication was recovered: some could not be read, or all together were too
        /// large.
        Lost = "lost",
    }

    /// The kind of a revocation's key.
    RevocationKind = "kind" {
        /// A user.
        User = "user",
        /// A session.
        Session = "session",
        /// A token.
        Token = "token",
        /// Any other kind: the name of a claim.
        Claim = "claim",
        /// Every session without a user.
        Anonymous = "anonymous",
        /// Every session.
        All = "all",
    }
}

curfew_telemetry::metrics! {
    /// The metrics of a node.
    pub struct NodeMetrics {
        connections: Gauge, "Open connections of clients: WebSockets and streams";
        draining: Gauge, "1 while the node drains, that is leaves service";
        sessions: Gauge, "Open sessions on this node";
        subscriptions: Gauge, "Subscriptions of all sessions on this node";
        publish_duration: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "Time from the arrival of a publication, as a command or an API call, until the backend has accepted it. With the embedded backend this includes queueing the publication for all subscribers. For a session, the first publication, one in 16 and every traced publication are timed";
        messages_delivered: Counter, "Messages put into outbound queues";
        fanout_recipients: Histogram = Histogram::new(RECIPIENTS), "Number of sessions for which a publication was queued";
        stream_recoveries: Counters<RecoveryOutcome>, "Subscribers that sent a position, by the source of the publications after it: the node's memory (window), the backend (read), or none because they could not be recovered (lost)";
        stream_reads: Counter, "Reads of channels' streams in the backend, to recover subscribers or to fetch missing publications";
        stream_reads_shared: Counter, "Reads of channels' streams that were avoided because the result of another read could be used";
        revocations_applied: Counters<RevocationKind>, "Revocations that ended sessions or subscriptions on this node";
        sessions_revoked: Counter, "Sessions ended by a revocation";
        revocations_unwritten: Gauge, "Revocations requested by identity providers that wait to be written to the backend";
        revocations_lost: Counter, "Revocations requested by identity providers that were never written to the backend and are lost";
        revocation_propagation: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "Time from the moment at which the node receives a revocation, from Redis or by a call to the embedded backend, until it has told the affected sessions to end. Only revocations that ended a session or a subscription on this node are timed";
    }
}

impl NodeMetrics {
    /// Counts an applied revocation by the kind of its key, and the sessions it ended.
    pub fn revocation_applied(&self, kind: &str, revoked: &Revoked) {
        self.revocations_applied.inc(RevocationKind::of(kind));
        self.sessions_revoked.inc_by(revoked.sessions.len() as u64);
    }
}

impl RevocationKind {
    /// The label for the kind of a revocation key. All claims share one label, because the operator
    /// chooses their names.
    pub fn of(kind: &str) -> Self {
        match kind {
            "user" => Self::User,
            "session" => Self::Session,
            "token" => Self::Token,
            "anonymous" => Self::Anonymous,
            "all" => Self::All,
            _ => Self::Claim,
        }
    }
}
