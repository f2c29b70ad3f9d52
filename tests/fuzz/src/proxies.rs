//! Headers in which load balancers state a client's address: the PROXY header, `X-Forwarded-For`
//! and `Forwarded`. Others may forge these headers.

mod forwarded;

use std::net::{IpAddr, SocketAddr};

use curfew_server::parsers::{Unparsed, addresses, nodes, parse};

/// Checks that bytes after a PROXY header do not change the header's meaning, and that a header is
/// not accepted before it is complete. In version 1, the address must be the address that the
/// standard library parses.
///
/// # Panics
///
/// A property of the headers does not hold.
pub fn check_header(bytes: &[u8]) -> bool {
    let parsed = parse(bytes);
    match parsed {
        Ok(header) => {
            assert!(
                header.bytes <= bytes.len(),
                "the header is not longer than the input"
            );
            let only = &bytes[..header.bytes];
            assert_eq!(
                parse(only),
                Ok(header),
                "the header alone has the same meaning"
            );
            let more = [only, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                parse(&more),
                Ok(header),
                "the header has the same meaning with a request after it"
            );
            for end in 0..header.bytes {
                assert_eq!(
                    parse(&bytes[..end]),
                    Err(Unparsed::Incomplete),
                    "the first {end} bytes of the header are incomplete"
                );
            }
            if let (Some(source), Some(line)) = (header.source, only.strip_prefix(b"PROXY ")) {
                let text = String::from_utf8_lossy(line);
                let words: Vec<&str> = text.split_whitespace().collect();
                let opinion = words[1].parse::<IpAddr>().ok().zip(words[3].parse().ok());
                assert_eq!(Some(source), opinion.map(SocketAddr::from), "{text:?}");
            }
        }
        Err(Unparsed::Incomplete) => assert!(
            bytes.len() < 4096,
            "an input of 4096 bytes or more is not incomplete"
        ),
        Err(Unparsed::Malformed(why)) => {
            assert!(!why.is_empty());
            // Further bytes must not turn refused bytes into the beginning of a header.
            let more = [bytes, &b"\r\n"[..]].concat();
            assert!(
                parse(&more) != Err(Unparsed::Incomplete),
                "refused bytes count as incomplete with further bytes"
            );
        }
    }
    parsed.is_ok()
}

/// Checks that each entry of `X-Forwarded-For` yields one result. If the entry is a plain IP
/// address, the result is that address. For `Forwarded`, the addresses must be the same as the
/// addresses that the independent parser in `forwarded` finds.
///
/// # Panics
///
/// A property of the headers does not hold.
pub fn check_forwarded(bytes: &[u8]) -> bool {
    let entries = bytes.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let entries = entries.filter(|entry| !entry.is_empty());
    let read = addresses(bytes);
    assert_eq!(
        read.len(),
        entries.clone().count(),
        "each entry has one result"
    );
    for (entry, read) in entries.zip(&read) {
        let opinion = str::from_utf8(entry)
            .ok()
            .and_then(|text| text.parse::<IpAddr>().ok());
        if let Some(opinion) = opinion {
            assert_eq!(
                *read,
                Some(opinion.to_canonical()),
                "a plain address is its own result"
            );
        }
    }
    let named = nodes(bytes);
    match forwarded::read(bytes) {
        Some(opinion) => assert_eq!(
            named, opinion,
            "the addresses follow the grammar of RFC 7239"
        ),
        // A malformed header must not give more addresses than it has parameters `for`.
        None => {
            let lower = bytes.to_ascii_lowercase();
            let written = lower.windows(3).filter(|part| part == b"for").count();
            let named = named.iter().flatten().count();
            assert!(
                named <= written,
                "{named} addresses are found in {written} parameters `for`"
            );
        }
    }
    read.iter().chain(&named).any(Option::is_some)
}
