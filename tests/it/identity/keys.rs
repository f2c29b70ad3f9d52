//! Keys that are fetched from a URL: they are found, are rotated and are withdrawn (SECURITY rows
//! 32, 33, 36 to 39).

use std::collections::BTreeMap;
use std::time::Instant;

use curfew_testkit::mint::{Key, claims_with, encode, jwks};
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Attempt, Gateway, Manner, Provider, Settings, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{trusting, until_accepted, until_unknown};

async fn assert_answers(client: &mut WsClient) {
    client.send(json!({"type":"ping"})).await;
    client.expect_json(json!({"type":"pong"})).await;
}

fn key(kid: &str) -> Key {
    Key::generate("ES256").with_kid(kid)
}

#[tokio::test]
async fn an_issuer_is_found_by_discovery() {
    let one = key("one");
    let provider = Provider::start(&[&one]).await;
    let settings = Settings::default().issuers(&provider.by_discovery("main"));
    let node = Gateway::start_with(&settings).await;
    let mut client = node.session(&provider.token(&one, "alice")).await;
    let other = one.user_with("alice", json!({"iss": "https://other.example"}));
    let mut refused = node.ws().bearer(&other).open().await;
    refused.expect_auth_failed("wrong_issuer", 4401).await;
    assert_eq!(provider.requests("/.well-known/openid-configuration"), 1);
    assert_eq!(provider.fetches(), 1);
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    let known = &known["issuers"][0];
    assert_eq!(
        (&known["name"], &known["keys"][0]["kid"]),
        (&json!("main"), &json!("one"))
    );
    assert_eq!(known["remote"]["location"], provider.issuer());
    assert!(
        known["remote"]["age_s"].is_u64() && known["remote"]["failure"].is_null(),
        "{known}"
    );
    // The issuer's tokens are also accepted in a `refresh` and in an `auth` message.
    let newer = provider.token(&one, "alice");
    client
        .send(json!({"type":"refresh","id":1,"token":newer}))
        .await;
    client.expect_json(json!({"type":"refreshed","id":1})).await;
    let mut by_message = node.ws().open().await;
    by_message
        .send(json!({"type":"auth","token":provider.token(&one, "bob")}))
        .await;
    by_message
        .expect_json(json!({"type":"connected","user":"bob"}))
        .await;
}

#[tokio::test]
async fn a_new_key_is_accepted_after_one_fetch() {
    let (old, new) = (key("old"), key("new"));
    let provider = Provider::start(&[&old]).await;
    let node = Gateway::start_with(&trusting(&provider)).await;
    until_accepted(&node, &provider, &old).await;
    provider.rotate(&[&new, &old]);
    let before = provider.fetches();
    assert!(
        node.attempt_with(&provider.token(&new, "alice"))
            .await
            .is_open()
    );
    assert_eq!(provider.fetches(), before + 1);
    assert!(
        node.attempt_with(&provider.token(&old, "alice"))
            .await
            .is_open()
    );
}

#[tokio::test]
async fn a_withdrawn_key_stops_verifying_within_its_lifetime() {
    let (old, new) = (key("old"), key("new"));
    let provider = Provider::start(&[&old]).await;
    let settings = trusting(&provider).with("auth.jwks_lifetime = \"2s\"");
    let node = Gateway::start_with(&settings).await;
    until_accepted(&node, &provider, &old).await;
    provider.rotate(&[&new]);
    until_unknown(&node, &provider, &old).await;
    assert!(
        node.attempt_with(&provider.token(&new, "alice"))
            .await
            .is_open()
    );
    // If the set is empty, the last key is withdrawn, and the node cannot verify any token.
    provider.rotate(&[]);
    eventually("the last key to be withdrawn", async || {
        let attempt = node.attempt_with(&provider.token(&new, "alice")).await;
        attempt.is_unavailable().then_some(())
    })
    .await;
    provider.rotate(&[&new]);
    until_accepted(&node, &provider, &new).await;
}

/// Regression: a list of keys that the provider had sent before the key existed counted as a later
/// list.
#[tokio::test]
async fn ten_thousand_unknown_keys_that_could_be_good_cause_two_fetches() {
    let good = key("good");
    let provider = Provider::start(&[&good]).await;
    let node = Gateway::start_with(&trusting(&provider)).await;
    let mut client = node.session(&provider.token(&good, "alice")).await;
    let (before, began) = (provider.fetches(), Instant::now());
    let mut told = BTreeMap::<String, u64>::new();
    for n in 0..10_000 {
        let token = good.clone().with_kid(&format!("stranger-{n}"));
        let refresh = json!({"type":"refresh","id":n,"token":provider.token(&token, "alice")});
        client.send(refresh).await;
        let answer = client.expect_json(json!({"type":"error","id":n})).await;
        *told
            .entry(answer["code"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    // The node has asked the provider for these tokens' keys. For the other tokens it does not know
    // if the provider has their keys.
    let asked = told.remove("unknown_key").unwrap_or_default();
    let most = 2 + began.elapsed().as_secs() / 30;
    assert!((2..=most).contains(&asked), "{asked}");
    assert_eq!((provider.fetches() - before) as u64, asked);
    assert_eq!(
        told,
        BTreeMap::from([("unavailable".to_owned(), 10_000 - asked)])
    );
    assert!(
        node.attempt_with(&provider.token(&good, "bob"))
            .await
            .is_open()
    );
}

/// Tokens that no key makes valid: they are unsigned or for another service, and have an unknown
/// key id.
fn rubbish(provider: &Provider, of: &Key, n: usize) -> Vec<String> {
    let stranger = of.clone().with_kid(&format!("stranger-{n}"));
    let signed = |more: Value| {
        let mut claims = json!({"iss":provider.issuer(),"aud":"curfew"});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        stranger.user_with("mallory", claims)
    };
    let good = signed(json!({}));
    let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    let header = json!({"alg":"RS256","kid":stranger.header()["kid"]}).to_string();
    let hmac = Key::hmac("HS256", &[7; 32]).with_kid(&format!("stranger-{n}"));
    let now = unix_now();
    let claims = claims_with("mallory", json!({"iss":provider.issuer(),"aud":"curfew"}));
    vec![
        format!("{unsigned}AAAA"),
        unsigned,
        signed(json!({"aud":"other"})),
        signed(json!({"aud":null})),
        signed(json!({"exp":now - 60})),
        signed(json!({"nbf":now + 60})),
        signed(json!({"iat":now + 60})),
        signed(json!({"sub":null})),
        signed(json!({"at_hash":"x"})),
        // The issuer's configuration does not allow this algorithm.
        stranger.sign(&header, &claims.to_string()),
        hmac.token(&claims),
    ]
}

/// Regression: tokens that can never be valid used up the fetches of keys, so that tokens with a
/// new key were refused. Regression: if a token's key was newer than the last list of keys, the
/// token was reported as invalid.
#[tokio::test]
async fn keys_that_rotate_twice_in_a_row_are_found_while_strangers_name_others() {
    let keys: Vec<Key> = (0..4).map(|n| key(&format!("key-{n}"))).collect();
    let provider = Provider::start(&[&keys[0]]).await;
    let issuer = provider.by_url("main") + "audience = [\"curfew\"]\nalgorithms = [\"ES256\"]\n";
    let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
    let token = |key: &Key| key.user_with("alice", json!({"iss":provider.issuer(),"aud":"curfew"}));
    let mut client = node.session(&token(&keys[0])).await;
    let fetches = provider.fetches();
    for (n, key) in keys[1..].iter().enumerate() {
        for token in rubbish(&provider, &keys[0], n) {
            let attempt = node.attempt_with(&token).await;
            let told = matches!(&attempt, Attempt::Refused(why, 4401) if why == "unknown_key");
            assert!(told, "{attempt:?}: {token}");
        }
        assert_eq!(
            provider.fetches(),
            fetches + n,
            "tokens that can never be valid have caused a fetch"
        );
        provider.rotate(&[key]);
        // Two fetches are available. The token with the third new key has to wait, and is not
        // called invalid.
        let attempt = node.attempt_with(&token(key)).await;
        assert!(
            if n < 2 {
                attempt.is_open()
            } else {
                attempt.is_unavailable()
            },
            "{n}: {attempt:?}"
        );
    }
    let newest = token(&keys[3]);
    client
        .send(json!({"type":"refresh","id":1,"token":newest}))
        .await;
    client
        .expect_json(json!({"type":"error","id":1,"code":"unavailable"}))
        .await;
    assert_answers(&mut client).await;
    let mut by_message = node.ws().open().await;
    by_message.send(json!({"type":"auth","token":newest})).await;
    by_message.expect_close(4503, "unavailable").await;
    assert_eq!(provider.fetches(), fetches + 2);
    // This token is much older than the last list of keys, so its key no longer exists.
    let (iat, exp) = (unix_now() - 300, unix_now() + 300);
    let old = json!({"iss":provider.issuer(),"aud":"curfew","iat":iat,"exp":exp});
    let attempt = node.attempt_with(&keys[0].user_with("alice", old)).await;
    assert!(
        matches!(&attempt, Attempt::Refused(why, 4401) if why == "unknown_key"),
        "{attempt:?}"
    );
}

#[tokio::test]
async fn two_hundred_first_handshakes_cause_one_fetch() {
    let good = key("good");
    let provider = Provider::start(&[&good]).await;
    provider.behave(Manner::Hanging);
    let settings = trusting(&provider)
        .with("limits.unauthenticated_per_address = 1000")
        .with("auth.jwks_timeout = \"60s\"");
    let node = Gateway::start_with(&settings).await;
    let mut attempts = JoinSet::new();
    for n in 0..200 {
        let connect = node
            .ws()
            .bearer(&provider.token(&good, &format!("user-{n}")));
        attempts.spawn(Attempt::make(connect));
    }
    node.until_metric("curfew_unauthenticated_connections", |n| n >= 100.0)
        .await;
    provider.behave(Manner::Good);
    let attempts = attempts.join_all().await;
    let refused = attempts.iter().filter(|attempt| {
        // A token that came early may have waited too long. It is then refused as unavailable, not
        // as invalid.
        !attempt.is_open() && !attempt.is_unavailable()
    });
    assert_eq!(refused.count(), 0);
    assert!(attempts.iter().any(Attempt::is_open));
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn two_issuers_with_the_same_key_id_never_verify_each_others_tokens() {
    let (of_a, of_b) = (key("same"), key("same"));
    let (a, b) = (
        Provider::start(&[&of_a]).await,
        Provider::start(&[&of_b]).await,
    );
    let settings = Settings::default().issuers(&(a.by_url("a") + &b.by_discovery("b")));
    let node = Gateway::start_with(&settings).await;
    // The first attempts come before the keys are fetched, and the later attempts after that.
    for _ in 0..2 {
        let mut attempts = JoinSet::new();
        for _ in 0..20 {
            for (provider, key) in [(&a, &of_b), (&b, &of_a)] {
                attempts.spawn(Attempt::make(
                    node.ws().bearer(&provider.token(key, "mallory")),
                ));
            }
        }
        for attempt in attempts.join_all().await {
            let told = matches!(&attempt, Attempt::Refused(why, 4401) if why == "bad_signature");
            assert!(told, "{attempt:?}");
        }
        for (provider, key) in [(&a, &of_a), (&b, &of_b)] {
            assert!(
                node.attempt_with(&provider.token(key, "alice"))
                    .await
                    .is_open()
            );
        }
    }
    // This token has no `iss`, and the keys of one of the issuers verify it.
    let nameless = of_a.user("mallory");
    let attempt = node.attempt_with(&nameless).await;
    assert!(matches!(attempt, Attempt::Refused(..)), "{attempt:?}");
}

#[tokio::test]
async fn a_bad_key_does_not_spoil_the_set() {
    let good = key("good");
    let mut set: Value = serde_json::from_str(&jwks(&[&good])).unwrap();
    let small = encode([0xff; 128]);
    let private = json!({"d": "AQAB"});
    let mut with_private = key("private").jwk();
    with_private["d"] = private["d"].clone();
    for bad in [
        json!({"kty":"oct","kid":"secret","k":encode([7; 32]),"alg":"HS256"}),
        json!({"kty":"RSA","kid":"small","n":small,"e":"AQAB"}),
        json!({"kty":"EC","kid":"off","crv":"P-256","x":encode([1; 32]),"y":encode([1; 32])}),
        json!({"kty":"OKP","kid":"odd","crv":"Ed448","x":encode([1; 57])}),
        json!({"kid":7}),
        json!("key"),
        with_private,
    ] {
        set["keys"].as_array_mut().unwrap().insert(0, bad);
    }
    let provider = Provider::start(&[]).await;
    provider.serve(set.to_string());
    let node = Gateway::start_with(&trusting(&provider)).await;
    assert!(
        node.attempt_with(&provider.token(&good, "alice"))
            .await
            .is_open()
    );
    let secret = Key::hmac("HS256", &[7; 32]).with_kid("secret");
    let attempt = node.attempt_with(&provider.token(&secret, "mallory")).await;
    assert!(matches!(attempt, Attempt::Refused(..)), "{attempt:?}");
}

#[tokio::test]
async fn a_key_that_is_replaced_under_its_name_is_accepted_after_one_fetch() {
    let (old, new) = (key("same"), key("same"));
    let provider = Provider::start(&[&old]).await;
    let node = Gateway::start_with(&trusting(&provider)).await;
    until_accepted(&node, &provider, &old).await;
    provider.rotate(&[&new]);
    let before = provider.fetches();
    assert!(
        node.attempt_with(&provider.token(&new, "alice"))
            .await
            .is_open()
    );
    assert_eq!(provider.fetches(), before + 1);
    let attempt = node.attempt_with(&provider.token(&old, "alice")).await;
    let told = matches!(&attempt, Attempt::Refused(why, 4401) if why == "bad_signature");
    assert!(told, "{attempt:?}");
}

#[tokio::test]
async fn a_reload_keeps_keys_and_sessions() {
    let one = key("one");
    let provider = Provider::start(&[&one]).await;
    let closing = trusting(&provider).with("auth.close_on_key_withdrawal = true");
    let node = Gateway::start_with(&closing).await;
    let mut client = node.session(&provider.token(&one, "alice")).await;
    provider.behave(Manner::Status(500));
    let fetches = provider.fetches();
    // The new configuration has other rules and times for the same keys. The provider now answers
    // with an error.
    let issuer = provider.by_url("main") + "algorithms = [\"ES256\", \"RS256\"]\n";
    for settings in [
        closing.clone().issuers(&issuer),
        closing
            .clone()
            .issuers(&issuer)
            .with("auth.jwks_lifetime = \"300s\""),
    ] {
        node.write_config(&settings);
        node.reload();
        eventually("the reload to be done", async || {
            let known = node.admin_ok("GET", "/v1/issuers", None).await;
            (known["issuers"][0]["keys"][0]["kid"] == "one").then_some(())
        })
        .await;
        assert!(
            node.attempt_with(&provider.token(&one, "bob"))
                .await
                .is_open()
        );
        assert_answers(&mut client).await;
        assert!(node.ready().await);
    }
    eventually("a fetch after the change of times", async || {
        (provider.fetches() > fetches).then_some(())
    })
    .await;
    // The provider lists no key. This fault of the provider must not end a session.
    provider.rotate(&[]);
    provider.behave(Manner::Good);
    eventually("the keys to be withdrawn", async || {
        let attempt = node.attempt_with(&provider.token(&one, "bob")).await;
        attempt.is_unavailable().then_some(())
    })
    .await;
    assert_answers(&mut client).await;
}

#[tokio::test]
async fn issuers_come_and_go_with_the_configuration() {
    let (one, two) = (key("one"), key("two"));
    let (a, b) = (
        Provider::start(&[&one]).await,
        Provider::start(&[&two]).await,
    );
    let node = Gateway::start_with(&trusting(&a)).await;
    until_accepted(&node, &a, &one).await;
    let fetched = a.fetches();
    node.write_config(&Settings::default().issuers(&(a.by_url("main") + &b.by_url("second"))));
    node.reload();
    eventually("the second issuer", async || {
        let attempt = node.attempt_with(&b.token(&two, "bob")).await;
        attempt.is_open().then_some(())
    })
    .await;
    // The keys that the node fetched from the first issuer are still valid.
    assert!(node.attempt_with(&a.token(&one, "alice")).await.is_open());
    assert_eq!(a.fetches(), fetched);
    node.write_config(&trusting(&b));
    node.reload();
    eventually("the first issuer to be gone", async || {
        let attempt = node.attempt_with(&a.token(&one, "alice")).await;
        matches!(attempt, Attempt::Refused(why, 4401) if why == "wrong_issuer").then_some(())
    })
    .await;
}

#[tokio::test]
async fn sessions_of_a_withdrawn_key_are_closed_where_that_is_configured() {
    let (old, new) = (key("old"), key("new"));
    let provider = Provider::start(&[&old, &new]).await;
    for closes in [true, false] {
        provider.rotate(&[&old, &new]);
        let settings = trusting(&provider)
            .with("auth.jwks_lifetime = \"2s\"")
            .with(&format!("auth.close_on_key_withdrawal = {closes}"));
        let node = Gateway::start_with(&settings).await;
        let mut stays = node.session(&provider.token(&new, "alice")).await;
        let mut goes = node.session(&provider.token(&old, "bob")).await;
        provider.rotate(&[&new]);
        until_unknown(&node, &provider, &old).await;
        if closes {
            goes.expect_close(4403, "revoked").await;
        } else {
            assert_answers(&mut goes).await;
        }
        assert_answers(&mut stays).await;
    }
}

#[tokio::test]
async fn a_key_is_withdrawn_by_another_of_its_name_too() {
    let (before, after) = (key("one"), key("one"));
    let provider = Provider::start(&[&before]).await;
    let settings = trusting(&provider)
        .with("auth.jwks_lifetime = \"2s\"")
        .with("auth.close_on_key_withdrawal = true");
    let node = Gateway::start_with(&settings).await;
    let mut client = node.session(&provider.token(&before, "alice")).await;
    provider.rotate(&[&after]);
    client.expect_close(4403, "revoked").await;
    assert!(
        node.attempt_with(&provider.token(&after, "alice"))
            .await
            .is_open()
    );
}

#[tokio::test]
async fn a_secret_is_withdrawn_by_another_in_its_file() {
    let (before, after) = ("a".repeat(32), "b".repeat(32));
    let node = Gateway::start_default().await;
    node.write("secret", &before);
    let file = node.directory().join("secret");
    let issuer = format!("[[auth.issuers]]\nname = \"main\"\nsecret_file = {file:?}\n");
    let settings = Settings::default()
        .issuers(&issuer)
        .with("auth.close_on_key_withdrawal = true");
    node.write_config(&settings);
    node.reload();
    let token = Key::hmac("HS256", before.as_bytes()).user("alice");
    let mut client = eventually("the secret to be in use", async || {
        match node.attempt_with(&token).await {
            Attempt::Open(client) => Some(client),
            _ => None,
        }
    })
    .await;
    node.write("secret", &after);
    client.expect_close(4403, "revoked").await;
}
