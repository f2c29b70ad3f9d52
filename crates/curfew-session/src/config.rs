//! The `[session]` and `[limits]` sections.

use std::time::Duration;

use curfew_backend::OverLimit;
use curfew_model::{Problems, Quota, RevocationKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Least value of `message_bytes`, with room for the fields of a publication besides its data.
const SMALLEST_MESSAGE_BYTES: usize = 1024;

/// The `[session]` section: the life of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// The time before a token's `exp` at which its session receives `expiring`, once per token. If
    /// a token has less time left, the session receives `expiring` immediately. `0s`: never.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub expiring_notice: Duration,
    /// Claims by which sessions can be revoked, beside user, session and token: for example
    /// `["tenant", "device"]`. After a reload, revocations by a new claim find open sessions too.
    pub revocable_claims: Vec<String>,
    /// The claim whose value other clients see as `info` of a session in the presence of channels:
    /// for example `name`. Default: none, other clients see only the session's user and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info_claim: Option<String>,
    /// The number of sessions one user may have at once, counted over the cluster; `over_limit`
    /// says what happens to a further session. 0: no limit.
    pub max_per_user: u32,
    /// `"refuse"`: a session beyond `max_per_user` waits while the user's other sessions are
    /// probed. A session that gives no sign of life within 2s is closed with 4510 and makes room.
    /// If none makes room, the new session is closed with 4409. `"close_oldest"`: the new session
    /// replaces the oldest, which is closed with 4407.
    pub over_limit: OverLimit,
    /// The interval at which the server pings every connection, give or take a tenth. Keep it below
    /// every idle timeout between clients and the node.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub ping_interval: Duration,
    /// A connection that sends nothing for this long after a ping is closed with 4510.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub pong_timeout: Duration,
    /// A connection that accepts no byte for this long while frames wait is reset.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub write_timeout: Duration,
    /// The time that each of the two steps of a close may take: writing the last frames, and then
    /// waiting for the client's own close frame. At most 3s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub close_timeout: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            expiring_notice: Duration::from_secs(60),
            revocable_claims: Vec::new(),
            info_claim: None,
            max_per_user: 0,
            over_limit: OverLimit::default(),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(1),
        }
    }
}

impl SessionConfig {
    /// Reports values that are out of range.
    pub fn check(&self, problems: &mut Problems) {
        for (at, claim) in self.revocable_claims.iter().enumerate() {
            let key = format!("revocable_claims[{at}]");
            if RevocationKey::is_reserved_kind(claim) {
                problems.report(
                    &key,
                    format!("{claim:?} is a built-in kind of revocation: list only other claims"),
                );
            } else if !RevocationKey::can_be_kind(claim) {
                problems.report(&key, "must be a claim's name without \":\" and braces");
            }
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.ping_interval) {
            problems.report("ping_interval", "must be between 1s and 1h");
        }
        for (key, value) in [
            ("pong_timeout", self.pong_timeout),
            ("write_timeout", self.write_timeout),
        ] {
            if !(Duration::from_millis(100)..=Duration::from_secs(300)).contains(&value) {
                problems.report(key, "must be between 100ms and 5m");
            }
        }
        // The revocation guarantee depends on this upper bound: a session that is revoked while it
        // is already closing must end within the time that the guarantee promises.
        if !(Duration::from_millis(100)..=Duration::from_secs(3)).contains(&self.close_timeout) {
            problems.report("close_timeout", "must be between 100ms and 3s");
        }
    }
}

/// The `[limits]` section: bounds of one connection, and of the node as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The largest message from a client, in bytes, all its fragments together; a larger message
    /// closes the connection with 1009.
    pub message_bytes: usize,
    /// The number of fragments of one message; a message with more closes the connection with 1009.
    pub fragments: usize,
    /// The time from a message's first byte to its last; a message that takes longer closes the
    /// connection with 1008.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub message_timeout: Duration,
    /// The number of bytes that may wait for one connection. A connection with more bytes waiting
    /// is closed with 4508.
    pub outbound_bytes: usize,
    /// The number of bytes that may wait for all connections together. If more bytes wait,
    /// connections with more than 64 KiB waiting are closed with 4508. 0: no limit.
    pub node_outbound_bytes: usize,
    /// The number of bytes of publications that the node remembers for clients that reconnect, over
    /// all channels with a stream. The channels that have been unused for the longest time are
    /// forgotten first. 0: none are remembered, and every recovery reads from the backend. The
    /// newest publication of a channel with subscribers that take differences (`delta`) is not
    /// counted.
    pub window_bytes: usize,
    /// The number of channels a session may be subscribed to.
    pub subscriptions: usize,
    /// The number of commands a session may send each second, with a burst of the same number.
    /// Further commands are answered `rate_limited`. A session that stays above the rate for ten
    /// seconds without a pause is closed with 4429. 0: no limit.
    pub messages_per_second: u32,
    /// The number of ping, pong and close frames a client may send each second, with a burst of
    /// twice that number; more frames close the connection with 1008.
    pub control_frames_per_second: u32,
    /// The number of malformed messages a session of `curfew.v1` may send; a further malformed
    /// message closes the session with 4400.
    pub bad_frames: u32,
    /// The number of connections the node accepts; further upgrades are answered 503. 0: no limit.
    pub connections: usize,
    /// The number of connections that have not authenticated yet, over all addresses; further
    /// connections are answered 503.
    pub unauthenticated: usize,
    /// The number of unauthenticated connections from one client address; further connections are
    /// answered 429. Behind a load balancer all clients share one address, unless
    /// `server.trusted_proxies` lists the balancer.
    pub unauthenticated_per_address: usize,
    /// The number of anonymous sessions (`auth.anonymous`) from one client address that a node
    /// admits; a further session is refused with 4409. Behind a load balancer all clients share one
    /// address, unless `server.trusted_proxies` lists the balancer. All IPv6 addresses of one /64
    /// count as one address. 0: no limit.
    pub anonymous_per_address: u32,
    /// The number of upgrades accepted each second, with a burst of the same number. Further
    /// upgrades are answered 503 with `Retry-After`, before any cryptography. 0: no limit.
    pub handshakes_per_second: u32,
    /// The number of reports that may fail verification, per client address and second, with a
    /// burst of the same number. A report comes from an identity provider, or from a client that
    /// revokes its token. Above this number, every further report from this address is answered 429
    /// with `Retry-After`, before any cryptography. Reports that pass verification are not counted,
    /// and no other limit applies to them. Behind a load balancer all clients share one address,
    /// unless `server.trusted_proxies` lists the balancer. 0: no limit.
    pub unverified_reports_per_second: u32,
    /// The number of headers of a request to either listener; a request with more is answered 431.
    pub headers: usize,
    /// The largest head of a request to either listener, in bytes: request line and headers. A
    /// larger head is answered 431. Tokens, cookies and the headers of proxies must fit.
    pub head_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            fragments: 64,
            message_timeout: Duration::from_secs(30),
            outbound_bytes: 1024 * 1024,
            node_outbound_bytes: 256 * 1024 * 1024,
            window_bytes: 64 * 1024 * 1024,
            subscriptions: 128,
            messages_per_second: 0,
            control_frames_per_second: 10,
            bad_frames: 3,
            connections: 0,
            unauthenticated: 16 * 1024,
            unauthenticated_per_address: 4096,
            anonymous_per_address: 20,
            handshakes_per_second: 0,
            unverified_reports_per_second: 200,
            headers: 100,
            head_bytes: 32 * 1024,
        }
    }
}

impl LimitsConfig {
    /// The quota of control frames: [`LimitsConfig::control_frames_per_second`], with a burst of
    /// twice that number.
    pub(crate) fn control_frames(&self) -> Quota {
        Quota {
            per_second: self.control_frames_per_second,
            burst: self.control_frames_per_second.saturating_mul(2),
        }
    }

    /// Reports values that are out of range.
    pub fn check(&self, problems: &mut Problems) {
        if !(SMALLEST_MESSAGE_BYTES..=64 * 1024 * 1024).contains(&self.message_bytes) {
            problems.report("message_bytes", "must be between 1024 and 67108864");
        }
        if self.outbound_bytes < self.message_bytes {
            problems.report("outbound_bytes", "must be at least limits.message_bytes");
        }
        if self.node_outbound_bytes != 0 && self.node_outbound_bytes < self.outbound_bytes {
            problems.report(
                "node_outbound_bytes",
                "must be 0 or at least limits.outbound_bytes",
            );
        }
        for (key, value) in [
            ("fragments", self.fragments),
            ("subscriptions", self.subscriptions),
            ("unauthenticated", self.unauthenticated),
            (
                "unauthenticated_per_address",
                self.unauthenticated_per_address,
            ),
            (
                "control_frames_per_second",
                self.control_frames_per_second as usize,
            ),
        ] {
            if value == 0 {
                problems.report(key, "must be at least 1");
            }
        }
        if !(8..=1000).contains(&self.headers) {
            problems.report("headers", "must be between 8 and 1000");
        }
        if !(8 * 1024..=1024 * 1024).contains(&self.head_bytes) {
            problems.report("head_bytes", "must be between 8192 and 1048576");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.message_timeout)
        {
            problems.report("message_timeout", "must be between 100ms and 1h");
        }
    }
}
