//! The client in a page of Chromium, loaded from the node as a module.

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Gateway, Link, Proxy};
use serde_json::json;

use super::settings;
use crate::clients::program;
use crate::demo::Browser;

#[tokio::test]
async fn a_page_of_another_origin_uses_the_client() {
    // The page has the first node's origin and uses the second node.
    let site = Gateway::start_with(&settings()).await;
    let page = format!("http://{}", site.address());
    let origins = format!("server.allowed_origins = [{page:?}]");
    let node = Gateway::start_with(&settings().with(&origins)).await;
    let way = Proxy::start(node.address()).await;
    let browser = Browser::start().await;
    browser.open(&format!("{page}/client.js")).await;
    let token = Key::default_secret().user_with("alice", json!({"exp":unix_now() + 600}));
    let task = json!({"node":way.address().to_string(),"token":token});
    let script = std::fs::read_to_string(program("curfew_page.js")).unwrap();
    browser.client.execute(&script, vec![task]).await.unwrap();
    until_steps(&browser, 4).await;
    let mut steps = steps(&browser).await;
    // The answer to the publish command and the message may come in either order.
    steps[2..].sort();
    let first = [
        "open alice",
        "subscribed undefined",
        "message 0 at 1",
        "published at 1",
    ];
    assert_eq!(steps, first);

    // The network stops silently. The browser's event `online` makes the page check the connection.
    way.set(Link::STALLED);
    node.publish("room:page", json!({"n":1})).await;
    let online = "dispatchEvent(new Event('online'))";
    browser.client.execute(online, Vec::new()).await.unwrap();
    until_step(&browser, "close 1006 timeout true").await;
    way.set(Link::PASS);
    until_step(&browser, "message 1 at 2").await;
    until_step(&browser, "subscribed true").await;

    way.set(Link::CUT);
    node.publish("room:page", json!({"n":2})).await;
    way.set(Link::PASS);
    until_step(&browser, "message 2 at 3").await;

    node.revoke(json!({"kind":"user","value":"alice"})).await;
    until_step(&browser, "close 4403 revoked false").await;
    let all = self::steps(&browser).await;
    assert!(!all.iter().any(|step| step == "gap"), "{all:?}");
    let messages = all.iter().filter(|step| step.starts_with("message "));
    assert_eq!(messages.count(), 3, "{all:?}");
    assert_eq!(
        all.last().map(String::as_str),
        Some("close 4403 revoked false")
    );
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// The steps that the page has noted so far.
async fn steps(browser: &Browser) -> Vec<String> {
    let steps = browser.client.execute("return steps", Vec::new()).await;
    serde_json::from_value(steps.unwrap()).unwrap()
}

async fn until_steps(browser: &Browser, count: usize) {
    let what = format!("the page has {count} steps");
    let holds = async || steps(browser).await.len() >= count;
    browser.until(&what, holds).await;
}

async fn until_step(browser: &Browser, step: &str) {
    let what = format!("the page has the step {step:?}");
    let holds = async || steps(browser).await.iter().any(|each| each == step);
    browser.until(&what, holds).await;
}
