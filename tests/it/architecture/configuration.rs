//! CONFIG.md, the reference of the configuration, compared with the keys that the binary has.

use std::collections::BTreeSet;

use curfew_tests::curfew;
use serde_json::Value;

use super::markdown::{Page, quoted};

/// The keys whose names are part of the contract.
const PROMISED: [(&str, &[&str]); 14] = [
    (
        "server",
        &["listen", "allowed_origins", "tls_cert_file", "tls_key_file"],
    ),
    ("admin", &["listen", "key_file"]),
    ("auth", &["token_sources", "timeout", "reject", "leeway"]),
    (
        "auth.issuers",
        &[
            "name",
            "issuer",
            "audience",
            "algorithms",
            "secret",
            "secret_file",
            "public_key_file",
            "jwks_file",
        ],
    ),
    (
        "session",
        &[
            "expiring_notice",
            "revocable_claims",
            "max_per_user",
            "over_limit",
        ],
    ),
    (
        "limits",
        &[
            "message_bytes",
            "outbound_bytes",
            "subscriptions",
            "messages_per_second",
            "connections",
            "handshakes_per_second",
            "bad_frames",
            "window_bytes",
        ],
    ),
    ("policy", &["grants_claim"]),
    (
        "policy.rules",
        &["name", "channels", "actions", "when", "effect"],
    ),
    ("channels", &["pattern", "history", "recover"]),
    ("channels.history", &["size", "ttl"]),
    ("backend", &["kind"]),
    ("backend.redis", &["url", "prefix"]),
    ("drain", &["window"]),
    ("telemetry", &["log_format", "log_level"]),
];

/// Every `section.key` of CONFIG.md, and every list of tables.
fn documented() -> BTreeSet<String> {
    let page = Page::read("crates/curfew/CONFIG.md");
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in page.text().lines() {
        if line.starts_with('#') {
            let name = quoted(line).first().copied().unwrap_or_default();
            section = name.trim_matches(['[', ']']).to_owned();
            if name.starts_with("[[") {
                // A list of tables is a key as well.
                keys.insert(section.clone());
            }
        } else if line.starts_with("| `") {
            keys.insert(format!("{section}.{}", quoted(line)[0]));
        }
    }
    keys
}

/// Every `section.key` of a configuration in JSON, including nested tables.
fn keys(path: &str, table: &Value, found: &mut BTreeSet<String>) {
    for (key, value) in table.as_object().expect("a table") {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if value.is_object() {
            keys(&path, value, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn the_reference_has_every_promised_key() {
    let documented = documented();
    for (section, keys) in PROMISED {
        for key in keys {
            let path = format!("{section}.{key}");
            assert!(documented.contains(&path), "{path} is not in CONFIG.md");
        }
    }
}

#[tokio::test]
async fn the_reference_has_every_key_that_is_printed() {
    let printed = curfew(&["print-config", "--json", "--set", "backend.kind=memory"]).await;
    let config: Value = serde_json::from_str(&printed.stdout)
        .unwrap_or_else(|error| panic!("{error}: {printed:?}"));
    let (documented, mut found) = (documented(), BTreeSet::new());
    keys("", &config, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for key in found {
        assert!(documented.contains(&key), "{key} is not in CONFIG.md");
    }
}
