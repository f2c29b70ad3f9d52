//! A session that gets a newer token by `refresh` (CONTRACT §4, SECURITY rows 48-50).

use curfew_testkit::mint::{Key, SECRET};
use curfew_testkit::unix_now;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

#[tokio::test]
async fn a_refresh_extends_the_session() {
    let settings = Settings::default().with(r#"auth.leeway = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let first = unix_now() + 2;
    let mut client = gateway
        .session(&key.user_with("alice", json!({"exp":first})))
        .await;
    client
        .expect_json(json!({"type":"expiring","expires_at":first}))
        .await;
    let second = unix_now() + 5;
    let token = key.user_with("alice", json!({"exp":second}));
    client
        .send(json!({"type":"refresh","id":4,"token":token}))
        .await;
    let refreshed = client.expect_json(json!({"type":"refreshed"})).await;
    assert_eq!(
        refreshed,
        json!({"type":"refreshed","id":4,"expires_at":second})
    );
    // Now the new token is announced as expiring, and its expiry closes the session. The first
    // token no longer has these effects.
    client
        .expect_json(json!({"type":"expiring","expires_at":second}))
        .await;
    client.expect_close(4410, "expired").await;
    assert!(unix_now() >= second);
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_session_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let other = Key::hmac("HS256", &[b'o'; 32]);
    let settings = Settings::default()
        .with(r#"session.revocable_claims = ["tenant"]"#)
        .issuers(&format!(
            "[[auth.issuers]]\nname = \"main\"\nissuer = \"main\"\naudience = [\"curfew\"]\nsecret = \"{SECRET}\"\n\
             [[auth.issuers]]\nname = \"other\"\nissuer = \"other\"\nsecret = \"{}\"\n",
            "o".repeat(32)
        ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let key = Key::default_secret();
    let with = |user: &str, more: serde_json::Value| {
        let mut claims = json!({"iss":"main","aud":"curfew"});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        key.user_with(user, claims)
    };
    let now = unix_now();
    let mut client = gateway.session(&with("alice", json!({}))).await;
    for (token, code) in [
        (with("bob", json!({})), "different_user"),
        (with("Alice", json!({})), "different_user"),
        (
            other.user_with("alice", json!({"iss":"other"})),
            "different_user",
        ),
        (with("alice", json!({"exp":now - 60})), "expired"),
        (with("alice", json!({"nbf":now + 600})), "not_yet_valid"),
        (with("alice", json!({"aud":"else"})), "wrong_audience"),
        (with("alice", json!({"iss":"else"})), "wrong_issuer"),
        (with("alice", json!({"sub":null})), "missing_claim"),
        (with("alice", json!({"exp":"soon"})), "malformed"),
        (
            Key::hmac("HS256", &[9; 32]).user_with("alice", json!({"iss":"main"})),
            "bad_signature",
        ),
        ("nonsense".to_owned(), "malformed"),
    ] {
        client
            .send(json!({"type":"refresh","id":code,"token":token}))
            .await;
        let reply = client.next_json().await;
        assert_eq!(reply["type"], "error", "{reply}");
        assert_eq!(reply["id"], code, "{reply}");
        assert_eq!(reply["code"], code, "{reply}");
    }
    client
        .send(json!({"type":"refresh","id":"none","token":""}))
        .await;
    let reply = client.next_json().await;
    let code = reply["code"].as_str().unwrap();
    assert!(["missing_token", "malformed"].contains(&code), "{reply}");
    assert!(client.barrier().await.is_empty());
    // The client has sent more refused tokens than `bad_frames` allows, and is still connected,
    // because a refused token is not a malformed command.
    let sessions = gateway
        .admin_ok("GET", "/v1/sessions?user=alice", None)
        .await;
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refresh_decides_every_subscription_anew() {
    let rules = r#"
[[policy.rules]]
name = "rooms of one's roles"
channels = ["role:{role}"]
actions = ["subscribe", "publish"]
when = "params.role in claims.roles"
"#;
    let gateway = Gateway::start_with(&Settings::default().rules(rules)).await;
    let key = Key::default_secret();
    let roles = |roles: serde_json::Value| key.user_with("alice", json!({"roles":roles}));
    let mut client = gateway.session(&roles(json!(["a", "b"]))).await;
    for channel in ["role:a", "role:b"] {
        client
            .send(json!({"type":"subscribe","id":1,"channel":channel}))
            .await;
        client.expect_json(json!({"type":"ok"})).await;
        client
            .send(json!({"type":"publish","id":1,"channel":channel,"data":1}))
            .await;
        client.until_json(json!({"type":"ok"})).await;
    }
    client.barrier().await;
    client
        .send(json!({"type":"refresh","id":2,"token":roles(json!(["b", "c"]))}))
        .await;
    let (mut taken, mut refreshed) = (0, 0);
    for _ in 0..2 {
        let message = client.next_json().await;
        match message["type"].as_str().unwrap() {
            "refreshed" => refreshed += 1,
            _ => {
                let expect = json!({"type":"unsubscribed","channel":"role:a","reason":"forbidden"});
                assert_eq!(message, expect);
                taken += 1;
            }
        }
    }
    assert_eq!((taken, refreshed), (1, 1));
    gateway.publish("role:a", json!("no")).await;
    gateway.publish("role:b", json!("yes")).await;
    client
        .expect_json(json!({"type":"message","channel":"role:b"}))
        .await;
    for (action, channel, expect) in [
        ("publish", "role:a", "error"),
        ("subscribe", "role:a", "error"),
        ("publish", "role:b", "ok"),
        ("subscribe", "role:c", "ok"),
    ] {
        let mut command = json!({"type":action,"id":3,"channel":channel});
        if action == "publish" {
            command["data"] = json!(1);
        }
        client.send(command).await;
        let reply = client.until_json(json!({"id":3})).await;
        assert_eq!(reply["type"], expect, "{action} {channel}: {reply}");
    }
}

#[tokio::test]
async fn a_refresh_with_a_revoked_token_ends_the_session() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    let mut client = gateway
        .session(&key.user_with("alice", json!({"jti":"first"})))
        .await;
    gateway
        .revoke(json!({"kind":"token","value":"second"}))
        .await;
    let token = key.user_with("alice", json!({"jti":"second"}));
    client
        .send(json!({"type":"refresh","id":1,"token":token}))
        .await;
    // CONTRACT §4 lists `revoked` among the errors of `refresh`, and SECURITY row 50 closes the
    // session. In both cases the revoked token has no effect.
    let reply = client.next_json().await;
    if reply["type"] == "error" {
        assert_eq!(reply["code"], "revoked", "{reply}");
        gateway
            .revoke(json!({"kind":"token","value":"first"}))
            .await;
        client.expect_close(4403, "revoked").await;
    } else {
        assert_eq!(reply["code"], 4403, "{reply}");
        assert_eq!(client.closed().await.0, 4403);
    }
}

#[tokio::test]
async fn after_a_refresh_the_new_token_is_what_can_be_revoked() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    let mut client = gateway
        .session(&key.user_with("alice", json!({"jti":"first"})))
        .await;
    let token = key.user_with("alice", json!({"jti":"second"}));
    client
        .send(json!({"type":"refresh","id":1,"token":token}))
        .await;
    client.expect_json(json!({"type":"refreshed"})).await;
    gateway
        .revoke(json!({"kind":"token","value":"second"}))
        .await;
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn a_refresh_of_one_session_never_touches_another() {
    let settings = Settings::default().with(r#"auth.leeway = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let short = key.user_with("alice", json!({"exp":unix_now() + 3}));
    let (mut one, mut two) = (gateway.session(&short).await, gateway.session(&short).await);
    one.send(json!({"type":"refresh","id":1,"token":key.user("alice")}))
        .await;
    one.until_json(json!({"type":"refreshed"})).await;
    two.expect_close(4410, "expired").await;
    assert!(one.barrier().await.is_empty());
}

#[tokio::test]
async fn a_refresh_cannot_shorten_the_session_nor_change_the_login() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    let exp = unix_now() + 3600;
    let with = |exp: u64, sid: &str| key.user_with("alice", json!({"exp":exp,"sid":sid}));
    let (mut client, connected) = gateway
        .connected(gateway.ws().bearer(&with(exp, "login-1")))
        .await;
    for (token, code) in [
        (with(exp - 60, "login-1"), "bad_request"),
        (with(exp + 60, "login-2"), "different_user"),
        (
            key.user_with("alice", json!({"exp":exp + 60})),
            "different_user",
        ),
    ] {
        client
            .send(json!({"type":"refresh","id":1,"token":token}))
            .await;
        client
            .expect_json(json!({"type":"error","id":1,"code":code}))
            .await;
    }
    let id = connected["session"].as_str().unwrap();
    let session = gateway
        .admin_ok("GET", &format!("/v1/sessions/{id}"), None)
        .await;
    assert_eq!(session["expires_at"], exp);
    client
        .send(json!({"type":"refresh","id":2,"token":with(exp + 60, "login-1")}))
        .await;
    client
        .expect_json(json!({"type":"refreshed","id":2,"expires_at":exp + 60}))
        .await;
}
