//! The tab of the demo page that uses the published Centrifuge SDK.

use curfew_testkit::http;
use curfew_tests::{Dev, curfew};
use serde_json::json;

use super::{Browser, Pane, assert_recovered};
use crate::clients::installed;

/// The SDK's file, relative to the folder of the installed clients.
const FILE: &str = "node_modules/centrifuge/dist/centrifuge.js";

#[tokio::test]
async fn two_tabs_with_the_sdk_hear_each_other_until_one_is_revoked() {
    let dev = with_sdk().await;
    let browser = Browser::start().await;
    let first = browser.client.window().await.unwrap();
    open_tab(&browser, &dev).await;
    let alice = browser.sdk_pane(1);
    join(&alice).await;

    let second = browser.client.new_window(true).await.unwrap().handle;
    let at = async |window| browser.client.switch_to_window(window).await.unwrap();
    at(second.clone()).await;
    open_tab(&browser, &dev).await;
    let bob = browser.sdk_pane(2);
    join(&bob).await;
    bob.fill("data", r#"{"text": "<b>hello</b>"}"#).await;
    bob.click("publish").await;
    let hello = r#"publication room:1 {"text":"<b>hello</b>"} from bob, offset 1"#;
    bob.until_logged(hello).await;

    at(first.clone()).await;
    alice.until_logged(hello).await;
    alice.click("presence").await;
    alice.until_text("present", "In room:1: alice, bob.").await;
    alice.fill("data", r#""and back""#).await;
    alice.click("publish").await;
    at(second.clone()).await;
    bob.until_logged(r#"publication room:1 "and back" from alice, offset 2"#)
        .await;

    // Alice is disconnected by a revocation, and her SDK does not reconnect. Meanwhile the SDK of
    // another pane tries twice to reconnect.
    at(first.clone()).await;
    let other = browser.sdk_pane(2);
    join(&other).await;
    alice.click("revoke").await;
    alice.until_state("closed").await;
    assert_eq!(alice.text("close-code").await, "3503");
    assert_eq!(alice.text("close-reason").await, "revoked");
    assert!(alice.text("close-advice").await.contains("Terminal"));
    let told = async |pane: &Pane<'_>| {
        let log = pane.text("log").await;
        log.lines().last().unwrap_or_default().to_owned()
    };
    other.click("cut").await;
    let tried = async || {
        other
            .text("log")
            .await
            .matches("error 2 transport closed")
            .count()
            >= 2
    };
    browser
        .until("two attempts to reconnect have failed", tried)
        .await;
    other.click("cut").await;
    other.until_text("recovery", "Nothing was missed").await;
    assert_eq!(told(&alice).await, "disconnected 3503 revoked");
    assert_eq!(alice.state().await, "closed");

    // Until the revocation is lifted, a click on "connect" is refused.
    alice.click("clear").await;
    alice.click("reconnect").await;
    alice.until_logged("disconnected 3503 revoked").await;
    alice.until_state("closed").await;
    alice.click("restore").await;
    alice.until_text("close-advice", "lifted").await;
    alice.click("reconnect").await;
    alice.until_state("open").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    at(second).await;
    assert_eq!(bob.state().await, "open");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_sdk_comes_back_over_a_mended_line_and_has_what_it_missed() {
    let dev = with_sdk().await;
    let browser = Browser::start().await;
    open_tab(&browser, &dev).await;
    let (alice, bob) = (browser.sdk_pane(1), browser.sdk_pane(2));
    join(&alice).await;
    join(&bob).await;
    let message = |text: &str, offset: u64| {
        format!(r#"publication room:1 "{text}" from bob, offset {offset}"#)
    };
    let bob_says = async |text: &str, offset: u64| {
        bob.fill("data", &format!("\"{text}\"")).await;
        bob.click("publish").await;
        bob.until_logged(&message(text, offset)).await;
    };
    bob_says("one", 1).await;
    alice.until_logged(&message("one", 1)).await;

    alice.click("cut").await;
    alice.until_state("connecting").await;
    alice.until_logged("connecting 1 transport closed").await;
    bob_says("two", 2).await;
    bob_says("three", 3).await;
    // The client's attempts to reconnect fail.
    alice.until_logged("error 2 transport closed").await;
    assert_eq!(alice.text("cut").await, "Mend the line");
    alice.click("cut").await;
    alice
        .until_text(
            "recovery",
            "Recovered 2 of 2 missed in room:1: offsets 2 to 3.",
        )
        .await;
    alice.until_state("open").await;
    bob_says("four", 4).await;
    alice.until_logged(&message("four", 4)).await;
    assert_recovered(&alice.text("log").await, |line, text, offset| {
        line == message(text, offset)
    });
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_network_the_page_says_where_to_take_the_sdk_from() {
    let dev = Dev::start().await;
    let missing = http::request(dev.address, "GET", "/centrifuge.js", &[], b"").await;
    assert_eq!(missing.status, 404);
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let selector = r#"[data-testid="tab-centrifuge"]"#;
    browser.find(selector).await.click().await.unwrap();
    let failure = async || browser.text(r#"[data-testid="sdk-failure"]"#).await;
    let told = async || failure().await.contains("curfew dev --centrifuge-sdk");
    browser.until("the failure is told", told).await;
    let address = "https://unpkg.com/centrifuge@5.8.0/dist/centrifuge.js";
    assert!(failure().await.contains(address));
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // The digest that the page requires is the digest of the file in the package.
    let file = std::fs::read_to_string(installed(FILE)).unwrap();
    let digest = "const [text, done] = arguments;
        crypto.subtle.digest('SHA-384', new TextEncoder().encode(text))
          .then((digest) => done('sha384-' + btoa(String.fromCharCode(...new Uint8Array(digest)))));";
    let digest = browser.client.execute_async(digest, vec![json!(file)]);
    let required =
        "return JSON.parse(document.getElementById('curfew-config').textContent).sdk.integrity";
    let required = browser.client.execute(required, Vec::new());
    assert_eq!(digest.await.unwrap(), required.await.unwrap());
}

#[tokio::test]
async fn the_sdk_is_served_unchanged_and_a_missing_file_is_told() {
    let dev = with_sdk().await;
    let served = http::request(dev.address, "GET", "/centrifuge.js", &[], b"").await;
    assert_eq!(served.status, 200);
    assert_eq!(served.body, std::fs::read(installed(FILE)).unwrap());
    let elsewhere =
        b"GET /centrifuge.js HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let refused = http::exchange(dev.address, elsewhere).await.unwrap();
    assert_eq!(refused.status, 403);
    let failed = curfew(&["dev", "--centrifuge-sdk", "/no/such/file.js"]).await;
    assert_eq!(failed.code, 2, "{failed:?}");
    assert!(failed.stderr.contains("/no/such/file.js"), "{failed:?}");
}

/// `curfew dev` speaks the Centrifuge protocol, and requires a token as it does on `/ws`.
#[tokio::test]
async fn a_client_without_a_token_is_not_let_in() {
    let dev = Dev::start().await;
    let endpoint = dev.ws().path("/connection/websocket");
    let mut client = endpoint.without("sec-websocket-protocol").open().await;
    client.send(json!({"id":1,"connect":{}})).await;
    let refused = client.next_json().await;
    assert_eq!(refused["error"]["code"], 101, "{refused}");
}

async fn with_sdk() -> Dev {
    let file = installed(FILE);
    let file = file.to_str().expect("a path in UTF-8");
    Dev::start_with_flags(&["--centrifuge-sdk", file]).await
}

/// Opens the page, and its tab for the SDK.
async fn open_tab(browser: &Browser, dev: &Dev) {
    browser.open(&format!("http://{}/", dev.address)).await;
    let selector = r#"[data-testid="tab-centrifuge"]"#;
    browser.find(selector).await.click().await.unwrap();
}

/// Connects the pane. The page then also subscribes to `room:1`.
async fn join(pane: &Pane<'_>) {
    pane.click("connect").await;
    pane.until_logged("subscribed room:1").await;
}

impl Browser {
    fn sdk_pane(&self, number: u8) -> Pane<'_> {
        Pane {
            browser: self,
            name: format!("sdk-pane-{number}"),
        }
    }
}
