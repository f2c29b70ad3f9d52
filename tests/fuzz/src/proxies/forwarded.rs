//! A parser of `Forwarded` that follows the grammar of RFC 7239 §4 and RFC 9110 §5.6, and reads
//! from left to right.

use std::iter::Peekable;
use std::net::IpAddr;
use std::slice::Iter;

type Bytes<'a> = Peekable<Iter<'a, u8>>;

/// The addresses of the elements; `None` if the header does not follow the grammar.
pub(super) fn read(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut bytes = line.iter().peekable();
    let mut found = Vec::new();
    loop {
        space(&mut bytes);
        // An empty element of a list is skipped.
        if !matches!(bytes.peek(), None | Some(b',')) {
            found.push(element(&mut bytes)?);
            space(&mut bytes);
        }
        match bytes.next() {
            None => return Some(found),
            Some(b',') => {}
            Some(_) => return None,
        }
    }
}

fn space(bytes: &mut Bytes<'_>) {
    while bytes.next_if(|byte| b" \t".contains(byte)).is_some() {}
}

/// Reads an element: pairs with semicolons between them.
fn element(bytes: &mut Bytes<'_>) -> Option<Option<IpAddr>> {
    let mut named = Vec::new();
    loop {
        let name = token(bytes)?;
        bytes.next_if(|byte| **byte == b'=')?;
        let value = match bytes.next_if(|byte| **byte == b'"') {
            Some(_) => quoted(bytes)?,
            None => token(bytes)?,
        };
        if name.eq_ignore_ascii_case("for") {
            named.push(value);
        }
        if bytes.next_if(|byte| **byte == b';').is_none() {
            break;
        }
    }
    // A repeated `for` parameter gives no address.
    Some(match named.as_slice() {
        [one] => address(one),
        _ => None,
    })
}

fn token(bytes: &mut Bytes<'_>) -> Option<String> {
    let is_of = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let mut text = String::new();
    while let Some(byte) = bytes.next_if(is_of) {
        text.push(char::from(*byte));
    }
    (!text.is_empty()).then_some(text)
}

/// Reads a quoted string after its opening quote. Only ASCII is accepted, because addresses are
/// ASCII.
fn quoted(bytes: &mut Bytes<'_>) -> Option<String> {
    let mut text = String::new();
    loop {
        match bytes.next()? {
            b'"' => return Some(text),
            b'\\' => text.push(char::from(*bytes.next()?)),
            byte if byte.is_ascii() => text.push(char::from(*byte)),
            _ => return None,
        }
    }
}

/// Reads an address in one of the forms `192.0.2.43`, `192.0.2.43:47011`, `[2001:db8::1]` and
/// `[2001:db8::1]:4711`. An IPv6 address without brackets is accepted, although the grammar does
/// not allow it.
fn address(node: &str) -> Option<IpAddr> {
    let (address, port) = match node.rfind(':').filter(|at| !node[*at..].contains(']')) {
        Some(at) if node.starts_with('[') || node.matches(':').count() == 1 => {
            (&node[..at], Some(&node[at + 1..]))
        }
        _ => (node, None),
    };
    if port.is_some_and(|port| port.is_empty() || port.contains(|c: char| !c.is_ascii_digit())) {
        return None;
    }
    let (bare, bracketed) = match address.strip_prefix('[') {
        Some(rest) => (rest.strip_suffix(']')?, true),
        None => (address, false),
    };
    let address: IpAddr = bare.parse().ok()?;
    (address.is_ipv6() || !bracketed).then(|| address.to_canonical())
}
