//! Headers that load balancers write before a client's bytes, and that strangers may forge.

mod forwarded;

use std::net::{IpAddr, SocketAddr};

use curfew_server::parsers::{Unparsed, addresses, nodes, parse};

/// Checks that bytes after a header do not change the header's meaning, and that a header is not
/// accepted before it is complete. The standard library gives the second opinion on the address in
/// version 1.
///
/// # Panics
///
/// The reader differs from the second opinion.
pub fn check_header(bytes: &[u8]) -> bool {
    let parsed = parse(bytes);
    match parsed {
        Ok(header) => {
            assert!(header.bytes <= bytes.len(), "longer than the bytes");
            let only = &bytes[..header.bytes];
            assert_eq!(parse(only), Ok(header), "by itself");
            let more = [only, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Ok(header), "with a request behind it");
            for end in 0..header.bytes {
                assert_eq!(
                    parse(&bytes[..end]),
                    Err(Unparsed::Incomplete),
                    "{end} bytes"
                );
            }
            if let (Some(source), Some(line)) = (header.source, only.strip_prefix(b"PROXY ")) {
                let text = String::from_utf8_lossy(line);
                let words: Vec<&str> = text.split_whitespace().collect();
                let opinion = words[1].parse::<IpAddr>().ok().zip(words[3].parse().ok());
                assert_eq!(Some(source), opinion.map(SocketAddr::from), "{text:?}");
            }
        }
        Err(Unparsed::Incomplete) => assert!(bytes.len() < 4096, "more is never enough"),
        Err(Unparsed::Malformed(why)) => {
            assert!(!why.is_empty());
            // Bytes that are refused must not become a header by further bytes.
            let more = [bytes, &b"\r\n"[..]].concat();
            assert!(
                parse(&more) != Err(Unparsed::Incomplete),
                "it may become one"
            );
        }
    }
    parsed.is_ok()
}

/// Checks that each entry of `X-Forwarded-For` yields one result. If the entry is a plain IP
/// address, the result is that address. For `Forwarded`, the addresses must be the same as by a
/// parser that follows the grammar.
///
/// # Panics
///
/// The reader differs from the second opinion.
pub fn check_forwarded(bytes: &[u8]) -> bool {
    let entries = bytes.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let entries = entries.filter(|entry| !entry.is_empty());
    let read = addresses(bytes);
    assert_eq!(read.len(), entries.clone().count(), "entries");
    for (entry, read) in entries.zip(&read) {
        let opinion = str::from_utf8(entry)
            .ok()
            .and_then(|text| text.parse::<IpAddr>().ok());
        if let Some(opinion) = opinion {
            assert_eq!(*read, Some(opinion.to_canonical()), "a plain address");
        }
    }
    let named = nodes(bytes);
    match forwarded::read(bytes) {
        Some(opinion) => assert_eq!(named, opinion, "by the grammar of RFC 7239"),
        // A malformed header must give only addresses that it contains.
        None => {
            let lower = bytes.to_ascii_lowercase();
            let written = lower.windows(3).filter(|part| part == b"for").count();
            let named = named.iter().flatten().count();
            assert!(named <= written, "{named} of {written}");
        }
    }
    read.iter().chain(&named).any(Option::is_some)
}
