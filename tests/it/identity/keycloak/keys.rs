//! Keys that Keycloak rotates and disables, and times at which Keycloak is unavailable.

use curfew_testkit::mint::Key;
use curfew_tests::{Link, Proxy};

use super::*;

/// Makes the realm sign with a new key. Returns the key's internal id.
async fn rotate(realm: &Realm, priority: u32) -> String {
    let name = format!("key-{priority}");
    let parent = realm.admin("GET", "", Value::Null).await;
    let provider = json!({
        "name": name, "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": parent["id"], "config": {"priority": [priority.to_string()], "algorithm": ["RS256"]},
    });
    realm.admin("POST", "/components", provider).await;
    let found = realm
        .admin("GET", &format!("/components?name={name}"), Value::Null)
        .await;
    found[0]["id"]
        .as_str()
        .expect("the new key has an id")
        .to_owned()
}

/// Regression: a node refused tokens signed by a freshly rotated key as `unknown_key`, if it also
/// received tokens with unknown key ids. Keycloak's own refresh token is such a token.
#[tokio::test]
async fn keys_are_rotated_while_random_key_ids_come() {
    let site = Site::start().await;
    site.realm.user("nina").await;
    let first = site.realm.login("nina").await;
    let stranger = Key::rsa();
    let random = |n: u32| {
        let claims = json!({"iss":site.realm.issuer()});
        let mut header = stranger.header();
        header["kid"] = json!(format!("random-{n}"));
        let claims = curfew_testkit::mint::claims_with("nina", claims);
        stranger.sign(&header.to_string(), &claims.to_string())
    };
    let refused = |attempt: Attempt| matches!(attempt, Attempt::Refused(_, 4401));
    for node in [&site.cluster[0], &site.cluster[1]] {
        assert!(node.attempt_with(&first.access).await.is_open());
        assert!(refused(node.attempt_with(&first.refresh).await));
    }
    for priority in [200, 300] {
        for node in [&site.cluster[0], &site.cluster[1]] {
            for n in 0..5 {
                assert!(!node.attempt_with(&random(n)).await.is_open());
            }
        }
        rotate(&site.realm, priority).await;
        let login = site.realm.login("nina").await;
        for node in [&site.cluster[0], &site.cluster[1]] {
            // A token may be refused as unavailable for a short time, but never as bad.
            eventually("a token by the new key to be accepted", async || match node
                .attempt_with(&login.access)
                .await
            {
                Attempt::Open(_) => Some(()),
                Attempt::Unavailable => None,
                other => panic!("{other:?}"),
            })
            .await;
        }
    }
}

/// Regression: while the provider was unavailable, one node said that the key is unknown.
#[tokio::test]
async fn a_provider_that_is_away_is_no_fault_of_a_token_on_either_node() {
    let keycloak = Keycloak::shared().await;
    let proxy = Proxy::start(keycloak.address()).await;
    let realm = keycloak.realm_at("away", proxy.address()).await;
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings(&realm, &[])).await;
    let commands = blocks(HEADING, "sh");
    let commands = format!("{}{}", commands[0], commands[1]);
    let gateway = format!("http://{}", cluster[0].address());
    realm.run(&commands, &gateway).await;
    realm.user("nina").await;
    let first = realm.login("nina").await;
    for node in [&cluster[0], &cluster[1]] {
        assert!(node.attempt_with(&first.access).await.is_open());
    }
    rotate(&realm, 200).await;
    let login = realm.login("nina").await;
    proxy.set(Link::CUT);
    for node in [&cluster[0], &cluster[1]] {
        for _ in 0..3 {
            assert!(node.attempt_with(&login.access).await.is_unavailable());
        }
        // A token that was verified before stays valid.
        assert!(node.attempt_with(&first.access).await.is_open());
    }
    proxy.set(Link::PASS);
    for node in [&cluster[0], &cluster[1]] {
        eventually("a token by the new key to be accepted", async || {
            node.attempt_with(&login.access)
                .await
                .is_open()
                .then_some(())
        })
        .await;
    }
}

/// Regression: a disabled key stayed valid without a time limit.
#[tokio::test]
async fn a_key_that_is_disabled_is_dropped_by_the_next_fetch() {
    let site = Site::start_with(&[]).await;
    let redis = Redis::start().await;
    let settings = settings(&site.realm, &[])
        .with("auth.jwks_lifetime = \"2s\"")
        .with("auth.close_on_key_withdrawal = true");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    site.realm.user("nina").await;
    let id = rotate(&site.realm, 200).await;
    let login = site.realm.login("nina").await;
    let mut sessions = [
        cluster[0].session(&login.access).await,
        cluster[1].session(&login.access).await,
    ];
    let path = format!("/components/{id}");
    let mut key = site.realm.admin("GET", &path, Value::Null).await;
    key["config"]["enabled"] = json!(["false"]);
    site.realm.admin("PUT", &path, key).await;
    assert_revoked(&mut sessions).await;
    for node in [&cluster[0], &cluster[1]] {
        assert!(!node.attempt_with(&login.access).await.is_open());
    }
}
