//! An open WebSocket, from the side of a client that may misbehave.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::http::Response;
use crate::{Frame, OutFrame, PATIENCE, Stream, json, opcode};

/// A received frame, or the reason why no frame was received.
#[derive(Debug)]
pub enum Incoming {
    /// A frame.
    Frame(Frame),
    /// The stream has ended.
    End,
    /// The connection broke with this error.
    Cut(io::Error),
    /// No frame arrived during the wait.
    Silence,
}

/// A client's side of a WebSocket. It answers pings whenever it reads, until
/// [`WsClient::ignore_pings`] is called.
#[derive(Debug)]
pub struct WsClient {
    stream: Stream,
    buffer: BytesMut,
    response: Response,
    answers_pings: bool,
    /// Frames that [`WsClient::attend`] has read, for the next calls of [`WsClient::incoming`].
    attended: VecDeque<Frame>,
}

impl WsClient {
    pub(crate) fn new(stream: Stream, buffer: BytesMut, response: Response) -> Self {
        Self {
            stream,
            buffer,
            response,
            answers_pings: true,
            attended: VecDeque::new(),
        }
    }

    /// The response with status 101 that opened the WebSocket.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The underlying stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// From now on pings are read but not answered.
    pub fn ignore_pings(&mut self) {
        self.answers_pings = false;
    }

    // Methods that send.

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(OutFrame::text(text)).await;
    }

    /// Sends a JSON text.
    pub async fn send(&mut self, value: Value) {
        self.send_text(&value.to_string()).await;
    }

    /// Sends any frame.
    pub async fn send_frame(&mut self, frame: OutFrame) {
        self.send_bytes(&frame.to_bytes()).await;
    }

    /// Sends several frames in one write.
    pub async fn send_frames(&mut self, frames: &[OutFrame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(OutFrame::to_bytes).collect();
        self.send_bytes(&bytes).await;
    }

    /// Sends any bytes. It is no failure if the peer has closed the connection, because the peer's
    /// last answer may still be unread.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        drop(self.try_send_bytes(bytes).await);
    }

    /// Sends any bytes, and returns the error if the connection is closed.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await?
    }

    /// Shuts down the sending half. The client can still read.
    pub async fn half_close(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// The underlying socket, and the bytes that were read from it but not consumed. A test uses
    /// them to read the bytes itself. The client must not use TLS. The socket is non-blocking.
    ///
    /// # Errors
    ///
    /// The runtime cannot release the socket.
    pub fn into_tcp(self) -> io::Result<(std::net::TcpStream, BytesMut)> {
        let Stream::Tcp(tcp) = self.stream else {
            panic!("only a client without TLS can give its socket away");
        };
        Ok((tcp.into_std()?, self.buffer))
    }

    /// Cuts the connection with a TCP reset.
    pub fn reset(self) {
        self.stream
            .tcp()
            .set_zero_linger()
            .expect("the linger option of the socket cannot be set");
    }

    // Methods that receive.

    /// Answers pings until this future is dropped, as an idle client does. Other frames are stored
    /// for the next calls of [`WsClient::incoming`].
    pub async fn attend(&mut self) {
        loop {
            match self.read_frame(PATIENCE).await {
                Incoming::Frame(frame) if frame.opcode == opcode::PING => {}
                Incoming::Frame(frame) => self.attended.push_back(frame),
                Incoming::Silence => {}
                Incoming::End | Incoming::Cut(_) => return std::future::pending().await,
            }
        }
    }

    /// The next frame, or the reason for its absence. A ping is answered, and is also returned.
    pub async fn incoming(&mut self, patience: Duration) -> Incoming {
        match self.attended.pop_front() {
            Some(frame) => Incoming::Frame(frame),
            None => self.read_frame(patience).await,
        }
    }

    async fn read_frame(&mut self, patience: Duration) -> Incoming {
        let reading = async {
            loop {
                if let Some(frame) = Frame::take(&mut self.buffer) {
                    return Incoming::Frame(frame);
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return Incoming::End,
                    Ok(_) => {}
                    // rustls reports the end of a stream without close_notify by this error.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Incoming::End;
                    }
                    Err(error) => return Incoming::Cut(error),
                }
            }
        };
        let Ok(incoming) = timeout(patience, reading).await else {
            return Incoming::Silence;
        };
        if let Incoming::Frame(frame) = &incoming
            && frame.opcode == opcode::PING
            && self.answers_pings
        {
            self.send_frame(OutFrame::new(opcode::PONG, frame.payload.to_vec()))
                .await;
        }
        incoming
    }

    /// The next frame, including pings and pongs.
    pub async fn next_frame(&mut self) -> Frame {
        match self.incoming(PATIENCE).await {
            Incoming::Frame(frame) => frame,
            other => panic!("a frame was expected, but the client received {other:?}"),
        }
    }

    /// The next frame that is neither ping nor pong.
    pub async fn next_message(&mut self) -> Frame {
        loop {
            let frame = self.next_frame().await;
            if !matches!(frame.opcode, opcode::PING | opcode::PONG) {
                return frame;
            }
        }
    }

    /// The next text message, as it was sent.
    pub async fn next_text(&mut self) -> String {
        let frame = self.next_message().await;
        match frame.opcode {
            opcode::TEXT => {
                assert!(frame.fin && frame.rsv == 0, "{frame:?}");
                frame.text().to_owned()
            }
            opcode::CLOSE => panic!(
                "a text message was expected, but the server closed with {:?}",
                frame.close()
            ),
            _ => panic!("a text message was expected, but the client received {frame:?}"),
        }
    }

    /// The next text message, as JSON.
    pub async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The next text message, which must have at least the members of `expect`; see the module
    /// `json`.
    pub async fn expect_json(&mut self, expect: Value) -> Value {
        let value = self.next_json().await;
        assert!(
            json::contains(&expect, &value),
            "expected {expect}\nreceived {value}"
        );
        value
    }

    /// Sends the command `ping`. The next text message must be the reply `pong`.
    pub async fn assert_open(&mut self) {
        self.send(serde_json::json!({"type":"ping"})).await;
        self.expect_json(serde_json::json!({"type":"pong"})).await;
    }

    /// Skips text messages until a message has at least the members of `expect`. Returns this
    /// message.
    pub async fn until_json(&mut self, expect: Value) -> Value {
        loop {
            let value = self.next_json().await;
            if json::contains(&expect, &value) {
                return value;
            }
        }
    }

    /// Skips frames up to the server's close frame, answers the close frame as a client should, and
    /// waits for the end of the stream. Returns the code and the reason of the close frame.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.next_frame().await;
            if frame.opcode == opcode::CLOSE {
                self.finish(&frame).await;
                return frame.close();
            }
        }
    }

    /// Expects the `closing` message with this code and reason, then a close frame with the same
    /// code and reason, then the end of the stream. Other messages may come first. Returns the
    /// `closing` message.
    pub async fn expect_close(&mut self, code: u16, reason: &str) -> Value {
        let closing = loop {
            let frame = self.next_message().await;
            match frame.opcode {
                opcode::TEXT => {
                    let value: Value =
                        serde_json::from_str(frame.text()).expect("the text message is not JSON");
                    if value["type"] == "closing" {
                        break value;
                    }
                }
                _ => panic!(
                    "the close was not announced by `closing` with {code} {reason}: {:?}",
                    frame.close()
                ),
            }
        };
        let expect = json!({"type":"closing","code":code,"reason":reason,"message":"<string>",
            "reconnect":"<bool>","*":0});
        assert!(
            json::matches(&expect, &closing),
            "expected {expect}\nreceived {closing}"
        );
        assert_eq!(self.closed().await, (code, reason.to_owned()));
        closing
    }

    /// Expects the refusal of a token: `auth_failed` with this reason, then a close frame with this
    /// code. Returns the message `auth_failed`.
    pub async fn expect_auth_failed(&mut self, reason: &str, code: u16) -> Value {
        let value = self.next_json().await;
        // The message has a trace id too if the trace is recorded.
        let expect = json!({"type":"auth_failed","reason":reason,"message":"<string>","*":0});
        assert!(
            json::matches(&expect, &value),
            "expected {expect}\nreceived {value}"
        );
        let (closed, _) = self.closed().await;
        assert_eq!(
            closed, code,
            "the close frame after {value} has another code"
        );
        value
    }

    /// Waits until the stream ends or is cut, and drops the frames that arrive earlier. Returns
    /// false if the end does not come in time.
    pub async fn ended_within(&mut self, patience: Duration) -> bool {
        let ending = async {
            loop {
                match self.incoming(patience).await {
                    Incoming::Frame(_) => {}
                    Incoming::End | Incoming::Cut(_) => return true,
                    Incoming::Silence => return false,
                }
            }
        };
        timeout(patience, ending).await.unwrap_or(false)
    }

    /// Sends the command `ping`, and returns the messages that arrive before `pong`. They include
    /// all messages that the server had queued for this client when it read the command.
    pub async fn barrier(&mut self) -> Vec<Value> {
        self.send(json!({"type":"ping","id":"barrier"})).await;
        let mut before = Vec::new();
        loop {
            let value = self.next_json().await;
            if value["type"] == "pong" {
                return before;
            }
            before.push(value);
        }
    }

    /// Answers the server's close frame and expects the end of the stream.
    async fn finish(&mut self, close: &Frame) {
        self.send_frame(OutFrame::new(
            opcode::CLOSE,
            close.payload.iter().copied().take(2).collect::<Vec<u8>>(),
        ))
        .await;
        match self.incoming(PATIENCE).await {
            // A reset is accepted, because the server may close the connection before it has read
            // all bytes of this client.
            Incoming::End | Incoming::Cut(_) => {}
            other => panic!("{other:?} arrived after the close frame"),
        }
    }
}
