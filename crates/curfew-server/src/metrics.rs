//! The metrics of the listeners: connections, requests, and reports of identity providers.

use curfew_telemetry::{Counters, Gauge, Histogram, Named};

/// Buckets of the handshake duration, from 0.5 ms to the opening deadline.
const HANDSHAKE_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

curfew_telemetry::labels! {
    /// The reason that a connection was not accepted.
    RejectReason = "reason" {
        /// The `Origin` is not allowed.
        Origin = "origin",
        /// The token was refused before the upgrade (`auth.reject = "http"`).
        Auth = "auth",
        /// `limits.connections` or a limit of unauthenticated connections is reached.
        Limit = "limit",
        /// `limits.handshakes_per_second` is reached.
        Rate = "rate",
        /// The node leaves service.
        Draining = "draining",
        /// The request is not a WebSocket handshake, or the bytes are not HTTP.
        BadRequest = "bad_request",
        /// The request's head is over `limits.head_bytes`.
        HeadTooLarge = "head_too_large",
        /// The request has more headers than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// The client speaks another version of HTTP.
        HttpVersion = "http_version",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Nothing exists at the request's path.
        NotFound = "not_found",
        /// A dependency is down.
        Unavailable = "unavailable",
        /// The TLS handshake or the request did not arrive in time.
        Timeout = "timeout",
    }

    /// The listener.
    ListenerKind = "listener" {
        /// The public listener.
        Public = "public",
        /// The admin listener.
        Admin = "admin",
    }

    /// The outcome of an HTTP request.
    AnswerReason = "reason" {
        /// The request succeeded.
        Ok = "ok",
        /// 101: the connection is a WebSocket.
        Upgraded = "upgraded",
        /// The request is wrong.
        BadRequest = "bad_request",
        /// The request's body broke off.
        BodyIncomplete = "body_incomplete",
        /// The request's body is too large.
        BodyTooLarge = "body_too_large",
        /// The head of the request is over `limits.head_bytes`.
        HeadTooLarge = "head_too_large",
        /// The head of the request has more headers than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// Another version of HTTP is needed.
        HttpVersion = "http_version",
        /// An upgrade is needed.
        UpgradeRequired = "upgrade_required",
        /// The request's credential is missing or invalid.
        Unauthorized = "unauthorized",
        /// The caller may not do this.
        Forbidden = "forbidden",
        /// There is nothing at the request's path.
        NotFound = "not_found",
        /// The path does not take the request's method.
        Method = "method",
        /// The request did not arrive in time.
        Timeout = "timeout",
        /// A rate limit refuses the request.
        Rate = "rate",
        /// A limit in the settings is reached.
        Limit = "limit",
        /// A dependency is down, or the node is not in service.
        Unavailable = "unavailable",
        /// The request may or may not have taken effect.
        UnknownOutcome = "unknown_outcome",
        /// The node failed.
        Internal = "internal",
    }

    /// The outcome of a logout token or of a Global Token Revocation.
    LogoutOutcome = "outcome" {
        /// The report is valid and in force.
        Accepted = "accepted",
        /// The report is valid and in force. Its user has sessions, but none that belongs to the
        /// named login.
        NobodyFound = "nobody_found",
        /// The report is refused.
        Refused = "refused",
        /// The report was not read: too many reports from its address could not be verified.
        RateLimited = "rate_limited",
        /// The report may be valid, but a dependency was unavailable.
        Unavailable = "unavailable",
        /// The report waits for its issuer's keys. Its final outcome is counted too.
        Kept = "kept",
        /// The node gave up the wait for keys.
        Lost = "lost",
    }

    /// A kind of report by an issuer.
    ReportKind = "report" {
        /// A logout token.
        BackchannelLogout = "backchannel_logout",
        /// A security event.
        SecurityEvent = "security_event",
        /// A Global Token Revocation.
        GlobalTokenRevocation = "global_token_revocation",
    }

    /// The fault of a report that its issuer has signed.
    ReportFault = "reason" {
        /// The report is for another audience.
        WrongAudience = "wrong_audience",
        /// The report is expired, too old or from the future.
        Time = "time",
        /// The report lacks a part, or has a part that is not allowed.
        Content = "malformed",
        /// The report names users by claims that access tokens lack.
        Subject = "subject",
    }

    /// The outcome of a security event.
    EventOutcome = "outcome" {
        /// Access ended.
        Ended = "ended",
        /// The event is of a type that ends no access.
        NoEffect = "no_effect",
        /// The user of the event cannot be found here.
        NobodyFound = "nobody_found",
        /// The event is about the stream itself.
        Stream = "stream",
        /// The event is refused.
        Refused = "refused",
        /// The event was not read: too many reports from its address could not be verified.
        RateLimited = "rate_limited",
        /// The event may be valid, but a dependency was unavailable.
        Unavailable = "unavailable",
        /// The event waits for its issuer's keys. Its final outcome is counted too.
        Kept = "kept",
        /// The node gave up the wait for keys.
        Lost = "lost",
    }

    /// The outcome of a request that carries commands for a streaming session.
    EmulationOutcome = "outcome" {
        /// The session is on this node, and has received the commands.
        Local = "local",
        /// The session is on another node, and has received the commands.
        Relayed = "relayed",
        /// There is no such session, or it has ended.
        Unknown = "unknown",
        /// There is no such node.
        NoNode = "no_node",
        /// The session still has earlier commands to run.
        Behind = "behind",
        /// The request is this node's first for a session on another node. Such first requests
        /// exceed `limits.handshakes_per_second`.
        Rate = "rate",
        /// Redis was unavailable, or the session's node did not answer.
        Unavailable = "unavailable",
    }

    /// The reason that commands from another node were not executed.
    RelayDropReason = "reason" {
        /// Parsing or decryption fails.
        Unreadable = "unreadable",
        /// The commands are a replay.
        Replayed = "replayed",
        /// Too many nodes have sent commands to one session.
        Senders = "senders",
        /// The session still has earlier commands to run.
        Behind = "behind",
    }

    /// The outcome of a ticket, or of a request for one.
    TicketOutcome = "outcome" {
        /// A ticket was issued.
        Issued = "issued",
        /// A ticket was exchanged for its token.
        Redeemed = "redeemed",
        /// A request for a ticket was refused, or a page of another origin used a ticket.
        Refused = "refused",
        /// A ticket is unknown, was used before or is too old.
        NotFound = "not_found",
        /// A dependency was unavailable, or there were too many requests.
        Unavailable = "unavailable",
    }
}

curfew_telemetry::metrics! {
    /// The metrics of the listeners.
    pub struct ServerMetrics(protocols: &[&'static str]) {
        unauthenticated_connections: Gauge, "Connections whose token has not been verified yet";
        connections_limit: Gauge, "The value of limits.connections; 0 means no limit";
        connections_accepted: Named<&'static str> = Named::new("protocol", protocols.to_vec()), "Upgraded connections";
        connections_rejected: Counters<RejectReason>, "Connections that were not upgraded";
        http_answers: Counters<(ListenerKind, AnswerReason)>, "Answers to HTTP requests on either listener";
        handshake_duration: Histogram = Histogram::new(HANDSHAKE_SECONDS), Seconds, "Time from accepting a connection to its upgrade";
        logouts: Counters<LogoutOutcome>, "Logout tokens received from identity providers";
        reports_refused: Counters<(ReportKind, ReportFault)>, "Refused reports that carry a valid signature of an identity provider";
        emulation_requests: Counters<EmulationOutcome>, "Requests with commands for sessions that receive by HTTP streaming or server-sent events";
        emulation_dropped: Counters<RelayDropReason>, "Commands that another node relayed and that this node did not execute";
        tickets: Counters<TicketOutcome>, "Tickets and requests for tickets";
        security_events: Counters<EventOutcome>, "Security events of identity providers";
        global_revocations: Counters<LogoutOutcome>, "Requests from identity providers to end all sessions of a user";
        event_streams_stopped: Gauge, "Streams of security events that the identity provider has stopped";
    }
}

impl AnswerReason {
    /// The reason of an answer with this status. `code` names the answer's problem, if any, and
    /// separates reasons that share a status.
    pub fn of(status: u16, code: Option<&str>) -> Self {
        match (status, code) {
            (400, Some("body_incomplete")) => Self::BodyIncomplete,
            (431, Some("too_many_headers")) => Self::TooManyHeaders,
            (101, _) => Self::Upgraded,
            (..400, _) => Self::Ok,
            (401, _) => Self::Unauthorized,
            (403, _) => Self::Forbidden,
            (404, _) => Self::NotFound,
            (405, _) => Self::Method,
            (408, _) => Self::Timeout,
            (413, _) => Self::BodyTooLarge,
            (426, _) => Self::UpgradeRequired,
            (429, _) => Self::Rate,
            (414 | 431, _) => Self::HeadTooLarge,
            (503, _) => Self::Unavailable,
            (504, _) => Self::UnknownOutcome,
            (505, _) => Self::HttpVersion,
            (..500, _) => Self::BadRequest,
            (500.., _) => Self::Internal,
        }
    }
}
