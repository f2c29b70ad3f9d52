//! A client that speaks the protocol in either encoding, message by message.
//!
//! Messages are JSON values in both encodings. Bytes that are UTF-8 become a string, and other
//! bytes become a list of numbers.

use std::collections::VecDeque;

use curfew_testkit::mint::Key;
use curfew_testkit::{Frame, OutFrame, WsClient, opcode};
use curfew_tests::Gateway;
use serde_json::{Map, Value, json};

use Kind::{Bytes, Flag, List, MapOf, Message, Number, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

pub(super) const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    Flag,
    Text,
    Bytes,
    Message(Fields),
    List(Fields),
    MapOf(Fields),
}

/// The fields of a message: name, tag and kind of each.
type Fields = &'static [(&'static str, u64, Kind)];

const COMMAND: Fields = &[
    ("id", 1, Number),
    ("connect", 4, Message(CONNECT)),
    ("subscribe", 5, Message(SUBSCRIBE)),
    ("publish", 7, Message(PUBLISH)),
    ("history", 10, Message(HISTORY)),
];
const CONNECT: Fields = &[("token", 1, Text), ("subs", 3, MapOf(SUBSCRIBE))];
const SUBSCRIBE: Fields = &[
    ("channel", 1, Text),
    ("recover", 3, Flag),
    ("epoch", 6, Text),
    ("offset", 7, Number),
    ("recoverable", 10, Flag),
    ("token", 2, Text),
    ("join_leave", 11, Flag),
    ("delta", 12, Text),
];
const PUBLISH: Fields = &[("channel", 1, Text), ("data", 2, Bytes)];
const HISTORY: Fields = &[("channel", 1, Text), ("limit", 7, Number)];

const REPLY: Fields = &[
    ("id", 1, Number),
    ("error", 2, Message(&[("code", 1, Number)])),
    ("push", 4, Message(PUSH)),
    ("connect", 5, Message(CONNECTED)),
    ("subscribe", 6, Message(SUBSCRIBED)),
    ("publish", 8, Message(&[])),
    ("history", 11, Message(READ)),
];
const PUSH: Fields = &[
    ("channel", 2, Text),
    ("pub", 4, Message(PUBLICATION)),
    ("join", 5, Message(JOIN)),
    ("leave", 6, Message(JOIN)),
    (
        "unsubscribe",
        7,
        Message(&[("code", 2, Number), ("reason", 3, Text)]),
    ),
];
const PUBLICATION: Fields = &[
    ("data", 4, Bytes),
    ("offset", 6, Number),
    ("delta", 8, Flag),
];
const JOIN: Fields = &[(
    "info",
    1,
    Message(&[("user", 1, Text), ("client", 2, Text)]),
)];
const CONNECTED: Fields = &[("client", 1, Text), ("subs", 6, MapOf(SUBSCRIBED))];
const SUBSCRIBED: Fields = &[
    ("epoch", 6, Text),
    ("publications", 7, List(PUBLICATION)),
    ("recovered", 8, Flag),
    ("offset", 9, Number),
    ("was_recovering", 12, Flag),
    ("delta", 13, Flag),
];
const READ: Fields = &[
    ("publications", 1, List(PUBLICATION)),
    ("epoch", 2, Text),
    ("offset", 3, Number),
];

/// A client with an open session.
#[derive(Debug)]
pub(super) struct Raw {
    socket: WsClient,
    encoding: Encoding,
    last_id: u64,
    /// Unread messages of the last frame.
    waiting: VecDeque<Value>,
}

impl Raw {
    /// Opens a session of `user`. Returns the client, and the answer to `connect`.
    pub(super) async fn connect(
        gateway: &Gateway,
        encoding: Encoding,
        user: &str,
        subs: Value,
    ) -> (Self, Value) {
        let path = match encoding {
            Encoding::Json => "/connection/websocket",
            Encoding::Protobuf => "/connection/websocket?format=protobuf",
        };
        let mut client = Self {
            socket: gateway.ws().path(path).open().await,
            encoding,
            last_id: 0,
            waiting: VecDeque::new(),
        };
        let token = Key::default_secret().user(user);
        let connect = json!({"connect":{"token":token,"subs":subs}});
        let mut answer = client.ask(connect).await;
        let connected = answer["connect"].take();
        assert!(connected.is_object(), "{answer}");
        (client, connected)
    }

    /// Opens a session of `user`.
    pub(super) async fn open(gateway: &Gateway, encoding: Encoding, user: &str) -> Self {
        Self::connect(gateway, encoding, user, json!({})).await.0
    }

    /// Subscribes to a channel, with additional members in the request. Returns the result.
    pub(super) async fn subscribe(&mut self, channel: &str, more: Value) -> Value {
        let mut request = more;
        request["channel"] = channel.into();
        let mut answer = self.ask(json!({"subscribe":request})).await;
        let subscribed = answer["subscribe"].take();
        assert!(subscribed.is_object(), "{answer}");
        subscribed
    }

    /// Sends a command. The next message must be its answer, which is returned.
    pub(super) async fn ask(&mut self, mut command: Value) -> Value {
        self.last_id += 1;
        command["id"] = self.last_id.into();
        self.send(&command).await;
        let answer = self.next().await;
        assert_eq!(answer["id"], self.last_id, "{answer}");
        answer
    }

    /// The content of the next push, which must be of this kind.
    pub(super) async fn push(&mut self, kind: &str) -> Value {
        let mut message = self.next().await;
        let pushed = message["push"][kind].take();
        assert!(!pushed.is_null(), "the message is no {kind}: {message}");
        pushed
    }

    /// Sends a command. Its answer is among the next messages.
    pub(super) async fn send(&mut self, command: &Value) {
        let frame = match self.encoding {
            Encoding::Json => OutFrame::text(&command.to_string()),
            Encoding::Protobuf => {
                let mut out = Vec::new();
                put_delimited(&encode(COMMAND, command), &mut out);
                OutFrame::new(opcode::BINARY, out)
            }
        };
        self.socket.send_frame(frame).await;
    }

    /// The next message other than a ping.
    async fn next(&mut self) -> Value {
        loop {
            let Some(message) = self.waiting.pop_front() else {
                let frame = self.socket.next_message().await;
                self.take(&frame);
                continue;
            };
            if message != json!({}) {
                return message;
            }
            self.send(&json!({})).await;
        }
    }

    fn take(&mut self, frame: &Frame) {
        match self.encoding {
            Encoding::Json => {
                assert_eq!(frame.opcode, opcode::TEXT, "{frame:?}");
                let lines = frame.text().lines();
                let messages = lines.map(|line| serde_json::from_str(line).expect("JSON"));
                self.waiting.extend(messages);
            }
            Encoding::Protobuf => {
                assert_eq!(frame.opcode, opcode::BINARY, "{frame:?}");
                let mut rest = &frame.payload[..];
                while !rest.is_empty() {
                    let message = decode(REPLY, take_delimited(&mut rest));
                    self.waiting.push_back(message);
                }
            }
        }
    }
}

/// Bytes as a value, in the form that [`Raw`] uses.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.into(),
    }
}

/// The bytes behind a value of [`bytes`].
pub(super) fn content(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Array(numbers) => {
            let byte = |number: &Value| number.as_u64().and_then(|number| number.try_into().ok());
            numbers
                .iter()
                .map(|number| byte(number).expect("a byte"))
                .collect()
        }
        other => panic!("the value is not bytes: {other}"),
    }
}

fn encode(fields: Fields, message: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in message.as_object().expect("a message") {
        let field = fields.iter().find(|(field, ..)| field == name);
        let &(_, tag, kind) = field.unwrap_or_else(|| panic!("no field is called {name}"));
        let mut put = |content: &[u8]| {
            put_varint(tag << 3 | 2, &mut out);
            put_delimited(content, &mut out);
        };
        match kind {
            Number | Flag => {
                put_varint(tag << 3, &mut out);
                let number = value.as_u64().unwrap_or_else(|| u64::from(value == true));
                put_varint(number, &mut out);
            }
            Text => put(value.as_str().expect("a text").as_bytes()),
            Bytes => match value {
                Value::Array(_) => put(&content(value)),
                value => put(value.to_string().as_bytes()),
            },
            Message(fields) => put(&encode(fields, value)),
            MapOf(fields) => {
                for (key, value) in value.as_object().expect("a map") {
                    let mut entry = vec![0x0a];
                    put_delimited(key.as_bytes(), &mut entry);
                    entry.push(0x12);
                    put_delimited(&encode(fields, value), &mut entry);
                    put(&entry);
                }
            }
            List(_) => panic!("no request has a list"),
        }
    }
    out
}

fn decode(fields: Fields, mut rest: &[u8]) -> Value {
    let mut message = Map::new();
    while !rest.is_empty() {
        let key = take_varint(&mut rest);
        let (number, content) = match key & 7 {
            0 => (take_varint(&mut rest), &[][..]),
            2 => (0, take_delimited(&mut rest)),
            kind => panic!("the wire type {kind} is unknown"),
        };
        let Some(&(name, _, kind)) = fields.iter().find(|(_, tag, _)| *tag == key >> 3) else {
            continue;
        };
        let value = match kind {
            Number => number.into(),
            Flag => (number != 0).into(),
            Text | Bytes => bytes(content),
            Message(fields) => decode(fields, content),
            List(fields) => {
                let list = message.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut().unwrap().push(decode(fields, content));
                continue;
            }
            MapOf(fields) => {
                let map = message.entry(name).or_insert_with(|| json!({}));
                let mut entry = content;
                assert_eq!(take_varint(&mut entry), 0x0a);
                let key = String::from_utf8(take_delimited(&mut entry).to_vec()).unwrap();
                assert_eq!(take_varint(&mut entry), 0x12);
                map[key] = decode(fields, take_delimited(&mut entry));
                continue;
            }
        };
        message.insert(name.to_owned(), value);
    }
    Value::Object(message)
}

fn put_delimited(content: &[u8], out: &mut Vec<u8>) {
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_delimited<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take_varint(rest) as usize;
    let (content, after) = rest.split_at(length);
    *rest = after;
    content
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, after) = rest
            .split_first()
            .expect("the varint ends within the message");
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}
