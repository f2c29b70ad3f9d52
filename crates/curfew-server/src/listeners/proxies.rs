//! Determines the client behind a load balancer. The load balancer states the client's address by
//! the PROXY protocol, `X-Forwarded-For` or `Forwarded`. `server.trusted_proxies` lists the trusted
//! load balancers.

pub(crate) mod forwarded;
pub(crate) mod network;
pub(crate) mod protocol;

use std::io;
use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use network::Network;
use protocol::{Header, Unparsed};

/// The header to which each load balancer appends the address of its peer. The load balancer
/// nearest to this node has appended the last address.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The load balancers in front of the public listener that are trusted to state their clients'
/// addresses.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Vec<Network>,
    protocol: bool,
}

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The client's address. If no trusted header names the client, this is the address of the
    /// peer, which may be a load balancer.
    Known(IpAddr),
    /// The address of the peer, because the request's headers name two different clients. All such
    /// requests from one peer count as requests of one client. Otherwise a client could add a
    /// header to evade the limits per address.
    Disputed(IpAddr),
}

/// The reasons that a PROXY header was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The connection does not begin with a valid PROXY header.
    #[error("{0}")]
    Malformed(&'static str),
    /// The connection is lost, or closed by the peer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Proxies {
    /// Parses the entries of `server.trusted_proxies`. `protocol` is `server.proxy_protocol`. The
    /// error lists the index and the fault of every invalid entry.
    pub fn parse(trusted: &[String], protocol: bool) -> Result<Self, Vec<(usize, String)>> {
        let mut networks = Vec::with_capacity(trusted.len());
        let mut problems = Vec::new();
        for (at, entry) in trusted.iter().enumerate() {
            match Network::parse(entry) {
                Ok(network) => networks.push(network),
                Err(problem) => problems.push((at, format!("{entry:?} {problem}"))),
            }
        }
        match problems.is_empty() {
            true => Ok(Self {
                trusted: networks,
                protocol,
            }),
            false => Err(problems),
        }
    }

    /// True if `peer` is trusted to state its clients' addresses.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// True if connections of `peer` must begin with a PROXY header. If `server.trusted_proxies` is
    /// empty, this applies to all connections.
    pub(crate) fn speaks_protocol(&self, peer: IpAddr) -> bool {
        self.protocol && (self.trusted.is_empty() || self.trusts(peer))
    }

    /// Returns the client of a request from `peer`: the nearest address in the request's headers
    /// that is not a trusted proxy's. If `X-Forwarded-For` and `Forwarded` disagree, the client has
    /// added the header that its proxy does not write. Neither header is then trusted, and `peer`
    /// counts as the client.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        if !self.trusts(peer) {
            return Client::Known(peer);
        }
        let values = |name| {
            let values = headers.get_all(name).iter();
            values.map(http::HeaderValue::as_bytes)
        };
        let listed = values(X_FORWARDED_FOR).flat_map(forwarded::addresses);
        let listed: Vec<_> = listed.collect();
        let described = values(FORWARDED).flat_map(forwarded::nodes);
        let described: Vec<_> = described.collect();
        match (listed.is_empty(), described.is_empty()) {
            (true, true) => Client::Known(peer),
            (false, true) => Client::Known(self.nearest(peer, &listed)),
            (true, false) => Client::Known(self.nearest(peer, &described)),
            (false, false) => {
                let client = self.nearest(peer, &listed);
                match client == self.nearest(peer, &described) {
                    true => Client::Known(client),
                    false => Client::Disputed(peer),
                }
            }
        }
    }

    fn nearest(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut client = peer;
        for hop in hops.iter().rev() {
            match hop {
                Some(address) if self.trusts(client) => client = *address,
                _ => break,
            }
        }
        client
    }
}

/// Reads the PROXY header at the beginning of a connection, and no byte after the header. The
/// result is the client's address; `None` if the header states none, as in a health check.
pub(crate) async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = Vec::new();
    let mut piece = [0; 256];
    loop {
        // Bytes are peeked first, so that the bytes after the header stay in the socket.
        let peeked = stream.peek(&mut piece).await?;
        if peeked == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let before = header.len();
        header.extend_from_slice(&piece[..peeked]);
        let (ours, parsed) = match protocol::parse(&header) {
            Ok(Header { bytes, source }) => (bytes - before, Some(source)),
            Err(Unparsed::Incomplete) => (peeked, None),
            Err(Unparsed::Malformed(why)) => return Err(HeaderError::Malformed(why)),
        };
        stream.read_exact(&mut piece[..ours]).await?;
        if let Some(source) = parsed {
            return Ok(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"].map(str::to_owned);
        let proxies = Proxies::parse(&trusted, false).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        match proxies.client(peer.parse().unwrap(), &map) {
            Client::Known(address) => address.to_string(),
            Client::Disputed(address) => format!("{address}?"),
        }
    }

    #[test]
    fn the_nearest_address_that_is_no_proxys_is_the_client() {
        let xff = "x-forwarded-for";
        for (peer, headers, expect) in [
            ("198.51.100.9", &[(xff, "203.0.113.1")][..], "198.51.100.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "203.0.113.1")], "203.0.113.1"),
            ("10.0.0.1", &[(xff, "1.2.3.4, 203.0.113.1")], "203.0.113.1"),
            (
                "10.0.0.1",
                &[(xff, "1.2.3.4, 203.0.113.1, 10.9.9.9")],
                "203.0.113.1",
            ),
            (
                "10.0.0.1",
                &[(xff, "1.2.3.4"), (xff, "203.0.113.1")],
                "203.0.113.1",
            ),
            ("10.0.0.1", &[(xff, "10.0.0.7, 10.0.0.8")], "10.0.0.7"),
            ("10.0.0.1", &[(xff, "1.2.3.4, nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=203.0.113.1;proto=https")],
                "203.0.113.1",
            ),
            (
                "2001:db8::9",
                &[("forwarded", "for=\"[2001:db9::1]:4711\"")],
                "2001:db9::1",
            ),
            ("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=203.0.113.1"), (xff, "203.0.113.1")],
                "203.0.113.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.2.3.4"), (xff, "203.0.113.1")],
                "10.0.0.1?",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "proto=https"), (xff, "203.0.113.1")],
                "10.0.0.1?",
            ),
            ("::ffff:10.0.0.1", &[(xff, "203.0.113.1")], "203.0.113.1"),
        ] {
            assert_eq!(client(peer, headers), expect, "{peer} {headers:?}");
        }
    }
}
