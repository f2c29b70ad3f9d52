//! Fetches of small documents from providers, bounded in size and time. Redirects, cookies and
//! proxies are not supported.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time;
use tokio_rustls::TlsConnector;

use crate::exchange::{ExchangeError, connect, exchange, roots};

/// Maximum size of a document.
const MAX_BYTES: usize = 256 * 1024;

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
    #[error("ca_file {}: {error}", path.display())]
    CaFile {
        /// The file of the certificates.
        path: PathBuf,
        /// The reason, for operators.
        error: io::Error,
    },
    /// The server's certificate is not valid for its name, or the server does not speak TLS.
    #[error("TLS: {0}{advice}", advice = advice(.0))]
    Tls(#[source] io::Error),
    /// The server violated HTTP, or its answer exceeds 256 KiB.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The server redirects. Redirects are not followed, because they would override the configured
    /// source of keys.
    #[error("redirects with {0}: configure the URL to which it redirects")]
    Redirect(StatusCode),
    /// The status is neither 200 nor a redirect.
    #[error("answers {0}")]
    Status(StatusCode),
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
            Self::Exchange(ExchangeError::Http(_)) => "http",
            Self::Exchange(ExchangeError::TooLarge(_)) => "too_large",
            Self::Exchange(ExchangeError::Broken) => "broken",
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::Timeout(_) => "timeout",
        }
    }
}

/// The remedy for a TLS fault whose own text does not state the remedy; empty for other faults.
fn advice(error: &io::Error) -> &'static str {
    match error.to_string().contains("CaUsedAsEndEntity") {
        true => {
            ": the server presents a CA certificate as its own, which openssl req -x509 makes by default; make the certificate with -addext basicConstraints=critical,CA:FALSE, or let a CA sign a server certificate"
        }
        false => "",
    }
}

/// Fetches documents. A clone costs one reference count.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    timeout: Duration,
    make_tls: fn() -> Arc<ClientConfig>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Fetcher {
    /// Makes a fetcher with this `timeout` per document. `tls` makes the client's TLS
    /// configuration, and is called when the first https URL is fetched.
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
    /// The fetch fails unless a small document with status 200 arrives in time.
    pub async fn get(&self, url: &Uri, ca_file: Option<&Path>) -> Result<Bytes, FetchError> {
        let timeout = self.0.timeout;
        match time::timeout(timeout, self.get_unbounded(url, ca_file)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(timeout)),
        }
    }

    async fn get_unbounded(&self, url: &Uri, ca_file: Option<&Path>) -> Result<Bytes, FetchError> {
        let authority = url.authority().ok_or(FetchError::NoHost)?;
        let https = url.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tcp = connect(&format!("{}:{port}", authority.host())).await;
        let tcp = tcp.map_err(FetchError::Connect)?;
        if !https {
            return get(tcp, url, authority.as_str()).await;
        }
        let config = match ca_file {
            Some(path) => trusting(path).await?,
            None => Arc::clone(self.0.tls.get_or_init(self.0.make_tls)),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| FetchError::NoHost)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        get(tls.map_err(FetchError::Tls)?, url, authority.as_str()).await
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
    let trusted = roots(path).await.map_err(|error| FetchError::CaFile {
        path: path.to_owned(),
        error,
    })?;
    let config = ClientConfig::builder().with_root_certificates(trusted);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Sends one request and reads its answer.
async fn get<S>(stream: S, url: &Uri, host: &str) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("curfew/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a URL's path and host are valid in a request");
    let (_, body) = exchange(stream, request, MAX_BYTES, |status| match status {
        StatusCode::OK => Ok(()),
        // 304 is not a redirect. The request had no condition, so the answer is a fault of the
        // server.
        StatusCode::NOT_MODIFIED => Err(FetchError::Status(status)),
        _ if status.is_redirection() => Err(FetchError::Redirect(status)),
        _ => Err(FetchError::Status(status)),
    })
    .await?;
    Ok(body)
}
