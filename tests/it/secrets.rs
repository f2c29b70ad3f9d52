//! No secret leaves the node, and no input can break a log line (SECURITY rows 1, 2, 88, 90).

use curfew_testkit::http;
use curfew_testkit::mint::{Key, SECRET};
use curfew_tests::{ADMIN_KEY, Gateway, Settings, curfew};
use serde_json::{Value, json};

const CANARY: &str = "canary7Qz3kXw9Lm5Vt";

#[tokio::test]
async fn no_token_key_or_claim_is_in_the_log_the_metrics_or_an_answer() {
    let settings = Settings::default()
        .with(r#"telemetry.log_level = "trace,*=trace""#)
        .with(r#"session.revocable_claims = ["tenant"]"#)
        .with(r#"server.allowed_origins = ["https://app.example.com"]"#)
        .with(r#"auth.token_sources = ["header","subprotocol","query","message","cookie"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let good = key.user_with(
        "alice",
        json!({"tenant":CANARY,"email":CANARY,"curfew":{"x":CANARY}}),
    );
    let expired = key.user_with("alice", json!({"exp":1_700_000_000,"email":CANARY}));
    let stranger = Key::hmac("HS256", &[3; 32]).user_with(CANARY, json!({}));
    let typed = key.user_with("alice", json!({"exp":CANARY}));
    let nonsense = format!("{CANARY}.{CANARY}.{CANARY}");
    let tokens = [good, expired, stranger, typed, nonsense];
    let mut answers = Vec::new();
    for token in &tokens {
        for connect in [
            gateway.ws().bearer(token),
            gateway.ws().path(format!("/ws?token={token}")),
            gateway.ws().path(format!("/ws?access_token={token}&x=1")),
            gateway.ws().path(format!("/elsewhere?token={token}")),
            gateway
                .ws()
                .path(format!("/ws?token={token}"))
                .without("Sec-WebSocket-Key"),
            gateway
                .ws()
                .path(format!("/ws?token={token}"))
                .method("POST"),
            gateway
                .ws()
                .subprotocols(&format!("curfew.v1, bearer.{token}")),
            gateway
                .ws()
                .header("Authorization", format!("Basic {token}")),
            gateway
                .ws()
                .header("Origin", "https://app.example.com")
                .header("Cookie", format!("__Host-curfew-token={token}")),
            gateway
                .ws()
                .header("Cookie", format!("__Host-curfew-token={token}")),
        ] {
            match connect.attempt().await {
                Err(refused) => answers.push(format!("{refused:?}{}", refused.text())),
                Ok(mut client) => {
                    client.send(json!({"type":"auth","token":token})).await;
                    answers.push(client.next_text().await);
                    client
                        .send(json!({"type":"refresh","id":1,"token":token}))
                        .await;
                    client.send_text(&format!("{{\"type\":\"{token}\"}}")).await;
                    client.send_text(token).await;
                }
            }
        }
        let body = json!({"token":token,"action":"subscribe","channel":"a"});
        let (_, answer) = gateway.admin("POST", "/v1/explain", Some(body)).await;
        answers.push(answer.to_string());
        let wrong = gateway
            .admin_as(Some(token), "GET", "/v1/nodes", None)
            .await;
        answers.push(wrong.text());
    }
    gateway
        .revoke(json!({"kind":"tenant","value":CANARY,"reason":"test"}))
        .await;
    // The log has all lines of earlier requests when this metric is answered.
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    let places = [
        ("the log", gateway.log().text()),
        ("the metrics", gateway.metrics().await),
        ("an answer", answers.join("\n")),
    ];
    for (place, text) in &places {
        for token in &tokens {
            for part in token.split('.').filter(|part| part.len() > 16) {
                // The header is the same in the tokens of all users, and is no secret.
                if token.starts_with(part) && part != CANARY {
                    continue;
                }
                let middle = &part[part.len() / 2 - 8..part.len() / 2 + 8];
                assert!(!text.contains(middle), "{middle} of {token} is in {place}");
            }
        }
        assert!(!text.contains(&SECRET[4..20]), "the secret is in {place}");
        assert!(!text.contains(ADMIN_KEY), "the admin key is in {place}");
    }
    // No claim may appear either. The value of an operator's own revocation is a claim that may be
    // logged.
    let log: String = gateway
        .log()
        .lines()
        .into_iter()
        .filter(|line| !line.contains("revo"))
        .collect();
    assert!(!log.contains(CANARY), "a claim is in the log");
    assert!(!places[1].1.contains(CANARY), "a claim is in the metrics");
}

#[tokio::test]
async fn no_ticket_is_in_the_log_the_metrics_or_an_answer() {
    let settings = Settings::default()
        .with(r#"telemetry.log_level = "trace,*=trace""#)
        .with("auth.tickets = true");
    let gateway = Gateway::start_with(&settings).await;
    let bearer = format!("Bearer {}", Key::default_secret().user("alice"));
    let headers = [("Authorization", bearer.as_str())];
    let mut answers = Vec::new();
    let mut tickets = Vec::new();
    for path in ["/ws?ticket=", "/ws?a=b&ticket=", "/elsewhere?ticket="] {
        let given = http::request(gateway.address(), "POST", "/v1/tickets", &headers, b"").await;
        let ticket = given.json()["ticket"].as_str().unwrap().to_owned();
        let path = format!("{path}{ticket}");
        let connect = || gateway.ws().path(&path);
        for connect in [
            connect().method("POST"),
            connect().without("Sec-WebSocket-Key"),
            connect().bearer("a.b.c"),
            connect(),
            connect(),
            connect().header("Origin", "https://app.example"),
        ] {
            match connect.attempt().await {
                Err(refused) => answers.push(format!("{refused:?}{}", refused.text())),
                Ok(mut client) => {
                    answers.push(client.next_text().await);
                    client
                        .send(json!({"type":"refresh","id":1,"token":ticket}))
                        .await;
                }
            }
        }
        let sent = format!("{{\"origin\":\"{ticket}\",\"{ticket}\":1}}");
        let refused = http::request(
            gateway.address(),
            "POST",
            "/v1/tickets",
            &headers,
            sent.as_bytes(),
        );
        answers.push(refused.await.text());
        tickets.push(ticket);
    }
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    for (place, text) in [
        ("the log", gateway.log().text()),
        ("the metrics", gateway.metrics().await),
        ("an answer", answers.join("\n")),
    ] {
        for ticket in &tickets {
            let middle = &ticket[14..30];
            assert!(!text.contains(middle), "{middle} of {ticket} is in {place}");
        }
        let signature = bearer.rsplit('.').next().unwrap();
        assert!(!text.contains(signature), "the token is in {place}");
    }
}

#[tokio::test]
async fn the_effective_configuration_is_printed_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    std::fs::write(&path, Settings::default().to_toml()).unwrap();
    let printed = curfew(&["print-config", "--config", path.to_str().unwrap()]).await;
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stdout.contains("message_bytes"), "{printed:?}");
    for secret in [SECRET, ADMIN_KEY] {
        assert!(!printed.stdout.contains(secret) && !printed.stderr.contains(secret));
    }
}

#[tokio::test]
async fn control_characters_from_outside_do_not_break_a_log_line() {
    let settings = Settings::default().with(r#"telemetry.log_level = "trace,*=trace""#);
    let gateway = Gateway::start_with(&settings).await;
    let evil = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[31m\u{202e}\0";
    let long = format!("{evil}{}", "y".repeat(3000));
    for user in [evil, &long] {
        let mut client = gateway.user(user).await;
        for command in ["subscribe", "publish"] {
            client
                .send(json!({"type":command,"id":1,"channel":evil,"data":1}))
                .await;
            client.next_json().await;
        }
        client.send(json!({"type":evil})).await;
        client.next_json().await;
        gateway
            .revoke(json!({"kind":"user","value":user,"reason":evil}))
            .await;
        client.expect_close(4403, "revoked").await;
    }
    let key = Key::default_secret().with_kid(evil);
    let mut client = gateway.ws().bearer(&key.user("alice")).open().await;
    client.next_json().await;
    let encoded: String = evil.bytes().map(|byte| format!("%{byte:02X}")).collect();
    drop(gateway.ws().path(format!("/{encoded}")).refused().await);
    drop(
        gateway
            .admin("GET", &format!("/v1/sessions/{encoded}"), None)
            .await,
    );
    drop(
        gateway
            .ws()
            .header("Origin", "https://\u{202e}evil")
            .attempt()
            .await,
    );
    for line in gateway.log().lines() {
        assert!(!line.contains(['\u{1b}', '\0', '\r']), "{line:?}");
        let entry: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the line is not one JSON object: {error}: {line:?}"));
        assert_ne!(entry["message"], "forged", "{line}");
        assert!(
            entry["timestamp"].is_string() && entry["level"].is_string(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn the_log_can_be_text() {
    // The node cannot listen at this address. It reports that after it has set up the log.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings::default()
        .with(r#"telemetry.log_level = "trace,*=trace""#)
        .with(r#"telemetry.log_format = "text""#)
        .with(&format!(
            "server.listen = \"{}\"",
            taken.local_addr().unwrap()
        ));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    std::fs::write(&path, settings.to_toml()).unwrap();
    let finished = curfew(&["serve", "--config", path.to_str().unwrap()]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(!finished.stderr.contains('\u{1b}'), "{finished:?}");
    for line in finished.stderr.lines() {
        assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
    }
}
