//! `curfew dev`, the first command of a new user (CONTRACT §1).

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{Dev, curfew};
use serde_json::json;

fn tokens(text: &str) -> Vec<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(|c: char| !part(c))
        .filter(|word| word.starts_with("eyJ") && word.matches('.').count() == 2)
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn the_printed_tokens_work_and_everything_is_allowed() {
    let dev = Dev::start().await;
    dev.output()
        .line(curfew_testkit::PATIENCE, |line| {
            line.contains("Ctrl-C").then_some(())
        })
        .await
        .expect("the node prints its whole text");
    let text = dev.output().text();
    let tokens = tokens(&text);
    assert!(tokens.len() >= 2, "{text}");
    for token in &tokens {
        let mut client = dev.ws().bearer(token).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        client
            .send(json!({"type":"subscribe","id":1,"channel":"any:thing"}))
            .await;
        client.expect_json(json!({"type":"ok","id":1})).await;
        client
            .send(json!({"type":"publish","channel":"any:thing","data":1}))
            .await;
        client.expect_json(json!({"type":"message"})).await;
    }
    let stranger = curfew_testkit::mint::Key::default_secret().user("alice");
    let mut client = dev.ws().bearer(&stranger).open().await;
    client.expect_auth_failed("bad_signature", 4401).await;
}

#[tokio::test]
async fn every_node_to_play_with_has_keys_of_its_own() {
    let (one, two) = (Dev::start().await, Dev::start().await);
    one.output()
        .line(curfew_testkit::PATIENCE, |line| {
            line.contains("Ctrl-C").then_some(())
        })
        .await;
    let token = tokens(&one.output().text()).remove(0);
    let mut client = two.ws().bearer(&token).open().await;
    client.expect_auth_failed("bad_signature", 4401).await;
}

#[tokio::test]
async fn the_page_is_served_whole_and_from_nowhere_else() {
    let dev = Dev::start().await;
    let page = http::request(dev.address, "GET", "/", &[], b"").await;
    assert_eq!(page.status, 200);
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}");
    let text = page.text();
    assert!(
        text.contains("<title>") && text.contains("Curfew"),
        "{text}"
    );
    for asset in [
        "src=\"http",
        "src='http",
        "href=\"http",
        "@import",
        "url(http",
        "src=\"//",
    ] {
        assert!(!text.contains(asset), "the page loads {asset}");
    }
    let other = http::request(dev.address, "GET", "/nothing", &[], b"").await;
    assert_eq!(other.status, 404);
    let live = http::request(dev.admin, "GET", "/livez", &[], b"").await;
    assert_eq!(live.status, 200);
}

#[tokio::test]
async fn it_does_not_listen_where_others_could_reach_it() {
    for arguments in [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "[::]:0"],
        ["--listen", "192.0.2.1:0"],
        ["--admin", "0.0.0.0:0"],
        ["--listen", "[::ffff:0.0.0.0]:0"],
    ] {
        for flags in [&[][..], &["--centrifuge"]] {
            let all = [&["dev", arguments[0], arguments[1]], flags].concat();
            let finished = curfew(&all).await;
            assert_eq!(finished.code, 2, "{all:?}: {finished:?}");
            assert!(finished.stderr.contains("loopback"), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn for_the_suites_of_centrifuge_it_is_lax_and_says_so() {
    let dev = Dev::start_with_flags(&["--centrifuge"]).await;
    let warned = dev.output().line(curfew_testkit::PATIENCE, |line| {
        line.contains("--centrifuge is only for test suites")
            .then_some(())
    });
    warned.await.expect("the node prints a warning");
    let ready = http::request(dev.admin, "GET", "/readyz", &[], b"").await;
    assert_eq!(ready.json()["development"], "curfew dev --centrifuge");
    let key = Key::hmac("HS256", b"secret");
    let undated = key.token(&json!({"sub":"42"}));
    let mut client = dev.ws().bearer(&undated).open().await;
    let connected = client.expect_json(json!({"type":"connected","user":"42"}));
    connected.await;
    let of_subscriptions = key.token(&json!({"sub":"42","channel":"news"}));
    let mut refused = dev.ws().bearer(&of_subscriptions).open().await;
    refused.expect_auth_failed("malformed", 4401).await;
    let forged = Key::hmac("HS256", b"other").token(&json!({"sub":"42"}));
    let mut refused = dev.ws().bearer(&forged).open().await;
    refused.expect_auth_failed("bad_signature", 4401).await;
    // The test opens more visitors than a node admits by default.
    for _ in 0..30 {
        let mut visitor = dev.ws().open().await;
        visitor.send(json!({"type":"auth"})).await;
        let connected = visitor.expect_json(json!({"type":"connected","user":""}));
        connected.await;
        for (channel, is_allowed) in [
            ("test", true),
            ("smallhistory:a", true),
            ("test:test", false),
        ] {
            let subscribe = json!({"type":"subscribe","id":1,"channel":channel});
            visitor.send(subscribe).await;
            let answer = visitor.until_json(json!({"id":1})).await;
            assert_eq!(answer["type"] == "ok", is_allowed, "{answer}");
        }
    }
    let plain = Dev::start().await;
    let ready = http::request(plain.admin, "GET", "/readyz", &[], b"").await;
    assert!(ready.json().get("development").is_none());
    let mut refused = plain.ws().bearer(&undated).open().await;
    refused.expect_auth_failed("bad_signature", 4401).await;
}
