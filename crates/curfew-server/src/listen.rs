//! Opening a listener, and accepting from it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::unconstrained;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Connections the kernel holds until they are accepted: a storm of reconnects fits, or as much of
/// it as `net.core.somaxconn` allows.
const BACKLOG: u32 = 4096;

/// Wait after accepting failed for want of resources, such as file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", hint(.error))]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has this port: stop it or choose another",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose another",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        _ => "",
    }
}

/// Listens on `address`. Must be called within a runtime.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_listen(address).map_err(|error| ListenError { address, error })
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // So that a restart need not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Inherited by the connections: one call for all of them.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Hands every connection to `on_connection` until `stop`, and then those that wait already.
pub(crate) async fn accept(
    listener: TcpListener,
    stop: CancellationToken,
    mut on_connection: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
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
        // Unconstrained: a budget that is used up must not look like an empty queue.
        let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
        let Poll::Ready(Ok((stream, peer))) = unconstrained(waiting).await else {
            return;
        };
        on_connection(stream, peer);
    }
}

/// Errors that concern a connection that is gone already, not the listener.
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
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        client.unwrap();
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }
}
