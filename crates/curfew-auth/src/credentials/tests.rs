use http::HeaderValue;

use super::*;

/// An upgrade request under construction.
#[derive(Default)]
struct UpgradeRequest {
    headers: HeaderMap,
    query: Option<&'static str>,
    subprotocols: Vec<String>,
}

impl UpgradeRequest {
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

    fn extract(&self, config: &AuthConfig) -> Result<Option<Credential>, AuthError> {
        extract(&self.headers, self.query, &self.subprotocols, config)
    }

    /// The token found with every source enabled, or the reason of the refusal.
    fn token(&self) -> Result<Option<String>, AuthFailure> {
        self.extract(&all_sources())
            .map(|found| found.map(|credential| token_of(&credential).to_owned()))
            .map_err(|error| error.failure())
    }

    /// The token found with every source enabled; panics if there is none.
    fn bearer(&self) -> Bearer {
        match self.extract(&all_sources()) {
            Ok(Some(Credential::Bearer(bearer))) => bearer,
            other => panic!("{other:?}"),
        }
    }
}

fn token_of(credential: &Credential) -> &str {
    match credential {
        Credential::Bearer(bearer) => bearer.token(),
        Credential::Ticket(ticket) => panic!("{ticket:?}"),
    }
}

fn request() -> UpgradeRequest {
    UpgradeRequest::default()
}

fn all_sources() -> AuthConfig {
    let mut config = AuthConfig::default();
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
        let bearer = request.bearer();
        assert_eq!((bearer.token(), bearer.sources()), ("a.b.c", &[source][..]));
        let by_cookie = Credential::Bearer(bearer).from_cookie();
        assert_eq!(by_cookie, source == Source::Cookie);
    }
}

#[test]
fn what_is_not_a_token_is_passed_over() {
    let cases = [
        request(),
        request().authorization("Basic YTpi"),
        request().authorization("Bearer"),
        request().authorization("Bearer "),
        request().authorization("Digest username=x"),
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
    let bearer = request.bearer();
    assert_eq!(
        bearer.sources(),
        [
            Source::Header,
            Source::Subprotocol,
            Source::Query,
            Source::Cookie
        ]
    );
    assert!(Credential::Bearer(bearer).from_cookie());
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
        let config = AuthConfig {
            token_sources: sources.to_vec(),
            ..all_sources()
        };
        let found = request.extract(&config).unwrap();
        assert_eq!(found.as_ref().map(token_of), expected);
    }
    assert!(!AuthConfig::default().uses_cookie());
}

#[test]
fn bytes_no_token_has_are_malformed() {
    let long = "a".repeat(16_385);
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
    let longest = "a".repeat(16_384);
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

/// A ticket of zeros. The queries below have this ticket beside another ticket, once, and twice.
const TICKET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const QUERY_WITH_ANOTHER: &str = "ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
     &ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE";
const QUERY: &str = "x=1&ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const QUERY_TWICE: &str = "ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
     &ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA&ticket=";

/// Enables tickets and disables tokens in the query.
fn with_tickets() -> AuthConfig {
    AuthConfig {
        tickets: true,
        token_sources: vec![Source::Header, Source::Cookie],
        ..all_sources()
    }
}

#[test]
fn a_ticket_is_read_from_the_query_where_there_are_tickets() {
    let ticket = Ticket::parse(TICKET).unwrap();
    for query in [QUERY, QUERY_TWICE] {
        let found = request().query(query).extract(&with_tickets());
        assert_eq!(found, Ok(Some(Credential::Ticket(ticket.clone()))));
        assert!(!format!("{found:?}").contains("AAAA"));
        assert_eq!(request().query(query).extract(&all_sources()), Ok(None));
    }
    for query in ["ticket=", "ticket", "Ticket=x&tickets=y&%74icket=z"] {
        let found = request().query(query).extract(&with_tickets());
        assert_eq!(found, Ok(None), "{query}");
    }
}

#[test]
fn a_ticket_and_something_else_are_ambiguous() {
    let cases = [
        request().query(QUERY_WITH_ANOTHER),
        request().query(QUERY).authorization("Bearer a"),
        request().query(QUERY).cookie("token=a"),
    ];
    for request in cases {
        let refused = request
            .extract(&with_tickets())
            .map_err(|error| error.failure());
        assert_eq!(refused, Err(AuthFailure::AmbiguousToken));
    }
    for query in ["ticket=x", "ticket=a.b.c", "ticket=%41"] {
        let refused = request().query(query).extract(&with_tickets());
        let refused = refused.map_err(|error| error.failure());
        assert_eq!(refused, Err(AuthFailure::Malformed), "{query}");
    }
}

#[test]
fn a_bearer_is_read_from_its_header_alone() {
    let read = |request: UpgradeRequest| {
        bearer(&request.headers, &all_sources()).map(|found| found.map(|b| b.token))
    };
    let both = request().authorization("Bearer a").cookie("token=b");
    assert_eq!(read(both), Ok(Some("a".to_owned())));
    assert_eq!(read(request().cookie("token=b")), Ok(None));
    let two = request()
        .authorization("Bearer a")
        .authorization("Bearer b");
    let refused = read(two).map_err(|error| error.failure());
    assert_eq!(refused, Err(AuthFailure::AmbiguousToken));
}

#[test]
fn a_token_without_its_scheme_is_told_what_would_be_right() {
    let told = |request: UpgradeRequest| match request.extract(&all_sources()) {
        Err(error) => (error.failure(), error.message().to_owned()),
        other => panic!("{other:?}"),
    };
    for (value, words) in [
        ("a.b.c", "has no scheme"),
        ("Token a.b.c", "not in auth.header_schemes"),
        ("JWT a.b.c", "not in auth.header_schemes"),
        ("Bearerx a.b.c", "not in auth.header_schemes"),
        ("DPoP a.b.c", "not in auth.header_schemes"),
    ] {
        let (failure, message) = told(request().authorization(value));
        assert_eq!(failure, AuthFailure::Malformed, "{value}");
        assert!(message.contains(words), "{value}: {message}");
        assert!(
            message.contains("`Authorization: Bearer <token>`"),
            "{message}"
        );
        assert!(!message.contains("a.b.c"), "{message}");
        // A token from another source is accepted despite the header.
        let both = request().authorization(value).query("token=d.e.f");
        assert_eq!(both.bearer().token(), "d.e.f");
    }
    let config = AuthConfig {
        header_schemes: vec!["Token".to_owned(), "JWT".to_owned()],
        ..all_sources()
    };
    for scheme in ["Token", "token", "jwt"] {
        let found = request()
            .authorization(format!("{scheme} a.b.c"))
            .extract(&config);
        assert!(matches!(found, Ok(Some(Credential::Bearer(_)))), "{scheme}");
    }
    let refused = request().authorization("Bearer a.b.c").extract(&config);
    assert!(
        refused
            .unwrap_err()
            .message()
            .contains("`Authorization: Token <token>`")
    );
}
