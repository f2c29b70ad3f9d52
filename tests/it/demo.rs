//! The demo page of `curfew dev`, used in Chromium as a new user would use it.
//!
//! Needs `chromium` and `chromedriver` on the path, and fails without them.

mod centrifuge;
mod first;
mod views;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use curfew_testkit::http;
use curfew_tests::Dev;
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;

/// Deadline for any step of the page.
const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum number of starts of chromedriver until one finds a free port.
const DRIVER_STARTS: usize = 5;

/// Interval between checks of the page.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lifetime of a token, in seconds. It is so short that the node soon announces the token's end.
const SHORT_LIFE: u64 = 12;

#[tokio::test]
async fn the_demo_page_lets_two_users_talk_and_cuts_one_of_them_off() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let (alice, bob) = (browser.pane(1), browser.pane(2));

    // The first user picks a name, roles and a short-lived token.
    alice.fill("user", "alice").await;
    alice.click("role-moderator").await;
    alice.pick_life(SHORT_LIFE).await;
    alice.click("connect").await;
    alice.until_text("name-roles", "member, moderator").await;
    alice.until_connected().await;

    // The page subscribes by itself.
    alice.until_text("subscriptions", "room:1 0").await;
    alice
        .fill("data", r#"{"n": 1.50, "text": "<b>hello</b>"}"#)
        .await;
    alice.click("publish").await;
    let arrived = r#"{"type": "message", "channel": "room:1", "data": {"n": 1.50, "text": "<b>hello</b>"}, "from": "alice", "offset": 1}"#;
    alice.until_logged(arrived).await;
    alice.until_text("said", "alice <b>hello</b>").await;

    // The node announces that the token is about to expire, and the page gets a new token.
    let at_first = alice.seconds_left().await;
    assert!(at_first <= SHORT_LIFE, "{at_first} s left of {SHORT_LIFE}");
    alice.click("next-3600").await;
    alice.until_logged(r#"{"type": "expiring""#).await;
    alice.until_logged(r#"{"type": "refreshed""#).await;
    let renewed = async || (3500..=3600).contains(&alice.seconds_left().await);
    browser.until("an hour is left", renewed).await;
    alice.until_state("open").await;

    // The page's second user receives messages of the first user.
    bob.click("connect").await;
    bob.until_text("subscriptions", "room:1 1").await;
    alice.fill("data", r#""still here""#).await;
    alice.click("publish").await;
    let heard = r#""data": "still here", "from": "alice", "offset": 2}"#;
    bob.until_logged(heard).await;
    bob.click("presence").await;
    bob.until_text("present", "In room:1: alice, bob.").await;
    let lights = async || browser.text(r#"[data-testid="lights"]"#).await == "2 lights on";
    browser.until("two windows are lit", lights).await;

    // The second user subscribes to another channel, and unsubscribes again.
    bob.fill("channel", "room:7").await;
    bob.click("subscribe").await;
    bob.until_text("subscriptions", "room:7 0").await;
    let chip = "[data-testid=\"subscription\"]:has([title^=\"position \"])";
    let chip = format!(r#"[data-testid="pane-2"] li:last-child {chip}"#);
    browser.find(&chip).await.click().await.unwrap();
    bob.until_logged(r#"{"type": "unsubscribe", "channel": "room:7""#)
        .await;
    assert!(!bob.text("subscriptions").await.contains("room:7"));

    // The first user is revoked.
    assert_eq!(alice.text("revoke").await, "Revoke alice");
    alice.click("revoke").await;
    alice.until_state("closed").await;
    assert_eq!(alice.text("close-code").await, "4403");
    assert_eq!(alice.text("close-reason").await, "revoked");
    alice
        .until_logged(r#"{"type": "closing", "code": 4403, "reason": "revoked""#)
        .await;
    alice
        .until_text("receipt", "1 of 1 node confirmed, 1 session closed")
        .await;
    assert_eq!(bob.state().await, "open");
    bob.fill("channel", "room:1").await;
    bob.fill("data", r#""alone now""#).await;
    bob.click("publish").await;
    bob.until_logged(r#""data": "alone now", "from": "bob", "offset": 3}"#)
        .await;
    assert!(!alice.text("said").await.contains("alone now"));

    // Alice cannot reconnect before the revocation is lifted. Then she gets the missed messages.
    alice.click("reconnect").await;
    alice
        .until_logged(r#"{"type": "auth_failed", "reason": "revoked""#)
        .await;
    alice.until_state("closed").await;
    alice.click("restore").await;
    alice.until_text("close-advice", "lifted").await;
    alice.click("reconnect").await;
    alice.until_connected().await;
    alice
        .until_text("recovery", "Recovered 1 of 1 missed in room:1: offset 3.")
        .await;
    let steps = browser.find(r#"[data-testid="steps"]"#).await;
    let all = steps.find_all(Locator::Css("li")).await.unwrap();
    let done = steps.find_all(Locator::Css("[data-done]")).await.unwrap();
    assert_eq!((all.len(), done.len()), (3, 3), "not every step is done");

    // The command line that the page shows works when it is pasted into a terminal.
    let line = bob.text("revoke-line").await;
    assert!(!line.contains("redis-cli"), "{line}");
    let mut shell = tokio::process::Command::new("sh");
    let pasted = shell.args(["-c", &line]).output().await.unwrap();
    assert!(pasted.status.success(), "{line}: {pasted:?}");
    bob.until_state("closed").await;
    assert_eq!(bob.text("close-code").await, "4403");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Asserts that a log has each of four messages once, and a line `recovered` before the second and
/// the third, which were missed. `is_message` compares a line with a message's text and offset.
fn assert_recovered(log: &str, is_message: impl Fn(&str, &str, u64) -> bool) {
    let lines: Vec<&str> = log.lines().collect();
    for (text, offset, is_recovered) in [
        ("one", 1, false),
        ("two", 2, true),
        ("three", 3, true),
        ("four", 4, false),
    ] {
        let marks = lines
            .windows(2)
            .filter(|pair| is_message(pair[1], text, offset))
            .map(|pair| pair[0] == "recovered");
        assert_eq!(marks.collect::<Vec<_>>(), [is_recovered], "{log}");
    }
}

/// Regression: a client that was disconnected could not tell which messages it had missed.
#[tokio::test]
async fn a_user_whose_line_is_cut_comes_back_and_has_everything() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let (alice, bob) = browser.connected_panes().await;
    let bob_says = async |text: &str, offset: u64| {
        bob.fill("data", &format!("\"{text}\"")).await;
        bob.click("publish").await;
        bob.until_logged(&format!(r#""offset": {offset}}}"#)).await;
    };
    let cut = async || {
        assert_eq!(alice.text("cut").await, "Cut the line");
        alice.click("cut").await;
        alice.until_state("connecting").await;
        assert_eq!(alice.text("state").await, "the line is cut");
        assert_eq!(alice.text("cut").await, "Mend the line");
        alice.until_text("waiting", "Publish as another user").await;
    };
    let message = |text: &str, offset: u64| {
        format!(r#""data": "{text}", "from": "bob", "offset": {offset}}}"#)
    };
    bob_says("one", 1).await;
    alice.until_logged(&message("one", 1)).await;

    cut().await;
    bob_says("two", 2).await;
    bob_says("three", 3).await;
    alice.click("cut").await;
    let recovered = "Recovered 2 of 2 missed in room:1: offsets 2 to 3.";
    alice.until_text("recovery", recovered).await;
    bob_says("four", 4).await;
    alice.until_logged(&message("four", 4)).await;
    assert_recovered(&alice.text("log").await, |line, text, offset| {
        line.ends_with(&message(text, offset))
    });

    // No message is sent while the line is cut.
    cut().await;
    alice.click("cut").await;
    alice
        .until_text("recovery", "Nothing was missed in room:1.")
        .await;
    alice.until_text("subscriptions", "room:1 4").await;

    // If the missed messages are deleted, the page says that they are lost.
    cut().await;
    bob_says("five", 5).await;
    let authorization = format!("Bearer {}", dev.admin_key().await);
    let headers = [("authorization", authorization.as_str())];
    let path = "/v1/channels/room:1/history";
    let deleted = http::request(dev.admin, "DELETE", path, &headers, b"").await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    alice.click("cut").await;
    alice
        .until_text("recovery", "Not recovered: what came in room:1 after ")
        .await;
    assert!(alice.text("recovery").await.contains(":5 on."));
    let log = alice.text("log").await;
    assert!(!log.contains(&message("five", 5)), "{log}");

    // The page receives a `gap` frame, which reports lost publications.
    let gap = r#"const data = '{"type":"gap","channel":"room:1","epoch":"kdWqZx3a","offset":9}';
        panes[0].line.dispatchEvent(new MessageEvent('message', { data }));"#;
    browser.client.execute(gap, Vec::new()).await.unwrap();
    let told = ":5 cannot be had. Messages follow from kdWqZx3a:9 on.";
    alice.until_text("recovery", told).await;
    alice.until_text("subscriptions", "room:1 9").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Regression: to look up a trace, its id had to be copied by hand from a frame to another page.
#[tokio::test]
async fn what_names_a_trace_is_a_link_to_it() {
    let dev = Dev::start_with_variables(&[
        // The node records spans although no collector accepts them.
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        (
            "CURFEW__TELEMETRY__TRACE_URL",
            "https://jaeger.example/trace/{trace_id}",
        ),
    ])
    .await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let alice = browser.pane(1);
    alice.click("connect").await;
    alice.until_connected().await;
    alice.click("revoke").await;
    alice.until_state("closed").await;
    let href = alice.part("trace").await.attr("href").await.unwrap();
    let trace = href
        .as_deref()
        .and_then(|href| href.strip_prefix("https://jaeger.example/trace/"));
    assert_eq!(trace.map(str::len), Some(32), "{href:?}");
    alice
        .until_logged(&format!("\"trace\": \"{}\"", trace.unwrap()))
        .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// A headless Chromium with its driver. Dropping the value ends both programs.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Driver,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let driver = Driver::start();
        let profile = TempDir::new().unwrap();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--window-size=1280,1000", profile_argument,
                // Only loopback addresses resolve, so the page cannot load anything from elsewhere.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ]},
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{}", driver.port))
            .await
            .expect("chromedriver starts chromium; install the Debian packages chromium and chromium-driver");
        Self {
            client,
            driver,
            _profile: profile,
        }
    }

    /// Opens the page. From then on, collects the errors of its scripts and the violations of its
    /// content policy.
    pub(crate) async fn open(&self, address: &str) {
        self.client.goto(address).await.unwrap();
        let note = "window.complaints = [];
            addEventListener('error', (event) => complaints.push(event.message));
            addEventListener('unhandledrejection', (event) => complaints.push(String(event.reason)));
            addEventListener('securitypolicyviolation', (event) => complaints.push(event.violatedDirective));";
        self.client.execute(note, Vec::new()).await.unwrap();
    }

    pub(crate) async fn complaints(&self) -> Vec<String> {
        let complaints = self.client.execute("return complaints", Vec::new()).await;
        serde_json::from_value(complaints.unwrap()).unwrap()
    }

    /// Connects both panes of the page, and returns them.
    async fn connected_panes(&self) -> (Pane<'_>, Pane<'_>) {
        let panes = (self.pane(1), self.pane(2));
        for pane in [&panes.0, &panes.1] {
            pane.click("connect").await;
            pane.until_text("subscriptions", "room:1 0").await;
        }
        panes
    }

    fn pane(&self, number: u8) -> Pane<'_> {
        Pane {
            browser: self,
            name: format!("pane-{number}"),
        }
    }

    pub(crate) async fn find(&self, selector: &str) -> Element {
        self.client
            .wait()
            .at_most(PATIENCE)
            .every(LOOK_EVERY)
            .for_element(Locator::Css(selector))
            .await
            .unwrap_or_else(|error| panic!("{selector} is not on the page: {error}"))
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    /// Checks the page until `holds` returns true. Panics with the page's text after [`PATIENCE`].
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            if Instant::now() > deadline {
                let page = self.text("main").await;
                panic!("{what}: not true within {PATIENCE:?}; the page says:\n{page}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// One user's half of the page.
struct Pane<'a> {
    browser: &'a Browser,
    name: String,
}

impl Pane<'_> {
    fn selector(&self, name: &str) -> String {
        let pane = &self.name;
        format!(r#"[data-testid="{pane}"] [data-testid="{name}"]"#)
    }

    async fn part(&self, name: &str) -> Element {
        self.browser.find(&self.selector(name)).await
    }

    async fn text(&self, name: &str) -> String {
        self.part(name).await.text().await.unwrap()
    }

    async fn click(&self, name: &str) {
        let part = self.part(name).await;
        part.click()
            .await
            .unwrap_or_else(|error| panic!("click {name} of {}: {error}", self.name));
    }

    async fn fill(&self, name: &str, text: &str) {
        let field = self.part(name).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Replaces the shortest lifetime of tokens on the page by a shorter one, and selects it.
    async fn pick_life(&self, seconds: u64) {
        let shorten = "document.querySelectorAll(arguments[0]).forEach((radio) => { radio.value = arguments[1]; })";
        let radios = format!(r#"[data-testid="{}"] input[value="20"]"#, self.name);
        let arguments = vec![json!(radios), json!(seconds)];
        let shortened = self.browser.client.execute(shorten, arguments);
        shortened.await.unwrap();
        self.click("life-20").await;
    }

    async fn state(&self) -> String {
        let pane = format!(r#"[data-testid="{}"]"#, self.name);
        let pane = self.browser.find(&pane).await;
        pane.attr("data-state").await.unwrap().unwrap()
    }

    async fn seconds_left(&self) -> u64 {
        let countdown = self.part("countdown").await;
        let seconds = countdown.attr("data-seconds").await.unwrap();
        seconds.expect("a token's time is running").parse().unwrap()
    }

    async fn until_state(&self, state: &str) {
        let what = format!("{} becomes {state}", self.name);
        let holds = async || self.state().await == state;
        self.browser.until(&what, holds).await;
    }

    /// Waits until the pane is connected, even if its token is about to expire.
    async fn until_connected(&self) {
        let what = format!("{} connects", self.name);
        let holds = async || matches!(self.state().await.as_str(), "open" | "expiring");
        self.browser.until(&what, holds).await;
    }

    async fn until_text(&self, name: &str, text: &str) {
        let what = format!("{name} of {} says {text}", self.name);
        let holds = async || self.text(name).await.contains(text);
        self.browser.until(&what, holds).await;
    }

    async fn until_logged(&self, line: &str) {
        self.until_text("log", line).await;
    }
}

/// chromedriver, which starts and ends browsers.
struct Driver {
    child: Child,
    port: u16,
    /// The pipe stays open for as long as the driver may write to it.
    _stdout: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts chromedriver, which chooses a port and prints it. It chooses a port that is free for
    /// IPv4, and ends if the port is in use for IPv6. It is then started again, at most
    /// [`DRIVER_STARTS`] times in all.
    fn start() -> Self {
        let mut starts = (0..DRIVER_STARTS).filter_map(|_| Self::try_start());
        starts.next().expect("chromedriver finds a free port")
    }

    /// Starts chromedriver once. `None` if it ends without printing its port.
    fn try_start() -> Option<Self> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs; install the Debian packages chromium and chromium-driver");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let port = stdout
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            });
        let Some(port) = port else {
            drop((child.kill(), child.wait()));
            return None;
        };
        Some(Self {
            child,
            port,
            _stdout: stdout,
        })
    }

    /// Asks the driver to end, which also ends its browsers. A kill would leave them running.
    fn shut_down(&self) -> std::io::Result<()> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(
            connection,
            "GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port
        )?;
        connection.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.shut_down());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
