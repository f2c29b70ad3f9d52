//! One small document from a provider. Not a browser: no redirects, no cookies, no proxies, and
//! nothing that is larger or slower than such a document is.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;

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
    /// The server's certificate is not good for its name, or it speaks no TLS.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// The server did not keep to HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A redirect, which is not followed: it would say where keys come from instead of the
    /// configuration.
    #[error("redirects with {0}: configure the URL that it leads to")]
    Redirect(StatusCode),
    /// Anything but 200.
    #[error("answers {0}")]
    Status(StatusCode),
    /// More than 256 KiB.
    #[error("answers with more than 256 KiB")]
    TooLarge,
    /// It broke off.
    #[error("the answer broke off")]
    Broken,
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
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

    /// The document at `url`, which must have passed [`curfew_auth::check_url`].
    ///
    /// # Errors
    ///
    /// Anything but a small document with status 200 in time.
    pub async fn get(&self, url: &Uri) -> Result<Bytes, FetchError> {
        let timeout = self.0.timeout;
        match time::timeout(timeout, self.get_unbounded(url)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(timeout)),
        }
    }

    async fn get_unbounded(&self, url: &Uri) -> Result<Bytes, FetchError> {
        let authority = url.authority().ok_or(FetchError::NoHost)?;
        let host = authority.host().trim_matches(['[', ']']);
        let https = url.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await;
        let tcp = tcp.map_err(FetchError::Connect)?;
        if !https {
            return exchange(tcp, url, authority.as_str()).await;
        }
        let config = self.0.tls.get_or_init(self.0.make_tls);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::NoHost)?;
        let tls = TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await;
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

/// One request and its answer.
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
    // The connection is driven here instead of in a task: nothing of it stays behind.
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        result = &mut answer => result,
        // Over, but what was received may still be read.
        _ = &mut connection => answer.await,
    }
}
