//! The bare socket of a session.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

use crate::{Streamed, WriteBatch};

/// The connection of a session to its client. This crate has no buffer between the session and the
/// kernel.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Plain(TcpStream),
    /// Plain TCP that a [`DirectWriter`] also writes to.
    Shared(OwnedReadHalf),
    /// TLS over TCP. Boxed, because most connections are plain and should not need the memory of a
    /// TLS stream.
    Tls(Box<TlsStream<TcpStream>>),
    /// A streamed answer. The client's messages arrive in separate requests. Boxed, because
    /// streamed answers are rare.
    Streamed(Box<Streamed>),
    /// A pipe within the process, for sessions without a network.
    Memory(Box<dyn Pipe>),
}

/// A pipe within the process.
pub trait Pipe: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {
    /// Returns a second way to write to the pipe, if the pipe has one.
    #[cfg(feature = "simulation")]
    fn direct_writer(&self) -> Option<Box<dyn PipeWriter>> {
        None
    }

    /// Resets the connection, as far as the pipe can.
    fn abort(self: Box<Self>) {}
}

impl Pipe for DuplexStream {}

/// A second way to write to a [`Pipe`], for a [`DirectWriter`]. It exists only in simulations. A
/// release build has only one kind of writer, so it need not choose between two kinds at each
/// write.
#[cfg(feature = "simulation")]
pub trait PipeWriter: fmt::Debug + Send + Sync {
    /// Writes the part of the batch that fits now. Fails with [`io::ErrorKind::WouldBlock`] if
    /// nothing fits.
    fn try_write(&self, batch: WriteBatch<'_>) -> io::Result<usize>;
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<TlsStream<TcpStream>> for Transport {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl From<DuplexStream> for Transport {
    fn from(stream: DuplexStream) -> Self {
        Self::Memory(Box::new(stream))
    }
}

/// A second way to write to a plain connection, for tasks other than the task that reads. The owner
/// of the [`Transport`] and the owner of this value must ensure that only one of them writes at a
/// time. The connection ends when both values are dropped.
#[derive(Debug)]
pub struct DirectWriter(Option<WriteHalf>);

/// The half of a connection that can be written to.
#[derive(Debug)]
enum WriteHalf {
    Tcp(OwnedWriteHalf),
    #[cfg(feature = "simulation")]
    Memory(Box<dyn PipeWriter>),
}

/// The writing side of a socket. Each call is one attempt. Without TLS, an attempt is one system
/// call.
pub trait Socket {
    /// Writes the part of `batch` that fits now.
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>>;

    /// Passes on the bytes that [`Socket::write`] has accepted but held back.
    fn flush(&mut self) -> Poll<io::Result<()>>;

    /// True if [`Socket::write`] may hold bytes back until [`Socket::flush`] is ready.
    fn holds_back(&self) -> bool;
}

/// Writes the part of a batch that fits now. If nothing fits, the result is pending, but no waker
/// is registered.
impl Socket for &DirectWriter {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        let done = match &self.0 {
            Some(WriteHalf::Tcp(stream)) => try_write(stream.as_ref(), batch),
            #[cfg(feature = "simulation")]
            Some(WriteHalf::Memory(pipe)) => pipe.try_write(batch),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        false
    }
}

/// A transport with the context of a task. The task is woken when the socket accepts more bytes.
#[derive(Debug)]
pub struct Polled<'a, 'cx>(pub &'a mut Transport, pub &'a mut Context<'cx>);

impl Socket for Polled<'_, '_> {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        self.0.poll_write(self.1, batch)
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        self.0.poll_flush(self.1)
    }

    fn holds_back(&self) -> bool {
        self.0.holds_back()
    }
}

impl Drop for DirectWriter {
    fn drop(&mut self) {
        // `forget` leaves the connection open. Dropping the half would close the connection's
        // writing side.
        match self.0.take() {
            Some(WriteHalf::Tcp(stream)) => stream.forget(),
            #[cfg(feature = "simulation")]
            Some(WriteHalf::Memory(_)) => {}
            None => {}
        }
    }
}

/// Writes the part of `batch` that fits now.
fn try_write(stream: &TcpStream, batch: WriteBatch<'_>) -> io::Result<usize> {
    match batch {
        WriteBatch::Bytes(bytes) => stream.try_write(bytes),
        WriteBatch::Slices(slices) => stream.try_write_vectored(slices),
    }
}

/// Writes the part of `batch` that fits now. If nothing fits, registers the waker.
fn poll_write(
    mut stream: impl AsyncWrite + Unpin,
    cx: &mut Context<'_>,
    batch: WriteBatch<'_>,
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(&mut stream);
    match batch {
        WriteBatch::Bytes(bytes) => stream.poll_write(cx, bytes),
        WriteBatch::Slices(slices) => stream.poll_write_vectored(cx, slices),
    }
}

impl Transport {
    /// Splits off a second way to write. The second value is `None` for TLS, because a write needs
    /// the state of the encryption, and for a pipe that has only one way to write.
    pub fn share(self) -> (Self, Option<DirectWriter>) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (
                    Self::Shared(read),
                    Some(DirectWriter(Some(WriteHalf::Tcp(write)))),
                )
            }
            Self::Streamed(mut streamed) => {
                let (socket, writer) = streamed.socket.share();
                streamed.socket = socket;
                (Self::Streamed(streamed), writer)
            }
            #[cfg(feature = "simulation")]
            Self::Memory(pipe) => {
                let writer = pipe.direct_writer();
                let writer = writer.map(|writer| DirectWriter(Some(WriteHalf::Memory(writer))));
                (Self::Memory(pipe), writer)
            }
            other => (other, None),
        }
    }

    /// Reads available bytes into `buffer`. A result of 0 means that the peer sends no more. The
    /// caller must read until the result is pending, because TLS may hold decrypted bytes that
    /// cause no wake-up.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Shared(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Streamed(streamed) => streamed.poll_read(cx, &mut buffer),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes the part of `batch` that fits now. On a plain connection, a write is one system call.
    /// Over TLS, written bytes may still need a flush.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        batch: WriteBatch<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => poll_write(stream, cx, batch),
            Self::Shared(stream) => loop {
                let stream: &TcpStream = (*stream).as_ref();
                ready!(stream.poll_write_ready(cx))?;
                match try_write(stream, batch) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
            Self::Tls(stream) => poll_write(stream, cx, batch),
            Self::Streamed(streamed) => streamed.socket.poll_write(cx, batch),
            Self::Memory(stream) => poll_write(stream, cx, batch),
        }
    }

    /// Passes the bytes that TLS holds to the kernel. While the result is pending, the caller must
    /// poll again at each wake-up of the task, even if there are no new bytes to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Shared(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Streamed(streamed) => streamed.socket.poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Closes the writing side. The peer first reads everything that was written before, and then
    /// the end of the stream.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Shared(stream) => {
                let stream: &TcpStream = (*stream).as_ref();
                Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write))
            }
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Streamed(streamed) => streamed.socket.poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// True if a write may hold bytes back until a flush.
    fn holds_back(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Streamed(streamed) => streamed.socket.holds_back(),
            Self::Plain(_) | Self::Shared(_) | Self::Memory(_) => false,
        }
    }

    /// The TCP connection, if there is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Shared(stream) => Some(stream.as_ref()),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Streamed(streamed) => streamed.socket.tcp(),
            Self::Memory(_) => None,
        }
    }

    /// Resets the connection. The data that the kernel has queued is dropped, and the peer is
    /// notified at once even if it does not read. The [`DirectWriter`] must already be dropped.
    pub fn abort(self) {
        if let Self::Memory(pipe) = self {
            pipe.abort();
        } else if let Some(tcp) = self.tcp() {
            // The call fails only if the socket is already closed, and then needs no reset.
            tcp.set_zero_linger().ok();
        }
    }

    /// Returns the peer's address; `None` for a pipe within the process, or after the peer has
    /// disconnected.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }
}
