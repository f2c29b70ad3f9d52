//! What a client asks, what it is answered, and what it is told unasked.

use std::borrow::Cow;
use std::fmt;

use crate::{AuthFailure, Channel, Disconnect, ErrorCode, SessionId, TraceContext, TraceId};

/// The client's own name for a command, echoed in the reply: a JSON number or string, kept as the
/// JSON text it was sent as.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandId(Box<str>);

impl CommandId {
    /// Takes the JSON text of a number or string. The decoder has checked it.
    pub fn from_json(text: &str) -> Self {
        Self(text.into())
    }

    /// Takes the number of a protocol that has no other ids.
    pub fn from_number(number: u64) -> Self {
        Self(number.to_string().into())
    }

    /// The JSON text.
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
pub enum Request<'a> {
    /// A command with the name its reply will carry. Without an id only errors are answered.
    Command {
        /// Echoed in the reply.
        id: Option<CommandId>,
        /// What is asked.
        command: Command<'a>,
    },
    /// The answer to a ping that the protocol sends as a message. Counted like the answer to one of
    /// the transport's, and not answered.
    Pong,
}

/// What a client may ask. Borrows from the message it was decoded from.
#[derive(Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// The first command of a connection whose request carried no token.
    Auth {
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Listen to a channel.
    Subscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// Stop listening.
    Unsubscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// Send into a channel.
    Publish {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// One JSON value, exactly as sent; validated JSON.
        data: &'a str,
        /// Where the client's own trace is, if it said so in a `traceparent`.
        trace: Option<TraceContext>,
    },
    /// Replace the session's token by a newer one of the same user.
    Refresh {
        /// The JWT, unverified.
        token: Cow<'a, str>,
    },
    /// Ask for a `pong` reply.
    Ping,
}

impl Command<'_> {
    /// Every name of a command that is answered, in the order of the documentation.
    pub const NAMES: &'static [&'static str] = &[
        "auth",
        "subscribe",
        "unsubscribe",
        "publish",
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
            Self::Refresh { .. } => "refresh",
            Self::Ping => "ping",
        }
    }
}

impl fmt::Debug for Command<'_> {
    /// Neither tokens nor data reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribe { channel } | Self::Unsubscribe { channel } => {
                write!(f, "{}({channel:?})", self.name())
            }
            Self::Publish { channel, data, .. } => {
                write!(f, "publish({channel:?}, {} bytes)", data.len())
            }
            Self::Auth { .. } | Self::Refresh { .. } | Self::Ping => f.write_str(self.name()),
        }
    }
}

/// The answer to one command. The first two also answer a token that came with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The session is open.
    Connected {
        /// Its id.
        session: SessionId,
        /// Its user.
        user: &'a str,
        /// The token's `exp`, Unix seconds.
        expires_at: u64,
        /// Seconds between the server's pings.
        ping_interval: u64,
    },
    /// The token was refused; the connection closes next.
    AuthFailed {
        /// The reason, for programs.
        reason: AuthFailure,
        /// The reason, for people, in one sentence.
        message: &'a str,
        /// The trace it was refused in, where that is recorded.
        trace: Option<TraceId>,
    },
    /// The session listens to the channel.
    Subscribed,
    /// The session listens to the channel no more.
    Unsubscribed,
    /// The publication is handed on.
    Published,
    /// Not done.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people. No secrets, no claim values.
        message: Cow<'a, str>,
        /// The trace of the command, where it is recorded and the fault is ours.
        trace: Option<TraceId>,
    },
    /// The answer to `refresh`.
    Refreshed {
        /// The new `exp`, Unix seconds.
        expires_at: u64,
    },
    /// The answer to `ping`; sent without an id too.
    Pong,
}

/// What a session is told unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push<'a> {
    /// A publication in a subscribed channel. Encoded once for all who receive it.
    Message {
        /// The channel.
        channel: &'a Channel,
        /// One JSON value, byte for byte as published; UTF-8.
        data: &'a [u8],
        /// The publisher's user; `None` for the admin API.
        from: Option<&'a str>,
    },
    /// Publications of a subscribed channel from before this may be missing; what comes from here on
    /// is whole. Encoded once for all who are told.
    Gap {
        /// The channel.
        channel: &'a Channel,
    },
    /// The token expires soon.
    Expiring {
        /// The token's `exp`, Unix seconds.
        expires_at: u64,
    },
    /// A refresh or a policy change took a subscription away.
    Unsubscribed {
        /// The channel.
        channel: &'a Channel,
        /// Why.
        reason: ErrorCode,
    },
    /// The server closes the connection next.
    Closing {
        /// Code, reason and advice.
        disconnect: Disconnect,
        /// How long to wait before coming back, in milliseconds, where a wait is asked for.
        retry_after_ms: Option<u64>,
        /// The trace that tells of it, where one is recorded.
        trace: Option<TraceId>,
    },
}

/// The kinds of message, as WebSocket has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// A whole message, or the rest of one, borrowed from the read buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Anything.
    Binary(&'a [u8]),
}

impl Message<'_> {
    /// Nothing is in it, or nothing is left.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Binary(data) => data.is_empty(),
        }
    }
}

impl fmt::Debug for Message<'_> {
    /// Contents never reach a log: a message may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Binary(data) => write!(f, "Binary({} bytes)", data.len()),
        }
    }
}
