//! The head of a connection's first request, with or without a WebSocket upgrade. It has bounds,
//! and is parsed before the client is authenticated.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use curfew_server::parsers::{self, Heard};
use curfew_ws::Handshake;
use tokio::runtime::Runtime;

/// The bounds of the head: `limits.head_bytes` at its minimum, and `limits.headers`.
const BOUNDS: (usize, usize) = (8 * 1024, 12);

/// A byte of the input that stands for a thousand bytes, so that short inputs reach the bounds. No
/// valid head contains this byte.
const MANY: u8 = 1;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("the runtime is built");
}

/// A head that the independent parser `head` has parsed by the grammar of HTTP.
#[derive(Debug)]
struct Head {
    method: String,
    target: String,
    version: String,
    /// Headers by name in lower case.
    headers: BTreeMap<String, Vec<Vec<u8>>>,
    count: usize,
    /// Length of the head in bytes.
    bytes: usize,
}

/// Checks the parser of heads. The first byte of the input, minus the character `0`, is a size. The
/// remaining input is cut into parts of this size. An accepted request must follow the grammar and
/// be within the bounds. An accepted upgrade must follow RFC 6455. A plain request within the
/// bounds must be accepted. No bytes after an upgrade request may be lost.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check(bytes: &[u8]) -> bool {
    let Some((first, bytes)) = bytes.split_first() else {
        return false;
    };
    let size = usize::from(first.wrapping_sub(b'0'));
    let bytes: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| match *byte {
            MANY => vec![b'x'; 1000],
            byte => vec![byte],
        })
        .collect();
    let bytes = Bytes::from(bytes);
    let whole = hear(&bytes, usize::MAX);
    judge(&bytes, &whole);
    if size > 0 {
        let cut = hear(&bytes, size);
        judge(&bytes, &cut);
        let taken = |heard: &Heard| heard.request.is_some();
        assert_eq!(
            taken(&whole),
            taken(&cut),
            "the request is accepted whole or in parts of {size} bytes, but not both: {cut:?}"
        );
    }
    matches!(whole.handshake, Some(Ok(_)))
}

fn hear(bytes: &Bytes, at_once: usize) -> Heard {
    let head = parsers::head(bytes.clone(), at_once, BOUNDS);
    RUNTIME.with(|runtime| runtime.block_on(head))
}

fn judge(bytes: &[u8], heard: &Heard) {
    let opinion = head(bytes);
    let fits = |head: &Head| head.bytes <= BOUNDS.0 && head.count <= BOUNDS.1;
    let Some(request) = &heard.request else {
        if let Some(head) = opinion.as_ref().filter(|head| fits(head)) {
            assert!(
                !is_plain(head),
                "the valid request {head:?} is refused: {heard:?}"
            );
        }
        match heard.refused {
            Some((_, "head_too_large")) => {
                // A head without an end has at least one byte more than the input.
                let length = opinion.map_or(bytes.len() + 1, |head| head.bytes);
                assert!(
                    length > BOUNDS.0,
                    "a head of {length} bytes is refused as too large"
                );
            }
            Some((_, "too_many_headers")) => {
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
                assert!(
                    lines > BOUNDS.1,
                    "a head of {lines} lines is refused for too many headers"
                );
            }
            Some((status, _)) => {
                assert!(status.is_client_error() || status == 505, "{status}");
            }
            // An input of empty lines begins no request.
            None => {
                let begins = |byte: &u8| !b"\r\n".contains(byte);
                assert!(
                    !bytes.iter().any(begins),
                    "a request has begun, but it is neither accepted nor refused: {bytes:?}"
                );
            }
        }
        return;
    };
    let head = opinion.unwrap_or_else(|| {
        panic!("{request:?} is accepted, but its head does not follow the grammar")
    });
    assert!(
        fits(&head),
        "a head beyond the bounds is accepted: {head:?}"
    );
    assert_eq!(request.method().as_str(), head.method);
    assert_eq!(format!("{:?}", request.version()), head.version);
    // A path is used unchanged, but a fragment, which HTTP does not allow, is cut off.
    if head.target.starts_with('/') {
        let target = head.target.split('#').next().unwrap_or_default();
        assert_eq!(request.uri().to_string(), target);
    }
    let mut headers: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, value) in request.headers() {
        let values = headers.entry(name.as_str().to_owned()).or_default();
        values.push(value.as_bytes().to_vec());
    }
    let mut written = head.headers.clone();
    // RFC 9110 §8.6: repeated `Content-Length` headers must have the same number, and count as one.
    if let Some(lengths) = written.get_mut("content-length") {
        lengths.truncate(1);
    }
    assert_eq!(headers, written);
    let checked = heard
        .handshake
        .as_ref()
        .expect("an accepted request has a result of its handshake");
    match (handshake(&head), checked) {
        (Some(opinion), Ok(handshake)) => {
            assert_eq!(*handshake, opinion);
            assert_eq!(
                heard.early,
                bytes[head.bytes..],
                "the bytes after the head are kept"
            );
        }
        (Some(opinion), Err(error)) => {
            // Only plain requests must be accepted, because `handshake` does not check all rules
            // for hosts.
            assert!(
                !is_plain(&head),
                "the valid upgrade {opinion:?} is refused: {error}"
            );
        }
        (None, Ok(handshake)) => panic!("the invalid upgrade {head:?} is accepted: {handshake:?}"),
        (None, Err(error)) => assert!(!error.status().is_success()),
    }
}

/// Parses a head by RFC 9112 §2 to §5; `None` if the head is malformed or incomplete. A line may
/// end without CR, and empty lines may come first.
fn head(bytes: &[u8]) -> Option<Head> {
    let mut at = 0;
    let mut line = || {
        let length = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[at..at + length];
        at += length + 1;
        Some((line.strip_suffix(b"\r").unwrap_or(line), at))
    };
    let mut first = line()?.0;
    while first.is_empty() {
        first = line()?.0;
    }
    let words: Vec<&str> = str::from_utf8(first).ok()?.split(' ').collect();
    let &[method, target, version] = words.as_slice() else {
        return None;
    };
    let is_version = version == "HTTP/1.1" || version == "HTTP/1.0";
    if !is_token(method.as_bytes()) || target.is_empty() || !is_version {
        return None;
    }
    let (mut headers, mut count) = (BTreeMap::<_, Vec<_>>::new(), 0);
    loop {
        let (line, end) = line()?;
        if line.is_empty() {
            return Some(Head {
                method: method.to_owned(),
                target: target.to_owned(),
                version: version.to_owned(),
                headers,
                count,
                bytes: end,
            });
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_of_value = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
        if !is_token(name) || !value.iter().all(is_of_value) {
            return None;
        }
        let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
        headers.entry(name).or_default().push(trim(value).to_vec());
        count += 1;
    }
}

fn is_token(bytes: &[u8]) -> bool {
    let is_of = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_of)
}

/// The value without the spaces and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// True if the request is certainly valid: it has a plain path, a plain host and no body.
fn is_plain(head: &Head) -> bool {
    let is_of = |more: &'static str| move |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    let path = head.target.strip_prefix('/');
    let hosts = head.headers.get("host").map_or(&[][..], Vec::as_slice);
    let is_host = |host: &Vec<u8>| {
        let host = str::from_utf8(host).unwrap_or_default();
        host.starts_with(is_of("")) && host.chars().all(is_of(".-"))
    };
    path.is_some_and(|path| path.chars().all(is_of("/-._")) && !path.starts_with('/'))
        && head.method != "CONNECT"
        && head.version == "HTTP/1.1"
        && hosts.iter().all(is_host)
        && !["content-length", "transfer-encoding", "expect"]
            .iter()
            .any(|name| head.headers.contains_key(*name))
}

/// The handshake of a head, by RFC 6455 §4.2.1; `None` if the head is not a valid upgrade.
fn handshake(head: &Head) -> Option<Handshake> {
    let values = |name: &str| head.headers.get(name).map_or(&[][..], Vec::as_slice);
    let only = |name: &str| match values(name) {
        [one] => Some(one.as_slice()),
        _ => None,
    };
    let list = |name: &str| {
        let all = values(name)
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b','));
        let all = all.map(trim).filter(|one| !one.is_empty());
        all.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let lists = |name: &str, wanted: &[u8]| {
        let mut all = list(name).into_iter();
        all.any(|one| one.eq_ignore_ascii_case(wanted))
    };
    let lenient = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let key = GeneralPurpose::new(&STANDARD, lenient).decode(only("sec-websocket-key")?);
    let host = str::from_utf8(only("host")?).ok()?;
    let zeros = |length: &Vec<u8>| !length.is_empty() && length.iter().all(|byte| *byte == b'0');
    let good = head.method == "GET"
        && head.version == "HTTP/1.1"
        && !host.is_empty()
        && !host.starts_with(':')
        && !host.contains(['@', ' ', '/', '\t'])
        && values("transfer-encoding").is_empty()
        && values("content-length").iter().all(zeros)
        && lists("upgrade", b"websocket")
        && lists("connection", b"upgrade")
        && only("sec-websocket-version") == Some(b"13")
        && key.is_ok_and(|key| key.len() == 16);
    let origin = match values("origin") {
        [] => None,
        [one] if one.iter().all(u8::is_ascii_graphic) => Some(String::from_utf8(one.clone()).ok()?),
        _ => return None,
    };
    let subprotocols = list("sec-websocket-protocol").into_iter().map(|one| {
        let one = Some(one).filter(|one| is_token(one))?;
        String::from_utf8(one).ok()
    });
    let subprotocols = subprotocols.collect::<Option<_>>()?;
    good.then_some(Handshake {
        subprotocols,
        origin,
    })
}
