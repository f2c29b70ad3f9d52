//! Parsers for the headers `X-Forwarded-For` and `Forwarded` (RFC 7239), which a stranger may have
//! written.
//!
//! Parsing takes time linear in the input and never panics. An entry that is not an address yields
//! `None`.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the addresses that the value of one `X-Forwarded-For` header lists, in order.
pub fn addresses(line: &[u8]) -> Vec<Option<IpAddr>> {
    let entries = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let entries = entries.filter(|entry| !entry.is_empty());
    entries.map(node).collect()
}

/// Returns the addresses in the `for` parameters of the value of one `Forwarded` header, in order.
/// An element without `for` yields `None`.
pub fn nodes(line: &[u8]) -> Vec<Option<IpAddr>> {
    let elements = split(line, b',').into_iter().map(<[u8]>::trim_ascii);
    let elements = elements.filter(|element| !element.is_empty());
    elements.map(described).collect()
}

/// Returns the address in the `for` parameter of one element of `Forwarded`; `None` if the element
/// does not have exactly one `for` parameter, or if its value is not an address.
fn described(element: &[u8]) -> Option<IpAddr> {
    let mut found = split(element, b';').into_iter().filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        let is_for = name.trim_ascii().eq_ignore_ascii_case(b"for");
        is_for.then(|| value.trim_ascii())
    });
    match (found.next(), found.next()) {
        (Some(value), None) => node(&unquoted(value)),
        _ => None,
    }
}

/// Splits `bytes` at each byte `at` that is not within a quoted string.
fn split(bytes: &[u8], at: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    bytes
        .split(|byte| {
            let splits = !quoted && *byte == at;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            splits
        })
        .collect()
}

/// Returns the value of a parameter. The value is a token (RFC 9110 §5.6.2), or a quoted string
/// whose quotes are removed.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return value.to_vec();
    };
    let mut escaped = false;
    let mut text = inner.to_vec();
    text.retain(|byte| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    });
    text
}

/// Parses an address with or without a port. An IPv6 address with a port must be in brackets.
fn node(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        let is_end = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().ok()?;
        is_end.then_some(IpAddr::V6(address))
    } else if let Ok(address) = text.parse() {
        Some(address)
    } else {
        let (address, port) = text.split_once(':')?;
        let address = address.parse().ok().filter(IpAddr::is_ipv4);
        address.filter(|_| is_port(port))
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(addresses: Vec<Option<IpAddr>>) -> String {
        let shown = addresses.into_iter().map(|address| match address {
            Some(address) => address.to_string(),
            None => "?".to_owned(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        for (line, expect) in [
            ("203.0.113.1", "203.0.113.1"),
            (" 203.0.113.1 ,\t10.0.0.1", "203.0.113.1 10.0.0.1"),
            ("203.0.113.1:4711", "203.0.113.1"),
            (
                "2001:db8::1, [2001:db8::2], [2001:db8::3]:80",
                "2001:db8::1 2001:db8::2 2001:db8::3",
            ),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            (",,", ""),
            ("", ""),
            (
                "unknown, 1.2.3, 1.2.3.4:, [::1, [::1]x, [::1]:, 1.2.3.4:x, \u{fc}",
                "? ? ? ? ? ? ? ?",
            ),
        ] {
            assert_eq!(shown(addresses(line.as_bytes())), expect, "{line}");
        }
        assert_eq!(shown(addresses(b"\xff, 10.0.0.1")), "? 10.0.0.1");
    }

    #[test]
    fn what_a_request_was_forwarded_for_is_read_as_rfc_7239_has_it() {
        for (line, expect) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            (
                "For=192.0.2.43, for=\"[2001:db8:cafe::17]:4711\"",
                "192.0.2.43 2001:db8:cafe::17",
            ),
            ("for=\"192.0.2.4\\3\"", "192.0.2.43"),
            ("by=\"a,for=1.2.3.4\";for=192.0.2.1", "192.0.2.1"),
            ("host=\"a\\\",for=1.2.3.4;\";for=192.0.2.1", "192.0.2.1"),
            ("for=unknown", "?"),
            ("for=_hidden, for=\"_SEVKISEK\"", "? ?"),
            ("proto=https", "?"),
            ("for=1.2.3.4;for=5.6.7.8", "?"),
            ("for", "?"),
            ("for=\"1.2.3.4", "?"),
            ("", ""),
        ] {
            assert_eq!(shown(nodes(line.as_bytes())), expect, "{line}");
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        for first in 0..=255_u8 {
            for second in [b'"', b'\\', b',', b';', b'=', b'[', b':', 0, 255] {
                let bytes = [b'f', b'o', b'r', b'=', first, second, first];
                for cut in 0..=bytes.len() {
                    nodes(&bytes[..cut]);
                    addresses(&bytes[cut..]);
                }
            }
        }
    }
}
