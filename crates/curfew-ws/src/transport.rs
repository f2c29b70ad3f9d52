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

/// The connection of a session to its client. No buffer of this crate lies between the session and
/// the kernel.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Plain(TcpStream),
    /// Plain TCP that a [`DirectWriter`] also writes to.
    Shared(OwnedReadHalf),
    /// TLS over TCP. Boxed, because most connections are plain and should not need the memory of a
    /// TLS stream.
    Tls(Box<TlsStream<TcpStream>>),
    /// A streamed answer; the client's messages arrive in separate requests. Boxed, because
    /// streamed answers are rare.
    Streamed(Box<Streamed>),
    /// A pipe within the process, for sessions without a network.
    Memory(Box<dyn Pipe>),
}

/// A pipe within the process.
pub trait Pipe: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {
    /// A second way to write to the pipe, if it has one.
    #[cfg(feature = "simulation")]
    fn direct_writer(&self) -> Option<Box<dyn PipeWriter>> {
        None
    }

    /// Resets the connection, as far as the pipe can.
    fn abort(self: Box<Self>) {}
}

impl Pipe for DuplexStream {}

/// A second way to write to a [`Pipe`], for a [`DirectWriter`]. Only simulations have it, so that a
/// release build does not choose between two kinds of writers at each write.
#[cfg(feature = "simulation")]
pub trait PipeWriter: fmt::Debug + Send + Sync {
    /// Writes as much as there is room for, or fails with [`io::ErrorKind::WouldBlock`].
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

/// A second way to write to a plain connection, for other tasks than the one that reads from it.
/// The holder of the [`Transport`] and the holder of this value must ensure that only one of them
/// writes at a time. The connection ends when both values are dropped.
#[derive(Debug)]
pub struct DirectWriter(Option<WriteHalf>);

/// The half of a connection that is written to.
#[derive(Debug)]
enum WriteHalf {
    Tcp(OwnedWriteHalf),
    #[cfg(feature = "simulation")]
    Memory(Box<dyn PipeWriter>),
}

/// A socket as its writer sees it. Each call is one attempt, which is one system call if no TLS
/// lies between.
pub trait Socket {
    /// Writes as much of `batch` as there is room for.
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>>;

    /// Passes on the bytes that [`Socket::write`] took and held back.
    fn flush(&mut self) -> Poll<io::Result<()>>;

    /// True if [`Socket::write`] may hold bytes back until [`Socket::flush`] is ready.
    fn holds_back(&self) -> bool;
}

/// Writes as much as there is room for. It registers no waker.
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

/// A transport, with the context of the task that is woken when the socket takes more.
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
        // Dropping the half would shut the connection down for writing.
        match self.0.take() {
            Some(WriteHalf::Tcp(stream)) => stream.forget(),
            #[cfg(feature = "simulation")]
            Some(WriteHalf::Memory(_)) => {}
            None => {}
        }
    }
}

/// Writes as much as there is room for.
fn try_write(stream: &TcpStream, batch: WriteBatch<'_>) -> io::Result<usize> {
    match batch {
        WriteBatch::Bytes(bytes) => stream.try_write(bytes),
        WriteBatch::Slices(slices) => stream.try_write_vectored(slices),
    }
}

/// Writes as much as there is room for, or registers the waker.
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
    /// Splits off a second way to write. `None` for TLS, whose writes need the encryption state.
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

    /// Reads available bytes into `buffer`; 0 means that the peer sends no more. Read until the
    /// result is pending: TLS may hold decrypted bytes for which no readiness is reported.
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

    /// Writes as much of `batch` as there is room for, in one system call if the transport is
    /// plain. Over TLS, written bytes may still need a flush.
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

    /// Passes bytes held by TLS to the kernel. While it is pending, poll it whenever the task
    /// wakes, even without new bytes to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Shared(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Streamed(streamed) => streamed.socket.poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our side. The peer reads everything written before, then the end of the stream.
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

    /// Resets the connection. Data queued in the kernel is dropped, and the peer is notified at
    /// once even if it does not read. The [`DirectWriter`] must have been dropped before.
    pub fn abort(self) {
        if let Self::Memory(pipe) = self {
            pipe.abort();
        } else if let Some(tcp) = self.tcp() {
            // A socket that is closed already needs no reset.
            tcp.set_zero_linger().ok();
        }
    }

    /// The peer's address. `None` within the process, and after the peer has disconnected.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }
}
