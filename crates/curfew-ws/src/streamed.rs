//! The connection of a session whose messages to the client are one streamed HTTP answer. Each
//! message of the client arrives in a separate HTTP request.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;
use tokio::sync::mpsc;

use crate::Transport;

/// Maximum number of messages that wait for the session to read them.
const MESSAGES: usize = 4;

/// Maximum number of bytes that a client may send on this connection after its request. These bytes
/// are ignored.
const PASSED_OVER_BYTES: usize = 1024;

/// The connection of a streamed answer, with a queue of messages for its session.
#[derive(Debug)]
pub struct Streamed {
    pub(crate) socket: Transport,
    messages: mpsc::Receiver<Bytes>,
    /// The part of the current message that the session has not read yet.
    current: Bytes,
    /// Number of bytes that the client has sent on this connection after its request.
    passed_over: usize,
}

/// The sending end of the queue of messages for the session of a streamed answer.
#[derive(Debug, Clone)]
pub struct Inlet(mpsc::Sender<Bytes>);

/// The session of a streamed answer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Closed;

impl Inlet {
    /// Queues a message, which is one masked frame. Waits while the queue is full. The order of the
    /// messages is the order in which the futures of this method are first polled. A dropped future
    /// queues nothing.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub async fn send(&self, frame: Bytes) -> Result<(), Closed> {
        self.0.send(frame).await.map_err(|_| Closed)
    }
}

impl Streamed {
    /// Adds a queue of messages to the connection of a streamed answer.
    pub fn new(socket: Transport) -> (Self, Inlet) {
        let (sender, messages) = mpsc::channel(MESSAGES);
        let streamed = Self {
            socket,
            messages,
            current: Bytes::new(),
            passed_over: 0,
        };
        (streamed, Inlet(sender))
    }

    /// Reads the next message, or the rest of the current message. If no message is ready and the
    /// client has closed the connection, reads 0 bytes.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() {
            match self.messages.poll_recv(cx) {
                Poll::Ready(Some(message)) => self.current = message,
                Poll::Ready(None) | Poll::Pending => return self.poll_end(cx),
            }
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..length]);
        self.current.advance(length);
        if self.current.is_empty() {
            // Even an empty slice of the message would keep the message's memory allocated.
            self.current = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Returns once the client has closed the connection. Fails once the client has sent more than
    /// [`PASSED_OVER_BYTES`].
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut few = [0; 64];
        loop {
            match ready!(self.socket.poll_read(cx, &mut few))? {
                0 => return Poll::Ready(Ok(())),
                read => self.passed_over += read,
            }
            if self.passed_over > PASSED_OVER_BYTES {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
    }
}

impl From<Streamed> for Transport {
    fn from(streamed: Streamed) -> Self {
        Self::Streamed(Box::new(streamed))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    async fn read(transport: &mut Transport, most: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; most];
        let read = poll_fn(|cx| transport.poll_read(cx, &mut buffer)).await?;
        buffer.truncate(read);
        Ok(buffer)
    }

    #[tokio::test]
    async fn messages_are_read_in_order_and_before_the_end() {
        let (ours, mut theirs) = duplex(64);
        let (streamed, inlet) = Streamed::new(ours.into());
        let mut transport = Transport::from(streamed);
        inlet.send(Bytes::from_static(b"first")).await.unwrap();
        inlet.send(Bytes::from_static(b"second")).await.unwrap();
        theirs.write_all(b"\r\n").await.unwrap();
        drop(theirs);
        assert_eq!(read(&mut transport, 3).await.unwrap(), b"fir");
        assert_eq!(read(&mut transport, 100).await.unwrap(), b"st");
        assert_eq!(read(&mut transport, 100).await.unwrap(), b"second");
        assert_eq!(read(&mut transport, 100).await.unwrap(), b"");
        drop(transport);
        assert_eq!(inlet.send(Bytes::new()).await, Err(Closed));
    }

    #[tokio::test]
    async fn a_client_that_goes_on_sending_on_the_stream_is_cut_off() {
        let (ours, mut theirs) = duplex(PASSED_OVER_BYTES * 2);
        let (streamed, _inlet) = Streamed::new(ours.into());
        let mut transport = Transport::from(streamed);
        theirs
            .write_all(&[b'x'; PASSED_OVER_BYTES + 1])
            .await
            .unwrap();
        assert!(read(&mut transport, 100).await.is_err());
    }

    #[tokio::test]
    async fn a_way_that_is_full_makes_the_next_message_wait() {
        let (ours, _theirs) = duplex(64);
        let (streamed, inlet) = Streamed::new(ours.into());
        let mut transport = Transport::from(streamed);
        for _ in 0..MESSAGES {
            inlet.send(Bytes::from_static(b"m")).await.unwrap();
        }
        let mut waiting = Box::pin(inlet.send(Bytes::from_static(b"last")));
        assert!(poll_once(&mut waiting).await.is_pending());
        read(&mut transport, 1).await.unwrap();
        waiting.await.unwrap();
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }
}
