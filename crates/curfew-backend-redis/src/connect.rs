//! New connections to Redis: address, TLS, credentials, timeouts.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{Secret, env};
use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisFuture, RedisResult, TlsCertificates, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{RedisAddress, RedisConfig, RedisServer};
use crate::fault::Fault;

/// Maximum number of commands that wait to be written to one connection.
const PIPELINE_BUFFER: usize = 1024;

/// The choice of credentials for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// The credentials for Redis.
    Server,
    /// The credentials for the sentinels.
    Sentinel,
}

/// A replacement for TCP, used by tests and simulations.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to the server at this address.
    fn dial<'a>(&'a self, address: &'a RedisAddress) -> Dialing<'a>;
}

/// A connection that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// The bytes of a connection, in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that its clones share. It is closed when the last clone is dropped, even if replies
/// are pending.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    shared: MultiplexedConnection,
    /// Stops the task that runs a connection made by [`Dial`]. `None` for a connection that the
    /// redis crate makes, because the redis crate stops its own tasks.
    _driver: Option<Arc<DropGuard>>,
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.shared.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.shared.req_packed_commands(cmd, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.shared.get_db()
    }
}

impl Connection {
    /// Sends commands in one write. Returns `count` replies, starting with the reply at the index
    /// `offset`.
    pub(crate) async fn send_packed_commands(
        &mut self,
        cmd: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.shared.send_packed_commands(cmd, offset, count).await
    }
}

/// Makes connections according to the settings.
#[derive(Debug)]
pub(crate) struct Connector {
    /// The settings of connections.
    config: RedisConfig,
    /// The server from the URL.
    server: RedisServer,
    /// A replacement for TCP; `None` uses TCP.
    dial: Option<Arc<dyn Dial>>,
}

impl Connector {
    /// Creates a connector. Connections go through `dial`, or over TCP if `dial` is `None`.
    pub(crate) fn new(
        config: RedisConfig,
        server: RedisServer,
        dial: Option<Arc<dyn Dial>>,
    ) -> Self {
        Self {
            config,
            server,
            dial,
        }
    }

    /// The server from the URL.
    pub(crate) fn server(&self) -> &RedisServer {
        &self.server
    }

    /// Maximum time for an answer of Redis.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Makes a connection on which each command must be answered within [`Connector::timeout`].
    ///
    /// The connection's task calls `pushes` for each push, in the order in which pushes and replies
    /// arrive. A caller that has a reply thus knows that every earlier push was handled.
    pub(crate) async fn connect(
        &self,
        address: &RedisAddress,
        login: Login,
        pushes: Option<impl AsyncPushSender>,
    ) -> Result<Connection, Fault> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        let connecting = async {
            match &self.dial {
                Some(dial) => self.dialed(&**dial, address, login, config).await,
                None => {
                    let client = self.client(address, login)?;
                    let connecting = client.get_multiplexed_async_connection_with_config(&config);
                    Ok(Connection {
                        shared: connecting.await?,
                        _driver: None,
                    })
                }
            }
        };
        // The deadline includes the authentication.
        time::timeout(self.config.connect_timeout, connecting)
            .await
            .map_err(|_| Fault::Connect(address.to_string()))?
    }

    /// Makes a connection over the stream that `dial` provides.
    #[expect(
        clippy::disallowed_methods,
        reason = "the redis crate spawns the tasks of its own connections in the same way"
    )]
    async fn dialed(
        &self,
        dial: &dyn Dial,
        address: &RedisAddress,
        login: Login,
        config: AsyncConnectionConfig,
    ) -> Result<Connection, Fault> {
        let stream = dial.dial(address).await.map_err(RedisError::from)?;
        let login = self.login(login)?;
        let (shared, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await?;
        let gone = CancellationToken::new();
        let dropped = gone.clone();
        tokio::spawn(env::task(async move {
            tokio::select! {
                () = dropped.cancelled() => {}
                () = driver => {}
            }
        }));
        Ok(Connection {
            shared,
            _driver: Some(Arc::new(gone.drop_guard())),
        })
    }

    /// A client of the redis crate for this address. The client makes no connection by itself.
    fn client(&self, address: &RedisAddress, login: Login) -> Result<Client, Fault> {
        let (host, port) = (address.host.clone(), address.port);
        let target = match (address.unix_path(), self.server.tls) {
            (Some(path), _) => ConnectionAddr::Unix(path.into()),
            (None, false) => ConnectionAddr::Tcp(host, port),
            (None, true) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let info: ConnectionInfo = target
            .into_connection_info()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(self.login(login)?);
        if self.server.tls {
            Ok(Client::build_with_tls(info, self.certificates()?)?)
        } else {
            Ok(Client::open(info)?)
        }
    }

    /// The credentials for a new connection.
    fn login(&self, login: Login) -> Result<RedisConnectionInfo, Fault> {
        let config = &self.config;
        let (username, password, file) = match login {
            Login::Server => (
                config.username.as_ref().or(self.server.username.as_ref()),
                config.password.as_ref().or(self.server.password.as_ref()),
                config.password_file.as_deref(),
            ),
            Login::Sentinel => (
                config.sentinel_username.as_ref(),
                config.sentinel_password.as_ref(),
                config.sentinel_password_file.as_deref(),
            ),
        };
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if login == Login::Server {
            info = info.set_db(self.server.database);
        }
        if let Some(username) = username {
            info = info.set_username(username);
        }
        // The file is read for each connection, so that a changed password needs no restart.
        let read = file.map(read_secret).transpose()?;
        if let Some(password) = read.as_ref().or(password) {
            info = info.set_password(password.expose());
        }
        Ok(info)
    }

    /// The certificates of the settings, read from their files.
    fn certificates(&self) -> Result<TlsCertificates, Fault> {
        let config = &self.config;
        let client_tls = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: read(cert)?,
                client_key: read(key)?,
            }),
            _ => None,
        };
        Ok(TlsCertificates {
            client_tls,
            root_cert: config.ca_file.as_deref().map(read).transpose()?,
        })
    }
}

/// Reads a file named in the settings.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| Fault::File {
        path: path.display().to_string(),
        error,
    })
}

/// Reads a secret from a file, without the line breaks at its end.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, Fault> {
    let text = String::from_utf8(read(path)?).map_err(|_| Fault::File {
        path: path.display().to_string(),
        error: std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is not UTF-8"),
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: the host name was resolved only once, so the node kept connecting to a primary
    /// that was replaced.
    #[test]
    fn a_name_stays_a_name_until_a_connection_is_made() {
        let address = RedisAddress {
            host: "primary.example.com".to_owned(),
            port: 6380,
        };
        for tls in ["redis", "rediss"] {
            let url = format!("{tls}://primary.example.com:6380");
            let server = crate::RedisUrl::new(url).parse().unwrap();
            let connector = Connector::new(RedisConfig::default(), server, None);
            let client = connector.client(&address, Login::Server).unwrap();
            match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    assert_eq!((host.as_str(), *port), ("primary.example.com", 6380));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
