//! The Centrifuge client protocol: tested with its published SDKs, and compared with the original
//! server.

mod browser;
mod bytes;
mod clients;
mod delta;
mod errors;
mod http;
mod joins;
mod oracle;
mod raw;
mod suites;
mod tokens;

use curfew_tests::Settings;

/// The channels of the programs in `tests/clients/`. The rules allow every channel that the
/// programs use, except `closed:`.
const CHANNELS: &str = r#"
[[policy.rules]]
name = "everything"
channels = ["room:*", "small:*", "plain:*"]
actions = ["subscribe", "publish", "history", "presence"]

[[channels]]
pattern = "room:*"
history = { size = 1000, ttl = "10m" }
presence = true
join_leave = true
delta = true

[[channels]]
pattern = "small:*"
history = { size = 2, ttl = "10m" }
"#;

/// A node that speaks the Centrifuge protocol, and pings at an interval short enough for a test.
fn settings() -> Settings {
    Settings::default()
        .rules(CHANNELS)
        .with("centrifuge.enabled = true")
        .with("centrifuge.subscription_tokens = true")
        .with("session.ping_interval = \"1s\"")
}

/// A node that speaks the Centrifuge protocol and has these `[[channels]]`. Its rules allow
/// everything.
fn with_channels(channels: &str) -> Settings {
    let rules = "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
                 actions = [\"subscribe\", \"publish\", \"history\", \"presence\"]\n";
    Settings::default()
        .rules(&format!("{rules}{channels}"))
        .with("centrifuge.enabled = true")
}
