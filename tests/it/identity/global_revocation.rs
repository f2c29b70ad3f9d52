//! Global Token Revocation, which Okta calls Universal Logout (IDENTITY row 136).

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Cluster, Gateway, Link, Manner, Provider, Redis, Settings, eventually};
use serde_json::{Value, json};

const ENDPOINT: &str = "https://rt.example.com/v1/global-token-revocation";

/// An organisation that signs users out, and the authorization server that issues their tokens.
pub(super) struct Okta {
    organisation: Provider,
    organisation_key: Key,
    server: Provider,
    key: Key,
}

impl Okta {
    pub(super) async fn start() -> Self {
        let (organisation_key, key) = (
            Key::generate("ES256").with_kid("one"),
            Key::generate("ES256").with_kid("one"),
        );
        Self {
            organisation: Provider::start(&[&organisation_key]).await,
            organisation_key,
            server: Provider::start(&[&key]).await,
            key,
        }
    }

    pub(super) fn settings(&self) -> Settings {
        let issuers = self.server.by_url("users")
            + &self.organisation.by_url("organisation")
            + &format!("reports_on = \"users\"\nglobal_token_revocation = [{ENDPOINT:?}]\n")
            + "subjects = { user = \"uid\", email = \"email\", opaque = \"uid\" }\n";
        Settings::default().issuers(&issuers)
    }

    /// An access token that was issued ten seconds ago.
    fn access(&self, user: &str) -> String {
        self.access_at(user, unix_now() - 10)
    }

    fn access_at(&self, user: &str, iat: u64) -> String {
        let more = json!({
            "iss": self.server.issuer(),
            "iat": iat,
            "uid": format!("00u-{user}"),
            "email": format!("{user}@example.com"),
        });
        self.key.user_with(user, more)
    }

    /// A valid assertion, changed by `changes`; `null` removes a claim.
    pub(super) fn assertion(&self, changes: Value) -> String {
        self.assertion_of_type("global-token-revocation+jwt", changes)
    }

    fn assertion_of_type(&self, typ: &str, changes: Value) -> String {
        let now = unix_now();
        let mut claims = json!({
            "iss": self.organisation.issuer(),
            "sub": "0oa-client",
            "aud": ENDPOINT,
            "iat": now,
            "nbf": now - 300,
            "exp": now + 300,
            "jti": format!("jti-{now}"),
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let key = &self.organisation_key;
        let mut header = key.header();
        header["typ"] = json!(typ);
        key.sign(&header.to_string(), &claims.to_string())
    }

    pub(super) fn user(&self, user: &str) -> Value {
        json!({"format":"iss_sub","iss":self.organisation.issuer(),"sub":format!("00u-{user}")})
    }

    async fn revoke(&self, node: &Gateway, user: &str) -> Response {
        let body = json!({"sub_id":self.user(user)});
        send(node, &self.assertion(json!({})), &body.to_string()).await
    }
}

pub(super) async fn send(node: &Gateway, token: &str, body: &str) -> Response {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", authorization.as_str()),
    ];
    post(node, &headers, body).await
}

async fn post(node: &Gateway, headers: &[(&str, &str)], body: &str) -> Response {
    let path = "/v1/global-token-revocation";
    http::request(node.address(), "POST", path, headers, body.as_bytes()).await
}

#[tokio::test]
async fn a_user_is_signed_out_on_every_node() {
    let (redis, okta) = (Redis::start().await, Okta::start().await);
    let cluster = Cluster::start(2, &redis.url(), &okta.settings()).await;
    let token = okta.access("alice");
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    let mut bob = cluster[1].session(&okta.access("bob")).await;
    let answer = okta.revoke(&cluster[0], "alice").await;
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    here.expect_close(4403, "revoked").await;
    there.expect_close(4403, "revoked").await;
    bob.assert_open().await;
    assert!(cluster[1].attempt_with(&token).await.is_revoked());
    eventually("a new token to be accepted", async || {
        let token = okta.access_at("alice", unix_now());
        cluster[1]
            .attempt_with(&token)
            .await
            .is_open()
            .then_some(())
    })
    .await;
    // No user has this name, and the answer does not reveal that.
    assert_eq!(okta.revoke(&cluster[0], "nobody").await.status, 204);
    let accepted = "curfew_global_revocations_total{outcome=\"accepted\"}";
    assert_eq!(cluster[0].metric(accepted).await, 2.0);
    let known = cluster[0].admin_ok("GET", "/v1/issuers", None).await;
    let last = &known["issuers"][1]["last_report"];
    assert_eq!(last["report"], "global_token_revocation", "{known}");
}

#[tokio::test]
async fn users_are_named_in_every_format() {
    let okta = Okta::start().await;
    let node = Gateway::start_with(&okta.settings()).await;
    for (user, body) in [
        (
            "a",
            json!({"sub_id":{"format":"email","email":"A@example.com"}}),
        ),
        ("b", json!({"sub_id":okta.user("b"),"more":1})),
        ("c", json!({"sub_id":{"format":"opaque","id":"00u-c"}})),
        // The form of the request in drafts up to -02.
        ("d", json!({"subject":okta.user("d")})),
    ] {
        let mut client = node.session(&okta.access(user)).await;
        let answer = send(&node, &okta.assertion(json!({})), &body.to_string()).await;
        assert_eq!(answer.status, 204, "{body}: {}", answer.text());
        client.expect_close(4403, "revoked").await;
    }
}

#[tokio::test]
async fn what_is_no_such_request_is_refused() {
    let okta = Okta::start().await;
    let node = Gateway::start_with(&okta.settings()).await;
    let mut client = node.session(&okta.access("alice")).await;
    let token = okta.assertion(json!({}));
    for body in [
        String::new(),
        "[]".to_owned(),
        json!({}).to_string(),
        json!({"sub_id":"alice"}).to_string(),
        json!({"sub_id":{"format":"email"}}).to_string(),
        json!({"sub_id":{"format":"phone_number","phone_number":"+1"}}).to_string(),
        json!({"sub_id":{}}).to_string(),
    ] {
        let answer = send(&node, &token, &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"], "invalid_request", "{body}");
    }
    // The subject is a user of another issuer.
    let body =
        json!({"sub_id":{"format":"iss_sub","iss":"https://other.example","sub":"00u-alice"}});
    let answer = send(&node, &token, &body.to_string()).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (403, &json!("access_denied"))
    );
    let good = json!({"sub_id":okta.user("alice")}).to_string();
    let authorization = format!("Bearer {token}");
    let form = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Authorization", authorization.as_str()),
    ];
    assert_eq!(post(&node, &form, &good).await.status, 400);
    let path = "/v1/global-token-revocation";
    let get = http::request(node.address(), "GET", path, &[], b"").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert_eq!(send(&node, &token, &"x".repeat(1 << 20)).await.status, 413);
    client.assert_open().await;
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let okta = Okta::start().await;
    let node = Gateway::start_with(&okta.settings()).await;
    let mut client = node.session(&okta.access("alice")).await;
    let good = json!({"sub_id":okta.user("alice")}).to_string();
    let now = unix_now();
    let forged = {
        let key = Key::generate("ES256").with_kid("one");
        let claims = json!({"iss":okta.organisation.issuer(),"aud":ENDPOINT,"iat":now,"exp":now + 300,"jti":"x"});
        key.token(&claims)
    };
    let tokens = [
        "x".to_owned(),
        forged,
        // The users' own issuer may not revoke, and an access token is no assertion.
        okta.key.user_with(
            "alice",
            json!({"iss":okta.server.issuer(),"aud":ENDPOINT,"jti":"x"}),
        ),
        okta.access("alice"),
        okta.assertion(json!({"iss":"https://other.example"})),
        okta.assertion(json!({"iss":null})),
        okta.assertion(json!({"aud":"https://other.example"})),
        okta.assertion(json!({"aud":null})),
        okta.assertion(json!({"exp":now - 10})),
        okta.assertion(json!({"exp":null})),
        okta.assertion(json!({"exp":now + 7200})),
        okta.assertion(json!({"nbf":now + 60})),
        okta.assertion(json!({"iat":now + 60})),
        okta.assertion(json!({"jti":null})),
        okta.assertion(json!({"jti":""})),
        okta.assertion(json!({"events":{}})),
        okta.assertion_of_type("at+jwt", json!({})),
        okta.assertion_of_type("secevent+jwt", json!({})),
        okta.assertion_of_type("logout+jwt", json!({})),
    ];
    for token in &tokens {
        let answer = send(&node, token, &good).await;
        assert_eq!(answer.status, 401, "{token}");
        assert_eq!(answer.json()["error"], "invalid_token");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer error="invalid_token""#));
    }
    let json = ("Content-Type", "application/json");
    for headers in [&[json][..], &[json, ("Authorization", "Basic YTpi")]] {
        assert_eq!(post(&node, headers, &good).await.status, 401);
    }
    client.assert_open().await;
    let refused = "curfew_global_revocations_total{outcome=\"refused\"}";
    assert_eq!(node.metric(refused).await, tokens.len() as f64 + 2.0);
    // An assertion opens no session, even if its type is changed to `JWT`.
    assert!(
        !node
            .attempt_with(&okta.assertion_of_type("JWT", json!({})))
            .await
            .is_open()
    );
}

#[tokio::test]
async fn types_that_an_assertion_may_have() {
    let okta = Okta::start().await;
    let node = Gateway::start_with(&okta.settings()).await;
    let good = json!({"sub_id":okta.user("alice")}).to_string();
    for typ in [
        "JWT",
        "global-token-revocation+jwt",
        "application/Global-Token-Revocation+JWT",
    ] {
        let token = okta.assertion_of_type(typ, json!({}));
        assert_eq!(send(&node, &token, &good).await.status, 204, "{typ}");
    }
}

#[tokio::test]
async fn while_redis_is_away_it_may_be_sent_again() {
    let (redis, okta) = (Redis::start().await, Okta::start().await);
    let settings = okta.settings().with("backend.grace = \"60s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let token = okta.access("alice");
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    cluster.proxy(0).set(Link::CUT);
    let answer = okta.revoke(&cluster[0], "alice").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    here.expect_close(4403, "revoked").await;
    cluster.proxy(0).set(Link::PASS);
    // Once Redis can be reached, the node writes the revocation without a second request.
    there.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn without_the_issuers_keys_it_may_be_sent_again() {
    let okta = Okta::start().await;
    okta.organisation.behave(Manner::Status(500));
    let node = Gateway::start_with(&okta.settings()).await;
    assert_eq!(okta.revoke(&node, "alice").await.status, 503);
}

#[tokio::test]
async fn until_it_is_configured_there_is_no_such_path() {
    let node = Gateway::start_default().await;
    assert_eq!(post(&node, &[], "{}").await.status, 404);
}
