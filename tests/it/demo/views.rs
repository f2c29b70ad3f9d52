//! Pages on a desktop and on a phone, in light and dark mode.
//!
//! If `CURFEW_PICTURES` is a folder and `curfew` is on the path, this test takes new pictures for
//! this repository. They belong in `crates/curfew/assets`, where pictures of desktop views are
//! reduced to a palette of 256 colours, and in `deploy/examples/chat`.

use std::net::SocketAddr;
use std::path::PathBuf;

use curfew_testkit::http;
use curfew_tests::Dev;
use serde_json::{Value, json};

use super::Browser;

/// The suffix of a picture's name, the size of the view and its colour scheme.
const VIEWS: [(&str, [u32; 2], &str); 4] = [
    ("", [1280, 800], "light"),
    ("-dark", [1280, 800], "dark"),
    ("-phone", [390, 844], "light"),
    ("-phone-dark", [390, 844], "dark"),
];

/// Script that finds elements that reach beyond the view, except elements that scroll on their own.
const TOO_WIDE: &str = "
    const { clientWidth } = document.documentElement;
    const parts = [...document.querySelectorAll('main *')].filter((part) => !part.closest('.scroll, .sr, .cmd code'));
    const wide = parts.filter((part) => part.getBoundingClientRect().right > clientWidth + 1);
    return wide.map((part) => part.outerHTML.slice(0, 80));";

#[tokio::test]
async fn the_page_fits_a_desk_and_a_phone_by_day_and_by_night() {
    let dev = Dev::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", dev.address)).await;
    let (alice, bob) = browser.connected_panes().await;
    alice.click("publish").await;
    bob.until_text("said", "alice Good evening").await;
    alice.click("cut").await;
    alice.until_state("connecting").await;
    bob.click("publish").await;
    bob.until_text("said", "bob The kettle is on").await;
    alice.click("cut").await;
    alice
        .until_text("said", "bob The kettle is on recovered")
        .await;
    alice.click("revoke").await;
    alice.until_text("receipt", "1 session closed").await;
    browser
        .assert_fits("demo", async |name| {
            let page = "return getComputedStyle(document.body).colorScheme";
            assert_eq!(browser.ran(page).await, "light dark", "{name}");
            assert_eq!(browser.ran(TOO_WIDE).await, json!([]), "{name}");
            let log = "const log = document.querySelector('[data-testid=log]');
                return log.scrollWidth <= log.clientWidth";
            assert_eq!(
                browser.ran(log).await,
                json!(true),
                "{name}: frames do not wrap"
            );
        })
        .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

impl Browser {
    /// Shows the page in each view, and calls `check` there. Takes a picture if requested.
    pub(crate) async fn assert_fits(&self, page: &str, check: impl AsyncFn(&str)) {
        for (end, [width, height], scheme) in VIEWS {
            let name = format!("{page}{end}");
            self.look(width, height, scheme).await;
            let wide =
                "const page = document.documentElement; return page.scrollWidth > page.clientWidth";
            assert_eq!(
                self.ran(wide).await,
                json!(false),
                "{name} scrolls sideways"
            );
            check(&name).await;
            if let Some(folder) = std::env::var_os("CURFEW_PICTURES") {
                let picture = self.client.screenshot().await.unwrap();
                std::fs::write(PathBuf::from(folder).join(name + ".png"), picture).unwrap();
            }
        }
        self.chromium("Emulation.clearDeviceMetricsOverride", json!({}))
            .await;
    }

    /// Runs a script on the page, and returns its result.
    async fn ran(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Sets the size of the view, and the colour scheme that the page sees.
    async fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let features = [
            json!({"name": "prefers-color-scheme", "value": scheme}),
            // Without animations, each element has its final colours at once.
            json!({"name": "prefers-reduced-motion", "value": "reduce"}),
        ];
        let light = json!({ "features": features });
        let bars = json!({"hidden": true});
        self.chromium("Emulation.setScrollbarsHidden", bars).await;
        self.chromium("Emulation.setDeviceMetricsOverride", size)
            .await;
        self.chromium("Emulation.setEmulatedMedia", light).await;
    }

    /// Sends a command of Chromium that WebDriver lacks.
    async fn chromium(&self, command: &str, parameters: Value) {
        let session = self.client.session_id().await.unwrap().unwrap();
        let path = format!("/session/{session}/goog/cdp/execute");
        let body = json!({"cmd": command, "params": parameters}).to_string();
        let driver = SocketAddr::from(([127, 0, 0, 1], self.driver.port));
        let headers = [("content-type", "application/json")];
        let done = http::request(driver, "POST", &path, &headers, body.as_bytes()).await;
        assert_eq!(done.status, 200, "{}", done.text());
    }
}
