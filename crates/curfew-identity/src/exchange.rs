//! One HTTP/1.1 exchange over a connection of its own, for identity providers and for the command
//! line. Redirects, cookies, proxies and reuse of the connection are not supported.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{self, TcpStream};
use tokio::task::JoinSet;
use tokio::time;

/// Pause between the starts of the connection attempts to one address of a host and to the next.
const HEAD_START: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: u32 = 8;

/// The fault of an exchange.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed, or the server violated HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The body is larger than the given number of bytes.
    #[error("answers with more than {} KiB", .0 / 1024)]
    TooLarge(usize),
    /// The body ended early.
    #[error("the answer ended early")]
    Broken,
}

/// Reads the PEM certificates in `file`, which must contain at least one certificate.
///
/// # Errors
///
/// The file cannot be read, is not PEM, has a bad certificate, or has no certificate.
pub async fn roots(file: &Path) -> io::Result<RootCertStore> {
    let pem = tokio::fs::read(file).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    match roots.is_empty() {
        true => Err(io::Error::other("holds no certificate in PEM")),
        false => Ok(roots),
    }
}

/// Connects to `address`: a name, an IPv4 address or an IPv6 address in brackets, with a port. The
/// attempts on the addresses of a name start one after the other, and overlap (RFC 8305 §5).
///
/// # Errors
///
/// The name has no address, or no address accepts the connection. There is no deadline.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    connect_first(net::lookup_host(address).await?).await
}

/// Connects to the address that answers first. An address that never answers must not use up the
/// time of the other addresses.
async fn connect_first(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (nth, address) in (0..MAX_ADDRESSES).zip(addresses) {
        attempts.spawn(async move {
            time::sleep(HEAD_START * nth).await;
            TcpStream::connect(address).await
        });
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Sends `request` over `stream`, and reads the answer's status and body. The body may have at most
/// `max_bytes`. If `accept` refuses the status, the body is not read.
///
/// # Errors
///
/// The refusal of `accept`, or an [`ExchangeError`]. There is no deadline.
pub async fn exchange<S, B, E>(
    stream: S,
    request: Request<B>,
    max_bytes: usize,
    accept: impl FnOnce(StatusCode) -> Result<(), E>,
) -> Result<(StatusCode, Bytes), E>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + 'static,
    E: From<ExchangeError>,
{
    let http = |error| E::from(ExchangeError::Http(error));
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        accept(status)?;
        let body = Limited::new(response.into_body(), max_bytes);
        match body.collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(ExchangeError::TooLarge(max_bytes).into())
            }
            Err(_) => Err(ExchangeError::Broken.into()),
        }
    };
    // The connection is driven here instead of in a task, so that it does not outlive the call.
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        result = &mut answer => result,
        // The connection ended; the part already received may still complete the answer.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_refuses_keeps_nobody_from_the_next() {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let there = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = there.local_addr().unwrap();
        let connected = connect_first([gone, there].into_iter()).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
        assert!(connect_first([gone].into_iter()).await.is_err());
        let none = connect_first(std::iter::empty()).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    /// A listener with a full accept queue drops further connection attempts without an answer.
    #[tokio::test]
    async fn an_address_that_swallows_everything_keeps_nobody_from_the_next() {
        let socket = net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) =
            time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            queued.push(stream);
        }
        let there = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = there.local_addr().unwrap();
        let connecting = connect_first([address, there].into_iter());
        let connected = time::timeout(Duration::from_secs(5), connecting).await;
        assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), there);
    }
}
