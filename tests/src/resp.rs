//! A bare connection to Redis: the `redis` crate writes the commands and parses the replies.
//!
//! The crate's connections are not used, because they send commands of their own and reconnect. A
//! test must decide which bytes pass through a proxy, and when they are sent.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use combine::parser::combinator::AnySendSyncPartialState;
use combine::stream::{Decoder, PointerOffset};
use curfew_testkit::PATIENCE;
use redis::{RedisResult, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A text: `OK`, or a value decoded lossily as UTF-8.
    Text(String),
    /// A number.
    Integer(i64),
    /// An array.
    List(Vec<Reply>),
    /// An error reply: its code and detail.
    Error(String),
}

impl Reply {
    /// The text; empty for nil.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Nil => String::new(),
            other => panic!("a text was expected, but the reply is {other:?}"),
        }
    }

    /// The number.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("a number was expected, but the reply is {other:?}"),
        }
    }

    /// The texts of a list; empty for nil.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Nil => Vec::new(),
            other => panic!("a list was expected, but the reply is {other:?}"),
        }
    }

    /// The answer. Panics if it is an error.
    pub fn accepted(self) -> Self {
        assert!(!matches!(self, Self::Error(_)), "{self:?}");
        self
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Integer(number),
            Value::Okay => Self::Text("OK".to_owned()),
            Value::SimpleString(text) => Self::Text(text),
            Value::BulkString(bytes) => Self::Text(String::from_utf8_lossy(&bytes).into_owned()),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::ServerError(error) => Self::Error(error.to_string()),
            other => panic!("RESP2 has no {other:?}"),
        }
    }
}

/// A connection to one Redis server.
pub struct Resp {
    stream: TcpStream,
    /// The bytes of an incomplete reply. They are stored here, because a caller may cancel the wait
    /// for a reply and begin it again.
    decoder: Decoder<AnySendSyncPartialState, PointerOffset<[u8]>>,
}

impl fmt::Debug for Resp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(out)
    }
}

impl Resp {
    /// Connects to a server.
    pub async fn connect(server: SocketAddr) -> RedisResult<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(),
        })
    }

    /// Sends one command. Returns the answer to the command.
    pub async fn call(&mut self, command: &[impl AsRef<[u8]>]) -> RedisResult<Reply> {
        let mut replies = self.pipeline(&[command]).await?;
        Ok(replies.remove(0))
    }

    /// Sends many commands in one write. Returns all their answers.
    pub async fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: &[impl AsRef<[A]>],
    ) -> RedisResult<Vec<Reply>> {
        let mut packed = Vec::new();
        for command in commands {
            let mut cmd = redis::Cmd::new();
            for argument in command.as_ref() {
                cmd.arg(argument.as_ref());
            }
            packed.extend(cmd.get_packed_command());
        }
        let exchanging = async {
            self.stream.write_all(&packed).await?;
            let mut replies = Vec::with_capacity(commands.len());
            for _ in commands {
                replies.push(self.reply().await?);
            }
            Ok(replies)
        };
        let replies = timeout(PATIENCE, exchanging).await;
        replies.map_err(io::Error::from)?
    }

    /// The next reply or pushed message.
    pub async fn reply(&mut self) -> RedisResult<Reply> {
        let parsing = redis::parse_redis_value_async(&mut self.decoder, &mut self.stream);
        parsing.await.map(Reply::from)
    }
}
