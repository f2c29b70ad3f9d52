//! Long tokens, for example of users with many groups. One setting limits the tokens from every
//! source.

use curfew_testkit::http;
use curfew_testkit::mint::{Key, claims_with};
use curfew_testkit::unix_now;
use curfew_tests::{Attempt, Gateway, Settings, curfew};
use serde_json::json;

const PAGE: &str = "https://app.example";

fn settings() -> Settings {
    Settings::default()
        .with("auth.token_sources = [\"header\", \"subprotocol\", \"query\", \"message\", \"cookie\"]")
        .with("auth.tickets = true")
        .with("auth.token_revocation = true")
        .with(&format!("server.allowed_origins = [{PAGE:?}]"))
}

/// A token of `length` characters, or of one or two characters less.
fn token(length: usize) -> String {
    let claims = claims_with("alice", json!({"jti":format!("{length}-{}", unix_now())}));
    let token = |pad: usize| {
        let mut claims = claims.clone();
        claims["groups"] = "x".repeat(pad).into();
        Key::default_secret().token(&claims)
    };
    let mut pad = (length - token(0).len()) * 3 / 4;
    while token(pad).len() > length {
        pad -= 1;
    }
    while token(pad + 1).len() <= length {
        pad += 1;
    }
    token(pad)
}

/// Regression: one of the sources of tokens had a limit that fits the tokens of one provider, but
/// refused tokens of another provider.
#[tokio::test]
async fn a_token_of_the_longest_that_is_allowed_is_taken_at_every_door() {
    for most in [None, Some(4096), Some(60_000)] {
        let settings = match most {
            None => settings(),
            Some(most) => settings()
                .with(&format!("auth.max_token_bytes = {most}"))
                .with("limits.head_bytes = 80000"),
        };
        let most = most.unwrap_or(16 * 1024);
        let gateway = Gateway::start_with(&settings).await;
        let (longest, over) = (token(most), token(most + 3));
        assert!(longest.len() > most - 3 && over.len() > most);
        for (token, good) in [(&longest, true), (&over, false)] {
            for connect in [
                gateway.ws().bearer(token),
                gateway
                    .ws()
                    .subprotocols(&format!("curfew.v1, bearer.{token}")),
                gateway.ws().path(format!("/ws?token={token}")),
                gateway
                    .ws()
                    .header("Origin", PAGE)
                    .header("Cookie", format!("__Host-curfew-token={token}")),
            ] {
                let mut client = connect.open().await;
                match good {
                    true => drop(client.expect_json(json!({"type":"connected"})).await),
                    false => {
                        let told = client.next_json().await;
                        assert_eq!(told["reason"], "malformed", "{most}: {told}");
                        let words = format!("over {most} bytes");
                        assert!(told["message"].as_str().unwrap().contains(&words), "{told}");
                    }
                }
            }
            let mut client = gateway.ws().open().await;
            client.send(json!({"type":"auth","token":token})).await;
            match good {
                true => drop(client.expect_json(json!({"type":"connected"})).await),
                false => drop(client.expect_auth_failed("malformed", 4401).await),
            }
            let bearer = format!("Bearer {token}");
            let headers = [("Authorization", bearer.as_str())];
            let answer =
                http::request(gateway.address(), "POST", "/v1/tickets", &headers, b"").await;
            assert_eq!(
                answer.status,
                if good { 201 } else { 401 },
                "{}",
                answer.text()
            );
            if good {
                let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
                let connect = gateway.ws().path(format!("/ws?ticket={ticket}"));
                assert!(Attempt::make(connect).await.is_open());
            }
        }
        // The holder revokes the token. After that, the token opens no session.
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = format!("token={longest}&token_type_hint=access_token");
        let answer =
            http::request(gateway.address(), "POST", "/revoke", &form, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(gateway.attempt_with(&longest).await.is_revoked());
    }
}

/// Before authentication, a client can make the node store only as many bytes as a token needs.
#[tokio::test]
async fn an_auth_frame_has_a_token_and_one_kib_beside_it() {
    let gateway = Gateway::start_with(&settings().with("auth.max_token_bytes = 2048")).await;
    let frame = |length: usize| {
        let token = token(2048);
        let text = json!({"type":"auth","token":token}).to_string();
        text.trim_end_matches('}').to_owned() + &" ".repeat(length - text.len()) + "}"
    };
    let mut client = gateway.ws().open().await;
    client.send_text(&frame(3 * 1024)).await;
    client.expect_json(json!({"type":"connected"})).await;
    let mut client = gateway.ws().open().await;
    client.send_text(&frame(3 * 1024 + 1)).await;
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test]
async fn what_a_token_may_have_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    for most in [1023, 65_537] {
        let settings = settings().with(&format!("auth.max_token_bytes = {most}"));
        std::fs::write(&path, settings.to_toml()).unwrap();
        let told = curfew(&["check-config", "--config", path.to_str().unwrap()]).await;
        assert_eq!(told.code, 2, "{told:?}");
        assert!(
            format!("{told:?}").contains("between 1024 and 65536"),
            "{told:?}"
        );
    }
}
