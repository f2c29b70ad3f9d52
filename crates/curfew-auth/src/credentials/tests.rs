use http::HeaderValue;

use super::*;

/// A request to take a token from.
#[derive(Default)]
struct Request {
    headers: HeaderMap,
    query: Option<&'static str>,
    subprotocols: Vec<String>,
}

impl Request {
    fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        self.headers.append(name, value);
        self
    }

    fn authorization(self, value: impl AsRef<[u8]>) -> Self {
        self.header("authorization", value)
    }

    fn cookie(self, value: impl AsRef<[u8]>) -> Self {
        self.header("cookie", value)
    }

    fn query(mut self, query: &'static str) -> Self {
        self.query = Some(query);
        self
    }

    fn subprotocols(mut self, offered: &[&str]) -> Self {
        self.subprotocols = offered.iter().copied().map(str::to_owned).collect();
        self
    }

    fn extract(&self, config: &Config) -> Result<Option<Credential>, AuthError> {
        extract(&self.headers, self.query, &self.subprotocols, config)
    }

    /// The token with every source enabled, or why there is none.
    fn token(&self) -> Result<Option<String>, AuthFailure> {
        self.extract(&all_sources())
            .map(|found| found.map(|credential| credential.token().to_owned()))
            .map_err(|error| error.failure())
    }
}

fn request() -> Request {
    Request::default()
}

fn all_sources() -> Config {
    let mut config = Config::default();
    config.token_sources.push(Source::Cookie);
    config.cookie_name = "token".to_owned();
    config
}

#[test]
fn every_source_is_read() {
    let cases = [
        (request().authorization("Bearer a.b.c"), Source::Header),
        (request().authorization("bEARER   a.b.c "), Source::Header),
        (
            request().subprotocols(&["curfew.v1", "bearer.a.b.c"]),
            Source::Subprotocol,
        ),
        (request().query("token=a.b.c"), Source::Query),
        (request().query("access_token=a.b.c"), Source::Query),
        (request().query("x=1&token=a%2Eb%2ec&y"), Source::Query),
        (request().cookie("token=a.b.c"), Source::Cookie),
        (
            request().cookie("x=1; token=\"a.b.c\"; y=2"),
            Source::Cookie,
        ),
        (
            request().cookie("x=1").cookie("token=a.b.c"),
            Source::Cookie,
        ),
        (request().cookie(b"x=\xff; token=a.b.c"), Source::Cookie),
    ];
    for (request, source) in cases {
        let credential = request.extract(&all_sources()).unwrap().unwrap();
        assert_eq!(
            (credential.token(), credential.sources()),
            ("a.b.c", &[source][..])
        );
        assert_eq!(credential.from_cookie(), source == Source::Cookie);
    }
}

#[test]
fn what_is_not_a_token_is_passed_over() {
    let cases = [
        request(),
        request().authorization("Basic YTpi"),
        request().authorization("Bearer"),
        request().authorization("Bearer "),
        request().authorization("Bearerx a.b.c"),
        request().subprotocols(&["curfew.v1", "bearer", "bearer.", "Bearer.a.b.c"]),
        request().query(""),
        request().query("token"),
        request().query("token=&access_token="),
        request().query("Token=a&tokens=b&xtoken=c&%74oken=d"),
        request().cookie("token="),
        request().cookie("tokenx=a; xtoken=b; Token=c; token"),
    ];
    for request in cases {
        assert_eq!(
            request.token(),
            Ok(None),
            "{:?} {:?}",
            request.headers,
            request.query
        );
    }
}

#[test]
fn the_same_token_twice_is_one_token() {
    let request = request()
        .authorization("Bearer a.b.c")
        .subprotocols(&["bearer.a.b.c", "bearer.a.b.c"])
        .query("token=a.b.c&access_token=a.b.c")
        .cookie("token=a.b.c");
    let credential = request.extract(&all_sources()).unwrap().unwrap();
    assert_eq!(
        credential.sources(),
        [
            Source::Header,
            Source::Subprotocol,
            Source::Query,
            Source::Cookie
        ]
    );
    assert!(credential.from_cookie());
}

#[test]
fn two_different_tokens_are_ambiguous() {
    let cases = [
        request().query("token=a&token=b"),
        request().query("token=a&access_token=b"),
        request()
            .authorization("Bearer a")
            .authorization("Bearer b"),
        request().subprotocols(&["bearer.a", "bearer.b"]),
        request().cookie("token=a; token=b"),
        request().cookie("token=a").cookie("token=b"),
        request().authorization("Bearer a").query("token=b"),
        request().authorization("Bearer a").cookie("token=b"),
        request().query("token=a").subprotocols(&["bearer.b"]),
    ];
    for request in cases {
        assert_eq!(request.token(), Err(AuthFailure::AmbiguousToken));
    }
}

#[test]
fn a_source_that_is_not_enabled_is_as_if_absent() {
    let request = request()
        .authorization("Bearer h\u{e9}")
        .subprotocols(&["bearer.s"])
        .query("token=q&token=r")
        .cookie("token=c");
    let cases: [(&[Source], Option<&str>); 4] = [
        (&[Source::Message], None),
        (&[Source::Subprotocol, Source::Message], Some("s")),
        (&[Source::Cookie], Some("c")),
        (&[], None),
    ];
    for (sources, expected) in cases {
        let config = Config {
            token_sources: sources.to_vec(),
            ..all_sources()
        };
        let found = request.extract(&config).unwrap();
        assert_eq!(found.as_ref().map(Credential::token), expected);
    }
    assert!(!Config::default().uses_cookie());
}

#[test]
fn bytes_no_token_has_are_malformed() {
    let long = "a".repeat(8193);
    let cases = [
        request().authorization(b"Bearer \x80"),
        request().authorization(b"Bearer a\xff"),
        request().authorization(b"\xff a"),
        request().authorization("Bearer é"),
        request().subprotocols(&["bearer.é"]),
        request().query("token=%ff"),
        request().query("token=%C3%A9"),
        request().query("token=%"),
        request().query("token=%4"),
        request().query("token=%zz"),
        request().query("token=%+1"),
        request().cookie(b"token=\xe9"),
        request().authorization(format!("Bearer {long}")),
        request().subprotocols(&[&format!("bearer.{long}")]),
        request().cookie(format!("token={long}")),
    ];
    for request in cases {
        assert_eq!(
            request.token(),
            Err(AuthFailure::Malformed),
            "{:?}",
            request.headers
        );
    }
    let longest = "a".repeat(8192);
    let found = request().authorization(format!("Bearer {longest}")).token();
    assert_eq!(found, Ok(Some(longest)));
}

#[test]
fn debug_does_not_show_the_token() {
    let credential = request()
        .authorization("Bearer canary")
        .extract(&all_sources());
    let shown = format!("{credential:?}");
    assert!(
        shown.contains("Header") && !shown.contains("canary"),
        "{shown}"
    );
}
