//! The metrics of the hub.

use curfew_model::GapReason;
use curfew_telemetry::{Counter, Counters, Gauge, Histogram, Histograms};

/// Buckets from 50 µs to the deadline for a socket that takes nothing.
const DELIVERY_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// Buckets from one message to the number of small messages that fit a queue of the default size.
const QUEUE_MESSAGES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 4_096.0,
];

curfew_telemetry::labels! {
    /// The reason for which a message did not reach a session that listens to its channel.
    DropReason = "reason" {
        /// The session's outbound queue overflowed, and the session is being closed.
        SlowConsumer = "slow_consumer",
        /// The node's memory for outbound queues is used up.
        QueueFull = "queue_full",
        /// The session's token, or its token for the channel, has expired.
        Expired = "expired",
        /// A revocation covers the session, or the session's token for the channel.
        Revoked = "revoked",
        /// The subscription was taken away, because the rules or the session's token have changed.
        Forbidden = "forbidden",
        /// The session is being closed.
        Closed = "closed",
        /// The message is larger than an outbound queue.
        TooLarge = "too_large",
        /// The node had lost its backend and held no delivery lease.
        NoLease = "unvouched",
    }

    /// The path by which a publication reached the sessions of a node.
    DeliveryPath = "path" {
        /// Through the embedded backend.
        Local = "local",
        /// Through Redis, even if the publication was made on this node.
        Broker = "broker",
    }

    /// The kind of a frame (RFC 6455 §11.8).
    Opcode = "opcode" {
        /// A later part of a fragmented message.
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
        presence: Gauge, "Entries of this node's sessions in the presence of channels";
        send_queue_bytes: Gauge, Bytes, "Bytes in all outbound queues";
        frames_sent: Counters<Opcode>, "Frames sent";
        sent_bytes: Counter, Bytes, "Bytes of frames sent";
        messages_dropped: Counters<DropReason>, "Messages that did not reach a session";
        gaps: Counters<GapReason>, "Gaps reported to sessions. A loss of publications counts once for each affected session and channel";
        delivery_duration: Histograms<DeliveryPath> = Histograms::new(DELIVERY_SECONDS), Seconds, "Time from the arrival of a publication at the node, through the embedded backend (local) or Redis (broker), until its last byte is handed to the socket. One delivery in 17 is timed, but within one publication only one in 257; a traced publication has at least one timed delivery. The time includes writing the messages that share a write with the publication. Deliveries to sessions that end meanwhile are not timed";
        send_queue_messages: Histogram = Histogram::new(QUEUE_MESSAGES), "Number of messages that a session takes out of its outbound queue at once, observed at each timed delivery";
    }
}
