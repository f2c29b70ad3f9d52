//! Advisories on keys, tokens, decisions and origins.

use std::net::TcpListener;

use curfew_testkit::Connect;
use curfew_testkit::mint::{Key, claims, claims_with, jwks};
use curfew_tests::{ADMIN_KEY, Gateway, Settings, curfew};
use serde_json::json;

async fn assert_rejected(gateway: &Gateway, token: &str, what: &str) {
    let mut client = gateway.ws().bearer(token).open().await;
    let first = client.next_json().await;
    assert_eq!(first["type"], "auth_failed", "{what}: {first}");
    assert_eq!(client.closed().await.0, 4401, "{what}");
}

/// Centrifugo: the URL of the keys was built from unverified claims.
#[tokio::test]
async fn cve_2026_32301_nothing_is_fetched_from_where_a_token_says() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}", trap.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let key = Key::rsa().with_kid("k1");
    std::fs::write(directory.path().join("keys.json"), jwks(&[&key])).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\njwks_file = {:?}\n",
        directory.path().join("keys.json")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let attacker = Key::other_rsa().with_kid("attacker");
    let evil = claims_with("alice", json!({"iss":url,"aud":url}));
    assert_rejected(&gateway, &attacker.token(&evil), "iss").await;
    for member in ["jku", "x5u", "jwk", "x5c"] {
        let mut header = attacker.header();
        header[member] = match member {
            "jwk" => attacker.jwk(),
            "x5c" => json!([url]),
            _ => json!(format!("{url}/keys.json")),
        };
        for kid in ["attacker", "k1"] {
            header["kid"] = json!(kid);
            let token = attacker.sign(&header.to_string(), &claims("alice").to_string());
            assert_rejected(&gateway, &token, &format!("{member} {kid}")).await;
        }
        // A token with the same header is accepted if the configured key has signed it.
        let mut header = key.header();
        header[member] = json!(format!("{url}/keys.json"));
        let token = key.sign(&header.to_string(), &claims("alice").to_string());
        gateway.session(&token).await;
    }
    assert!(
        trap.accept().is_err(),
        "the node connected to the address that a token names"
    );
}

/// Centrifugo: the URL of the keys could contain a template.
#[tokio::test]
async fn cve_2026_32301_a_template_in_an_address_is_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    for url in [
        "https://id.example/{iss}/jwks",
        "https://{{aud}}/jwks",
        "http://id.example/${tenant}",
    ] {
        let settings = Settings::default().issuers(&format!(
            "[[auth.issuers]]\nname = \"main\"\njwks_url = \"{url}\"\n"
        ));
        std::fs::write(&path, settings.to_toml()).unwrap();
        let finished = curfew(&["check-config", "--config", path.to_str().unwrap()]).await;
        assert_eq!(finished.code, 2, "{url}: {finished:?}");
        assert!(
            finished.stderr.contains("auth.issuers[0].jwks_url"),
            "{finished:?}"
        );
    }
}

/// Centrifugo: keys were cached by `kid` alone.
#[tokio::test]
async fn cve_2026_49998_keys_of_the_same_kid_do_not_verify_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        Key::rsa().with_kid("same"),
        Key::other_rsa().with_kid("same"),
    );
    let mut issuers = String::new();
    for (name, key) in [("a", &a), ("b", &b)] {
        let path = directory.path().join(name);
        std::fs::write(&path, jwks(&[key])).unwrap();
        issuers.push_str(&format!(
            "[[auth.issuers]]\nname = \"{name}\"\nissuer = \"https://{name}.example\"\njwks_file = {path:?}\n"
        ));
    }
    let settings = Settings::default().issuers(&issuers);
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let claiming = |key: &Key, iss: &str| {
        key.user_with("alice", json!({"iss":format!("https://{iss}.example")}))
    };
    for _ in 0..2 {
        // The second round repeats each attempt after the first round has filled the node's caches.
        assert_rejected(&gateway, &claiming(&a, "b"), "a for b").await;
        gateway.session(&claiming(&a, "a")).await;
        assert_rejected(&gateway, &claiming(&b, "a"), "b for a").await;
        gateway.session(&claiming(&b, "b")).await;
    }
    let (a_for_b, b_for_a) = (claiming(&a, "b"), claiming(&b, "a"));
    for _ in 0..5 {
        tokio::join!(
            assert_rejected(&gateway, &a_for_b, "a for b"),
            assert_rejected(&gateway, &b_for_a, "b for a"),
        );
    }
    // Without `iss`, the `kid` alone does not choose between two issuers.
    assert_rejected(&gateway, &a.user("alice"), "no iss").await;
}

/// NATS 2026-16: one listener accepted credentials that another listener refused.
#[tokio::test]
async fn nats_2026_16_every_listener_refuses_what_is_not_its_own() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    for address in [gateway.address(), gateway.admin_address()] {
        for path in ["/ws", "/v1/nodes", "/metrics", "/"] {
            let connect = Connect::to(address)
                .path(path)
                .bearer(&token)
                .header("X-Admin-Key", ADMIN_KEY);
            let accepted = connect.attempt().await.is_ok();
            assert_eq!(
                accepted,
                path == "/ws" && address == gateway.address(),
                "{address} {path}"
            );
        }
    }
    // A user's token is no admin key, and an admin key is no token.
    let answer = gateway
        .admin_as(Some(&token), "GET", "/v1/nodes", None)
        .await;
    assert_eq!(answer.status, 401);
    assert_rejected(&gateway, ADMIN_KEY, "the admin key").await;
}

/// NATS 2026-18: a rule that allows an action took precedence over a rule that denies it.
#[tokio::test]
async fn nats_2026_18_a_deny_wins_whatever_allows() {
    for (rule, grant, deny) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
        for deny_first in [true, false] {
            let allowing = "[[policy.rules]]\nname = \"yes\"\nchannels = [\"room:*\"]\nactions = [\"subscribe\"]\n";
            let denying = "[[policy.rules]]\nname = \"no\"\nchannels = [\"room:1\"]\nactions = [\"subscribe\"]\neffect = \"deny\"\n";
            let mut rules = Vec::new();
            if rule {
                rules.push(allowing);
            }
            if deny {
                rules.insert(if deny_first { 0 } else { rules.len() }, denying);
            }
            let gateway = Gateway::start_with(&Settings::default().rules(&rules.join(""))).await;
            let grants = if grant {
                json!({"subscribe":["room:1"]})
            } else {
                json!({})
            };
            let token = Key::default_secret().user_with("alice", json!({"curfew":grants}));
            let mut client = gateway.session(&token).await;
            client
                .send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
                .await;
            let allowed = client.next_json().await["type"] == "ok";
            assert_eq!(
                allowed,
                (rule || grant) && !deny,
                "{rule} {grant} {deny} {deny_first}"
            );
        }
    }
}

/// jsonwebtoken: an `exp` that is not a number counted as absent.
#[tokio::test]
async fn cve_2026_25537_a_claim_of_the_wrong_type_is_not_absent() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    for (claim, values) in [
        (
            "exp",
            &["\"never\"", "null", "true", "{}", "[]", "1e300", "1e999"][..],
        ),
        (
            "nbf",
            &["\"never\"", "null", "true", "{}", "[]", "1e300", "1e999"],
        ),
        (
            "iat",
            &["\"never\"", "null", "true", "{}", "[]", "1e300", "1e999"],
        ),
        ("sub", &["7", "null", "true", "{}", "[]"]),
        ("iss", &["7", "null", "true", "{}", "[\"a\"]"]),
        ("aud", &["7", "null", "true", "{}", "[7]"]),
        ("jti", &["7", "null", "true", "{}", "[]"]),
    ] {
        for value in values {
            let mut good = claims("alice");
            good.as_object_mut().unwrap().remove(claim);
            let text = good.to_string();
            let text = format!("{},\"{claim}\":{value}}}", text.trim_end_matches('}'));
            let token = key.sign(&key.header().to_string(), &text);
            let mut client = gateway.ws().bearer(&token).open().await;
            client.expect_auth_failed("malformed", 4401).await;
        }
    }
}

/// node jsonwebtoken accepted weak secrets, keys of the wrong kind, and the algorithm `none`.
#[tokio::test]
async fn cve_2022_23541_weak_and_mismatched_keys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.toml");
    let ec = directory.path().join("ec.pem");
    std::fs::write(&ec, Key::generate("ES256").public_pem()).unwrap();
    for issuer in [
        "secret = \"secret\"".to_owned(),
        format!("public_key_file = {ec:?}\nalgorithms = [\"RS256\"]"),
        format!("public_key_file = {ec:?}\nalgorithms = [\"ES384\"]"),
        format!("public_key_file = {ec:?}\nalgorithms = [\"HS256\"]"),
    ] {
        let settings =
            Settings::default().issuers(&format!("[[auth.issuers]]\nname = \"main\"\n{issuer}\n"));
        std::fs::write(&path, settings.to_toml()).unwrap();
        let finished = curfew(&["serve", "--config", path.to_str().unwrap()]).await;
        assert_eq!(finished.code, 2, "{issuer}: {finished:?}");
        assert!(finished.stderr.contains("auth.issuers[0]"), "{finished:?}");
    }
    // The node skips the unusable keys of a key set, and uses the usable keys.
    let good = Key::rsa().with_kid("good");
    let mut set: serde_json::Value = serde_json::from_str(&jwks(&[&good])).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    keys.push(json!({"kty":"oct","kid":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}));
    keys.push(json!({"kty":"RSA","kid":"weak","n":"AQAB","e":"AQAB"}));
    keys.push(json!({"kty":"EC","crv":"P-256","kid":"off","x":"AAAA","y":"AAAA"}));
    let mut encryption = Key::other_rsa().with_kid("enc").jwk();
    encryption["use"] = json!("enc");
    keys.push(encryption);
    std::fs::write(directory.path().join("keys.json"), set.to_string()).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\njwks_file = {:?}\n",
        directory.path().join("keys.json")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    gateway.session(&good.user("alice")).await;
    let oct = Key::hmac("HS256", b"secretsecretsecretsecretsecretsecret").with_kid("oct");
    assert_rejected(&gateway, &oct.user("alice"), "oct in a key set").await;
    let enc = Key::other_rsa().with_kid("enc");
    assert_rejected(&gateway, &enc.user("alice"), "a key for encryption").await;
}

/// Mercure: two decisions could have the same cache key, because its parts were joined by a
/// separator that may also occur in a part.
#[tokio::test]
async fn cve_2026_39972_a_remembered_decision_is_of_one_channel_and_action() {
    let rules = r#"
[[policy.rules]]
name = "listen"
channels = ["a_b:c", "a:publish"]
actions = ["subscribe"]
[[policy.rules]]
name = "speak"
channels = ["a:b_c"]
actions = ["publish"]
"#;
    let gateway = Gateway::start_with(&Settings::default().rules(rules)).await;
    let mut client = gateway.user("alice").await;
    for _ in 0..2 {
        for (action, channel, allowed) in [
            ("subscribe", "a_b:c", true),
            ("publish", "a_b:c", false),
            ("publish", "a:b_c", true),
            ("subscribe", "a:b_c", false),
            ("subscribe", "a:publish", true),
            ("publish", "a:publish", false),
            ("subscribe", "a_b_c", false),
        ] {
            let mut command = json!({"type":action,"id":1,"channel":channel});
            if action == "publish" {
                command["data"] = json!(1);
            }
            client.send(command).await;
            let reply = client.until_json(json!({"id":1})).await;
            assert_eq!(
                reply["code"] != "forbidden",
                allowed,
                "{action} {channel}: {reply}"
            );
        }
    }
}

/// Gitpod: the origin was compared by substring.
#[tokio::test]
async fn cve_2023_0957_origins_are_compared_whole() {
    let settings = Settings::default()
        .with(r#"server.allowed_origins = ["https://app.example.com"]"#)
        .with(r#"auth.token_sources = ["cookie"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://APP.example.com", true),
        ("https://app.example.com.evil.tld", false),
        ("https://evil.tld/?https://app.example.com", false),
        ("https://app.example.com.", false),
        ("https://notapp.example.com", false),
        ("null", false),
        ("https://app.example.com:8443", false),
        ("http://app.example.com", false),
    ] {
        let connect = gateway
            .ws()
            .header("Origin", origin)
            .header("Cookie", format!("__Host-curfew-token={token}"));
        match connect.attempt().await {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(refused) => assert!(!allowed && refused.status == 403, "{origin}"),
        }
    }
}

/// Supabase: publishing by HTTP needed no key, and a session without a token kept its rights.
#[tokio::test]
async fn supabase_1274_publishing_by_http_needs_the_key_and_channels_stay_checked() {
    let gateway = Gateway::start_default().await;
    let mut listener = gateway.subscriber("bob", "a").await;
    let body = json!({"channel":"a","data":1});
    let token = Key::default_secret().user("alice");
    for key in [None, Some(token.as_str())] {
        let answer = gateway
            .admin_as(key, "POST", "/v1/publish", Some(body.clone()))
            .await;
        assert_eq!(answer.status, 401);
    }
    assert!(listener.barrier().await.is_empty());
}

/// Hasura: a session must end when its token expires, even if the session has no traffic.
#[tokio::test]
async fn hasura_a_session_without_traffic_ends_with_its_token() {
    let settings = Settings::default()
        .with(r#"auth.leeway = "0s""#)
        .with(r#"session.expiring_notice = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let exp = curfew_testkit::unix_now() + 2;
    let token = Key::default_secret().user_with("alice", json!({"exp":exp}));
    let mut client = gateway.session(&token).await;
    client.expect_close(4410, "expired").await;
    assert!(curfew_testkit::unix_now() <= exp + 1);
}
