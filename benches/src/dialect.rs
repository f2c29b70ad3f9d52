//! The protocol of the gateway: `curfew.v1`, the Centrifuge protocol, or Socket.IO. Most of the
//! compared servers implement `curfew.v1`.

use clap::ValueEnum;

/// A protocol between a client and a gateway. Frames are distinguished by their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Dialect {
    /// `curfew.v1`.
    #[default]
    Curfew,
    /// The Centrifuge protocol in JSON.
    Centrifuge,
    /// Socket.IO 5 over Engine.IO 4, with WebSockets only and the namespace `/`.
    Socketio,
}

/// The prefix of a gateway's frame, and the client's answer.
pub(crate) type Answered = (&'static [u8], &'static str);

impl Dialect {
    /// The message that a client sends first, if the protocol has one.
    pub(crate) fn hello(self) -> Option<&'static str> {
        match self {
            Self::Centrifuge => Some(r#"{"id":1,"connect":{}}"#),
            Self::Curfew | Self::Socketio => None,
        }
    }

    /// Frames that the client answers: pings and, with Socket.IO, the first frame of a connection.
    pub(crate) fn answered(self) -> &'static [Answered] {
        match self {
            Self::Curfew => &[],
            Self::Centrifuge => &[(b"{}", "{}")],
            // The first pair answers `open` with `connect`, the second pair answers `ping` with
            // `pong`.
            Self::Socketio => &[(b"0{", "40"), (b"2", "3")],
        }
    }

    /// Prefix of the frames that are ignored: the answers to publications, if the protocol answers
    /// every publication.
    pub(crate) fn ignored(self) -> Option<&'static [u8]> {
        match self {
            Self::Centrifuge => Some(b"{\"id\":2,\"publish\":{}}"),
            Self::Curfew | Self::Socketio => None,
        }
    }

    /// Prefix of the frame that reports that the connection is open.
    pub(crate) fn connected(self) -> &'static [u8] {
        match self {
            Self::Curfew => b"{\"type\":\"connected\"",
            Self::Centrifuge => b"{\"id\":1,\"connect\":{\"client\"",
            Self::Socketio => b"40{",
        }
    }

    /// Prefix of a publication.
    pub(crate) fn message(self) -> &'static [u8] {
        match self {
            Self::Curfew => b"{\"type\":\"message\"",
            Self::Centrifuge => b"{\"push\":{\"channel\":",
            Self::Socketio => b"42[\"message\"",
        }
    }

    /// Prefix of the answer to [`Self::subscribe`].
    pub(crate) fn ok(self) -> &'static [u8] {
        match self {
            Self::Curfew => b"{\"type\":\"ok\"",
            Self::Centrifuge => b"{\"id\":1,\"subscribe\":{",
            Self::Socketio => b"431[\"ok\"",
        }
    }

    /// The command that subscribes to a channel and requests an answer.
    pub(crate) fn subscribe(self, channel: &str) -> String {
        match self {
            Self::Curfew => format!(r#"{{"type":"subscribe","id":1,"channel":"{channel}"}}"#),
            Self::Centrifuge => format!(r#"{{"id":1,"subscribe":{{"channel":"{channel}"}}}}"#),
            Self::Socketio => format!(r#"421["subscribe",{{"channel":"{channel}"}}]"#),
        }
    }

    /// The command that publishes `data`, which is JSON.
    pub(crate) fn publish(self, channel: &str, data: &str) -> String {
        let tail = self.tail();
        match self {
            Self::Curfew => {
                format!(r#"{{"type":"publish","channel":"{channel}","data":{data}{tail}"#)
            }
            Self::Centrifuge => {
                format!(r#"{{"id":2,"publish":{{"channel":"{channel}","data":{data}{tail}"#)
            }
            Self::Socketio => {
                format!(r#"42["publish",{{"channel":"{channel}","data":{data}{tail}"#)
            }
        }
    }

    /// The text after the data in [`Self::publish`].
    pub(crate) fn tail(self) -> &'static str {
        match self {
            Self::Curfew => "}",
            Self::Centrifuge => "}}",
            Self::Socketio => "}]",
        }
    }
}
