//! Fetches of small documents from providers. Supports no redirects, cookies or proxies, and bounds
//! size and time.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{self, TcpStream};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// Largest accepted document.
const MAX_BYTES: usize = 256 * 1024;

/// Head start of each address of a host before the next one, and the number of addresses tried.
const HEAD_START: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: u32 = 8;

/// Reason why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL has no host.
    #[error("the URL names no host")]
    NoHost,
    /// No address accepted a connection.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// The trusted certificates could not be loaded.
    #[error("ca_file {}: {reason}", path.display())]
    CaFile {
        /// The file of the certificates.
        path: PathBuf,
        /// The reason, for operators.
        reason: String,
    },
    /// The server's certificate is not valid for its name, or the server does not speak TLS.
    #[error("TLS: {0}{advice}", advice = advice(.0))]
    Tls(#[source] io::Error),
    /// The server violated HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The server redirects. Redirects are not followed, because they would override the configured
    /// source of keys.
    #[error("redirects with {0}: configure the URL that it leads to")]
    Redirect(StatusCode),
    /// The status is another than 200.
    #[error("answers {0}")]
    Status(StatusCode),
    /// The document exceeds 256 KiB.
    #[error("answers with more than 256 KiB")]
    TooLarge,
    /// The connection ended within the document.
    #[error("the answer broke off")]
    Broken,
    /// The fetch exceeded its timeout.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl FetchError {
    /// A name for the fault, from a fixed list.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::NoHost => "url",
            Self::Connect(_) => "connect",
            Self::CaFile { .. } => "ca_file",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
            Self::Timeout(_) => "timeout",
        }
    }
}

/// The remedy for a TLS fault whose own text does not reveal it; empty for other faults.
fn advice(error: &io::Error) -> &'static str {
    match error.to_string().contains("CaUsedAsEndEntity") {
        true => {
            ": the server shows an authority's certificate for its own, as openssl req -x509 makes them; make it with -addext basicConstraints=critical,CA:FALSE, or have an authority sign another"
        }
        false => "",
    }
}

/// Fetches documents. Cloning is a reference count.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    timeout: Duration,
    make_tls: fn() -> Arc<ClientConfig>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Fetcher {
    /// Makes a fetcher with this `timeout` per document. `tls` makes the client's TLS
    /// configuration, and is called at the first https URL.
    pub fn new(timeout: Duration, tls: fn() -> Arc<ClientConfig>) -> Self {
        Self(Arc::new(Inner {
            timeout,
            make_tls: tls,
            tls: OnceLock::new(),
        }))
    }

    /// Fetches the document at `url`, which must have passed [`curfew_auth::check_url`]. If
    /// `ca_file` is given, only the certificates in it are trusted.
    ///
    /// # Errors
    ///
    /// Every result other than a small document with status 200 in time.
    pub async fn get(&self, url: &Uri, ca_file: Option<&Path>) -> Result<Bytes, FetchError> {
        let timeout = self.0.timeout;
        match time::timeout(timeout, self.get_unbounded(url, ca_file)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(timeout)),
        }
    }

    async fn get_unbounded(&self, url: &Uri, ca_file: Option<&Path>) -> Result<Bytes, FetchError> {
        let authority = url.authority().ok_or(FetchError::NoHost)?;
        let host = authority.host().trim_matches(['[', ']']);
        let https = url.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let addresses = net::lookup_host((host, port)).await;
        let tcp = connect(addresses.map_err(FetchError::Connect)?).await;
        let tcp = tcp.map_err(FetchError::Connect)?;
        if !https {
            return exchange(tcp, url, authority.as_str()).await;
        }
        let config = match ca_file {
            Some(path) => trusting(path).await?,
            None => Arc::clone(self.0.tls.get_or_init(self.0.make_tls)),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::NoHost)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        exchange(tls.map_err(FetchError::Tls)?, url, authority.as_str()).await
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

/// The TLS configuration of a client that trusts only the certificates in a file.
async fn trusting(path: &Path) -> Result<Arc<ClientConfig>, FetchError> {
    let bad = |reason: String| FetchError::CaFile {
        path: path.to_owned(),
        reason,
    };
    let content = tokio::fs::read(path).await;
    let content = content.map_err(|error| bad(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate in PEM".to_owned()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Connects to the first address that answers. Attempts start one after the other and run
/// concurrently (RFC 8305 §5), so that an address that swallows everything does not use up the time
/// of the others.
async fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
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

/// Sends one request and reads its answer.
async fn exchange<S>(stream: S, url: &Uri, host: &str) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("curfew/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a path and a host of a URL are good in a request");
    let answer = async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            // Not a redirect: the request had no condition, so this answer has no document.
            status @ StatusCode::NOT_MODIFIED => return Err(FetchError::Status(status)),
            status if status.is_redirection() => return Err(FetchError::Redirect(status)),
            status => return Err(FetchError::Status(status)),
        }
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await;
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
            Err(_) => Err(FetchError::Broken),
        }
    };
    // Driven here instead of in a task, so that nothing of the connection outlives the call.
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
        let connected = connect([gone, there].into_iter()).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
        assert!(connect([gone].into_iter()).await.is_err());
        let none = connect(std::iter::empty()).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    /// A full accept queue drops further attempts without an answer.
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
        let connecting = connect([address, there].into_iter());
        let connected = time::timeout(Duration::from_secs(5), connecting).await;
        assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), there);
    }
}
