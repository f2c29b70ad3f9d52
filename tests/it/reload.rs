//! Changes of the configuration while the node runs (CONTRACT §6).

use curfew_testkit::WsClient;
use curfew_testkit::mint::{Key, jwks};
use curfew_tests::{Gateway, Settings, eventually};
use serde_json::json;

const SUCCESS: &str = "curfew_config_last_reload_successful";

async fn first_frame(gateway: &Gateway, token: &str) -> (WsClient, serde_json::Value) {
    let mut client = gateway.ws().bearer(token).open().await;
    let first = client.next_json().await;
    (client, first)
}

#[tokio::test]
async fn a_bad_file_is_refused_reported_and_the_old_one_stays() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.subscriber("alice", "room:1").await;
    let rules = |toml: &str| Settings::default().rules(toml);
    for (bad, says) in [
        ("nonsense".to_owned(), "curfew.toml"),
        (Settings::default().with("limits.surprise = 1").to_toml(), "limits.surprise"),
        (Settings::default().with("auth.leeway = \"2h\"").to_toml(), "auth.leeway"),
        (
            rules("[[policy.rules]]\nname = \"r\"\nchannels = [\"a\"]\nactions = [\"publish\"]\nwhen = \"((\"\n")
                .to_toml(),
            "policy.rules[0]",
        ),
    ] {
        let seen = gateway.log().lines().len();
        gateway.write("curfew.toml", &bad);
        gateway.reload();
        eventually(&format!("a report of {says}"), async || {
            let new = &gateway.log().lines()[seen..];
            new.iter().any(|line| line.contains(says)).then_some(())
        })
        .await;
        gateway.until_metric(SUCCESS, |value| value == 0.0).await;
        client
            .send(json!({"type":"publish","channel":"room:1","data":1}))
            .await;
        client.expect_json(json!({"type":"message"})).await;
        gateway.user("bob").await;
    }
    gateway.write_config(&Settings::default());
    gateway.reload();
    gateway.until_metric(SUCCESS, |value| value == 1.0).await;
}

/// Regression: one part of a new configuration was put in force although another part was refused.
#[tokio::test]
async fn a_reload_that_fails_in_one_part_changes_no_other() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.subscriber("alice", "room:1").await;
    let other = || {
        let settings = Settings::default().rules("");
        settings.with("limits.subscriptions = 1")
    };
    let absent = "[[auth.issuers]]\nname = \"main\"\nsecret_file = \"/absent/secret\"\n";
    let no_key = other().without("admin.key");
    for (bad, says) in [
        (other().issuers(absent), "/absent/secret"),
        (
            no_key.with("admin.key_file = \"/absent/key\""),
            "admin.key_file",
        ),
        (
            other().with("telemetry.log_level = \"=loud=\""),
            "telemetry.log_level",
        ),
        (
            other().with("server.allowed_origins = [\"no origin\"]"),
            "server.allowed_origins",
        ),
    ] {
        let seen = gateway.log().lines().len();
        gateway.write_config(&bad);
        gateway.reload();
        eventually(&format!("a report of {says}"), async || {
            let new = &gateway.log().lines()[seen..];
            new.iter().any(|line| line.contains(says)).then_some(())
        })
        .await;
        gateway.until_metric(SUCCESS, |value| value == 0.0).await;
        // The old rules and the old limit are still in force. The session therefore stays, and may
        // have a second subscription.
        for command in ["subscribe", "unsubscribe"] {
            client
                .send(json!({"type":command,"id":1,"channel":"room:2"}))
                .await;
            let reply = client.next_json().await;
            assert_eq!(reply["id"], 1, "{says}: {reply}");
            assert_ne!(reply["type"], "error", "{says}: {reply}");
        }
        // The keys for tokens and the key of the admin API are the old ones as well.
        gateway.user("bob").await;
    }
    gateway.write_config(&other());
    client
        .expect_json(json!({"type":"unsubscribed","channel":"room:1","reason":"forbidden"}))
        .await;
}

#[tokio::test]
async fn a_changed_file_is_taken_without_a_signal() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.subscriber("alice", "room:1").await;
    gateway.write_config(&Settings::default().rules(""));
    client
        .expect_json(json!({"type":"unsubscribed","channel":"room:1","reason":"forbidden"}))
        .await;
}

#[tokio::test]
async fn limits_change_for_what_comes_next() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.subscriber("alice", "room:0").await;
    gateway.write_config(&Settings::default().with("limits.subscriptions = 1"));
    gateway.reload();
    eventually("the new limit", async || {
        client
            .send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
            .await;
        let reply = client.next_json().await;
        if reply["code"] == "limit_exceeded" {
            return Some(());
        }
        client
            .send(json!({"type":"unsubscribe","id":2,"channel":"room:1"}))
            .await;
        client.expect_json(json!({"type":"ok","id":2})).await;
        None
    })
    .await;
}

#[tokio::test]
async fn a_changed_secret_file_is_re_read() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    std::fs::write(directory.path().join("secret"), &old).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\nsecret_file = {:?}\n",
        directory.path().join("secret")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let old = Key::hmac("HS256", old.as_bytes()).user("alice");
    let (mut session, first) = first_frame(&gateway, &old).await;
    assert_eq!(first["type"], "connected");
    let new_token = Key::hmac("HS256", new.as_bytes()).user("alice");
    assert_eq!(
        first_frame(&gateway, &new_token).await.1["reason"],
        "bad_signature"
    );
    gateway.write("secret", &format!("{new}\n"));
    eventually("the new secret", async || {
        let (_, first) = first_frame(&gateway, &new_token).await;
        (first["type"] == "connected").then_some(())
    })
    .await;
    assert_eq!(
        first_frame(&gateway, &old).await.1["reason"],
        "bad_signature"
    );
    assert!(session.barrier().await.is_empty());
    // A secret that is too short does not replace the secret that is in force.
    gateway.write("secret", "short");
    gateway.reload();
    eventually("a report", async || {
        gateway.log().text().contains("32").then_some(())
    })
    .await;
    assert_eq!(
        first_frame(&gateway, &new_token).await.1["type"],
        "connected"
    );
}

#[tokio::test]
async fn a_changed_key_set_is_re_read() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (
        Key::rsa().with_kid("one"),
        Key::generate("ES256").with_kid("two"),
    );
    std::fs::write(directory.path().join("keys.json"), jwks(&[&one])).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\njwks_file = {:?}\n",
        directory.path().join("keys.json")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    gateway.session(&one.user("alice")).await;
    assert_eq!(
        first_frame(&gateway, &two.user("alice")).await.1["reason"],
        "unknown_key"
    );
    gateway.write("keys.json", &jwks(&[&two]));
    eventually("the new key", async || {
        let (_, first) = first_frame(&gateway, &two.user("alice")).await;
        (first["type"] == "connected").then_some(())
    })
    .await;
    assert_eq!(
        first_frame(&gateway, &one.user("alice")).await.1["reason"],
        "unknown_key"
    );
    gateway.write("keys.json", "{");
    gateway.reload();
    gateway.session(&two.user("alice")).await;
}

#[tokio::test]
async fn reloads_under_load_judge_every_handshake_by_one_configuration() {
    let issuers = |secret: char, user: char| {
        Settings::default()
            .issuers(&format!(
                "[[auth.issuers]]\nname = \"main\"\naudience = [\"{user}\"]\nsecret = \"{}\"\n",
                secret.to_string().repeat(32)
            ))
            .to_toml()
    };
    let gateway = Gateway::start(&issuers('a', 'a')).await;
    let token = |key: char, aud: char| {
        Key::hmac("HS256", key.to_string().repeat(32).as_bytes())
            .user_with("alice", json!({"aud":aud.to_string()}))
    };
    let (a, b) = (token('a', 'a'), token('b', 'b'));
    let (mixed, mixed_too) = (token('a', 'b'), token('b', 'a'));
    for round in 0..60 {
        let letter = if round % 2 == 0 { 'b' } else { 'a' };
        gateway.write("curfew.toml", &issuers(letter, letter));
        gateway.reload();
        let (a, b, one, two) = tokio::join!(
            first_frame(&gateway, &a),
            first_frame(&gateway, &b),
            first_frame(&gateway, &mixed),
            first_frame(&gateway, &mixed_too),
        );
        for (_, first) in [&a, &b] {
            assert!(
                first["type"] == "connected" || first["reason"] == "bad_signature",
                "{first}"
            );
        }
        for (_, first) in [&one, &two] {
            let reason = first["reason"].as_str().unwrap_or_default();
            assert!(
                ["bad_signature", "wrong_audience"].contains(&reason),
                "{first}"
            );
        }
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn sessions_from_before_are_found_by_the_claims_that_a_reload_adds() {
    let by =
        |claims: &str| Settings::default().with(&format!("session.revocable_claims = {claims}"));
    let gateway = Gateway::start_default().await;
    let of = |tenant: &str| Key::default_secret().user_with("alice", json!({"tenant":tenant}));
    let mut acme = gateway.session(&of("acme")).await;
    let mut other = gateway.session(&of("other")).await;
    let revoke = json!({"kind":"tenant","value":"acme"});
    let unknown = gateway
        .admin("POST", "/v1/revocations", Some(revoke.clone()))
        .await;
    assert_eq!(unknown.0, 400, "{}", unknown.1);
    gateway.take_over(&by("[\"tenant\"]"), true).await;
    let receipt = gateway.revoke(revoke.clone()).await;
    let all = json!({"live":1,"confirmed":1,"missing":[]});
    assert_eq!((&receipt["nodes"], &receipt["closed"]), (&all, &json!(1)));
    acme.expect_close(4403, "revoked").await;
    assert!(gateway.attempt_with(&of("acme")).await.is_revoked());

    // After the claim is removed from the settings, the kind names no session. After the claim
    // returns, the kind also names the session that was opened in between.
    gateway.take_over(&by("[]"), true).await;
    let mut again = gateway.session(&of("acme")).await;
    gateway.take_over(&by("[\"tenant\"]"), false).await;
    again.expect_close(4403, "revoked").await;
    other.send(json!({"type":"ping"})).await;
    other.expect_json(json!({"type":"pong"})).await;
}
