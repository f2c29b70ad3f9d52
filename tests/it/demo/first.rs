//! The demo page for a new user: in two tabs, across a restart of the node, and when a token
//! expires.

use curfew_tests::Dev;
use fantoccini::Locator;

use super::Browser;

/// Regression: the two users of a chat were always in the same page.
#[tokio::test]
async fn the_other_side_of_a_chat_is_in_a_second_tab() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let first = browser.client.window().await.unwrap();
    // In each tab, the user is in the page's first pane.
    let pane = browser.pane(1);
    pane.click("connect").await;
    pane.until_text("subscriptions", "room:1 0").await;

    let link = browser.find(r#"[data-testid="second-tab"]"#).await;
    assert_eq!(link.text().await.unwrap(), "open bob in a second tab");
    link.click().await.unwrap();
    let opened = async || browser.client.windows().await.unwrap().len() == 2;
    browser.until("there is a second tab", opened).await;
    let windows = browser.client.windows().await.unwrap();
    let second = windows.into_iter().find(|window| *window != first).unwrap();
    let at = async |window| browser.client.switch_to_window(window).await.unwrap();
    at(second.clone()).await;
    pane.until_text("name", "bob").await;
    pane.until_text("subscriptions", "room:1 0").await;
    let panes = r#"[data-testid="panes"] .pane"#;
    let panes = browser.client.find_all(Locator::Css(panes)).await.unwrap();
    assert_eq!(panes.len(), 1);
    pane.click("publish").await;
    pane.until_text("said", "bob The kettle is on").await;

    at(first).await;
    pane.until_text("said", "bob The kettle is on").await;
    pane.click("publish").await;
    at(second).await;
    pane.until_text("said", "alice Good evening").await;
}

/// Regression: after the node had restarted, the page had to be reloaded, because its key and its
/// tokens belonged to the previous process.
#[tokio::test]
async fn after_a_restart_of_the_node_the_page_comes_back_by_itself() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let (alice, bob) = browser.connected_panes().await;
    let before = alice.text("session").await;
    alice.click("publish").await;
    bob.until_text("said", "alice Good evening").await;
    bob.click("revoke").await;
    bob.until_state("closed").await;

    let dev = dev.start_anew().await;
    let is_back = async || {
        let session = alice.text("session").await;
        alice.state().await == "open" && session != before
    };
    browser.until("alice is back", is_back).await;
    let lost = "Not recovered: what came in room:1 after ";
    alice.until_text("recovery", lost).await;
    // The new node has no revocation, and the line for a terminal has the new node's key.
    let line = bob.text("revoke-line").await;
    assert!(line.contains(&dev.admin_key().await), "{line}");
    assert_eq!(bob.text("revoke").await, "Revoke bob");
    bob.click("reconnect").await;
    bob.until_connected().await;
    bob.click("publish").await;
    alice.until_text("said", "bob The kettle is on").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Regression: within the leeway the page said "connected, 0:00", and not what it was waiting for.
#[tokio::test]
async fn at_the_end_of_a_token_the_page_says_what_it_waits_for() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let alice = browser.pane(1);
    // The page connects with a token of this lifetime, and requests no new token after that.
    alice.pick_life(2).await;
    // The leeway is short, so a script in the page records the texts that the page shows.
    let note = "window.told = new Set();
        const said = (name) => panes[0].part(name).textContent;
        const note = () => told.add(`${said('state')}, ${said('countdown')}`);
        new MutationObserver(note).observe(panes[0].root, { childList: true, subtree: true });";
    browser.client.execute(note, Vec::new()).await.unwrap();
    alice.click("connect").await;
    alice.click("next-0").await;
    alice.until_state("closed").await;
    let told = "return [...told].filter((text) => text.startsWith('expired: '))";
    let told = browser.client.execute(told, Vec::new()).await.unwrap();
    let told: Vec<String> = serde_json::from_value(told).unwrap();
    let waits = |text: &String| {
        text.starts_with("expired: the node closes in ")
            && text.ends_with(" s, its leeway for clocks, 0:00leeway")
    };
    assert!(!told.is_empty() && told.iter().all(waits), "{told:?}");
    assert_eq!(alice.text("close-code").await, "4410");
    assert_eq!(alice.text("close-reason").await, "expired");
    alice.until_text("close-advice", "no new token").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
