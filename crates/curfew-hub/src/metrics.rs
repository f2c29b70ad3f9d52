//! The metrics of the hub.

use curfew_model::GapReason;
use curfew_telemetry::{Counter, Counters, Gauge, Histogram, Histograms};

/// A twentieth of a millisecond to the deadline of a socket that takes nothing.
const DELIVERY_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// One to what a default queue holds of small messages.
const QUEUE_MESSAGES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 4_096.0,
];

curfew_telemetry::labels! {
    /// The reason for which a message did not reach a session that listens to its channel.
    DropReason = "reason" {
        /// The session's outbound queue overflowed and it is being closed.
        SlowConsumer = "slow_consumer",
        /// The node's memory for outbound queues is used up.
        QueueFull = "queue_full",
        /// The session's token has expired.
        Expired = "expired",
        /// A revocation covers the session.
        Revoked = "revoked",
        /// The session is being closed.
        Closed = "closed",
        /// It is larger than an outbound queue.
        TooLarge = "too_large",
        /// The node was out of touch with its backend and held no delivery lease.
        NoLease = "unvouched",
    }

    /// The way by which a publication came to the sessions of a node.
    DeliveryPath = "path" {
        /// Through the embedded backend.
        Local = "local",
        /// Through Redis, also where it was published on this node.
        Broker = "broker",
    }

    /// The kind of a frame (RFC 6455 §11.8).
    Opcode = "opcode" {
        /// More of a fragmented message.
        Continuation = "continuation",
        /// Text.
        Text = "text",
        /// Binary.
        Binary = "binary",
        /// Close.
        Close = "close",
        /// Ping.
        Ping = "ping",
        /// Pong.
        Pong = "pong",
    }
}

curfew_telemetry::metrics! {
    /// The metrics of the hub.
    pub struct HubMetrics {
        channels: Gauge, "Channels with a subscription on this node";
        send_queue_bytes: Gauge, Bytes, "Bytes in all outbound queues";
        frames_sent: Counters<Opcode>, "Frames sent";
        sent_bytes: Counter, Bytes, "Bytes of frames sent";
        messages_dropped: Counters<DropReason>, "Messages that did not reach a session";
        gaps: Counters<GapReason>, "Sessions told that publications of a channel may be missing, once for each loss and channel";
        delivery_duration: Histograms<DeliveryPath> = Histograms::new(DELIVERY_SECONDS), Seconds, "From a publication's reaching the node, through the embedded backend (local) or Redis (broker), to its last byte's being handed to the socket. One delivery in 17 is timed, of those of one publication one in 257, and of a traced publication at least one; what its session wrote together with it is included, sessions that end meanwhile are not";
        send_queue_messages: Histogram = Histogram::new(QUEUE_MESSAGES), "Messages that a session takes out of its queue at a time, as the messages find it that are timed";
    }
}
