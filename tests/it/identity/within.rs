//! Providers inside a cluster, providers with many tenants, and tokens that are not access tokens.

use curfew_testkit::mint::{Key, encode, jwks};
use curfew_testkit::unix_now;
use curfew_tests::{
    Attempt, Finished, Gateway, Manner, Paths, Provider, Settings, TestAuthority, curfew,
    eventually,
};
use serde_json::{Value, json};

const US: &str = "curfew";
const PAGE: &str = "web-app";

fn key(kid: &str) -> Key {
    Key::generate("ES256").with_kid(kid)
}

/// The result of `check-config` for a configuration with these issuers.
async fn checked(issuers: &str) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    std::fs::write(&path, Settings::default().issuers(issuers).to_toml()).unwrap();
    curfew(&["check-config", "--config", path.to_str().unwrap()]).await
}

async fn assert_refused(issuers: &str, words: &str) {
    let told = checked(issuers).await;
    assert_eq!(told.code, 2, "{issuers}: {told:?}");
    assert!(format!("{told:?}").contains(words), "{words}: {told:?}");
}

fn is_refused(attempt: &Attempt, reason: &str) -> bool {
    matches!(attempt, Attempt::Refused(told, 4401) if told == reason)
}

/// Regression: a provider on the local network could not be used without a certificate.
#[tokio::test]
async fn keys_come_over_http_from_elsewhere_where_that_is_allowed() {
    let one = key("one");
    let provider = Provider::start(&[&one]).await;
    // This address leads to this machine, but is not a loopback address.
    let url = provider.keys_url().replace("127.0.0.1", "0.0.0.0");
    assert_ne!(url, provider.keys_url());
    let by_url = provider.by_url("main").replace(&provider.keys_url(), &url);
    assert_refused(&by_url, "allow_http = true").await;
    let allowed = format!("{by_url}allow_http = true\n");
    assert_eq!(checked(&allowed).await.code, 0);
    let node = Gateway::start_with(&Settings::default().issuers(&allowed)).await;
    assert!(
        node.attempt_with(&provider.token(&one, "alice"))
            .await
            .is_open()
    );
    // A URL that discovery names must also be allowed.
    provider.configure("jwks_uri", json!(url));
    let discovered = provider.by_discovery("main");
    let node = Gateway::start_with(&Settings::default().issuers(&discovered)).await;
    let attempt = node.attempt_with(&provider.token(&one, "alice")).await;
    assert!(attempt.is_unavailable(), "{attempt:?}");
    let allowed = format!("{discovered}allow_http = true\n");
    let node = Gateway::start_with(&Settings::default().issuers(&allowed)).await;
    assert!(
        node.attempt_with(&provider.token(&one, "alice"))
            .await
            .is_open()
    );
    let file = "[[auth.issuers]]\nname = \"main\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    assert_refused(&format!("{file}allow_http = true\n"), "allow_http").await;
}

/// Regression: a provider with a certificate of a private authority could not be used.
#[tokio::test]
async fn an_issuer_has_an_authority_of_its_own() {
    let one = key("one");
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let directory = tempfile::tempdir().unwrap();
    authority.write(directory.path());
    let ca = directory.path().join("ca.pem");
    let provider = Provider::start_secure(&[&one], &authority).await;
    for issuer in [provider.by_url("main"), provider.by_discovery("main")] {
        let trusting = format!("{issuer}ca_file = {ca:?}\n");
        let node = Gateway::start_with(&Settings::default().issuers(&trusting)).await;
        let attempt = node.attempt_with(&provider.token(&one, "alice")).await;
        assert!(attempt.is_open(), "{attempt:?}");
    }
    // Without the authority, or with another authority, the node does not trust the provider.
    let strange = tempfile::tempdir().unwrap();
    other.write(strange.path());
    let strange = strange.path().join("ca.pem");
    for more in [String::new(), format!("ca_file = {strange:?}\n")] {
        let issuer = provider.by_url("main") + &more;
        let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
        let attempt = node.attempt_with(&provider.token(&one, "alice")).await;
        assert!(attempt.is_unavailable(), "{attempt:?}");
        let known = node.admin_ok("GET", "/v1/issuers", None).await;
        let failure = known["issuers"][0]["remote"]["failure"].as_str().unwrap();
        assert!(failure.contains("TLS"), "{failure}");
    }
    let key = directory.path().join("key.pem");
    let issuer = provider.by_url("main");
    assert_refused(
        &format!("{issuer}ca_file = {key:?}\n"),
        "holds no certificate",
    )
    .await;
    assert_refused(
        &format!("{issuer}ca_file = \"/nowhere/ca.pem\"\n"),
        "ca_file",
    )
    .await;
}

/// Regression: the error text about a provider's fault came from a library, or advised on another
/// fault.
#[tokio::test]
async fn what_a_provider_does_wrong_is_told_with_what_to_do() {
    let one = key("one");
    let authority = TestAuthority::that_serves();
    let directory = tempfile::tempdir().unwrap();
    authority.write(directory.path());
    let ca = directory.path().join("ca.pem");
    let secure = Provider::start_secure(&[&one], &authority).await;
    let plain = Provider::start(&[&one]).await;
    plain.behave(Manner::Status(304));
    let trusting = format!("{}ca_file = {ca:?}\n", secure.by_url("main"));
    for (issuer, said, unsaid) in [
        (trusting, "basicConstraints=critical,CA:FALSE", "redirects"),
        (plain.by_url("main"), "answers 304", "redirects"),
    ] {
        let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
        let failure = eventually("a failure", async || {
            let known = node.admin_ok("GET", "/v1/issuers", None).await;
            let failure = known["issuers"][0]["remote"]["failure"].as_str();
            failure.map(str::to_owned)
        })
        .await;
        assert!(
            failure.contains(said) && !failure.contains(unsaid),
            "{failure}"
        );
    }
}

/// Regression: for a provider with many tenants, `issuer` was a literal text that no token has, or
/// the node accepted every tenant.
#[tokio::test]
async fn a_template_of_tenants_lets_in_those_that_are_listed() {
    let one = key("one");
    let provider = Provider::start_at(
        Paths {
            issuer: "/common/v2.0",
            keys: "/common/keys",
        },
        &[&one],
    )
    .await;
    let template = format!("{}/{{tenantid}}/v2.0", provider.origin());
    provider.configure("issuer", json!(template));
    let url = provider.keys_url();
    let issuer = format!("[[auth.issuers]]\nname = \"main\"\nissuer = {template:?}\n");
    let (by_url, discovered) = (
        format!("{issuer}jwks_url = {url:?}\n"),
        format!("{issuer}discovery = true\n"),
    );
    for issuer in [&by_url, &discovered] {
        assert_refused(issuer, "tenants").await;
        let settings =
            Settings::default().issuers(&format!("{issuer}tenants = [\"acme\", \"7d2f-4c1e\"]\n"));
        let node = Gateway::start_with(&settings).await;
        let of = |tenant: &str| {
            let iss = format!("{}/{tenant}/v2.0", provider.origin());
            one.user_with("alice", json!({"iss":iss}))
        };
        for tenant in ["acme", "7d2f-4c1e"] {
            let attempt = node.attempt_with(&of(tenant)).await;
            assert!(attempt.is_open(), "{tenant}: {attempt:?}");
        }
        for tenant in ["evil", "{tenantid}", "common", "acme/x", "", "ACME"] {
            let attempt = node.attempt_with(&of(tenant)).await;
            assert!(
                is_refused(&attempt, "wrong_issuer"),
                "{tenant}: {attempt:?}"
            );
        }
    }
    let listed = provider.by_url("main") + "tenants = [\"acme\"]\n";
    assert_refused(&listed, "{tenantid}").await;
    let twice = by_url.replace("{tenantid}", "{tenantid}/{tenantid}");
    assert_refused(&format!("{twice}tenants = [\"acme\"]\n"), "once").await;
    assert_refused(&format!("{by_url}tenants = [\"a/b\"]\n"), "letters").await;
}

/// Regression: an ID token that only its audience distinguishes from an access token opened a
/// session.
#[tokio::test]
async fn a_token_for_the_client_alone_is_no_access_token() {
    let one = key("one");
    let provider = Provider::start(&[&one]).await;
    let issuer = provider.by_url("main")
        + &format!("backchannel_logout = true\nlogout_audience = [{PAGE:?}]\n");
    let token = |aud: Value| {
        let more = json!({"iss":provider.issuer(),"aud":aud,"sid":"s"});
        one.user_with("alice", more)
    };
    let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
    for aud in [json!(PAGE), json!([PAGE]), json!([PAGE, PAGE])] {
        let mut client = node.ws().bearer(&token(aud.clone())).open().await;
        let told = client
            .expect_json(json!({"type":"auth_failed","reason":"malformed"}))
            .await;
        assert!(
            told["message"].as_str().unwrap().contains("ID token"),
            "{aud}: {told}"
        );
    }
    for aud in [json!([PAGE, US]), json!(US), Value::Null, json!([])] {
        let attempt = node.attempt_with(&token(aud.clone())).await;
        assert!(attempt.is_open(), "{aud}: {attempt:?}");
    }
    // If the client is listed as an audience, a token for the client is accepted. With
    // `accept_id_tokens`, a token for the client alone is accepted too.
    for more in [
        format!("audience = [{PAGE:?}]\n"),
        "accept_id_tokens = true\n".to_owned(),
    ] {
        let settings = Settings::default().issuers(&format!("{issuer}{more}"));
        let node = Gateway::start_with(&settings).await;
        assert!(
            node.attempt_with(&token(json!(PAGE))).await.is_open(),
            "{more}"
        );
    }
    let strict = format!("{issuer}require_at_jwt = true\n");
    let node = Gateway::start_with(&Settings::default().issuers(&strict)).await;
    let claims = json!({
        "iss":provider.issuer(),"aud":US,"sid":"s","sub":"alice","exp":unix_now() + 60,"iat":unix_now(),
    });
    let typed = |typ: Option<&str>| {
        let mut header = one.header();
        match typ {
            Some(typ) => header["typ"] = typ.into(),
            None => drop(header.as_object_mut().unwrap().remove("typ")),
        }
        one.sign(&header.to_string(), &claims.to_string())
    };
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        assert!(
            node.attempt_with(&typed(Some(typ))).await.is_open(),
            "{typ}"
        );
    }
    for typ in [Some("JWT"), None] {
        let mut client = node.ws().bearer(&typed(typ)).open().await;
        let told = client
            .expect_json(json!({"type":"auth_failed","reason":"malformed"}))
            .await;
        assert!(
            told["message"].as_str().unwrap().contains("at+jwt"),
            "{told}"
        );
    }
}

/// Regression: services, whose tokens have no `sid`, could not have their own rules beside users.
#[tokio::test]
async fn two_issuers_with_one_iss_are_told_apart_by_audience() {
    let one = key("one");
    let provider = Provider::start(&[&one]).await;
    let block = |name: &str, more: &str| provider.by_url(name) + more;
    let people = block(
        "people",
        "audience = [\"curfew\"]\nbackchannel_logout = true\nlogout_audience = [\"web-app\"]\n",
    );
    let services = block(
        "services",
        "audience = [\"curfew-services\"]\nrequired_claims = { azp = [\"reports\"] }\n",
    );
    let node =
        Gateway::start_with(&Settings::default().issuers(&format!("{people}{services}"))).await;
    let token = |user: &str, more: Value| {
        let mut claims = json!({"iss":provider.issuer()});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        one.user_with(user, claims)
    };
    let person = token("alice", json!({"aud":["account", "curfew"],"sid":"one"}));
    let service = token("alice", json!({"aud":"curfew-services","azp":"reports"}));
    let mut at_people = node.session(&person).await;
    let mut at_services = node.session(&service).await;
    for (more, reason) in [
        // Each token follows only the rules of its own issuer block.
        (json!({"aud":"curfew"}), "missing_claim"),
        (json!({"aud":"curfew-services"}), "missing_claim"),
        (
            json!({"aud":"curfew-services","azp":"other"}),
            "wrong_audience",
        ),
        (json!({"aud":"web-app","sid":"one"}), "wrong_audience"),
        (json!({"sid":"one","azp":"reports"}), "missing_claim"),
    ] {
        let attempt = node.attempt_with(&token("alice", more.clone())).await;
        assert!(is_refused(&attempt, reason), "{more}: {attempt:?}");
    }
    // Both blocks have the same users of the same provider. A logout that one block accepts ends
    // sessions of both.
    let now = unix_now();
    let logout = json!({
        "iss":provider.issuer(),"aud":PAGE,"sub":"alice","iat":now,"exp":now + 60,"jti":"j1",
        "events":{"http://schemas.openid.net/event/backchannel-logout":{}},
    });
    let mut header = one.header();
    header["typ"] = json!("logout+jwt");
    let logout = one.sign(&header.to_string(), &logout.to_string());
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("logout_token={logout}");
    let path = "/logout/backchannel";
    let answer =
        curfew_testkit::http::request(node.address(), "POST", path, &form, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    at_people.expect_close(4403, "revoked").await;
    at_services.expect_close(4403, "revoked").await;
    for (second, words) in [
        (block("services", ""), "audience"),
        (
            block("services", "audience = [\"curfew\", \"x\"]\n"),
            "audience",
        ),
        (
            block(
                "services",
                "audience = [\"x\"]\nbackchannel_logout = true\nlogout_audience = [\"y\"]\n",
            ),
            "only one of the two",
        ),
    ] {
        assert_refused(&format!("{people}{second}"), words).await;
    }
}

/// Regression: a key with padding (`=`) was skipped without advice.
#[tokio::test]
async fn a_padded_key_is_told_what_to_leave_out() {
    let good = key("good");
    let mut set: Value =
        serde_json::from_str(&jwks(&[&key("padded"), &key("standard"), &good])).unwrap();
    let padded = set["keys"][0]["x"].as_str().unwrap().to_owned() + "=";
    set["keys"][0]["x"] = padded.into();
    set["keys"][1]["y"] = format!("+/{}", &encode([7; 32])[2..]).into();
    let provider = Provider::start(&[]).await;
    provider.serve(set.to_string());
    let node = Gateway::start_with(&Settings::default().issuers(&provider.by_url("main"))).await;
    assert!(
        node.attempt_with(&provider.token(&good, "alice"))
            .await
            .is_open()
    );
    eventually("both reasons in the log", async || {
        let log = node.log().text();
        let said = |words: &str| log.contains(words);
        (said("its x is padded") && said("remove the `=`") && said("its y is base64:"))
            .then_some(())
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    set["keys"].as_array_mut().unwrap().truncate(1);
    std::fs::write(&path, set.to_string()).unwrap();
    let issuer = format!("[[auth.issuers]]\nname = \"main\"\njwks_file = {path:?}\n");
    assert_refused(&issuer, "its x is padded").await;
}
