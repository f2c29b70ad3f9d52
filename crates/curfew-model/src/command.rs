//! Commands of a client, replies to them, and pushes.

use std::borrow::Cow;
use std::fmt;

use crate::{
    AuthFailure, Channel, Disconnect, ErrorCode, Position, PresenceChange, Present, Publication,
    SessionId, TraceContext, TraceId,
};

/// The client's own name for a command, echoed in the reply. It is a JSON number or string, kept as
/// the JSON text that was sent.
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
    /// A command with its id. A command without an id gets a reply only for an error.
    Command {
        /// The id, echoed in the reply.
        id: Option<CommandId>,
        /// The command.
        command: Command<'a>,
    },
    /// The answer to a ping that the protocol sends as a message. It counts like a pong of the
    /// transport, and gets no reply.
    Pong,
}

/// A command of a client. It borrows from the message it was decoded from.
#[derive(Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Authenticates a connection whose request carried no token. It must be the first command.
    Auth {
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Subscribes to a channel.
    Subscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// The client's position in the channel's stream: it asks for what came after it.
        since: Option<Position>,
        /// True if the client asks to be told who comes to the channel and who goes.
        join_leave: bool,
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
        /// One JSON value, exactly as sent, and valid.
        data: &'a str,
        /// The client's own trace, if it sent a `traceparent`.
        trace: Option<TraceContext>,
        /// The client's own name for the publication, under which the channel's stream takes it
        /// once; of at most [`MAX_PUBLICATION_KEY_BYTES`](crate::MAX_PUBLICATION_KEY_BYTES).
        key: Option<Cow<'a, str>>,
    },
    /// Reads the stream of a channel.
    History {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// Most publications in the answer.
        limit: u64,
        /// The part to read.
        range: HistoryRange,
    },
    /// Reads who is subscribed to a channel.
    Presence {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// Replaces the session's token by a newer one of the same user.
    Refresh {
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Asks for a `pong` reply.
    Ping,
}

/// The part of a stream that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// After this position, oldest first.
    Since(Position),
    /// Before this offset, newest first.
    Before(u64),
}

impl Command<'_> {
    /// The names of the commands that get a reply, in the order of the documentation.
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
            | Self::Presence { channel } => {
                write!(f, "{}({channel:?})", self.name())
            }
            Self::Publish { channel, data, .. } => {
                write!(f, "publish({channel:?}, {} bytes)", data.len())
            }
            Self::Auth { .. } | Self::Refresh { .. } | Self::Ping => f.write_str(self.name()),
        }
    }
}

/// The reply to one command. `Connected` and `AuthFailed` also answer a token that came with the
/// request.
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
        /// Seconds between the server's pings.
        ping_interval: u64,
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
    /// The session is subscribed to the channel.
    Subscribed {
        /// The place after which publications follow, if the channel has a stream.
        position: Option<Position>,
        /// True if everything after the client's own position follows; `None` if it named none.
        recovered: Option<bool>,
    },
    /// The session is no longer subscribed to the channel.
    Unsubscribed,
    /// The publication was handed on.
    Published {
        /// Its place, if the channel has a stream.
        position: Option<Position>,
    },
    /// A part of a channel's stream.
    History {
        /// The stream's position.
        position: Position,
        /// The publications, in the order of the range that was asked for.
        publications: &'a [Publication],
        /// True if the answer was cut, because all of it would have been too large.
        truncated: bool,
    },
    /// The sessions that are subscribed to a channel.
    Presence {
        /// The sessions, at most [`MAX_PRESENCE_SESSIONS`](crate::MAX_PRESENCE_SESSIONS).
        sessions: &'a [Present],
        /// The number of their users, those included that the list leaves out.
        users: u64,
        /// True if the list leaves sessions out.
        truncated: bool,
    },
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
    },
    /// The reply to `ping`. It is sent without an id as well.
    Pong,
}

/// A message to a session that is no reply.
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
        /// Its place in the channel's stream, where the channel has one.
        position: Option<Position>,
    },
    /// A gap: earlier publications of the channel may be missing, later ones are complete. It is
    /// encoded once for all receivers.
    Gap {
        /// The channel.
        channel: &'a Channel,
        /// The last place of what may be missing, if the channel has a stream.
        position: Option<Position>,
    },
    /// A session has come to a channel, or has gone. It is encoded once for all receivers.
    Presence {
        /// The channel.
        channel: &'a Channel,
        /// The direction.
        change: PresenceChange,
        /// The session.
        present: &'a Present,
    },
    /// The token expires soon.
    Expiring {
        /// The token's `exp`, Unix seconds.
        expires_at: u64,
    },
    /// A refresh or a policy change ended a subscription.
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
        /// The delay before the client should return, in milliseconds, if there is one.
        retry_after_ms: Option<u64>,
        /// The trace of the close, if it is recorded.
        trace: Option<TraceId>,
    },
}

/// The kinds of WebSocket message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

/// A whole message, or the rest of one, borrowed from the read buffer.
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
