//! Cookies and origins (CONTRACT §3, SECURITY rows 7-12).

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, curfew};

const LISTED: &str = r#"server.allowed_origins = ["https://app.example.com"]"#;
const WITH_COOKIE: &str =
    r#"auth.token_sources = ["header", "subprotocol", "query", "message", "cookie"]"#;
const COOKIE: &str = "__Host-curfew-token";

const FOREIGN: [&str; 12] = [
    "null",
    "",
    "*",
    "https://app.example.com.evil.tld",
    "https://evil.tld/?https://app.example.com",
    "https://evil.tld#https://app.example.com",
    "https://xapp.example.com",
    "https://app.example.com:8443",
    "https://app.example.com@evil.tld",
    "http://app.example.com",
    "https://example.com",
    "app.example.com",
];

#[tokio::test]
async fn a_cookie_is_taken_from_listed_origins_only() {
    let settings = Settings::default().with(LISTED).with(WITH_COOKIE);
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    let connect = || {
        gateway
            .ws()
            .header("Cookie", format!("a=b; {COOKIE}={token}; c=d"))
    };
    for origin in [
        "https://app.example.com",
        "https://APP.EXAMPLE.COM",
        "https://app.example.com:443",
    ] {
        let (_, connected) = gateway.connected(connect().header("Origin", origin)).await;
        assert_eq!(connected["user"], "alice", "{origin}");
    }
    for origin in FOREIGN {
        let refused = connect().header("Origin", origin).refused().await;
        assert_eq!(refused.status, 403, "{origin}");
    }
    assert_eq!(
        connect().refused().await.status,
        403,
        "a cookie without an Origin is not refused"
    );
    let two = connect()
        .header("Origin", "https://app.example.com")
        .header("Origin", "https://evil.tld")
        .refused()
        .await;
    assert!(matches!(two.status, 400 | 403), "{}", two.status);
}

#[tokio::test]
async fn other_cookies_are_not_tokens() {
    let settings = Settings::default().with(LISTED).with(WITH_COOKIE);
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    for cookie in [
        format!("token={token}"),
        format!("x{COOKIE}={token}"),
        format!("{COOKIE}x={token}"),
        format!("{}={token}", COOKIE.to_lowercase()),
    ] {
        let mut client = gateway
            .ws()
            .header("Origin", "https://app.example.com")
            .header("Cookie", cookie)
            .open()
            .await;
        client.send_text(r#"{"type":"ping"}"#).await;
        client.expect_auth_failed("missing_token", 4401).await;
    }
}

#[tokio::test]
async fn a_list_of_origins_holds_for_every_source() {
    let gateway = Gateway::start_with(&Settings::default().with(LISTED)).await;
    let token = Key::default_secret().user("alice");
    for origin in FOREIGN {
        let connect = gateway.ws().bearer(&token).header("Origin", origin);
        assert_eq!(connect.refused().await.status, 403, "{origin}");
        let connect = gateway.ws().header("Origin", origin);
        assert_eq!(connect.refused().await.status, 403, "{origin}, no token");
    }
    let allowed = gateway
        .ws()
        .bearer(&token)
        .header("Origin", "https://app.example.com");
    gateway.connected(allowed).await;
    // Programs that are no browsers send no origin.
    gateway.connected(gateway.ws().bearer(&token)).await;
}

#[tokio::test]
async fn without_a_list_any_origin_may_come_with_a_token() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    for origin in ["https://anywhere.example", "null", "http://localhost:3000"] {
        let connect = gateway.ws().bearer(&token).header("Origin", origin);
        gateway.connected(connect).await;
    }
}

/// Regression: `server.allowed_origins` could not list some origins that browsers really send.
#[tokio::test]
async fn subdomains_null_and_files_are_allowed_where_they_are_named() {
    let listed = r#"server.allowed_origins = ["https://*.example.com", "null", "file://"]"#;
    let settings = Settings::default().with(listed).with(WITH_COOKIE);
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    for (origin, allowed, by_cookie) in [
        ("https://app.example.com", true, true),
        ("https://a.b.example.com", true, true),
        ("null", true, false),
        ("file://", true, false),
        ("https://example.com", false, false),
        ("https://app.example.com.evil.tld", false, false),
        ("https://evilexample.com", false, false),
        ("http://app.example.com", false, false),
        ("https://.example.com", false, false),
        ("https://*.example.com", false, false),
        ("file:///tmp/page.html", false, false),
    ] {
        let connect = gateway.ws().header("Origin", origin);
        let with_token = connect.clone().bearer(&token).attempt().await;
        assert_eq!(with_token.is_ok(), allowed, "{origin}");
        let cookie = format!("{COOKIE}={token}");
        let with_cookie = connect.header("Cookie", cookie).attempt().await;
        assert_eq!(with_cookie.is_ok(), by_cookie, "{origin} and a cookie");
    }
}

/// Regression: a page sent its own token, and also a cookie that is never accepted from that page.
/// The node refused the page's token, and said that the page's origin is not listed.
#[tokio::test]
async fn a_cookie_that_is_not_taken_stands_in_the_way_of_no_token() {
    let listed = r#"server.allowed_origins = ["https://app.example.com", "null"]"#;
    let settings = Settings::default()
        .with(listed)
        .with(r#"auth.token_sources = ["header", "query", "cookie"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let (alice, bob) = (
        Key::default_secret().user("alice"),
        Key::default_secret().user("bob"),
    );
    let cookie = || {
        let of_bob = format!("{COOKIE}={bob}");
        gateway.ws().header("Cookie", of_bob)
    };
    let own = cookie().header("Origin", "null").bearer(&alice);
    let (_, connected) = gateway.connected(own).await;
    assert_eq!(connected["user"], "alice");
    for connect in [cookie().header("Origin", "null"), cookie()] {
        let refused = connect.refused().await;
        assert_eq!(refused.status, 403);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("a token in a cookie is accepted only from"),
            "{detail}"
        );
    }
    // A page whose cookies are accepted sends two tokens, which is ambiguous.
    let both = cookie().header("Origin", "https://app.example.com");
    let mut refused = both.bearer(&alice).open().await;
    refused.expect_auth_failed("ambiguous_token", 4401).await;
    let checked = curfew(&[
        "check-config",
        "--config",
        gateway.config_path().to_str().unwrap(),
    ])
    .await;
    let told = checked.stdout + &checked.stderr;
    assert!(
        told.contains("cookies from this origin are ignored"),
        "{told}"
    );
}
