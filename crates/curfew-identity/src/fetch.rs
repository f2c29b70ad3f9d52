//! One small document from a provider. Not a browser: no redirects, no cookies, no proxies, and
//! nothing that is larger or slower than such a document is.

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

/// The largest document that is read.
const MAX_BYTES: usize = 256 * 1024;

/// Why a document was not had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL has no host.
    #[error("the URL names no host")]
    NoHost,
    /// No connection.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// The certificates to trust cannot be had.
    #[error("ca_file {}: {error}", path.display())]
    CaFile {
        /// The file that should have them.
        path: PathBuf,
        /// The reason, for operators.
        error: io::Error,
    },
    /// The server's certificate is not good for its name, or it speaks no TLS.
    #[error("TLS: {0}{advice}", advice = advice(.0))]
    Tls(#[source] io::Error),
    /// The server did not keep to HTTP, or its answer is larger than 256 KiB.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A redirect, which is not followed: it would say where keys come from instead of the
    /// configuration.
    #[error("redirects with {0}: configure the URL that it leads to")]
    Redirect(StatusCode),
    /// Anything but 200.
    #[error("answers {0}")]
    Status(StatusCode),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl FetchError {
    /// A name for the fault, of few.
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

/// The way to mend a fault of TLS whose words do not say it; empty for the others.
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
    /// One that waits for each document at most `timeout`, and trusts whom `tls` trusts; that is
    /// asked when the first https URL comes.
    pub fn new(timeout: Duration, tls: fn() -> Arc<ClientConfig>) -> Self {
        Self(Arc::new(Inner {
            timeout,
            make_tls: tls,
            tls: OnceLock::new(),
        }))
    }

    /// The document at `url`, which must have passed [`curfew_auth::check_url`]. The certificates in
    /// `ca_file` alone are trusted, if there is one.
    ///
    /// # Errors
    ///
    /// Anything but a small document with status 200 in time.
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

/// A client that trusts the certificates in a file and no others.
async fn trusting(path: &Path) -> Result<Arc<ClientConfig>, FetchError> {
    let trusted = roots(path).await.map_err(|error| FetchError::CaFile {
        path: path.to_owned(),
        error,
    })?;
    let config = ClientConfig::builder().with_root_certificates(trusted);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// One request and its answer.
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
        .expect("a path and a host of a URL are good in a request");
    let (_, body) = exchange(stream, request, MAX_BYTES, |status| match status {
        StatusCode::OK => Ok(()),
        // It was not asked for: no answer is kept here that could be as it was.
        StatusCode::NOT_MODIFIED => Err(FetchError::Status(status)),
        _ if status.is_redirection() => Err(FetchError::Redirect(status)),
        _ => Err(FetchError::Status(status)),
    })
    .await?;
    Ok(body)
}
