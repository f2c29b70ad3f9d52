//! The bare socket under a session.

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

use crate::WriteBatch;

/// What a session reads from and writes to. No buffer of ours lies between it and the kernel.
#[derive(Debug)]
pub enum Transport {
    /// TCP.
    Plain(TcpStream),
    /// TCP that is also written to through a [`DirectWriter`].
    Shared(OwnedReadHalf),
    /// TLS over TCP, boxed: most connections are plain and must not pay for its size.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe within the process, for sessions without a network.
    Memory(Box<dyn Pipe>),
}

/// A pipe within the process.
pub trait Pipe: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {
    /// A way to write to it beside its own, if it has one.
    #[cfg(feature = "simulation")]
    fn direct_writer(&self) -> Option<Box<dyn PipeWriter>> {
        None
    }

    /// Resets the connection, as far as it can be.
    fn abort(self: Box<Self>) {}
}

impl Pipe for DuplexStream {}

/// The way to write to a [`Pipe`] that a [`DirectWriter`] is. What is shipped has none, and does not
/// ask at each write which it has.
#[cfg(feature = "simulation")]
pub trait PipeWriter: fmt::Debug + Send + Sync {
    /// Takes what there is room for now, or [`io::ErrorKind::WouldBlock`].
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

/// A way to write to a plain connection beside its [`Transport`], for others than the task that
/// reads from it. Who holds both sees to it that only one is written to at a time. The connection
/// ends when both are gone.
#[derive(Debug)]
pub struct DirectWriter(Option<WriteHalf>);

#[derive(Debug)]
enum WriteHalf {
    Tcp(OwnedWriteHalf),
    #[cfg(feature = "simulation")]
    Memory(Box<dyn PipeWriter>),
}

/// A socket as its writer sees it: each call is one attempt, and one system call where nothing lies
/// between.
pub trait Socket {
    /// Writes as much of `batch` as there is room for now.
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>>;

    /// Hands on what [`Socket::write`] took and held back.
    fn flush(&mut self) -> Poll<io::Result<()>>;

    /// Some of what [`Socket::write`] takes may be held back until [`Socket::flush`] is ready.
    fn holds_back(&self) -> bool;
}

/// Takes what there is room for now, and wakes no task later.
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

/// A transport and the task that is woken when it takes more.
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
        matches!(self.0, Transport::Tls(_))
    }
}

impl Drop for DirectWriter {
    fn drop(&mut self) {
        // The half alone would say to the peer that nothing more comes.
        match self.0.take() {
            Some(WriteHalf::Tcp(stream)) => stream.forget(),
            #[cfg(feature = "simulation")]
            Some(WriteHalf::Memory(_)) => {}
            None => {}
        }
    }
}

fn try_write(stream: &TcpStream, batch: WriteBatch<'_>) -> io::Result<usize> {
    match batch {
        WriteBatch::Bytes(bytes) => stream.try_write(bytes),
        WriteBatch::Slices(slices) => stream.try_write_vectored(slices),
    }
}

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
    /// From here on it can be written to through the writer as well; `None` where whoever writes has
    /// more to do than to hand bytes to the kernel.
    pub fn share(self) -> (Self, Option<DirectWriter>) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (
                    Self::Shared(read),
                    Some(DirectWriter(Some(WriteHalf::Tcp(write)))),
                )
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

    /// Reads what is there into `buffer`; 0 means that the peer sends no more. Read until it is
    /// pending: TLS may hold decrypted bytes for which no readiness comes.
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
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes as much of `batch` as there is room for, in one system call where the transport is
    /// plain. Over TLS, written bytes may still have to be flushed.
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
            Self::Memory(stream) => poll_write(stream, cx, batch),
        }
    }

    /// Hands to the kernel what TLS still holds. Until it is ready it must be polled whenever the
    /// task wakes, also when there is nothing new to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Shared(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our side: the peer reads everything written before, then the end.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Shared(stream) => {
                let stream: &TcpStream = (*stream).as_ref();
                Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write))
            }
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Shared(stream) => Some(stream.as_ref()),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Memory(_) => None,
        }
    }

    /// Resets the connection: what is queued in the kernel is thrown away, and the peer is told at
    /// once even if it has stopped reading. Its [`DirectWriter`], if there is one, must be gone.
    pub fn abort(self) {
        if let Self::Memory(pipe) = self {
            pipe.abort();
        } else if let Some(tcp) = self.tcp() {
            // A socket that is gone already needs no reset.
            tcp.set_zero_linger().ok();
        }
    }

    /// The peer's address; `None` within the process, and once the peer is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }
}
