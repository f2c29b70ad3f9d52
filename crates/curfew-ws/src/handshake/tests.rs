use bytes::Bytes;
use http_body_util::{Empty, Full};

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const VALID: &[(&str, &str)] = &[
    ("host", "example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-version", "13"),
];

fn request(headers: &[(&str, &[u8])]) -> Request<Empty<Bytes>> {
    let mut request = Request::get("/ws");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(Empty::new()).unwrap()
}

/// A valid request, but with `lines` in place of the valid line of `header`.
fn with(header: &str, lines: &[&[u8]]) -> Request<Empty<Bytes>> {
    let mut headers: Vec<(&str, &[u8])> = VALID
        .iter()
        .filter(|(name, _)| *name != header)
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    headers.extend(lines.iter().map(|line| (header, *line)));
    request(&headers)
}

#[test]
fn requests_are_checked_header_by_header() {
    use HandshakeError as E;
    let host = "host";
    let upgrade = "upgrade";
    let connection = "connection";
    let key = "sec-websocket-key";
    let version = "sec-websocket-version";
    let protocol = "sec-websocket-protocol";
    for (header, lines, expect) in [
        (host, &[&b"example.com:8080"[..]][..], Ok(())),
        (host, &[b"[::1]:8080"], Ok(())),
        (host, &[b"127.0.0.1"], Ok(())),
        (host, &[], Err(E::Host)),
        (host, &[b""], Err(E::Host)),
        (host, &[b"a", b"a"], Err(E::Host)),
        (host, &[b"a b"], Err(E::Host)),
        (host, &[b"a/b"], Err(E::Host)),
        (host, &[b"a@b:80"], Err(E::Host)),
        (host, &[b"b@b:80"], Err(E::Host)),
        (host, &[b":80"], Err(E::Host)),
        (host, &[b"a:99999"], Err(E::Host)),
        (host, &[b"a\xff"], Err(E::Host)),
        (upgrade, &[b"WebSocket"], Ok(())),
        (upgrade, &[b"h2c, websocket"], Ok(())),
        (upgrade, &[], Err(E::NotAnUpgrade)),
        (upgrade, &[b"h2c"], Err(E::NotAnUpgrade)),
        (upgrade, &[b"websockets"], Err(E::NotAnUpgrade)),
        (connection, &[b"keep-alive, Upgrade"], Ok(())),
        (connection, &[b"keep-alive", b"upgrade"], Ok(())),
        (connection, &[], Err(E::Connection)),
        (connection, &[b"keep-alive"], Err(E::Connection)),
        (connection, &[b"not-upgrade"], Err(E::Connection)),
        (key, &[b"AAAAAAAAAAAAAAAAAAAAAA=="], Ok(())),
        (key, &[], Err(E::Key)),
        (key, &[b""], Err(E::Key)),
        (key, &[KEY.as_bytes(), KEY.as_bytes()], Err(E::Key)),
        (key, &[b"dGhlIHNhbXBsZSBub25jZ"], Err(E::Key)),
        (key, &[b"SGVsbG8sIHdvcmxkIQ=="], Err(E::Key)),
        (key, &[b"dGhlIHNhbXBsZSBub25jZSE="], Err(E::Key)),
        (key, &[b"dGhlIHNhbXBsZSBub25j\xc3\xa4=="], Err(E::Key)),
        (version, &[], Err(E::Version)),
        (version, &[b"8"], Err(E::Version)),
        (version, &[b"13, 8"], Err(E::Version)),
        (version, &[b"13", b"13"], Err(E::Version)),
        ("content-length", &[b"0"], Ok(())),
        ("content-length", &[b"5"], Err(E::Body)),
        ("content-length", &[b"0", b"5"], Err(E::Body)),
        ("content-length", &[b"-0"], Err(E::Body)),
        (
            "content-length",
            &[b"99999999999999999999999"],
            Err(E::Body),
        ),
        ("content-length", &[b""], Err(E::Body)),
        ("transfer-encoding", &[b"chunked"], Err(E::Body)),
        ("transfer-encoding", &[b"identity"], Err(E::Body)),
        ("origin", &[b"https://example.com"], Ok(())),
        ("origin", &[b"null"], Ok(())),
        ("origin", &[b"https://a", b"https://a"], Err(E::Origin)),
        ("origin", &[b"https://a https://b"], Err(E::Origin)),
        ("origin", &[b"https://\xe4"], Err(E::Origin)),
        (protocol, &[b"curfew.v1"], Ok(())),
        (protocol, &[b"a b"], Err(E::Subprotocol)),
        (protocol, &[b"a;b"], Err(E::Subprotocol)),
        (protocol, &[b"ok", b"\x80"], Err(E::Subprotocol)),
        (
            protocol,
            &[b"curfew.v1, bearer.\xff\xfe"],
            Err(E::Subprotocol),
        ),
        ("sec-websocket-extensions", &[b"permessage-deflate"], Ok(())),
    ] {
        let lines_shown: Vec<_> = lines.iter().map(|line| line.escape_ascii()).collect();
        assert_eq!(
            check(&with(header, lines)).map(|_| ()),
            expect,
            "{header}: {lines_shown:?}"
        );
    }
}

#[test]
fn no_byte_in_a_header_panics_and_none_from_80_on_is_taken() {
    for header in [
        "host",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "origin",
    ] {
        for byte in (0x20..=0xff).filter(|byte| *byte != 0x7f) {
            let checked = check(&with(header, &[&[b'a', byte]]));
            assert!(checked.is_err() || byte < 0x80, "{header} with {byte:x}");
        }
    }
}

#[test]
fn method_version_and_body_are_checked() {
    let mut post = with("x", &[]);
    *post.method_mut() = Method::POST;
    assert_eq!(check(&post), Err(HandshakeError::Method));
    let mut head = with("x", &[]);
    *head.method_mut() = Method::HEAD;
    assert_eq!(check(&head), Err(HandshakeError::NotAnUpgrade));
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut other = with("x", &[]);
        *other.version_mut() = version;
        assert_eq!(check(&other), Err(HandshakeError::HttpVersion));
    }
    let body = with("x", &[]).map(|_| Full::new(Bytes::from_static(b"x")));
    assert_eq!(check(&body), Err(HandshakeError::Body));
}

#[test]
fn offers_are_read_in_order_and_never_shown() {
    let protocols: &[&[u8]] = &[b"curfew.v1,, bearer.aaa.bbb.ccc ", b"\tgraphql-ws"];
    let handshake = check(&with("sec-websocket-protocol", protocols)).unwrap();
    assert_eq!(
        handshake.subprotocols,
        ["curfew.v1", "bearer.aaa.bbb.ccc", "graphql-ws"]
    );
    assert_eq!(handshake.origin, None);
    assert_eq!(
        format!("{handshake:?}"),
        "Handshake { subprotocols: 3, origin: None }"
    );
    let handshake = check(&with("origin", &[b"https://A.example"])).unwrap();
    assert_eq!(handshake.origin.as_deref(), Some("https://A.example"));
}

#[test]
fn fifteen_kibibytes_of_blanks_or_commas_are_read_in_linear_time() {
    // CVE-2021-32640: a parser that reads the value once per byte would take minutes.
    let blanks = [b"a,".as_slice(), &[b' '; 15 * 1024], b"b"].concat();
    let commas = vec![b','; 15 * 1024];
    for _ in 0..100 {
        let handshake = check(&with("sec-websocket-protocol", &[&blanks])).unwrap();
        assert_eq!(handshake.subprotocols, ["a", "b"]);
        let handshake = check(&with("sec-websocket-protocol", &[&commas])).unwrap();
        assert!(handshake.subprotocols.is_empty());
    }
}

#[test]
fn each_error_says_what_to_answer() {
    use HandshakeError as E;
    for (error, status, headers) in [
        (E::Method, 405, &[("allow", "GET, HEAD")][..]),
        (E::HttpVersion, 505, &[]),
        (E::Host, 400, &[]),
        (
            E::NotAnUpgrade,
            426,
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        ),
        (E::Connection, 400, &[]),
        (E::Key, 400, &[]),
        (
            E::Version,
            426,
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
            ],
        ),
        (E::Body, 400, &[]),
        (E::Origin, 400, &[]),
        (E::Subprotocol, 400, &[]),
    ] {
        assert_eq!(error.status(), status, "{error:?}");
        assert_eq!(error.reason(), "bad_request");
        let given = error.headers();
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(given, headers, "{error:?}");
    }
}

#[test]
fn any_request_names_one_host() {
    for (version, lines, good) in [
        (Version::HTTP_11, &[&b"a:80"[..]][..], true),
        (Version::HTTP_11, &[b"[::1]"], true),
        (Version::HTTP_11, &[], false),
        (Version::HTTP_11, &[b""], false),
        (Version::HTTP_11, &[b"a", b"a"], false),
        (Version::HTTP_11, &[b"a/b"], false),
        (Version::HTTP_10, &[], true),
        (Version::HTTP_10, &[b"a"], true),
        (Version::HTTP_10, &[b"a", b"b"], false),
        (Version::HTTP_10, &[b"a b"], false),
    ] {
        let mut request = with("host", lines);
        *request.version_mut() = version;
        assert_eq!(check_host(&request).is_ok(), good, "{version:?} {lines:?}");
    }
}
