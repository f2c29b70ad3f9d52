//! OpenID Connect Back-Channel Logout 1.0 (IDENTITY rows 113 to 125).

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{
    Attempt, Cluster, Gateway, Link, Manner, Provider, Redis, Settings, eventually,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FORM: &str = "application/x-www-form-urlencoded";
const CLIENT: &str = "curfew-client";

/// A provider whose logout tokens the node accepts, and the provider's key.
pub(super) struct Login {
    pub(super) provider: Provider,
    pub(super) key: Key,
}

impl Login {
    pub(super) async fn start() -> Self {
        let key = Key::generate("ES256").with_kid("one");
        let provider = Provider::start(&[&key]).await;
        Self { provider, key }
    }

    pub(super) fn issuer(&self, name: &str) -> String {
        let by_url = self.provider.by_url(name);
        format!("{by_url}backchannel_logout = true\nlogout_audience = [\"{CLIENT}\"]\n")
    }

    pub(super) fn settings(&self) -> Settings {
        Settings::default().issuers(&self.issuer("main"))
    }

    /// An access token of `user` in the provider's session `login`.
    pub(super) fn access(&self, user: &str, login: &str) -> String {
        let more = json!({"iss":self.provider.issuer(),"sid":login});
        self.key.user_with(user, more)
    }

    /// Valid claims of a logout token, changed by `changes`; `null` removes a claim.
    fn claims(&self, changes: Value) -> Value {
        let now = unix_now();
        let mut claims = json!({
            "iss": self.provider.issuer(),
            "aud": CLIENT,
            "iat": now,
            "exp": now + 120,
            "jti": format!("jti-{now}"),
            "events": {EVENT: {}},
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    pub(super) fn token(&self, changes: Value) -> String {
        self.token_of_type("logout+jwt", changes)
    }

    fn token_of_type(&self, typ: &str, changes: Value) -> String {
        let mut header = self.key.header();
        header["typ"] = json!(typ);
        self.key
            .sign(&header.to_string(), &self.claims(changes).to_string())
    }
}

pub(super) async fn post(node: &Gateway, token: &str) -> Response {
    send(node, "POST", FORM, &format!("logout_token={token}")).await
}

async fn send(node: &Gateway, method: &str, media_type: &str, body: &str) -> Response {
    let headers = [("Content-Type", media_type)];
    http::request(
        node.address(),
        method,
        "/logout/backchannel",
        &headers,
        body.as_bytes(),
    )
    .await
}

pub(super) fn assert_done(answer: &Response) {
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

pub(super) fn assert_refused(answer: &Response, error: &str) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["error"], error, "{}", answer.text());
    assert!(answer.json()["error_description"].is_string());
}

#[tokio::test]
async fn a_logout_of_a_login_closes_its_sessions_on_every_node() {
    let (redis, login) = (Redis::start().await, Login::start().await);
    let cluster = Cluster::start(2, &redis.url(), &login.settings()).await;
    let token = login.access("alice", "one");
    let mut first = cluster[0].session(&token).await;
    let mut second = cluster[1].session(&token).await;
    let mut other = cluster[1].session(&login.access("alice", "two")).await;
    assert_done(
        &post(
            &cluster[0],
            &login.token(json!({"sid":"one","sub":"alice"})),
        )
        .await,
    );
    first.expect_close(4403, "revoked").await;
    second.expect_close(4403, "revoked").await;
    other.assert_open().await;
    // The session that was logged out stays revoked. A new sign-in makes another session.
    assert!(cluster[1].attempt_with(&token).await.is_revoked());
    let again = login.access("alice", "three");
    assert!(cluster[0].attempt_with(&again).await.is_open());
    let log = cluster[0].log().text();
    assert!(log.contains("access ended by the identity provider"));
}

/// Regression: a time with a fraction was refused, or a session from the same second stayed open.
#[tokio::test]
async fn a_logout_with_a_fraction_covers_the_second_it_is_in() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let at = unix_now() - 10;
    let access = |iat: f64| {
        let more = json!({"iss":login.provider.issuer(),"sid":"one","iat":iat});
        login.key.user_with("alice", more)
    };
    let seconds = |at: u64| f64::from(u32::try_from(at).unwrap());
    let mut covered = node.session(&access(seconds(at) + 0.9)).await;
    let mut later = node.session(&access(seconds(at) + 2.5)).await;
    let (iat, exp) = (seconds(at) + 0.1, seconds(at) + 60.5);
    assert_done(
        &post(
            &node,
            &login.token(json!({"sub":"alice","iat":iat,"exp":exp})),
        )
        .await,
    );
    covered.expect_close(4403, "revoked").await;
    later.assert_open().await;
    let millis = login.token(json!({"sub":"alice","iat":at * 1000}));
    let answer = post(&node, &millis).await;
    assert_refused(&answer, "invalid_request");
    assert!(
        answer.text().contains("iat claim looks like milliseconds"),
        "{}",
        answer.text()
    );
}

/// Regression: an access token and a logout both named the user by a number, and the logout had no
/// effect.
#[tokio::test]
async fn a_logout_names_a_numeric_subject_where_that_is_configured() {
    let login = Login::start().await;
    let logout = login.token(json!({"sub":42}));
    let node = Gateway::start_with(&login.settings()).await;
    assert_refused(&post(&node, &logout).await, "invalid_request");
    let node = Gateway::start_with(&login.settings().with("auth.numeric_subjects = true")).await;
    let iat = unix_now() - 60;
    let more = json!({"iss":login.provider.issuer(),"sid":"one","sub":42,"iat":iat});
    let mut client = node.session(&login.key.user_with("alice", more)).await;
    assert_done(&post(&node, &logout).await);
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn a_logout_of_a_user_closes_what_began_before_it() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let now = unix_now();
    let at = |iat: u64| {
        let iss = login.provider.issuer();
        login.key.user_with(
            "alice",
            json!({"iss":iss,"iat":iat,"sid":format!("s{iat}")}),
        )
    };
    let mut before = node.session(&at(now - 100)).await;
    let mut after = node.session(&at(now - 10)).await;
    let logout = login.token(json!({"sub":"alice","iat":now - 50,"exp":now + 60}));
    for _ in 0..2 {
        // The repeated logout gets the same answer, and changes nothing.
        assert_done(&post(&node, &logout).await);
        after.assert_open().await;
    }
    before.expect_close(4403, "revoked").await;
    assert!(node.attempt_with(&at(now - 51)).await.is_revoked());
    assert!(node.attempt_with(&at(now - 49)).await.is_open());
    assert_done(&post(&node, &login.token(json!({"sub":"nobody"}))).await);
}

#[tokio::test]
async fn users_of_the_same_name_at_another_issuer_stay() {
    let (a, b) = (Login::start().await, Login::start().await);
    let settings = Settings::default().issuers(&(a.issuer("a") + &b.issuer("b")));
    let node = Gateway::start_with(&settings).await;
    let mut of_a = node.session(&a.access("alice", "one")).await;
    let mut of_b = node.session(&b.access("alice", "two")).await;
    assert_done(&post(&node, &a.token(json!({"sub":"alice"}))).await);
    of_a.expect_close(4403, "revoked").await;
    of_b.assert_open().await;
    // Neither issuer may report for the other.
    let forged = a.token(json!({"sub":"alice","iss":b.provider.issuer()}));
    assert_refused(&post(&node, &forged).await, "invalid_request");
    of_b.assert_open().await;
}

#[tokio::test]
async fn a_session_that_no_logout_could_find_is_not_opened() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let iss = login.provider.issuer();
    for (claims, missing) in [
        (json!({"iss":iss}), "sid"),
        (json!({"iss":iss,"sid":null}), "sid"),
        (json!({"iss":iss,"sid":""}), "sid"),
        (json!({"iss":iss,"sid":7}), "sid"),
        (json!({"iss":iss,"sid":"one","iat":null}), "iat"),
    ] {
        let token = login.key.user_with("alice", claims);
        let mut refused = node.ws().bearer(&token).open().await;
        let told = refused.expect_auth_failed("missing_claim", 4401).await;
        assert!(
            told["message"].as_str().unwrap().contains(missing),
            "{told}"
        );
    }
}

#[tokio::test]
async fn where_tokens_name_no_login_the_user_is_meant() {
    let login = Login::start().await;
    let issuer = login.issuer("main") + "logout_scope = \"user\"\n";
    let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
    let iss = login.provider.issuer();
    let before = json!({"iss":iss,"iat":unix_now() - 100});
    let mut client = node.session(&login.key.user_with("alice", before)).await;
    let refused = post(&node, &login.token(json!({"sid":"one"}))).await;
    assert_refused(&refused, "sid_unknown_here");
    client.assert_open().await;
    assert_done(&post(&node, &login.token(json!({"sid":"one","sub":"alice"}))).await);
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn until_it_is_configured_there_is_no_such_path() {
    let node = Gateway::start_default().await;
    assert_eq!(post(&node, "x").await.status, 404);
}

/// A test of a logout token with one fault. The name of the test is the name of the fault.
macro_rules! refused {
    ($($(#[doc = $section:literal])+ $name:ident: $token:expr;)+) => {$(
        $(#[doc = $section])+
        #[tokio::test]
        async fn $name() {
            let login = Login::start().await;
            let node = Gateway::start_with(&login.settings()).await;
            let mut client = node.session(&login.access("alice", "one")).await;
            let token: fn(&Login) -> String = $token;
            assert_refused(&post(&node, &token(&login)).await, "invalid_request");
            client.assert_open().await;
            assert_eq!(node.metric("curfew_logouts_total{outcome=\"refused\"}").await, 1.0);
        }
    )+};
}

fn with(login: &Login, changes: Value) -> String {
    let mut all = json!({"sub":"alice","sid":"one"});
    all.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    login.token(all)
}

refused! {
    /// §2.6 step 1: encrypted tokens are only for clients that registered for them.
    an_encrypted_token: |login| format!("{}.x.y", with(login, json!({})));
    /// §2.6 step 2: `none` is not allowed.
    an_unsigned_token: |login| {
        let claims = login.claims(json!({"sub":"alice"})).to_string();
        let header = r#"{"alg":"none","typ":"logout+jwt"}"#;
        format!("{}.{}.", curfew_testkit::mint::encode(header), curfew_testkit::mint::encode(claims))
    };
    /// §2.6 step 2: the issuer signs the token.
    a_token_by_another_key: |login| {
        let other = Key::generate("ES256").with_kid("one");
        other.sign(&other.header().to_string(), &login.claims(json!({"sub":"alice"})).to_string())
    };
    /// §2.6 step 2: the algorithm is allowed.
    a_token_by_a_shared_secret: |login| {
        let secret = Key::hmac("HS256", &[7; 32]).with_kid("one");
        secret.sign(&secret.header().to_string(), &login.claims(json!({"sub":"alice"})).to_string())
    };
    /// §2.6 step 3: `iss` is the issuer.
    a_token_of_another_issuer: |login| with(login, json!({"iss":"https://other.example"}));
    /// §2.6 step 3: `iss` is required.
    a_token_of_no_issuer: |login| with(login, json!({"iss":null}));
    /// §2.6 step 3: `aud` is the client.
    a_token_for_another_client: |login| with(login, json!({"aud":"other"}));
    /// §2.6 step 3: `aud` is required.
    a_token_for_nobody: |login| with(login, json!({"aud":null}));
    /// §2.6 step 3: `iat` is required.
    a_token_without_iat: |login| with(login, json!({"iat":null}));
    /// §2.6 step 3: `iat` is not in the future.
    a_token_of_the_future: |login| {
        with(login, json!({"iat":unix_now() + 60,"exp":unix_now() + 120}))
    };
    /// §2.6 step 3: `iat` is not too old.
    a_token_of_eleven_minutes_ago: |login| with(login, json!({"iat":unix_now() - 660}));
    /// §2.4, errata set 1: `exp` is required.
    a_token_without_exp: |login| with(login, json!({"exp":null}));
    /// §2.6 step 3: `exp` is in the future.
    an_expired_token: |login| {
        with(login, json!({"iat":unix_now() - 60,"exp":unix_now() - 30}))
    };
    /// §4: logout tokens are short-lived.
    a_token_that_is_good_for_an_hour: |login| with(login, json!({"exp":unix_now() + 3600}));
    /// §2.6 step 4: `sub`, `sid` or both are required.
    a_token_about_nobody: |login| login.token(json!({}));
    /// §2.6 step 4: `sub` is not empty.
    a_token_with_an_empty_sub: |login| with(login, json!({"sub":""}));
    /// §2.6 step 4: `sid` is a text.
    a_token_with_a_number_as_sid: |login| with(login, json!({"sid":7}));
    /// §2.6 step 5: `events` is required.
    a_token_without_events: |login| with(login, json!({"events":null}));
    /// §2.6 step 5: `events` is an object.
    a_token_whose_events_are_a_list: |login| with(login, json!({"events":[EVENT]}));
    /// §2.6 step 5: `events` has the member of the logout event.
    a_token_of_another_event: |login| with(login, json!({"events":{"https://example.com/other":{}}}));
    /// §2.6 step 5: that member is an object.
    a_token_whose_event_is_null: |login| with(login, json!({"events":{EVENT:null}}));
    /// §2.6 step 5: that member is an object.
    a_token_whose_event_is_a_list: |login| with(login, json!({"events":{EVENT:[]}}));
    /// §2.6 step 6: `nonce` is not allowed.
    a_token_with_a_nonce: |login| with(login, json!({"nonce":"n"}));
    /// §2.4: `jti` is required.
    a_token_without_jti: |login| with(login, json!({"jti":null}));
    /// §2.4: `typ`, if present, is the type of logout tokens.
    a_token_of_another_type: |login| login.token_of_type("at+jwt", json!({"sub":"alice"}));
    /// An access token is no logout token.
    an_access_token: |login| login.access("alice", "one");
    /// An ID token is no logout token.
    an_id_token: |login| with(login, json!({"events":null,"nonce":"n"}));
}

#[tokio::test]
async fn types_that_a_logout_token_may_have() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    for typ in ["JWT", "logout+jwt", "LOGOUT+JWT", "application/logout+jwt"] {
        assert_done(&post(&node, &login.token_of_type(typ, json!({"sub":"bob"}))).await);
    }
}

#[tokio::test]
async fn a_logout_token_opens_no_session() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    for typ in ["JWT", "logout+jwt"] {
        let token = login.token_of_type(typ, json!({"sub":"alice","sid":"one"}));
        let attempt = node.attempt_with(&token).await;
        assert!(matches!(attempt, Attempt::Refused(why, 4401) if why == "malformed"));
    }
}

#[tokio::test]
async fn what_is_no_such_request_is_refused() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let token = login.token(json!({"sub":"alice"}));
    let body = format!("logout_token={token}");
    assert_done(&send(&node, "POST", &format!("{FORM}; charset=UTF-8"), &body).await);
    assert_done(&send(&node, "POST", FORM, &format!("state=x&{body}&more=1")).await);
    let get = send(&node, "GET", FORM, "").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let as_json = json!({"logout_token":token}).to_string();
    assert_refused(
        &send(&node, "POST", "application/json", &as_json).await,
        "invalid_request",
    );
    for bad in [
        format!("{body}&{body}"),
        "state=x".to_owned(),
        "logout_token=".to_owned(),
        "logout_token=%GG".to_owned(),
    ] {
        assert_refused(&send(&node, "POST", FORM, &bad).await, "invalid_request");
    }
    let large = format!("logout_token={}", "x".repeat(1 << 20));
    assert_eq!(send(&node, "POST", FORM, &large).await.status, 413);
    node.assert_alive().await;
}

#[tokio::test]
async fn while_redis_is_away_sessions_here_end_and_the_others_when_it_is_back() {
    let (redis, login) = (Redis::start().await, Login::start().await);
    let settings = login.settings().with("backend.grace = \"60s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let token = login.access("alice", "one");
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    cluster.proxy(0).set(Link::CUT);
    let answer = post(&cluster[0], &login.token(json!({"sid":"one"}))).await;
    assert_refused(&answer, "temporarily_unavailable");
    here.expect_close(4403, "revoked").await;
    there.assert_open().await;
    cluster.proxy(0).set(Link::PASS);
    there.expect_close(4403, "revoked").await;
    eventually("the token to be refused everywhere", async || {
        cluster[1]
            .attempt_with(&token)
            .await
            .is_revoked()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_logout_goes_on_when_the_provider_hangs_up() {
    let (redis, login) = (Redis::start().await, Login::start().await);
    let cluster = Cluster::behind_proxies(2, &redis, &login.settings()).await;
    let token = login.access("alice", "one");
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    // Redis does not answer, and the provider does not wait for the node's answer.
    cluster.proxy(0).set(Link::STALLED);
    let body = format!("logout_token={}", login.token(json!({"sid":"one"})));
    let length = body.len();
    let mut provider = TcpStream::connect(cluster[0].address()).await.unwrap();
    let head = format!(
        "POST /logout/backchannel HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    );
    provider.write_all((head + &body).as_bytes()).await.unwrap();
    cluster[0]
        .until_metric("curfew_revocations_unwritten", |waiting| waiting == 1.0)
        .await;
    drop(provider);
    cluster.proxy(0).set(Link::PASS);
    here.expect_close(4403, "revoked").await;
    there.expect_close(4403, "revoked").await;
    cluster[0]
        .until_metric("curfew_revocations_unwritten", |waiting| waiting == 0.0)
        .await;
}

#[tokio::test]
async fn without_the_issuers_keys_a_logout_is_not_refused_as_forged() {
    let login = Login::start().await;
    login.provider.behave(Manner::Status(500));
    let node = Gateway::start_with(&login.settings()).await;
    let answer = post(&node, &login.token(json!({"sub":"alice"}))).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_logout_closes_sessions_from_before_it_was_configured() {
    for told in [true, false] {
        let (redis, login) = (Redis::start().await, Login::start().await);
        let before = Settings::default().issuers(&login.provider.by_url("main"));
        let cluster = Cluster::start(1, &redis.url(), &before).await;
        let mut login_one = cluster[0].session(&login.access("alice", "one")).await;
        let mut login_two = cluster[0].session(&login.access("alice", "two")).await;
        let mut bob = cluster[0].session(&login.access("bob", "three")).await;
        cluster[0]
            .take_over(&login.settings().on_redis(&redis.url()), told)
            .await;
        let one = login.token(json!({"sid":"one","sub":"alice"}));
        assert_done(&post(&cluster[0], &one).await);
        login_one.expect_close(4403, "revoked").await;
        login_two.assert_open().await;
        // The revocation names the user together with the user's issuer.
        assert_done(&post(&cluster[0], &login.token(json!({"sub":"alice"}))).await);
        login_two.expect_close(4403, "revoked").await;
        bob.assert_open().await;
    }
}
