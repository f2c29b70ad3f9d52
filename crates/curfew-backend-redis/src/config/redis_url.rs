//! The URL of a Redis: its servers, its database and its credentials.

use std::fmt;
use std::path::Path;

use curfew_model::{Secret, percent_decode_str};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// The port of a server if the URL gives no port.
const DEFAULT_PORT: u16 = 6379;

/// The port of a sentinel if the URL gives no port.
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// A URL that may hold a password. `Debug` and serialization leave out the user, the password and
/// the query.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisUrl(String);

/// A server's host name or address, and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisAddress {
    /// The host: a name, an IP address without brackets, or the absolute path of a Unix socket.
    pub host: String,
    /// The port; 0 for a Unix socket.
    pub port: u16,
}

impl RedisAddress {
    /// The path of the Unix socket; `None` for a TCP address.
    pub fn unix_path(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&self.host))
    }
}

/// The way to find the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTarget {
    /// The primary is this server.
    Standalone(RedisAddress),
    /// The sentinels map the primary's name to its address.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<RedisAddress>,
        /// The sentinels' name of the primary.
        primary: String,
    },
    /// The cluster's nodes report the primary of each slot.
    Cluster(Vec<RedisAddress>),
}

/// The parts of a [`RedisUrl`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServer {
    /// The way to find the primary.
    pub target: RedisTarget,
    /// True if connections are encrypted.
    pub tls: bool,
    /// The number of the database.
    pub database: i64,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

/// The reason why a URL is invalid. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// The scheme is unknown.
    #[error(
        "must start with redis://, redis+sentinel://, redis+cluster:// or redis+unix://; for TLS write rediss in place of redis, except for a Unix socket"
    )]
    Scheme,
    /// The URL has a query.
    #[error(
        "must not have a query: set the options by the other keys of backend.redis; write a ? in a password as %3F"
    )]
    Query,
    /// The URL has a fragment, or a password that contains `#`.
    #[error("must not contain #: write a # in a password as %23")]
    Fragment,
    /// The URL names no server, or an invalid server.
    #[error("must name each server as host:port")]
    Host,
    /// The URL names several servers, but its scheme allows only one server.
    #[error("names several servers: use redis+cluster:// or redis+sentinel://")]
    Several,
    /// The sentinels' name of the primary is missing.
    #[error("must end with /name, the sentinels' name of the primary")]
    Primary,
    /// The database is not a number, or the URL of a cluster names a database.
    #[error(
        "must end with the number of a database or without one; the URL of a cluster must not have one"
    )]
    Database,
    /// The URL of a Unix socket has no absolute path.
    #[error("must have an absolute path, as in redis+unix:///run/redis/redis.sock")]
    UnixPath,
    /// The user or the password is not UTF-8 after percent-decoding.
    #[error("has a user or password that is not percent-encoded UTF-8")]
    Credentials,
}

impl RedisUrl {
    /// Wraps a URL without checking it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Parses the URL.
    ///
    /// # Errors
    ///
    /// The first problem of the URL.
    pub fn parse(&self) -> Result<RedisServer, RedisUrlError> {
        let (scheme, rest) = self.0.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (transport, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match transport {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        match rest.find(['?', '#']).map(|at| rest.as_bytes()[at]) {
            Some(b'#') => return Err(RedisUrlError::Fragment),
            Some(_) => return Err(RedisUrlError::Query),
            None => {}
        }
        // The split is at the last `@`, because a password may contain an unescaped `@`.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (username, password) = parse_credentials(credentials)?;
        if scheme == "redis+unix" {
            let host = unescape(rest)?;
            if !host.starts_with('/') || host.len() < 2 {
                return Err(RedisUrlError::UnixPath);
            }
            return Ok(RedisServer {
                target: RedisTarget::Standalone(RedisAddress { host, port: 0 }),
                tls,
                database: 0,
                username,
                password,
            });
        }
        let (target, database) = match kind {
            "" => {
                let address = match parse_addresses(hosts, DEFAULT_PORT)?.as_slice() {
                    [only] => only.clone(),
                    _ => return Err(RedisUrlError::Several),
                };
                (RedisTarget::Standalone(address), parse_database(path)?)
            }
            "sentinel" => {
                let (primary, database) = path.split_once('/').unwrap_or((path, ""));
                if primary.is_empty() {
                    return Err(RedisUrlError::Primary);
                }
                let target = RedisTarget::Sentinel {
                    sentinels: parse_addresses(hosts, DEFAULT_SENTINEL_PORT)?,
                    primary: unescape(primary)?,
                };
                (target, parse_database(database)?)
            }
            "cluster" => match parse_database(path)? {
                0 => (
                    RedisTarget::Cluster(parse_addresses(hosts, DEFAULT_PORT)?),
                    0,
                ),
                _ => return Err(RedisUrlError::Database),
            },
            _ => return Err(RedisUrlError::Scheme),
        };
        Ok(RedisServer {
            target,
            tls,
            database,
            username,
            password,
        })
    }

    /// The URL without user, password and query.
    fn redacted(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (rest, query) = match rest.split_once('?') {
            Some((rest, _)) => (rest, "?[redacted]"),
            None => (rest, ""),
        };
        // The split is at the last `@`, because a password may contain an unescaped `@`.
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://[redacted]@{host}{query}"),
            None => format!("{scheme}://{rest}{query}"),
        }
    }
}

/// Splits and decodes `user:password`. An empty part counts as absent.
fn parse_credentials(
    credentials: Option<&str>,
) -> Result<(Option<String>, Option<Secret>), RedisUrlError> {
    let Some(credentials) = credentials else {
        return Ok((None, None));
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let given = |text: &str| match text {
        "" => Ok(None),
        text => unescape(text).map(Some),
    };
    Ok((given(user)?, given(password)?.map(Secret::new)))
}

/// Parses a list of servers separated by commas.
fn parse_addresses(hosts: &str, default_port: u16) -> Result<Vec<RedisAddress>, RedisUrlError> {
    hosts
        .split(',')
        .map(|host| parse_address(host, default_port))
        .collect()
}

/// Parses `host`, `host:port` or `[IPv6]:port`.
fn parse_address(text: &str, default_port: u16) -> Result<RedisAddress, RedisUrlError> {
    let (host, port) = match text.strip_prefix('[') {
        // An IPv6 address in brackets.
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(RedisUrlError::Host)?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or(RedisUrlError::Host)?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(RedisUrlError::Host);
    }
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| RedisUrlError::Host)?,
    };
    Ok(RedisAddress {
        host: host.to_owned(),
        port,
    })
}

/// Parses the number of a database. An empty text is 0.
fn parse_database(path: &str) -> Result<i64, RedisUrlError> {
    match path {
        "" => Ok(0),
        number => number
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or(RedisUrlError::Database),
    }
}

/// Decodes percent-encoding (RFC 3986 §2.1).
fn unescape(text: &str) -> Result<String, RedisUrlError> {
    let decoded = percent_decode_str(text).ok_or(RedisUrlError::Credentials)?;
    Ok(decoded.into_owned())
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unix_path().is_some() {
            write!(f, "unix:{}", self.host)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> RedisAddress {
        RedisAddress {
            host: host.to_owned(),
            port,
        }
    }

    fn parse(url: &str) -> Result<RedisServer, RedisUrlError> {
        RedisUrl::new(url).parse()
    }

    #[test]
    fn a_url_says_where_and_how() {
        let plain = |target| RedisServer {
            target,
            tls: false,
            database: 0,
            username: None,
            password: None,
        };
        let local = RedisTarget::Standalone(address("127.0.0.1", 6379));
        for (url, expect) in [
            ("redis://127.0.0.1:6379", plain(local.clone())),
            ("redis://127.0.0.1", plain(local.clone())),
            ("redis://127.0.0.1:6379/", plain(local.clone())),
            (
                "rediss://me:a%40%3Ab@r.example:7000/3",
                RedisServer {
                    target: RedisTarget::Standalone(address("r.example", 7000)),
                    tls: true,
                    database: 3,
                    username: Some("me".to_owned()),
                    password: Some(Secret::new("a@:b")),
                },
            ),
            (
                "redis://:p@ss@[::1]:7000",
                RedisServer {
                    password: Some(Secret::new("p@ss")),
                    ..plain(RedisTarget::Standalone(address("::1", 7000)))
                },
            ),
            (
                "redis+sentinel://a:1,b/main/2",
                RedisServer {
                    database: 2,
                    ..plain(RedisTarget::Sentinel {
                        sentinels: vec![address("a", 1), address("b", 26379)],
                        primary: "main".to_owned(),
                    })
                },
            ),
            (
                "redis+unix://me:x@/run/a%20b/redis.sock",
                RedisServer {
                    username: Some("me".to_owned()),
                    password: Some(Secret::new("x")),
                    ..plain(RedisTarget::Standalone(address("/run/a b/redis.sock", 0)))
                },
            ),
            (
                "rediss+cluster://a:1,[::2]",
                RedisServer {
                    tls: true,
                    ..plain(RedisTarget::Cluster(vec![
                        address("a", 1),
                        address("::2", 6379),
                    ]))
                },
            ),
        ] {
            assert_eq!(parse(url), Ok(expect), "{url}");
        }
    }

    #[test]
    fn a_bad_url_is_told_what_is_wrong_with_it() {
        for (url, expect) in [
            ("", RedisUrlError::Scheme),
            ("127.0.0.1:6379", RedisUrlError::Scheme),
            ("http://a", RedisUrlError::Scheme),
            ("redis+ring://a", RedisUrlError::Scheme),
            ("redis+unix://redis.sock", RedisUrlError::UnixPath),
            ("redis+unix://", RedisUrlError::UnixPath),
            ("rediss+unix:///run/redis.sock", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Host),
            ("redis://a:x", RedisUrlError::Host),
            ("redis://[::1", RedisUrlError::Host),
            ("redis://a,b", RedisUrlError::Several),
            ("redis://a/x", RedisUrlError::Database),
            ("redis://a/-1", RedisUrlError::Database),
            ("redis+cluster://a/1", RedisUrlError::Database),
            ("redis+sentinel://a", RedisUrlError::Primary),
            ("redis://a?protocol=resp3", RedisUrlError::Query),
            ("redis://u:p#w@a", RedisUrlError::Fragment),
            ("redis://u:%zz@a", RedisUrlError::Credentials),
            ("redis://u:%+1@a", RedisUrlError::Credentials),
        ] {
            assert_eq!(parse(url), Err(expect), "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, expect) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://u:canary@h:1/0", "rediss://[redacted]@h:1/0"),
            ("redis://u:can@nary@h", "redis://[redacted]@h"),
            ("redis://h?password=canary", "redis://h?[redacted]"),
            (
                "redis://:canary@h?x=canary",
                "redis://[redacted]@h?[redacted]",
            ),
            ("u:canary@h", "://[redacted]@h"),
        ] {
            assert_eq!(format!("{:?}", RedisUrl::new(url)), expect);
        }
    }
}
