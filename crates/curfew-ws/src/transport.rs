//! The bare socket under a session.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What a session reads from and writes to. No buffer of ours lies between it and the kernel.
#[derive(Debug)]
pub enum Transport {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP, boxed: most connections are plain and must not pay for its size.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe within the process, for sessions without a network.
    Memory(Box<DuplexStream>),
}

/// `$stream` is the transport's stream, whichever it is.
macro_rules! on {
    ($transport:expr, $stream:ident => $then:expr) => {
        match $transport {
            Self::Plain($stream) => $then,
            Self::Tls($stream) => $then,
            Self::Memory($stream) => $then,
        }
    };
}

impl Transport {
    /// Reads what is there into `buffer`; 0 means that the peer sends no more. Read until it is
    /// pending: TLS may hold decrypted bytes for which no readiness comes.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(on!(self, stream => Pin::new(stream).poll_read(cx, &mut buffer)))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes as much of `bytes` as there is room for, in one system call where the transport is
    /// plain, which is cheaper than a vectored write of one slice. Over TLS, written bytes may still
    /// have to be flushed.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    /// Likewise as much of several `slices`.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    /// Hands to the kernel what TLS still holds. Until it is ready it must be polled whenever the
    /// task wakes, also when there is nothing new to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    /// Ends our side: the peer reads everything written before, then the end.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    /// Resets the connection: what is queued in the kernel is thrown away, and the peer is told at
    /// once even if it has stopped reading.
    pub fn abort(self) {
        let tcp = match &self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Memory(_) => return,
        };
        // A socket that is gone already needs no reset.
        tcp.set_zero_linger().ok();
    }

    /// The peer's address; `None` within the process, and once the peer is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
            Self::Memory(_) => None,
        }
    }
}
