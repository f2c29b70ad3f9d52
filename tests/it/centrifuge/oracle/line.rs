//! A client's connection to a server, and the messages that the connection carries.

use std::net::SocketAddr;
use std::time::Duration;

use curfew_testkit::{Connect, Frame, Incoming, OutFrame, PATIENCE, WsClient, opcode};
use tokio::time::{Instant, timeout_at};

use super::fossil::Bases;
use super::protobuf;
use super::script::Encoding;
use super::value::{Message, Value};

/// The path of the protocol over a WebSocket, on both servers.
const PATH: &str = "/connection/websocket";

/// The id before the first mark's id. A mark is a command that is not in the script: the test adds
/// it.
const FIRST_MARK: u32 = 4_000_000_000;

/// An event from a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// The upgrade is accepted, with this subprotocol.
    Open(String),
    /// The upgrade is refused with this status.
    Refused(u16),
    /// A reply or a push.
    Message(Message),
    /// A reply or a push in a WebSocket message of a kind (text or binary) that does not fit the
    /// connection's encoding.
    OtherKind(Message),
    /// A message that violates the protocol.
    Unreadable(String),
    /// A close frame.
    Close(u16, String),
    /// The end of the stream without a close frame.
    End,
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No command has been answered.
    New,
    /// `connect` succeeded.
    Connected,
    /// `connect` was answered by an error.
    Unusable,
    /// The connection has ended.
    Over,
}

/// A client's connection to a server.
#[derive(Debug)]
pub(super) struct Line {
    socket: Option<WsClient>,
    encoding: Encoding,
    state: State,
    /// The client's id, once the server has sent it.
    pub(super) id: Option<String>,
    /// The events of the current step.
    pub(super) heard: Vec<Said>,
    /// True if the server has not yet answered a frame.
    due: bool,
    /// The id of the command that is the current step's mark.
    mark: u32,
    is_mark_sent: bool,
    marked: bool,
    /// True if the current step waits for the server.
    waits: bool,
    bases: Bases,
}

impl Line {
    /// Opens a connection as the script specifies.
    pub(super) async fn open(
        server: SocketAddr,
        encoding: Encoding,
        query: &str,
        subprotocols: Option<&str>,
    ) -> Self {
        let path = if query.is_empty() {
            PATH.to_owned()
        } else {
            format!("{PATH}?{query}")
        };
        let mut connect = Connect::to(server).path(path);
        if let Some(subprotocols) = subprotocols {
            connect = connect.subprotocols(subprotocols);
        }
        let mut line = Self {
            socket: None,
            encoding,
            state: State::New,
            id: None,
            heard: Vec::new(),
            due: false,
            mark: FIRST_MARK,
            is_mark_sent: false,
            marked: false,
            waits: false,
            bases: Bases::default(),
        };
        match connect.attempt().await {
            Ok(socket) => {
                let selected = socket.response().header("sec-websocket-protocol");
                line.heard
                    .push(Said::Open(selected.unwrap_or("none").to_owned()));
                line.socket = Some(socket);
            }
            Err(refused) => line.over(Said::Refused(refused.status)),
        }
        line
    }

    /// Opens a connection in the default way for this encoding.
    pub(super) async fn usual(server: SocketAddr, encoding: Encoding) -> Self {
        let subprotocols = (encoding == Encoding::Protobuf).then_some("centrifuge-protobuf");
        let mut line = Self::open(server, encoding, "", subprotocols).await;
        line.heard.retain(|said| !matches!(said, Said::Open(_)));
        line
    }

    /// Sends commands in one frame.
    pub(super) async fn send_commands(&mut self, commands: &[String]) {
        let read = commands
            .iter()
            .map(|text| Message::from_json("Command", text));
        read.flatten()
            .for_each(|command| self.bases.asked(&command));
        let frame = match self.encoding {
            Encoding::Json => OutFrame::text(&commands.join("\n")),
            Encoding::Protobuf => {
                let read = |text: &String| Message::from_json("Command", text);
                let commands: Result<Vec<_>, _> = commands.iter().map(read).collect();
                let commands = commands.expect("commands are JSON; others are `only json`");
                OutFrame::new(opcode::BINARY, protobuf::frame("Command", &commands))
            }
        };
        self.send(frame).await;
    }

    /// Sends `frame`, which may be malformed.
    pub(super) async fn send(&mut self, frame: OutFrame) {
        if let Some(socket) = &mut self.socket {
            socket.send_frame(frame).await;
            self.due = self.state != State::Connected;
        }
    }

    /// Sends a WebSocket ping.
    pub(super) async fn ping(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.send_frame(OutFrame::new(opcode::PING, b"")).await;
        }
    }

    /// Closes the WebSocket, and waits for the end of the connection.
    pub(super) async fn hang_up(&mut self) {
        self.send(OutFrame::close(1000, b"")).await;
        self.due = false;
        self.listen(PATIENCE, |line| line.state == State::Over)
            .await;
        self.heard.clear();
    }

    /// Begins a step. If `waits` is true, the server's pings are events of the step; if not, the
    /// client only answers them.
    pub(super) fn begin(&mut self, waits: bool) {
        self.waits = waits;
        self.mark += 1;
        self.is_mark_sent = false;
        self.marked = false;
    }

    /// True if the server has sent everything for this step. After the step, the test sends a
    /// command of its own, the mark. Answers come in order, so the answer to the mark comes last.
    pub(super) async fn is_settled(&mut self, wanted: Option<usize>) -> bool {
        if self.state == State::Over {
            return true;
        }
        // A step that waits has no mark: the server would take the mark as a sign that the client
        // is alive.
        if self.waits {
            return self.heard.len() >= wanted.unwrap_or(1);
        }
        if self.due || self.state != State::Connected {
            return !self.due;
        }
        if !self.is_mark_sent {
            self.is_mark_sent = true;
            let mark = format!(
                r#"{{"id":{},"unsubscribe":{{"channel":"plain:mark"}}}}"#,
                self.mark
            );
            self.send_commands(&[mark]).await;
        }
        self.marked
    }

    /// Waits for an event, but at most `patience`.
    pub(super) async fn listen_once(&mut self, patience: Duration) {
        let before = (self.heard.len(), self.due, self.marked);
        let now = |line: &Self| (line.heard.len(), line.due, line.marked);
        self.listen(patience, |line| now(line) != before).await;
    }

    /// Waits until the step has `count` events, or for `patience`.
    pub(super) async fn until(&mut self, count: usize, patience: Duration) {
        self.listen(patience, |line| line.heard.len() >= count)
            .await;
    }

    /// Waits until no event has come for the time `quiet`.
    pub(super) async fn until_quiet(&mut self, quiet: Duration) {
        loop {
            let before = self.heard.len();
            self.listen(quiet, |line| line.heard.len() > before).await;
            if self.heard.len() == before {
                return;
            }
        }
    }

    async fn listen(&mut self, patience: Duration, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !enough(self) {
            let Some(socket) = &mut self.socket else {
                return;
            };
            let Ok(incoming) = timeout_at(deadline, socket.incoming(patience)).await else {
                return;
            };
            match incoming {
                Incoming::Frame(frame) => self.take(&frame).await,
                Incoming::End | Incoming::Cut(_) => self.over(Said::End),
                Incoming::Silence => return,
            }
        }
    }

    async fn take(&mut self, frame: &Frame) {
        let encoding = match frame.opcode {
            opcode::TEXT => Encoding::Json,
            opcode::BINARY => Encoding::Protobuf,
            opcode::CLOSE => {
                if let Some(socket) = &mut self.socket {
                    let code = frame.payload.iter().copied().take(2).collect::<Vec<u8>>();
                    socket.send_frame(OutFrame::new(opcode::CLOSE, code)).await;
                }
                let (code, reason) = frame.close();
                return self.over(Said::Close(code, reason));
            }
            _ => return,
        };
        let messages = match (encoding, std::str::from_utf8(&frame.payload)) {
            (Encoding::Protobuf, _) => protobuf::messages("Reply", &frame.payload),
            (Encoding::Json, Err(_)) => Err("text that is not UTF-8".to_owned()),
            (Encoding::Json, Ok(text)) => {
                let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
                lines
                    .map(|line| Message::from_json("Reply", line))
                    .collect()
            }
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(problem) => return self.heard.push(Said::Unreadable(problem)),
        };
        for message in messages {
            if message == Message::default() && !self.waits {
                self.send_commands(&["{}".to_owned()]).await;
            } else {
                self.message(message, encoding);
            }
        }
    }

    fn message(&mut self, mut message: Message, encoding: Encoding) {
        self.bases.apply(&mut message, encoding == Encoding::Json);
        if let Some(Value::Number(id)) = message.get("id") {
            if *id == i128::from(self.mark) {
                self.marked = true;
                if message.message("error").is_none() {
                    return;
                }
            }
            self.due = false;
            if let (State::New, Some(connected)) = (self.state, message.message("connect")) {
                self.state = State::Connected;
                self.id = connected.text("client").map(str::to_owned);
            } else if self.state == State::New && message.message("error").is_some() {
                self.state = State::Unusable;
            }
        }
        let kind = if encoding == self.encoding {
            Said::Message
        } else {
            Said::OtherKind
        };
        self.heard.push(kind(message));
    }

    fn over(&mut self, said: Said) {
        self.heard.push(said);
        self.socket = None;
        self.state = State::Over;
        self.due = false;
    }
}
