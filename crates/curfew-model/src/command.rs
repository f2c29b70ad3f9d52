//! Commands of a client, replies to them, and pushes.

use std::borrow::Cow;
use std::fmt;

use crate::{
    AuthFailure, Channel, Disconnect, Epoch, ErrorCode, NodeId, Position, PresenceChange, Present,
    Publication, SessionId, TraceContext, TraceId,
};

/// The client's id for a command, echoed in the reply. It is a JSON number or string, stored as the
/// JSON text that the client sent.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandId(Box<str>);

impl CommandId {
    /// Wraps the JSON text of a number or string, which the decoder has checked.
    pub fn from_json(text: &str) -> Self {
        Self(text.into())
    }

    /// Creates the id for a protocol whose ids are numbers.
    pub fn from_number(number: u64) -> Self {
        Self(number.to_string().into())
    }

    /// The id as JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRequest<'a> {
    /// A command, with its id if it has one. Without an id, a protocol may omit the reply to a
    /// command that succeeds.
    Command {
        /// The id, repeated in the reply.
        id: Option<CommandId>,
        /// The command.
        command: Command<'a>,
    },
    /// The client's answer to a ping that the server sent as a message of the protocol. The answer
    /// counts like a WebSocket pong, and gets no reply.
    Pong,
}

/// A command of a client. It borrows from the message it was decoded from.
#[derive(Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Authenticates a connection. It must be the first command.
    Auth {
        /// The JWT, unverified; `None` if the client has no token, or sent its token in the upgrade
        /// request.
        token: Option<Cow<'a, str>>,
        /// Channels to which the server should subscribe the client, each with the client's
        /// position.
        subscriptions: Vec<(Cow<'a, str>, SubscribeOptions<'a>)>,
    },
    /// Subscribes to a channel.
    Subscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// The options of the subscription.
        options: SubscribeOptions<'a>,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// Publishes into a channel.
    Publish {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// The data, exactly as sent.
        data: Payload<'a>,
        /// The client's trace context, if the client sent a `traceparent`.
        trace: Option<TraceContext>,
        /// The client's idempotency key: the channel's stream accepts only one publication with
        /// this key. The key has at most
        /// [`MAX_PUBLICATION_KEY_BYTES`](crate::MAX_PUBLICATION_KEY_BYTES) bytes.
        key: Option<Cow<'a, str>>,
    },
    /// Reads the stream of a channel.
    History {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// Maximum number of publications in the answer.
        limit: u64,
        /// The part of the stream to read.
        range: HistoryRange,
        /// The epoch that the stream must have; in any other epoch, the answer is an error.
        epoch: Option<Epoch>,
    },
    /// Lists the sessions that are subscribed to a channel.
    Presence {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// True if the client asks for the counts only.
        is_count: bool,
    },
    /// Replaces the session's token by a newer token of the same user.
    Refresh {
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Replaces the token of a subscription by a newer token.
    RefreshSubscription {
        /// The channel's name, unchecked; empty if only the token names the channel.
        channel: Cow<'a, str>,
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Calls a procedure of the server. The server has no procedures, so the answer is an error.
    Call,
    /// Sends a message to the server itself. The server discards it without an answer.
    Send,
    /// Asks for a `pong` reply.
    Ping,
}

/// The options of a subscription.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SubscribeOptions<'a> {
    /// The client's position in the channel's stream. The client asks for the publications after
    /// this position.
    pub since: Option<Position>,
    /// True if the client asks for notices of sessions that enter or leave the channel.
    pub join_leave: bool,
    /// True if the client wants no subscription unless every publication after `since` is
    /// available.
    pub must_recover: bool,
    /// True if the client accepts publications as differences to the preceding publication.
    pub delta: bool,
    /// A JWT for this channel, unverified.
    pub token: Option<Cow<'a, str>>,
}

impl fmt::Debug for SubscribeOptions<'_> {
    /// Prints no token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeOptions")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// The data of a publication, as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// One valid JSON value.
    Json(&'a str),
    /// Bytes, which need not be JSON.
    Bytes(Cow<'a, [u8]>),
}

impl Payload<'_> {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The part of a stream that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// The publications after this position, oldest first.
    Since(Position),
    /// The publications before this offset, newest first.
    Before(u64),
}

impl HistoryRange {
    /// The whole stream, oldest first.
    pub const ALL: Self = Self::Since(Position {
        epoch: Epoch::ANY,
        offset: 0,
    });
}

impl Command<'_> {
    /// The names of the native protocol's commands, in the order of its documentation.
    pub const NAMES: &'static [&'static str] = &[
        "auth",
        "subscribe",
        "unsubscribe",
        "publish",
        "history",
        "presence",
        "refresh",
        "ping",
    ];

    /// The names of the commands that the native protocol lacks.
    pub const OTHER_NAMES: &'static [&'static str] = &["sub_refresh", "rpc", "send"];

    /// The command's name in the protocol and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Auth { .. } => "auth",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Publish { .. } => "publish",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
            Self::Refresh { .. } => "refresh",
            Self::RefreshSubscription { .. } => "sub_refresh",
            Self::Call => "rpc",
            Self::Send => "send",
            Self::Ping => "ping",
        }
    }
}

impl fmt::Debug for Command<'_> {
    /// Prints neither tokens nor data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribe { channel, .. }
            | Self::Unsubscribe { channel }
            | Self::History { channel, .. }
            | Self::RefreshSubscription { channel, .. }
            | Self::Presence { channel, .. } => {
                write!(f, "{}({channel:?})", self.name())
            }
            Self::Publish { channel, data, .. } => {
                write!(f, "publish({channel:?}, {} bytes)", data.as_bytes().len())
            }
            Self::Auth { .. } | Self::Refresh { .. } | Self::Call | Self::Send | Self::Ping => {
                f.write_str(self.name())
            }
        }
    }
}

/// The data that a client needs to send commands if its session's transport carries messages only
/// to the client. The client then sends each command in a separate request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandsBy<'a> {
    /// The secret that authorizes a request to act for the session.
    pub key: &'a str,
    /// The session's node.
    pub node: NodeId,
}

impl fmt::Debug for CommandsBy<'_> {
    /// Leaves out the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandsBy")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The reply to one command. `Connected` and `AuthFailed` also answer a token that the client sent
/// in the request that opened the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The session is open.
    Connected {
        /// The session's id.
        session: SessionId,
        /// The session's user.
        user: &'a str,
        /// The token's `exp`, Unix seconds.
        expires_at: u64,
        /// Seconds until the client should renew the token, for a protocol whose reply has a
        /// duration instead of a time; at least 1. `None` if the session has no token to renew.
        renew_in: Option<u64>,
        /// Seconds between the server's pings.
        ping_interval: u64,
        /// The channels that the server has subscribed the session to.
        subscriptions: &'a [(Channel, Subscribed<'a>)],
        /// The data that the client needs to send commands, if the session's transport carries
        /// none.
        commands_by: Option<CommandsBy<'a>>,
    },
    /// The token was refused. The connection closes next.
    AuthFailed {
        /// The reason, as a code.
        reason: AuthFailure,
        /// The reason, as one sentence.
        message: &'a str,
        /// The trace of the refusal, if it is recorded.
        trace: Option<TraceId>,
    },
    /// No session is opened, for a reason other than the token. The connection closes next.
    NotOpened {
        /// The code, the reason and the advice.
        disconnect: Disconnect,
    },
    /// The session is subscribed to the channel.
    Subscribed(Subscribed<'a>),
    /// The session is no longer subscribed to the channel.
    Unsubscribed,
    /// The publication was accepted.
    Published {
        /// The publication's position, if the channel has a stream.
        position: Option<Position>,
    },
    /// A part of a channel's stream.
    History {
        /// The stream's position.
        position: Position,
        /// The publications, in the order that the requested [`HistoryRange`] defines.
        publications: &'a [Publication],
        /// True if publications were left out because the answer would have been too large.
        truncated: bool,
    },
    /// The sessions that are subscribed to a channel.
    Presence {
        /// The sessions, at most [`MAX_PRESENCE_SESSIONS`](crate::MAX_PRESENCE_SESSIONS).
        sessions: &'a [Present],
        /// The number of users in the channel, including users whose sessions the list leaves out.
        users: u64,
        /// True if the list leaves sessions out.
        truncated: bool,
    },
    /// The counts of a channel's presence.
    PresenceCount {
        /// The number of sessions.
        sessions: u64,
        /// The number of users.
        users: u64,
    },
    /// The subscription is refused, because the client's position is not in the stream or some
    /// publications after the position are not available.
    Unrecoverable,
    /// The token of the subscription has expired or is not valid yet.
    SubscriptionExpired,
    /// The command was not executed.
    Error {
        /// The reason, as a code.
        code: ErrorCode,
        /// The reason, as text. It contains no secrets and no claim values.
        message: Cow<'a, str>,
        /// The trace of the command, if it is recorded and the server is at fault.
        trace: Option<TraceId>,
    },
    /// The answer to `refresh`.
    Refreshed {
        /// The new `exp`, Unix seconds.
        expires_at: u64,
        /// Seconds until renewal, as in [`Connected`](Reply::Connected).
        renew_in: Option<u64>,
    },
    /// The token of a subscription was replaced.
    SubscriptionRefreshed {
        /// Seconds until the client should renew the new token; `None` if the token does not
        /// expire.
        renew_in: Option<u64>,
    },
    /// The reply to `ping`. It is sent even if the command had no id.
    Pong,
}

/// A subscription, as reported to its subscriber.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscribed<'a> {
    /// The position after which publications are delivered live; `None` if the channel has no
    /// stream.
    pub position: Option<Position>,
    /// The position from which the subscriber asked to recover; `None` if it named no position.
    pub since: Option<Position>,
    /// True if every publication after `since` is in `publications` or is delivered later; `None`
    /// without `since`.
    pub recovered: Option<bool>,
    /// True if the client can resume this subscription after it has ended.
    pub is_recoverable: bool,
    /// The publications after `since`, for a protocol whose reply contains them.
    pub publications: &'a [Publication],
    /// True if publications are sent as differences to the preceding publication.
    pub is_delta: bool,
    /// Data for the client, taken from the subscription's token.
    pub data: Option<&'a [u8]>,
    /// Seconds until the client should renew the subscription's token, if it has one that expires.
    pub renew_in: Option<u64>,
}

/// A message to a session, other than a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push<'a> {
    /// A publication in a subscribed channel. It is encoded once for all receivers.
    Message {
        /// The channel.
        channel: &'a Channel,
        /// One JSON value, byte for byte as published; UTF-8.
        data: &'a [u8],
        /// The publisher's user; `None` for the admin API.
        from: Option<&'a str>,
        /// The publishing session; `None` for the admin API, or if no protocol shows it.
        sender: Option<&'a Present>,
        /// The publication's position, if the channel has a stream.
        position: Option<Position>,
        /// The form in which the data is sent. It depends on whether the subscriber accepts
        /// differences.
        form: DataForm<'a>,
    },
    /// A gap: publications before this message may be missing. From this message on, the
    /// publications are complete. The message is encoded once for all receivers.
    Gap {
        /// The channel.
        channel: &'a Channel,
        /// The position of the last publication that may be missing, if the channel has a stream.
        position: Option<Position>,
    },
    /// A session has entered or left a channel. It is encoded once for all receivers.
    Presence {
        /// The channel.
        channel: &'a Channel,
        /// The kind of change.
        change: PresenceChange,
        /// The session.
        present: &'a Present,
    },
    /// The token expires soon.
    Expiring {
        /// The token's `exp`, Unix seconds.
        expires_at: u64,
    },
    /// The server has ended or refused a subscription, for example after a change of the policy.
    Unsubscribed {
        /// The channel.
        channel: &'a Channel,
        /// The reason.
        reason: ErrorCode,
    },
    /// The server closes the connection next.
    Closing {
        /// The code, the reason and the advice.
        disconnect: Disconnect,
        /// The time that the client should wait before it reconnects, in milliseconds, if the
        /// server advises a wait.
        retry_after_ms: Option<u64>,
        /// The trace of the close, if it is recorded.
        trace: Option<TraceId>,
    },
}

/// The form of a publication's data in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataForm<'a> {
    /// The data itself.
    #[default]
    Plain,
    /// The data itself, for a subscriber that accepts differences.
    Whole,
    /// The difference to the publication before this one.
    Difference(&'a [u8]),
}

/// The kinds of WebSocket message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

/// A whole message, or the part of it that is not decoded yet, borrowed from the read buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8 text.
    Text(&'a str),
    /// Arbitrary bytes.
    Binary(&'a [u8]),
}

impl Message<'_> {
    /// True if the message is empty, or decoded completely.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Binary(data) => data.is_empty(),
        }
    }
}

impl fmt::Debug for Message<'_> {
    /// Prints sizes only: a message may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Binary(data) => write!(f, "Binary({} bytes)", data.len()),
        }
    }
}
