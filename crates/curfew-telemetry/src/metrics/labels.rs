//! Labels: closed sets, so that no client can add a series.

use std::fmt;

use curfew_model::GapReason;

/// One label with every value it can have.
pub trait Label: fmt::Debug + Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Its values, in order of [`Label::index`].
    const VALUES: &'static [&'static str];

    /// The value's place in [`Label::VALUES`].
    fn index(self) -> usize;
}

/// The labels of one counter: none, one or two.
pub trait LabelSet: fmt::Debug + Copy + Send + Sync + 'static {
    /// How many combinations there are.
    const COUNT: usize;

    /// This combination's place, below [`LabelSet::COUNT`].
    fn slot(self) -> usize;

    /// Names and values of the combination at `slot`.
    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)>;
}

impl LabelSet for () {
    const COUNT: usize = 1;

    fn slot(self) -> usize {
        0
    }

    fn pairs(_: usize) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl<L: Label> LabelSet for L {
    const COUNT: usize = L::VALUES.len();

    fn slot(self) -> usize {
        self.index()
    }

    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)> {
        vec![(L::NAME, L::VALUES[slot])]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    const COUNT: usize = A::VALUES.len() * B::VALUES.len();

    fn slot(self) -> usize {
        self.0.index() * B::VALUES.len() + self.1.index()
    }

    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)> {
        let (a, b) = (slot / B::VALUES.len(), slot % B::VALUES.len());
        vec![(A::NAME, A::VALUES[a]), (B::NAME, B::VALUES[b])]
    }
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal { $($(#[doc = $value_doc:literal])+ $variant:ident = $value:literal,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name { $($(#[doc = $value_doc])+ $variant,)+ }

            impl Label for $name {
                const NAME: &'static str = $label;
                const VALUES: &'static [&'static str] = &[$($value),+];

                fn index(self) -> usize {
                    self as usize
                }
            }

            impl $name {
                /// The value, in metrics and spans.
                pub fn as_str(self) -> &'static str {
                    Self::VALUES[self.index()]
                }
            }
        )+
    };
}

labels! {
    /// Why a connection was not accepted.
    RejectReason = "reason" {
        /// The `Origin` is not allowed.
        Origin = "origin",
        /// The token was refused before the upgrade (`auth.reject = "http"`).
        Auth = "auth",
        /// Over `limits.connections`, or too many without a token.
        Limit = "limit",
        /// Over `limits.handshakes_per_second`.
        Rate = "rate",
        /// The node leaves service.
        Draining = "draining",
        /// Not a WebSocket handshake, or not HTTP.
        BadRequest = "bad_request",
        /// The request's head is over `limits.head_bytes`.
        HeadTooLarge = "head_too_large",
        /// The request has more than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// HTTP/2 was spoken.
        HttpVersion = "http_version",
        /// The TLS handshake failed.
        Tls = "tls",
        /// There is nothing at the request's path.
        NotFound = "not_found",
        /// A dependency is down.
        Unavailable = "unavailable",
        /// The request, or TLS before it, did not come in time.
        Timeout = "timeout",
    }

    /// Which listener it was.
    Listener = "listener" {
        /// The public one.
        Public = "public",
        /// The admin listener.
        Admin = "admin",
    }

    /// The answer to an HTTP request, in a word.
    AnswerReason = "reason" {
        /// It was done as asked.
        Ok = "ok",
        /// 101: the connection is a WebSocket.
        Upgraded = "upgraded",
        /// It is wrong.
        BadRequest = "bad_request",
        /// Its body broke off.
        BodyIncomplete = "body_incomplete",
        /// Its body is too large.
        BodyTooLarge = "body_too_large",
        /// Its head is over `limits.head_bytes`.
        HeadTooLarge = "head_too_large",
        /// It has more than `limits.headers`.
        TooManyHeaders = "too_many_headers",
        /// Another version of HTTP is needed.
        HttpVersion = "http_version",
        /// An upgrade is needed.
        UpgradeRequired = "upgrade_required",
        /// Its credential is missing or not good.
        Unauthorized = "unauthorized",
        /// It may not do this.
        Forbidden = "forbidden",
        /// There is nothing at its path.
        NotFound = "not_found",
        /// Its method is not one of those that the path takes.
        Method = "method",
        /// It did not come in time.
        Timeout = "timeout",
        /// There were too many of its kind.
        Rate = "rate",
        /// There are as many connections as may be.
        Limit = "limit",
        /// A dependency is down, or the node is not in service.
        Unavailable = "unavailable",
        /// It may or may not have been done.
        UnknownOutcome = "unknown_outcome",
        /// A fault of ours.
        Internal = "internal",
    }

    /// Something that is recorded at any sampled share, within a budget.
    Unasked = "kind" {
        /// A request or command that was refused.
        Refusal = "refusal",
        /// One that failed through a fault of ours.
        Failure = "failure",
        /// A session's end.
        SessionEnd = "session_end",
        /// A revocation that closed no session.
        VainRevocation = "vain_revocation",
    }

    /// Who ended a connection.
    Initiator = "initiator" {
        /// We did.
        Server = "server",
        /// A close frame came from the client.
        Client = "client",
        /// The connection broke.
        Network = "network",
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

    /// How a command ended.
    CommandOutcome = "outcome" {
        /// Done.
        Ok = "ok",
        /// Answered with an error.
        Error = "error",
    }

    /// How a publication ended.
    PublishOutcome = "outcome" {
        /// The backend has it.
        Accepted = "accepted",
        /// The policy does not allow it.
        Denied = "denied",
        /// It could not be handed on.
        Error = "error",
        /// The backend may or may not have it.
        Unknown = "unknown",
    }

    /// Where a publication came from.
    PublishSource = "source" {
        /// A session.
        Client = "client",
        /// The admin API.
        Api = "api",
    }

    /// Why a message did not reach a session that listens to its channel.
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

    /// Why something that came from the backend was not used.
    BackendDropReason = "reason" {
        /// It does not have the form it should.
        Malformed = "malformed",
        /// It is larger than anything Curfew publishes.
        TooLarge = "too_large",
    }

    /// How a publication came to the sessions of a node.
    DeliveryPath = "path" {
        /// Through the embedded backend.
        Local = "local",
        /// Through Redis, also where it was published on this node.
        Broker = "broker",
    }

    /// Why something that the broker was asked for failed, or the connection to it.
    BrokerError = "error" {
        /// There is no connection.
        NotConnected = "not_connected",
        /// The connection broke, or could not be made.
        Connection = "connection",
        /// No answer came in time.
        Timeout = "timeout",
        /// The server is not, or no longer, the right one.
        Misrouted = "misrouted",
        /// The server refused.
        Refused = "refused",
        /// The lease was over, under which it was asked for.
        Late = "late",
        /// What it said makes no sense.
        Unexpected = "unexpected",
    }

    /// What Redis was asked for.
    RedisCommand = "command" {
        /// `PUBLISH` or `SPUBLISH`: a publication, within a script, or word to other nodes.
        Publish = "publish",
        /// `SUBSCRIBE` or `SSUBSCRIBE`: the first listener of a channel.
        Subscribe = "subscribe",
        /// `UNSUBSCRIBE` or `SUNSUBSCRIBE`.
        Unsubscribe = "unsubscribe",
        /// `EXISTS`: an admission's look for revocations.
        Exists = "exists",
        /// `HGETALL`: one record.
        Hgetall = "hgetall",
        /// `ZRANGE`: a list.
        Zrange = "zrange",
        /// Several commands in one go: the records of a session.
        Pipeline = "pipeline",
        /// Several commands between `MULTI` and `EXEC`.
        Transaction = "transaction",
        /// Any other.
        Other = "other",
    }

    /// What became of a logout token.
    LogoutOutcome = "outcome" {
        /// It was good, and is in force.
        Accepted = "accepted",
        /// It was good, and is in force for a login that no session has, of a user who has sessions.
        NobodyFound = "nobody_found",
        /// It was not good.
        Refused = "refused",
        /// It was not read: too much from its address could not be verified.
        RateLimited = "rate_limited",
        /// It may have been good, and a dependency of ours was away.
        Unavailable = "unavailable",
    }

    /// A kind of report by an issuer.
    Report = "report" {
        /// A logout token.
        BackchannelLogout = "backchannel_logout",
        /// A security event.
        SecurityEvent = "security_event",
        /// A Global Token Revocation.
        GlobalTokenRevocation = "global_token_revocation",
    }

    /// The fault of a report that its issuer has signed.
    ReportFault = "reason" {
        /// It is for another audience.
        WrongAudience = "wrong_audience",
        /// Its times are not those of a report that is new.
        Time = "time",
        /// It lacks something, or has what it may not have.
        Content = "malformed",
        /// It names people by what access tokens do not have.
        Subject = "subject",
    }

    /// What became of a security event.
    EventOutcome = "outcome" {
        /// Access ended.
        Ended = "ended",
        /// It is one that ends no access.
        NoEffect = "no_effect",
        /// It is about nobody who can be found here.
        NobodyFound = "nobody_found",
        /// It was about the stream itself.
        Stream = "stream",
        /// It was not good.
        Refused = "refused",
        /// It was not read: too much from its address could not be verified.
        RateLimited = "rate_limited",
        /// It may have been good, and a dependency of ours was away.
        Unavailable = "unavailable",
    }

    /// What became of a ticket, or of a request for one.
    TicketOutcome = "outcome" {
        /// It was given out.
        Issued = "issued",
        /// It was used.
        Redeemed = "redeemed",
        /// None was given, or one was used by a page of another origin.
        Refused = "refused",
        /// It was shown, and is unknown, was used before or is too old.
        NotFound = "not_found",
        /// A dependency of ours was away, or there were too many requests.
        Unavailable = "unavailable",
    }

    /// What the policy said.
    Decision = "outcome" {
        /// Allowed.
        Allowed = "allowed",
        /// Denied.
        Denied = "denied",
    }

    /// Whom a revocation names.
    RevocationKind = "kind" {
        /// A user.
        User = "user",
        /// A session.
        Session = "session",
        /// A token.
        Token = "token",
        /// Whoever has a claim: every kind that is not one of the others.
        Claim = "claim",
        /// Everyone.
        All = "all",
    }
}

impl AnswerReason {
    /// The reason of an answer with this status. `code` is the name of its problem, where it has one,
    /// and tells apart what shares a status.
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

impl Label for GapReason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &["link_lost", "unvouched", "too_large", "malformed"];

    fn index(self) -> usize {
        usize::from(GapReason::index(self))
    }
}

impl RevocationKind {
    /// The label for a revocation key's kind. The names of claims are the operator's, so they all
    /// count as one.
    pub fn of(kind: &str) -> Self {
        match kind {
            "user" => Self::User,
            "session" => Self::Session,
            "token" => Self::Token,
            "all" => Self::All,
            _ => Self::Claim,
        }
    }
}

impl RedisCommand {
    /// What several commands in one go are called.
    pub const PIPELINE: &str = "PIPELINE";

    /// What several commands that are executed as one are called.
    pub const TRANSACTION: &str = "MULTI";

    /// The label for a command by its name, or for several.
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
