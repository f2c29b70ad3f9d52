//! The parser for the PROXY protocol, versions 1 and 2. A load balancer sends a PROXY header before
//! the bytes of its client.
//!
//! Parsing never panics, and needs at most the first [`MAX_BYTES`] bytes of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The beginning of a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Number of bytes before the addresses in a header of version 2.
const FIXED_BYTES: usize = 16;

/// Maximum length of a header of version 1 in bytes, with its line break.
const MAX_LINE_BYTES: usize = 107;

/// Maximum length of a header of version 2 in bytes. It has room for the addresses, and for the
/// further fields that some load balancers add.
const MAX_BYTES: usize = 2048;

/// A PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The header's length in bytes.
    pub bytes: usize,
    /// The client's address; `None` for the command LOCAL, and for an unknown or unsupported
    /// address family.
    pub source: Option<SocketAddr>,
}

/// The reasons that no header was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// The bytes are the beginning of a header, and more bytes are needed.
    Incomplete,
    /// The bytes are not a valid header, and further bytes cannot complete them.
    Malformed(&'static str),
}

/// Parses the header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Header, Unparsed> {
    let begins = |with: &[u8]| {
        let common = bytes.len().min(with.len());
        bytes[..common] == with[..common]
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(b"PROXY ") {
        line(bytes)
    } else {
        Err(Unparsed::Malformed(
            "the connection does not begin with a PROXY header",
        ))
    }
}

/// Parses a header of version 1, such as `PROXY TCP4 203.0.113.1 192.0.2.1 4711 443`.
fn line(bytes: &[u8]) -> Result<Header, Unparsed> {
    let bad = Unparsed::Malformed("the PROXY header of version 1 is malformed");
    let within = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return Err(match bytes.len() < MAX_LINE_BYTES {
            true => Unparsed::Incomplete,
            false => bad,
        });
    };
    let text = within[..end].strip_suffix(b"\r").ok_or(bad)?;
    let text = std::str::from_utf8(text).map_err(|_| bad)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    let header = |source| Header {
        bytes: end + 1,
        source,
    };
    if family == Some("UNKNOWN") {
        return Ok(header(None));
    }
    let mut address = || words.next()?.parse::<IpAddr>().ok();
    let (source, destination) = (address().ok_or(bad)?, address().ok_or(bad)?);
    let mut port = || {
        let digits = words.next()?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    let (source_port, _) = (port().ok_or(bad)?, port().ok_or(bad)?);
    let is_family = match family {
        Some("TCP4") => source.is_ipv4() && destination.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    match is_family && words.next().is_none() {
        true => Ok(header(Some(SocketAddr::new(
            source.to_canonical(),
            source_port,
        )))),
        false => Err(bad),
    }
}

/// Parses a header of version 2.
fn binary(bytes: &[u8]) -> Result<Header, Unparsed> {
    let bad = Unparsed::Malformed("the PROXY header of version 2 is malformed");
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Err(Unparsed::Incomplete);
    };
    let [.., command, family, high, low] = *fixed;
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_BYTES {
        return Err(bad);
    }
    let body = bytes.get(FIXED_BYTES..length).ok_or(Unparsed::Incomplete)?;
    let source = match (command, family) {
        // The command LOCAL: the load balancer has opened the connection for itself, such as for a
        // health check.
        (0x20, _) => None,
        (0x21, 0x11) => {
            let body: &[u8; 12] = body.first_chunk().ok_or(bad)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body;
            let address = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
            Some(SocketAddr::new(address, u16::from_be_bytes([high, low])))
        }
        (0x21, 0x21) => {
            let body: &[u8; 36] = body.first_chunk().ok_or(bad)?;
            let address: &[u8; 16] = body.first_chunk().ok_or(bad)?;
            let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
            let port = u16::from_be_bytes([body[32], body[33]]);
            Some(SocketAddr::new(address, port))
        }
        // The family is unspecified, UDP or Unix. Such a header has no address of a TCP client.
        (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Err(bad),
    };
    Ok(Header {
        bytes: length,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn source(bytes: &[u8]) -> Option<String> {
        let whole = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        let header = parse(&whole).unwrap();
        assert_eq!(header.bytes, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..cut]),
                Err(Unparsed::Incomplete),
                "cut at {cut}"
            );
        }
        header.source.map(|source| source.to_string())
    }

    #[test]
    fn headers_of_both_versions_are_read_wherever_they_are_cut() {
        let v6 = [
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0; 16],
            &[0x12, 0x67, 0, 80],
        ]
        .concat();
        let v4 = [203, 0, 113, 1, 192, 0, 2, 1, 0x12, 0x67, 1, 187];
        let with_tlv = [&v4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        for (bytes, expect) in [
            (
                b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n".to_vec(),
                Some("203.0.113.1:4711"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec(),
                Some("[2001:db8::1]:4711"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (of_version_2(0x21, 0x11, &v4), Some("203.0.113.1:4711")),
            (
                of_version_2(0x21, 0x11, &with_tlv),
                Some("203.0.113.1:4711"),
            ),
            (of_version_2(0x21, 0x21, &v6), Some("[2001:db8::1]:4711")),
            (of_version_2(0x20, 0x00, &[]), None),
            (of_version_2(0x20, 0x11, &v4), None),
            (of_version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            assert_eq!(source(&bytes).as_deref(), expect);
        }
    }

    #[test]
    fn what_is_no_header_is_malformed_at_once() {
        let long = format!("PROXY TCP4 {}", "1".repeat(100));
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\n",
            b"PROXY TCP4 203.0.113.1 192.0.2.1 4711\r\n",
            b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443 1\r\n",
            b"PROXY TCP4 203.0.113.1 192.0.2.1 +711 443\r\n",
            b"PROXY TCP4 203.0.113.1 192.0.2.1 99999 443\r\n",
            b"PROXY TCP6 203.0.113.1 192.0.2.1 4711 443\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4711 443\r\n",
            b"PROXY UDP4 203.0.113.1 192.0.2.1 4711 443\r\n",
            b"PROXY  TCP4 203.0.113.1 192.0.2.1 4711 443\r\n",
            b"PROXY \xff\r\n",
            long.as_bytes(),
            &of_version_2(0x11, 0x11, &[0; 12]),
            &of_version_2(0x22, 0x11, &[0; 12]),
            &of_version_2(0x21, 0x11, &[0; 11]),
            &of_version_2(0x21, 0x21, &[0; 35]),
            &of_version_2(0x21, 0x99, &[0; 12]),
            &of_version_2(0x21, 0x11, &[0; 4096]),
        ] {
            assert!(
                matches!(parse(bytes), Err(Unparsed::Malformed(_))),
                "{bytes:?}"
            );
        }
    }
}
