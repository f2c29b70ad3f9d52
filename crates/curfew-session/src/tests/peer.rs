//! The client's side of a connection.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time;

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// End of a connection, as its client saw it.
#[derive(Debug)]
pub(super) struct Closed {
    /// The text messages before the close frame.
    pub(super) texts: Vec<Value>,
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Closed {
    /// The `type` of each text.
    pub(super) fn types(&self) -> Vec<&str> {
        self.texts
            .iter()
            .map(|text| text["type"].as_str().unwrap())
            .collect()
    }
}

/// A byte stream to the server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A client, which answers pings while it reads, unless `answers_pings` is false.
pub(super) struct Peer {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    pub(super) answers_pings: bool,
}

impl Peer {
    pub(super) fn new(stream: impl Stream) -> Self {
        Self {
            stream: Box::new(stream),
            received: Vec::new(),
            answers_pings: true,
        }
    }

    /// Sends raw bytes. An error is ignored, because the next read shows that the connection has
    /// ended.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.send_bytes(&frame(TEXT, text.as_bytes())).await;
    }

    /// Sends several texts in one write.
    pub(super) async fn send_all(&mut self, texts: &[&str]) {
        let bytes: Vec<u8> = texts
            .iter()
            .flat_map(|text| frame(TEXT, text.as_bytes()))
            .collect();
        self.send_bytes(&bytes).await;
    }

    /// Reads once, at most `most` bytes, and returns the number of bytes read.
    pub(super) async fn read_some(&mut self, most: usize) -> usize {
        let mut bytes = vec![0; most];
        let read = self.stream.read(&mut bytes).await.unwrap_or(0);
        self.received.extend_from_slice(&bytes[..read]);
        read
    }

    /// The next frame; `None` at the end of the stream.
    pub(super) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = async {
            loop {
                if let Some(frame) = self.take() {
                    return Some(frame);
                }
                if self.read_some(4096).await == 0 {
                    return None;
                }
            }
        };
        time::timeout(Duration::from_secs(24 * 3600), reading)
            .await
            .expect("nothing arrived within a day")
    }

    /// The next frame that is not a ping.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.frame().await? {
                (PING, payload) if self.answers_pings => {
                    self.send_bytes(&frame(PONG, &payload)).await;
                }
                (PING, _) => {}
                other => return Some(other),
            }
        }
    }

    /// The next text message.
    pub(super) async fn text(&mut self) -> Value {
        match self.next().await {
            Some((TEXT, payload)) => serde_json::from_slice(&payload).unwrap(),
            other => panic!("a text was expected, not {other:?}"),
        }
    }

    /// The next text message, whose `type` must be `kind`.
    pub(super) async fn expect(&mut self, kind: &str) -> Value {
        let text = self.text().await;
        assert_eq!(text["type"], kind, "{text}");
        text
    }

    /// Sends a command and asserts that `ok` answers it.
    pub(super) async fn ok(&mut self, command: &str) {
        self.send(command).await;
        self.expect("ok").await;
    }

    /// Sends a command that fails, and returns the error's code.
    pub(super) async fn error(&mut self, command: &str) -> String {
        self.send(command).await;
        self.expect("error").await["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Asserts that nothing but pings arrives for this number of seconds.
    pub(super) async fn silence(&mut self, seconds: u64) {
        let came = time::timeout(Duration::from_secs(seconds), self.next()).await;
        assert!(came.is_err(), "{came:?} arrived");
    }

    /// Reads up to the close frame, answers the close frame, and asserts that the stream then ends.
    pub(super) async fn closed(&mut self) -> Closed {
        let mut texts = Vec::new();
        loop {
            match self
                .next()
                .await
                .expect("the stream ended without a close frame")
            {
                (TEXT, payload) => texts.push(serde_json::from_slice(&payload).unwrap()),
                (CLOSE, payload) => {
                    let (code, reason) = payload.split_first_chunk().unwrap();
                    self.send_bytes(&frame(CLOSE, code)).await;
                    assert_eq!(self.frame().await, None, "a frame followed the close frame");
                    self.stream.shutdown().await.ok();
                    let code = u16::from_be_bytes(*code);
                    let reason = String::from_utf8(reason.to_vec()).unwrap();
                    return Closed {
                        texts,
                        code,
                        reason,
                    };
                }
                (PONG, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads to the end of a connection that is cut without a close frame, and returns the complete
    /// texts.
    pub(super) async fn cut(&mut self) -> Vec<Value> {
        let mut texts = Vec::new();
        while let Some((opcode, payload)) = self.next().await {
            assert_eq!(opcode, TEXT, "a frame other than a text preceded the cut");
            texts.push(serde_json::from_slice(&payload).unwrap());
        }
        assert!(
            !self.received.is_empty(),
            "the connection was not cut in the middle of a frame"
        );
        texts
    }

    /// Asserts that the connection ends with the message `closing` and a close frame, and that both
    /// have the code and reason of `disconnect`.
    pub(super) async fn expect_closed(&mut self, disconnect: curfew_model::Disconnect) -> Closed {
        let closed = self.closed().await;
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (disconnect.code, disconnect.reason),
            "{closed:?}"
        );
        let last = closed
            .texts
            .last()
            .expect("no text preceded the close frame");
        assert_eq!(last["type"], "closing");
        assert_eq!(
            (&last["code"], &last["reason"]),
            (&disconnect.code.into(), &disconnect.reason.into())
        );
        closed
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, length) = match *self.received.get(1)? {
            126 => (
                4,
                usize::from(u16::from_be_bytes(
                    self.received.get(2..4)?.try_into().unwrap(),
                )),
            ),
            127 => panic!("the frame is longer than any frame that these tests expect"),
            short => (2, usize::from(short)),
        };
        let payload = self.received.get(head..head + length)?.to_vec();
        let opcode = self.received[0] & 0x0f;
        self.received.drain(..head + length);
        Some((opcode, payload))
    }
}

/// A final frame, masked with zeros.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    fragment(0x80 | opcode, payload)
}

/// A frame whose first byte is `first`.
pub(super) fn fragment(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
