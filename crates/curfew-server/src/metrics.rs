//! The metrics of the listeners: connections, requests, and reports of identity providers.

use curfew_telemetry::{Counters, Gauge, Histogram, Named};

/// The upper bounds of the buckets of `handshake_duration`, in seconds. The largest is the default
/// of `server.upgrade_timeout`.
const HANDSHAKE_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

curfew_telemetry::labels! {
    /// The reason that a connection was not upgraded.
    RejectReason = "reason" {
        /// The `Origin` is not allowed.
        Origin = "origin",
        /// The token was refused before the upgrade (`auth.reject = "http"`).
        Auth = "auth",
        /// `limits.connections` or a limit of unauthenticated connections is reached.
        Limit = "limit",
        /// `limits.handshakes_per_second` is reached.
        Rate = "rate",
        /// The node is draining.
        Draining = "draining",
        /// The request is not a WebSocket handshake, or the bytes are not HTTP.
        BadRequest = "bad_request",
        /// The head of the request has more than `limits.head_bytes`, or its target is too long.
        HeadTooLarge = "head_too_large",
        /// The request has more headers than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// The request has a version of HTTP other than 1.0 and 1.1.
        HttpVersion = "http_version",
        /// The TLS handshake failed, or the client does not use TLS.
        Tls = "tls",
        /// No endpoint has the path of the request.
        NotFound = "not_found",
        /// The backend or the keys of the token's issuer are unavailable, or the node supports the
        /// requested protocol only after a restart.
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

    /// The kind of answer to an HTTP request.
    AnswerReason = "reason" {
        /// The request succeeded.
        Ok = "ok",
        /// The connection was upgraded to a WebSocket (status 101).
        Upgraded = "upgraded",
        /// The request is invalid.
        BadRequest = "bad_request",
        /// The connection ended before the body was complete.
        BodyIncomplete = "body_incomplete",
        /// The request's body is too large.
        BodyTooLarge = "body_too_large",
        /// The head of the request has more than `limits.head_bytes`, or its target is too long.
        HeadTooLarge = "head_too_large",
        /// The head of the request has more headers than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// The request has a version of HTTP other than 1.0 and 1.1.
        HttpVersion = "http_version",
        /// The path accepts only WebSocket upgrades, and the request is not an upgrade of a
        /// supported version.
        UpgradeRequired = "upgrade_required",
        /// The request's credential is missing or invalid.
        Unauthorized = "unauthorized",
        /// The caller may not make this request.
        Forbidden = "forbidden",
        /// The path or the named object does not exist.
        NotFound = "not_found",
        /// The path does not accept the method of the request.
        Method = "method",
        /// The head or the body of the request did not arrive in time.
        Timeout = "timeout",
        /// The request was refused, because too many requests of its kind have arrived.
        Rate = "rate",
        /// The request or connection exceeds a limit in the settings.
        Limit = "limit",
        /// A service that the node needs is unavailable, or the node is not in service.
        Unavailable = "unavailable",
        /// The request may or may not have taken effect.
        UnknownOutcome = "unknown_outcome",
        /// The request failed through a fault of the node.
        Internal = "internal",
    }

    /// The outcome of a logout token, or of a request of Global Token Revocation.
    LogoutOutcome = "outcome" {
        /// The report is valid and in force.
        Accepted = "accepted",
        /// The report is valid and in force. It names a login, and the user has sessions, but none
        /// of them belongs to this login.
        NobodyFound = "nobody_found",
        /// The report is refused.
        Refused = "refused",
        /// The report was not read, because too many reports from its address could not be
        /// verified.
        RateLimited = "rate_limited",
        /// The report may be valid, but the issuer's keys or the backend were unavailable.
        Unavailable = "unavailable",
        /// The report is stored until its issuer's keys arrive. Its final outcome is then counted
        /// too.
        Kept = "kept",
        /// The stored report was dropped, because its issuer's keys did not arrive in time, or
        /// because another report has displaced it.
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
        /// The report lacks a required part, or has a part that is not allowed.
        Content = "malformed",
        /// No session can be found by the subject that the report names.
        Subject = "subject",
    }

    /// The outcome of a security event.
    EventOutcome = "outcome" {
        /// The event ended the access of its subject.
        Ended = "ended",
        /// The event is of a type that ends no access.
        NoEffect = "no_effect",
        /// No session can be found by the subject that the event names.
        NobodyFound = "nobody_found",
        /// The event is about the stream itself.
        Stream = "stream",
        /// The event is refused.
        Refused = "refused",
        /// The event was not read, because too many reports from its address could not be verified.
        RateLimited = "rate_limited",
        /// The event may be valid, but the issuer's keys or the backend were unavailable.
        Unavailable = "unavailable",
        /// The event is stored until its issuer's keys arrive. Its final outcome is then counted
        /// too.
        Kept = "kept",
        /// The stored event was dropped, because its issuer's keys did not arrive in time, or
        /// because another report has displaced it.
        Lost = "lost",
    }

    /// The outcome of a request that carries commands for a session that receives by HTTP streaming
    /// or server-sent events.
    EmulationOutcome = "outcome" {
        /// The session is on this node, and has received the commands.
        Local = "local",
        /// The session is on another node, and has received the commands.
        Relayed = "relayed",
        /// The session that the request names does not exist or has ended.
        Unknown = "unknown",
        /// The node of the session does not exist.
        NoNode = "no_node",
        /// Too many earlier commands of the session still wait to be executed, or the session's
        /// node has refused the commands.
        Behind = "behind",
        /// The request is the first that this node relays to a session of another node, and too
        /// many such first requests have arrived (`limits.handshakes_per_second`).
        Rate = "rate",
        /// Redis was unavailable, or the session's node did not answer.
        Unavailable = "unavailable",
    }

    /// The reason that commands from another node were not executed.
    RelayDropReason = "reason" {
        /// The commands could not be decrypted or parsed.
        Unreadable = "unreadable",
        /// The commands have been received before.
        Replayed = "replayed",
        /// Too many nodes have relayed commands to the session.
        Senders = "senders",
        /// Too many earlier commands of the session still wait to be executed.
        Behind = "behind",
    }

    /// The outcome of a request for a ticket, or of the use of a ticket.
    TicketOutcome = "outcome" {
        /// A ticket was issued.
        Issued = "issued",
        /// A ticket was exchanged for its token.
        Redeemed = "redeemed",
        /// A request for a ticket was refused, or a ticket was used with another origin than the
        /// one for which it was issued.
        Refused = "refused",
        /// A ticket is unknown, was used before or has expired.
        NotFound = "not_found",
        /// The backend or the issuer's keys were unavailable, or there were too many requests.
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
    /// Returns the reason of an answer with this status. `code` is the `Problem::code` of the
    /// answer, if it states a problem. The code distinguishes reasons that have the same status.
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
