//! The gateway's address.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// A `ws://` URL with its resolved address.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Address to connect to.
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header.
    pub(crate) host: String,
    /// Path for the request line.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("ws://") else {
            return Err(
                "must start with ws://; put no TLS between a benchmark and its server".to_owned(),
            );
        };
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) => (host, format!("/{path}")),
            None => (rest, "/".to_owned()),
        };
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| error.to_string())?
            .next()
            .ok_or("the name has no address")?;
        Ok(Self {
            address,
            host: host.to_owned(),
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target: Target = "ws://127.0.0.1:8080/ws?x=1".parse().unwrap();
        assert_eq!(target.address, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!(
            (target.host.as_str(), target.path.as_str()),
            ("127.0.0.1:8080", "/ws?x=1")
        );
        let target: Target = "ws://127.0.0.1".parse().unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (80, "/"));
        assert!("http://127.0.0.1".parse::<Target>().is_err());
    }
}
