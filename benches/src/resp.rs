//! A blocking connection to Redis for one caller.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use redis::{Client, Cmd, FromRedisValue as _, IntoConnectionInfo as _, RedisResult, Value};

/// Deadline for a connection to Redis and for an answer. It is long, because the deletion of
/// millions of keys is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to Redis.
pub struct Resp(redis::Connection);

impl std::fmt::Debug for Resp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resp").finish_non_exhaustive()
    }
}

impl Resp {
    /// Connects to `host:port`.
    ///
    /// # Errors
    ///
    /// The address is malformed or refuses the connection.
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        let address = format!("redis://{address}").into_connection_info();
        let address = address.context("address of redis")?;
        // By default, the library first sends its own name to Redis. With this setting, the
        // connection sends only the caller's commands.
        let settings = address.redis_settings().clone().set_skip_set_lib_name();
        let connection = Client::open(address.set_redis_settings(settings))?
            .get_connection_with_timeout(PATIENCE)
            .context("connect to redis")?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(connection))
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// Redis refuses the command or does not answer.
    pub fn call(&mut self, words: &[impl AsRef<[u8]>]) -> anyhow::Result<String> {
        self.send(words)?;
        self.receive()
    }

    /// Sends a command. A later [receive](Resp::receive) returns its reply.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) -> anyhow::Result<()> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let packed = command.get_packed_command();
        self.0.send_packed_command(&packed).context("send to redis")
    }

    /// Receives the next reply as text: a status, a number, or a string. Null is the empty text.
    ///
    /// # Errors
    ///
    /// The reply is an error or an array, or does not arrive.
    pub fn receive(&mut self) -> anyhow::Result<String> {
        let mut read = || -> RedisResult<String> {
            match self.0.recv_response()?.extract_error()? {
                Value::Nil => Ok(String::new()),
                value => String::from_redis_value(value).map_err(Into::into),
            }
        };
        read().map_err(|error| anyhow!("receive from redis: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    #[test]
    fn commands_are_sent_and_replies_of_every_form_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut resp = Resp::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server
            .write_all(b"+OK\r\n:42\r\n$3\r\na\r\n\r\n$-1\r\n-NOAUTH no\r\n*0\r\n")
            .unwrap();
        assert_eq!(resp.call(&["SET", "k", ""]).unwrap(), "OK");
        assert_eq!(resp.receive().unwrap(), "42");
        assert_eq!(resp.receive().unwrap(), "a\r\n");
        assert_eq!(resp.receive().unwrap(), "");
        assert!(resp.receive().unwrap_err().to_string().contains("NOAUTH"));
        assert!(resp.receive().is_err(), "an array is an error");
        let mut sent = [0; 26];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
