//! Opens listeners, and accepts connections from them.

pub(crate) mod proxies;
pub(crate) mod tls;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::task::unconstrained;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Maximum number of connections that the kernel queues until they are accepted. It is large enough
/// for a storm of reconnects. If `net.core.somaxconn` is smaller, the kernel uses its value
/// instead.
const BACKLOG: u32 = 4096;

/// The pause after a connection could not be accepted, for example for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The address that stands for a peer on a Unix socket. No peer of a TCP connection has this
/// address.
pub(crate) const UNIX_PEER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The prefix of the text form of a Unix socket's path.
const UNIX: &str = "unix:";

/// The address of a listener: `127.0.0.1:8080` or `unix:/run/curfew.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port. With port 0, the system chooses a free port.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// The error for a text that is not an address to listen on.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error(
    "must be an IP address with a port, such as 127.0.0.1:8080 or 0.0.0.0:8080 (not a name and not a URL), or unix: followed by an absolute path"
)]
pub struct ListenSyntaxError;

impl FromStr for Listen {
    type Err = ListenSyntaxError;

    fn from_str(text: &str) -> Result<Self, ListenSyntaxError> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(ListenSyntaxError),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenSyntaxError),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// A listener on an address and a port.
    Tcp(TcpListener),
    /// A listener on a Unix socket, and the socket's path.
    Unix(UnixPath, UnixListener),
}

/// The path of a Unix socket. Dropping this value removes the socket from the file system.
#[derive(Debug)]
pub struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(path = %self.0.display(), error = %error, "Unix socket not removed");
        }
    }
}

impl Listener {
    /// Returns the address of the listener. Port 0 in the configuration is replaced by the assigned
    /// port.
    pub fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(path, _) => Ok(Listen::Unix(path.0.clone())),
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, IpAddr)>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok((stream, peer.ip())))
            }
            Self::Unix(_, listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(as_tcp(stream).map(|stream| (stream, UNIX_PEER)))
            }
        }
    }
}

/// Wraps a Unix socket as a TCP stream, so that all other code handles only one kind of stream. The
/// system calls for reading, writing and shutting down are the same for Unix and TCP sockets.
fn as_tcp(stream: UnixStream) -> io::Result<TcpStream> {
    let socket = OwnedFd::from(stream.into_std()?);
    TcpStream::from_std(std::net::TcpStream::from(socket))
}

/// The error for a listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", hint(.error))]
pub struct ListenError {
    address: Listen,
    error: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process uses this address: stop that process or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need privileges: choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        _ => "",
    }
}

/// Opens a listener on `address`. Must be called within a tokio runtime.
pub fn listen(address: &Listen) -> Result<Listener, ListenError> {
    let listener = match address {
        Listen::Tcp(address) => try_listen(*address).map(Listener::Tcp),
        Listen::Unix(path) => try_listen_unix(path),
    };
    listener.map_err(|error| ListenError {
        address: address.clone(),
        error,
    })
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // With this option, a node can restart while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit this option, which saves one system call for each connection.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn try_listen_unix(path: &Path) -> io::Result<Listener> {
    let bind = || -> io::Result<UnixListener> {
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        socket.listen(BACKLOG)
    };
    let bound = match bind() {
        // If the socket refuses connections, a process that was killed has left it, and it can be
        // removed.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            bind()?
        }
        bound => bound?,
    };
    Ok(Listener::Unix(UnixPath(path.into()), bound))
}

fn is_abandoned(path: &Path) -> bool {
    // Connecting to a file that is not a socket also fails with `ConnectionRefused`, but such a
    // file must not be removed.
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let connected = std::os::unix::net::UnixStream::connect(path);
    is_socket && connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Passes each accepted connection and the address of its peer to `on_connection` until `stop` is
/// cancelled. Then passes the connections that the kernel has already queued, and returns.
pub(crate) async fn accept(
    listener: Listener,
    stop: CancellationToken,
    mut on_connection: impl FnMut(TcpStream, IpAddr),
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => on_connection(stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(error = %error, "accepting connections fails, will retry");
                time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    for _ in 0..BACKLOG {
        // `unconstrained` turns off tokio's budget for the task, because an exhausted budget would
        // look like an empty queue.
        let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
        let Poll::Ready(Ok((stream, peer))) = unconstrained(waiting).await else {
            return;
        };
        on_connection(stream, peer);
    }
}

/// True if `error` is about a single connection that has already ended. The listener itself still
/// works.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_inherit_that_small_writes_do_not_wait() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap().to_string();
        let accept = poll_fn(|cx| listener.poll_accept(cx));
        let (client, accepted) = tokio::join!(TcpStream::connect(address), accept);
        client.unwrap();
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn places_to_listen_at_are_read_and_shown() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/curfew.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "8080",
            "localhost:8080",
            "unix:",
            "unix:curfew.sock",
            "/run/x",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
