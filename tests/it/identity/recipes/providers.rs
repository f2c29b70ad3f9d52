//! One test for each provider's recipe.

use curfew_tests::{Paths, Provider, Redis};

use super::*;

const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

#[tokio::test]
async fn keycloak() {
    let key = key();
    let paths = Paths {
        issuer: "/realms/acme",
        keys: "/realms/acme/protocol/openid-connect/certs",
    };
    let provider = Provider::start_at(paths, &[&key]).await;
    // The key set also has a key for encryption.
    let mut other = Key::other_rsa().with_kid("enc").jwk();
    other["use"] = json!("enc");
    other["alg"] = json!("RSA-OAEP");
    provider.serve(json!({"keys":[other, key.jwk()]}).to_string());
    // This `logout_scope` is the recipe's form for a future release that names each session.
    let scope = ("logout_scope = \"user\"", "logout_scope = \"login\"");
    let node = node(
        "Keycloak",
        &[("https://id.example.com", &provider.origin()), scope],
    )
    .await;
    let access = json!({
        "iss": provider.issuer(), "aud": ["curfew","account"], "sub": "f3b1", "typ": "Bearer",
        "azp": "web-app", "jti": "onrtac:6c0d", "auth_time": unix_now() - 60, "acr": "1",
        "sid": "b7d1", "scope": "openid profile email", "email_verified": true,
        "allowed-origins": ["https://app.example.com"], "preferred_username": "alice",
        "realm_access": {"roles": ["offline_access","member"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
    });
    let good = token(&key, json!({}), access.clone());
    let mut client = talking(&node, &good).await;
    let guest = with(
        &access,
        json!({"realm_access":{"roles":["guest"]},"sid":"c9"}),
    );
    assert_silent(&node, &token(&key, json!({}), guest)).await;
    for (changes, reason) in [
        (json!({"aud":"account"}), "wrong_audience"),
        (json!({"typ":"ID","at_hash":"x"}), "malformed"),
        (json!({"typ":"Refresh"}), "malformed"),
        // These are a lightweight access token, and an access token of a service account.
        (
            json!({"sub":null,"auth_time":null,"realm_access":null,"resource_access":null}),
            "missing_claim",
        ),
        (json!({"sid":null}), "missing_claim"),
        (
            json!({"iss":provider.origin() + "/realms/other"}),
            "wrong_issuer",
        ),
    ] {
        let token = token(&key, json!({}), with(&access, changes));
        assert_refused(&node, &token, reason).await;
    }
    let again = with(&access, json!({"sid":"d2"}));
    let mut elsewhere = talking(&node, &token(&key, json!({}), again)).await;
    for typ in ["JWT", "logout+jwt"] {
        let logout = json!({
            "iss": provider.issuer(), "aud": "web-app", "sub": "f3b1", "typ": "Logout", "sid": "b7d1",
            "jti": "9f7e", "exp": unix_now() + 120,
            "events": {LOGOUT: {}, "revoke_offline_access": true},
        });
        log_out(&node, &token(&key, json!({"typ":typ}), logout)).await;
    }
    client.expect_close(4403, "revoked").await;
    elsewhere.assert_open().await;
    assert!(node.attempt_with(&good).await.is_revoked());
}

#[tokio::test]
async fn auth0() {
    let key = key();
    let paths = Paths {
        issuer: "/",
        keys: "/.well-known/jwks.json",
    };
    let provider = Provider::start_at(paths, &[&key]).await;
    let origin = provider.origin();
    let node = node("Auth0", &[("https://example.eu.auth0.com", &origin)]).await;
    let access = json!({
        "iss": provider.issuer(), "sub": "auth0|5f7c8ec7", "azp": "KqCx2eQBvDq8",
        "aud": ["https://rt.example.com", format!("{origin}/userinfo")],
        "scope": "openid profile room:write", "permissions": ["room:write"],
    });
    // These are headers of Auth0's own profile, and of the profile of RFC 9068.
    for header in [json!({}), json!({"typ":"at+jwt"})] {
        let mut client = talking(&node, &token(&key, header, access.clone())).await;
        client.assert_open().await;
    }
    let mut client = talking(&node, &token(&key, json!({}), access.clone())).await;
    let reader = with(&access, json!({"permissions":[],"sub":"auth0|2"}));
    let mut other = node.session(&token(&key, json!({}), reader)).await;
    assert_subscribes(&mut other, "room:1", "forbidden").await;
    let id = json!({
        "iss": provider.issuer(), "sub": "auth0|5f7c8ec7", "aud": "KqCx2eQBvDq8", "sid": "s1",
        "nonce": "n", "nickname": "alice",
    });
    assert_refused(&node, &token(&key, json!({}), id.clone()), "wrong_audience").await;
    let id = with(&id, json!({"aud":"https://rt.example.com"}));
    assert_refused(&node, &token(&key, json!({}), id), "malformed").await;
    let logout = json!({
        "iss": provider.issuer(), "sub": "auth0|5f7c8ec7", "aud": "KqCx2eQBvDq8", "sid": "s1",
        "jti": "5bc0", "iat": unix_now(), "exp": unix_now() + 120, "trace_id": "8a", "events": {LOGOUT: {}},
    });
    log_out(&node, &token(&key, json!({"typ":"logout+jwt"}), logout)).await;
    client.expect_close(4403, "revoked").await;
    other.assert_open().await;
}

#[tokio::test]
async fn okta() {
    let key = key();
    let paths = Paths {
        issuer: "/oauth2/default",
        keys: "/oauth2/default/v1/keys",
    };
    let provider = Provider::start_at(paths, &[&key]).await;
    let organisation_key = Key::other_rsa().with_kid("org");
    let paths = Paths {
        issuer: "",
        keys: "/oauth2/v1/keys",
    };
    let organisation = Provider::start_at(paths, &[&organisation_key]).await;
    let directory = tempfile::tempdir().unwrap();
    let secret = "Bearer okta-events-0123456789";
    let file = directory.path().join("okta-events");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let node = node(
        "Okta",
        &[
            (
                "https://example.okta.com/oauth2/default",
                provider.issuer().as_str(),
            ),
            ("https://example.okta.com", organisation.issuer().as_str()),
            ("/run/secrets/okta-events", file.to_str().unwrap()),
        ],
    )
    .await;
    let access = |uid: &str, sub: &str| {
        json!({
            "ver": 1, "jti": format!("AT.{uid}"), "iss": provider.issuer(), "aud": "api://default",
            "cid": "0oa1", "uid": uid, "scp": ["openid"], "auth_time": unix_now() - 60, "sub": sub,
            "groups": ["Everyone","members"],
        })
    };
    // Okta's tokens have no type in their headers.
    let header = json!({"typ":null});
    let alice = token(&key, header.clone(), access("00u1", "alice@example.com"));
    let bob = token(&key, header.clone(), access("00u2", "bob@example.com"));
    let mut first = talking(&node, &alice).await;
    let mut other = talking(&node, &bob).await;
    let guest = with(
        &access("00u3", "carol@example.com"),
        json!({"groups":["Everyone"]}),
    );
    assert_silent(&node, &token(&key, header.clone(), guest)).await;
    let id = with(
        &access("00u1", "00u1"),
        json!({"at_hash":"x","nonce":"n","uid":null}),
    );
    assert_refused(&node, &token(&key, header.clone(), id), "malformed").await;
    // The organisation's own access tokens are not accepted.
    let own = with(&access("00u1", "a"), json!({"iss":organisation.issuer()}));
    assert_refused(
        &node,
        &token(&organisation_key, header, own),
        "wrong_issuer",
    )
    .await;

    // This is a request of Universal Logout.
    let now = unix_now();
    let assertion = json!({
        "iss": organisation.issuer(), "sub": "0oa1", "jti": "j1", "iat": now, "nbf": now - 300, "exp": now + 300,
        "aud": "https://rt.example.com/v1/global-token-revocation",
    });
    let typ = json!({"typ":"global-token-revocation+jwt"});
    let bearer = format!("Bearer {}", token(&organisation_key, typ, assertion));
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", bearer.as_str()),
    ];
    let user = |uid: &str| json!({"format":"iss_sub","iss":organisation.issuer(),"sub":uid});
    let body = json!({"sub_id":user("00u1")}).to_string();
    let answer = post(&node, "/v1/global-token-revocation", &headers, &body).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    first.expect_close(4403, "revoked").await;
    other.assert_open().await;

    // This is an event of Shared Signals.
    let set = json!({
        "iss": organisation.issuer(), "aud": "https://rt.example.com", "jti": "j2", "iat": now, "exp": null,
        "sub_id": user("00u2"),
        "events": {format!("{CAEP}session-revoked"): {
            "event_timestamp": now, "initiating_entity": "user", "reason_admin": {"en":"user.session.end"},
        }},
    });
    let set = token(&organisation_key, json!({"typ":"secevent+jwt"}), set);
    let headers = [
        ("Content-Type", "application/secevent+jwt"),
        ("Authorization", secret),
    ];
    let answer = post(&node, "/events/okta-org", &headers, &set).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    other.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn entra() {
    const TENANT: &str = "7d2f4c1e-3b5a-4e8d-9c06-1f2a3b4c5d6e";
    const API: &str = "5c0b2f0e-1b1f-4f0c-9d55-0a3ad5b7f4d1";
    const PAGES: &str = "e2c5a1de-6f0f-4f57-8c80-6a6cbb4f1a39";
    let key = key();
    let paths = Paths {
        issuer: "/7d2f4c1e-3b5a-4e8d-9c06-1f2a3b4c5d6e/v2.0",
        keys: "/7d2f4c1e-3b5a-4e8d-9c06-1f2a3b4c5d6e/discovery/v2.0/keys",
    };
    let provider = Provider::start_at(paths, &[&key]).await;
    // The keys of Entra ID do not state an algorithm.
    let mut jwk = key.jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    jwk["x5t"] = json!("4c7f1d2e");
    jwk["x5c"] = json!(["MIIC"]);
    jwk["issuer"] = json!(provider.issuer());
    provider.serve(json!({"keys":[jwk]}).to_string());
    let origin = provider.origin();
    let replaced = [("https://login.microsoftonline.com", origin.as_str())];
    let node = node("Microsoft Entra ID", &replaced).await;
    let access = json!({
        "aud": API, "iss": provider.issuer(), "nbf": unix_now() - 10, "azp": PAGES, "azpacr": "0",
        "oid": "0000", "sub": "AAAAsub", "tid": TENANT, "ver": "2.0", "scp": "Rooms.Talk",
        "roles": ["Member"], "rh": "0.A", "uti": "u1", "aio": "A",
    });
    let mut client = talking(&node, &token(&key, json!({}), access.clone())).await;
    assert_silent(
        &node,
        &token(&key, json!({}), with(&access, json!({"roles":["Guest"]}))),
    )
    .await;
    for (changes, reason) in [
        (json!({"azp":"other"}), "wrong_audience"),
        // These are an ID token, and access tokens of version 1 or without the expected claims.
        (
            json!({"azp":null,"aud":PAGES,"nonce":"n"}),
            "wrong_audience",
        ),
        (json!({"azp":null}), "missing_claim"),
        (json!({"nonce":"n"}), "malformed"),
        (
            json!({"iss":format!("https://sts.windows.net/{TENANT}/"),"ver":"1.0"}),
            "wrong_issuer",
        ),
    ] {
        let token = token(&key, json!({}), with(&access, changes));
        assert_refused(&node, &token, reason).await;
    }
    node.revoke(json!({"kind":"user","value":"AAAAsub"})).await;
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn cognito() {
    let key = key();
    let paths = Paths {
        issuer: "/eu-central-1_Example",
        keys: "/eu-central-1_Example/.well-known/jwks.json",
    };
    let provider = Provider::start_at(paths, &[&Key::other_rsa().with_kid("other"), &key]).await;
    let origin = provider.origin();
    let replaced = [(
        "https://cognito-idp.eu-central-1.amazonaws.com",
        origin.as_str(),
    )];
    let recipe = block("Amazon Cognito", "toml");
    assert!(recipe.contains("eu-central-1_Example"));
    // This recipe revokes with a bare key in Redis, so the node needs Redis.
    let redis = Redis::start().await;
    let settings = Settings::default()
        .on_redis(&redis.url())
        .issuers(&recipe.replace(replaced[0].0, replaced[0].1))
        .rules("");
    let node = Gateway::start_with(&settings).await;
    curfew_tests::eventually("the node to be ready", async || {
        node.ready().await.then_some(())
    })
    .await;
    let access = json!({
        "sub": "aaaa-bbbb", "cognito:groups": ["members"], "iss": provider.issuer(), "version": 2,
        "client_id": "1example23456789", "origin_jti": "o1", "event_id": "e1", "token_use": "access",
        "scope": "openid", "auth_time": unix_now() - 60, "jti": "j1", "username": "alice",
    });
    let header = json!({"typ":null});
    let mut client = talking(&node, &token(&key, header.clone(), access.clone())).await;
    for claims in [
        with(&access, json!({"cognito:groups":["guests"]})),
        with(&access, json!({"cognito:groups":null})),
    ] {
        assert_silent(&node, &token(&key, header.clone(), claims)).await;
    }
    for (changes, reason) in [
        (json!({"client_id":"other"}), "wrong_audience"),
        (json!({"client_id":null}), "missing_claim"),
        // This is an ID token.
        (
            json!({"client_id":null,"aud":"1example23456789","token_use":"id"}),
            "malformed",
        ),
        (
            json!({"iss":origin.clone() + "/eu-central-1_Other"}),
            "wrong_issuer",
        ),
    ] {
        let token = token(&key, header.clone(), with(&access, changes));
        assert_refused(&node, &token, reason).await;
    }
    let command = block("Amazon Cognito", "console");
    assert!(command.contains("SET 'curfew:{revoked}:user:<sub>' \"$(date +%s)\" EX 86400"));
    let now = unix_now().to_string();
    let key_name = "curfew:{revoked}:user:aaaa-bbbb";
    redis.run(&["SET", key_name, &now, "EX", "86400"]).await;
    client.expect_close(4403, "revoked").await;
    // A token from before the revocation is refused.
    assert!(
        node.attempt_with(&token(&key, header, access))
            .await
            .is_revoked()
    );
}
