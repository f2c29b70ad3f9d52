//! A node does not start with a faulty configuration, and reports all of its faults (CONTRACT §1,
//! §6).

use std::net::TcpListener;

use curfew_testkit::mint::{Key, jwks};
use curfew_tests::{Finished, Gateway, Settings, curfew, curfew_with};
use serde_json::json;

struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    fn new(toml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("curfew.toml"), toml).unwrap();
        Self { directory }
    }

    fn path(&self) -> String {
        self.directory
            .path()
            .join("curfew.toml")
            .to_str()
            .unwrap()
            .to_owned()
    }

    async fn serve(&self) -> Finished {
        curfew(&["serve", "--config", &self.path()]).await
    }
}

fn refused(finished: &Finished, keys: &[&str]) {
    assert_eq!(finished.code, 2, "{keys:?}: {finished:?}");
    for key in keys {
        assert!(
            finished.stderr.contains(key),
            "stderr does not name {key}: {}",
            finished.stderr
        );
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[tokio::test]
async fn every_wrong_value_is_refused_with_its_key_and_file() {
    let base = Settings::default;
    for (setting, key) in [
        ("server.listen = \"nowhere\"", "server.listen"),
        ("server.listen = \"127.0.0.1:99999\"", "server.listen"),
        ("server.surprise = 1", "server.surprise"),
        ("surprise.key = 1", "surprise"),
        (
            "server.allowed_origins = \"https://a.example\"",
            "server.allowed_origins",
        ),
        (
            "server.allowed_origins = [\"a.example\"]",
            "server.allowed_origins",
        ),
        (
            "server.allowed_origins = [\"https://a.example/path\"]",
            "server.allowed_origins",
        ),
        (
            "server.allowed_origins = [\"https://*.example\"]",
            "server.allowed_origins",
        ),
        (
            "server.tls_cert_file = \"/nonexistent/cert.pem\"",
            "server.tls_key_file",
        ),
        (
            "server.tls_key_file = \"/nonexistent/key.pem\"",
            "server.tls_cert_file",
        ),
        ("server.handshake_timeout = 5", "server.handshake_timeout"),
        (
            "server.handshake_timeout = \"5\"",
            "server.handshake_timeout",
        ),
        (
            "server.handshake_timeout = \"0s\"",
            "server.handshake_timeout",
        ),
        ("admin.key = \"short\"", "admin.key"),
        ("admin.key_file = \"/nonexistent\"", "admin.key"),
        ("auth.token_sources = []", "auth.token_sources"),
        ("auth.token_sources = [\"body\"]", "auth.token_sources"),
        ("auth.timeout = \"0s\"", "auth.timeout"),
        ("auth.reject = \"loudly\"", "auth.reject"),
        ("auth.leeway = \"2h\"", "auth.leeway"),
        ("auth.leeway = \"-1s\"", "auth.leeway"),
        ("session.expiring_notice = true", "session.expiring_notice"),
        (
            "session.revocable_claims = [\"user\"]",
            "session.revocable_claims",
        ),
        ("session.max_per_user = -1", "session.max_per_user"),
        ("session.ping_interval = \"0s\"", "session.ping_interval"),
        ("limits.message_bytes = 0", "limits.message_bytes"),
        ("limits.message_bytes = \"64 KiB\"", "limits.message_bytes"),
        ("limits.message_bytes = -1", "limits.message_bytes"),
        ("limits.outbound_bytes = 1", "limits.outbound_bytes"),
        ("limits.subscriptions = 0", "limits.subscriptions"),
        ("limits.fragments = 0", "limits.fragments"),
        ("limits.connections = 1.5", "limits.connections"),
        (
            "limits.handshakes_per_second = \"many\"",
            "limits.handshakes_per_second",
        ),
        ("backend.kind = \"postgres\"", "backend.kind"),
        ("drain.window = \"soon\"", "drain.window"),
        ("telemetry.log_format = \"xml\"", "telemetry.log_format"),
        ("telemetry.log_level = \"loud\"", "telemetry.log_level"),
    ] {
        let case = Case::new(&base().with(setting).to_toml());
        refused(&case.serve().await, &[key, "curfew.toml"]);
    }
}

#[tokio::test]
async fn wrong_issuers_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        format!("{path:?}")
    };
    let secret = format!("\"{}\"", "s".repeat(32));
    let short = file("short", "short");
    let empty = file("empty", "");
    let pem = file("key.pem", Key::rsa().public_pem());
    let good_jwks = file("keys.json", &jwks(&[&Key::rsa().with_kid("k")]));
    let symmetric = file(
        "oct.json",
        r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}"#,
    );
    let issuer = |body: &str| format!("[[auth.issuers]]\nname = \"main\"\n{body}\n");
    for (issuers, says) in [
        (String::new(), "auth.issuers"),
        (issuer(""), "auth.issuers[0]"),
        (issuer("secret = \"too short\""), "auth.issuers[0].secret"),
        (issuer(&format!("secret = \"{}\"", "s".repeat(31))), "32"),
        (
            issuer(&format!("secret_file = {short}")),
            "auth.issuers[0].secret_file",
        ),
        (
            issuer(&format!("secret_file = {empty}")),
            "auth.issuers[0].secret_file",
        ),
        (
            issuer("secret_file = \"/nonexistent\""),
            "auth.issuers[0].secret_file",
        ),
        (
            issuer(&format!("secret = {secret}\nsecret_file = {short}")),
            "auth.issuers[0]",
        ),
        (
            issuer(&format!("secret = {secret}\njwks_file = {good_jwks}")),
            "auth.issuers[0]",
        ),
        (
            issuer(&format!("public_key_file = {short}")),
            "auth.issuers[0].public_key_file",
        ),
        (
            issuer(&format!("jwks_file = {pem}")),
            "auth.issuers[0].jwks_file",
        ),
        (
            issuer(&format!("jwks_file = {symmetric}")),
            "auth.issuers[0].jwks_file",
        ),
        (
            issuer(&format!("secret = {secret}\nalgorithms = [\"RS256\"]")),
            "auth.issuers[0].algorithms",
        ),
        (
            issuer(&format!(
                "public_key_file = {pem}\nalgorithms = [\"HS256\"]"
            )),
            "auth.issuers[0].algorithms",
        ),
        (
            issuer(&format!("public_key_file = {pem}\nalgorithms = [\"none\"]")),
            "auth.issuers[0].algorithms",
        ),
        (
            issuer(&format!("secret = {secret}\nalgorithms = []")),
            "auth.issuers[0].algorithms",
        ),
        (
            issuer(&format!("secret = {secret}\naudience = []")),
            "auth.issuers[0].audience",
        ),
        (
            issuer(&format!("secret = {secret}\nissuer = \"\"")),
            "auth.issuers[0].issuer",
        ),
        (
            issuer(&format!("secret = {secret}\nsurprise = 1")),
            "surprise",
        ),
        (
            format!("[[auth.issuers]]\nsecret = {secret}\n"),
            "auth.issuers[0].name",
        ),
        (
            format!(
                "{}{}",
                issuer(&format!("secret = {secret}\nissuer = \"a\"")),
                issuer(&format!("secret = {secret}\nissuer = \"b\""))
            ),
            "auth.issuers[1].name",
        ),
        (
            format!(
                "{}[[auth.issuers]]\nname = \"two\"\nsecret = {secret}\n",
                issuer(&format!("secret = {secret}"))
            ),
            "issuer",
        ),
        (
            issuer("jwks_url = \"https://{iss}/jwks\""),
            "auth.issuers[0].jwks_url",
        ),
    ] {
        let case = Case::new(&Settings::default().issuers(&issuers).to_toml());
        refused(&case.serve().await, &[says]);
    }
}

#[tokio::test]
async fn wrong_rules_are_refused() {
    let rule = |body: &str| format!("[[policy.rules]]\n{body}\n");
    let long = format!("'{}' == 'x'", "x".repeat(3000));
    let deep = format!("{}true{}", "(".repeat(500), ")".repeat(500));
    let wide = format!("0 == 0{}", "+1".repeat(900));
    let with = |when: &str| {
        rule(&format!(
            "name = \"r\"\nchannels = [\"a\"]\nactions = [\"publish\"]\nwhen = {}",
            json!(when)
        ))
    };
    for (rules, says) in [
        (
            rule("name = \"r\"\nactions = [\"publish\"]"),
            "policy.rules[0].channels",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a\"]"),
            "policy.rules[0].actions",
        ),
        (
            rule("channels = [\"a\"]\nactions = [\"publish\"]"),
            "policy.rules[0].name",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a\"]\nactions = [\"dance\"]"),
            "policy.rules[0].actions",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a\"]\nactions = [\"publish\"]\neffect = \"maybe\""),
            "policy.rules[0].effect",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a b\"]\nactions = [\"publish\"]"),
            "policy.rules[0].channels",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a:{x\"]\nactions = [\"publish\"]"),
            "policy.rules[0].channels",
        ),
        (
            rule("name = \"r\"\nchannels = [\"a:*:b\"]\nactions = [\"publish\"]"),
            "policy.rules[0].channels",
        ),
        (with("(("), "policy.rules[0].when"),
        (
            with("claims.roles.exists(r, r == 'x')"),
            "policy.rules[0].when",
        ),
        (with("unknown_function(claims)"), "policy.rules[0].when"),
        (with(&long), "policy.rules[0].when"),
        (with(&deep), "policy.rules[0].when"),
    ] {
        let case = Case::new(&Settings::default().rules(&rules).to_toml());
        refused(&case.serve().await, &[says]);
    }
    // This expression may be accepted or refused, but the process must not crash.
    let case = Case::new(&Settings::default().rules(&with(&wide)).to_toml());
    let checked = curfew(&["check-config", "--config", &case.path()]).await;
    assert!([0, 2].contains(&checked.code), "{checked:?}");
}

#[tokio::test]
async fn wrong_channels_are_refused() {
    let entry = |pattern: &str, history: &str| {
        format!("[[channels]]\npattern = \"{pattern}\"\nhistory = {{ {history} }}\n")
    };
    let good = "size = 1, ttl = \"1m\"";
    for (channels, says) in [
        (entry("a*", good), "channels[0].pattern"),
        (
            entry("a", "size = 0, ttl = \"1m\""),
            "channels[0].history.size",
        ),
        (
            entry("a", "size = 1, ttl = \"0s\""),
            "channels[0].history.ttl",
        ),
        (entry("a", "size = 1"), "ttl"),
        (entry("a", good) + "presents = true\n", "presents"),
        (entry("*", good) + &entry("a", good), "channels[1].pattern"),
    ] {
        let case = Case::new(&Settings::default().rules(&channels).to_toml());
        refused(&case.serve().await, &[says]);
    }
}

#[tokio::test]
async fn cookies_need_a_list_of_origins() {
    let cookie = Settings::default().with("auth.token_sources = [\"cookie\"]");
    for settings in [
        cookie.clone(),
        cookie.with("server.allowed_origins = [\"*\"]"),
    ] {
        let finished = Case::new(&settings.to_toml()).serve().await;
        refused(&finished, &["server.allowed_origins"]);
    }
}

#[tokio::test]
async fn all_problems_are_reported_at_once() {
    let settings = Settings::default()
        .with("limits.message_bytes = 1")
        .with("auth.leeway = \"2h\"")
        .with("server.surprise = 1")
        .with("telemetry.log_format = \"xml\"")
        .with("session.ping_interval = \"0s\"")
        .rules("[[policy.rules]]\nname = \"r\"\nchannels = [\"a\"]\nactions = [\"publish\"]\nwhen = \"((\"\n");
    let case = Case::new(&settings.to_toml());
    let keys = [
        "limits.message_bytes",
        "auth.leeway",
        "server.surprise",
        "telemetry.log_format",
        "session.ping_interval",
        "policy.rules[0].when",
        "curfew.toml",
    ];
    refused(&case.serve().await, &keys);
    refused(
        &curfew(&["check-config", "--config", &case.path()]).await,
        &keys,
    );
    let json = curfew(&["check-config", "--config", &case.path(), "--json"]).await;
    assert_eq!(json.code, 2);
    let said = format!("{}{}", json.stdout, json.stderr);
    for key in keys {
        assert!(said.contains(key), "the output does not name {key}: {said}");
    }
    let good = Case::new(&Settings::default().to_toml());
    let checked = curfew(&["check-config", "--config", &good.path()]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[tokio::test]
async fn a_file_that_is_absent_or_no_toml_is_refused() {
    let absent = curfew(&["serve", "--config", "/nonexistent/curfew.toml"]).await;
    refused(&absent, &["/nonexistent/curfew.toml"]);
    for text in [
        "= nonsense",
        "[server\n",
        "[limits]\nmessage_bytes = 1\nmessage_bytes = 2\n",
        "\0",
    ] {
        let case = Case::new(text);
        refused(&case.serve().await, &["curfew.toml"]);
    }
    let usage = curfew(&["serve", "--surprise"]).await;
    assert_eq!(usage.code, 2, "{usage:?}");
    let unknown = curfew(&["dance"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let case = Case::new(
        &Settings::default()
            .with("limits.subscriptions = 1")
            .to_toml(),
    );
    let path = case.path();
    let printed = async |environment: &[(&str, &str)], more: &[&str]| {
        let mut arguments = vec!["print-config", "--config", &path];
        arguments.extend(more);
        let finished = curfew_with(&arguments, environment).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        let mut lines = finished.stdout.lines();
        lines
            .find(|line| line.trim_start().starts_with("subscriptions"))
            .unwrap_or_else(|| panic!("{finished:?}"))
            .to_owned()
    };
    let variable = [("CURFEW__LIMITS__SUBSCRIPTIONS", "2")];
    assert!(printed(&[], &[]).await.contains("= 1"));
    assert!(printed(&variable, &[]).await.contains("= 2"));
    let flag = ["--set", "limits.subscriptions=3"];
    assert!(printed(&variable, &flag).await.contains("= 3"));
    let bad = [("CURFEW__LIMITS__SURPRISE", "2")];
    let finished = curfew_with(&["check-config", "--config", &path], &bad).await;
    refused(&finished, &["limits.surprise"]);
    let finished = curfew(&[
        "check-config",
        "--config",
        &path,
        "--set",
        "limits.surprise=1",
    ])
    .await;
    refused(&finished, &["limits.surprise"]);
    // Kubernetes injects these variables for a Service named curfew. They are not settings of
    // Curfew.
    let injected = [
        ("CURFEW_PORT", "tcp://10.0.0.1:80"),
        ("CURFEW_SERVICE_HOST", "10.0.0.1"),
    ];
    let finished = curfew_with(&["check-config", "--config", &path], &injected).await;
    assert_eq!(finished.code, 0, "{finished:?}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["server.listen", "admin.listen"] {
        let settings = Settings::default().with(&format!("{key} = \"{address}\""));
        let finished = Case::new(&settings.to_toml()).serve().await;
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.stderr.contains(&address), "{finished:?}");
        assert!(
            finished.stderr.to_lowercase().contains("in use"),
            "{finished:?}"
        );
    }
}

#[tokio::test]
async fn a_minted_token_is_taken() {
    let gateway = Gateway::start_default().await;
    gateway.write("secret", curfew_testkit::mint::SECRET);
    let key = gateway.directory().join("secret");
    let key = key.to_str().unwrap();
    let mint = async |more: &[&str]| {
        let mut arguments = vec![
            "token",
            "--user",
            "alice",
            "--key-file",
            key,
            "--alg",
            "HS256",
        ];
        arguments.extend(more);
        let finished = curfew(&arguments).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        finished.stdout.trim().to_owned()
    };
    let token = mint(&[
        "--role",
        "member",
        "--claim",
        "tenant=\"acme\"",
        "--ttl",
        "1m",
    ])
    .await;
    let (_, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    assert_eq!(connected["user"], "alice");
    let left = connected["expires_at"].as_u64().unwrap() - curfew_testkit::unix_now();
    assert!((50..=60).contains(&left), "{left}");
    let explained = gateway
        .admin_ok(
            "POST",
            "/v1/explain",
            Some(json!({"token":token,"action":"publish","channel":"a"})),
        )
        .await;
    assert_eq!(explained["allowed"], true);
    let later = mint(&["--not-before", "+1h", "--ttl", "2h"]).await;
    let mut client = gateway.ws().bearer(&later).open().await;
    client.expect_auth_failed("not_yet_valid", 4401).await;
}
