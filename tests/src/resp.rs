//! Redis' own protocol (RESP2), as much of it as the tests speak.
//!
//! The gateway's client is not used here: what a test writes to Redis, and when, must not depend on
//! the code under test.

use std::io;
use std::net::SocketAddr;

use curfew_testkit::PATIENCE;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// There is no such thing.
    Nil,
    /// A text: `OK`, or a value.
    Text(String),
    /// A number.
    Integer(i64),
    /// Several answers in one.
    List(Vec<Reply>),
    /// A refusal.
    Error(String),
}

impl Reply {
    /// The text; empty for nil.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Nil => String::new(),
            other => panic!("a text was expected, but {other:?}"),
        }
    }

    /// The number.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("a number was expected, but {other:?}"),
        }
    }

    /// The texts of a list; empty for nil.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Nil => Vec::new(),
            other => panic!("a list was expected, but {other:?}"),
        }
    }

    /// The answer, unless it is a refusal.
    pub fn accepted(self) -> Self {
        assert!(!matches!(self, Self::Error(_)), "{self:?}");
        self
    }
}

/// A connection to one Redis server.
#[derive(Debug)]
pub struct Resp {
    stream: BufStream<TcpStream>,
}

impl Resp {
    /// Connects.
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufStream::new(stream),
        })
    }

    /// One command and its answer.
    pub async fn call(&mut self, command: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let mut replies = self.pipeline(&[command]).await?;
        Ok(replies.remove(0))
    }

    /// Many commands in one write, and all their answers.
    pub async fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: &[impl AsRef<[A]>],
    ) -> io::Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            write_command(&mut bytes, command.as_ref());
        }
        let exchanging = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await?;
            let mut replies = Vec::with_capacity(commands.len());
            for _ in commands {
                replies.push(self.reply().await?);
            }
            Ok(replies)
        };
        timeout(PATIENCE, exchanging).await?
    }

    /// The next thing that comes, asked for or not.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Integer(rest.parse().map_err(io::Error::other)?)),
            "$" | "*" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let length: usize = rest.parse().map_err(io::Error::other)?;
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            "*" => {
                let count: usize = rest.parse().map_err(io::Error::other)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(Box::pin(self.reply()).await?);
                }
                Ok(Reply::List(items))
            }
            _ => Err(io::Error::other(format!("not a reply: {line:?}"))),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn write_command<A: AsRef<[u8]>>(bytes: &mut Vec<u8>, command: &[A]) {
    bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for argument in command {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}
