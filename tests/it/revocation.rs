//! Access that is withdrawn ends at once, and the receipt is true (CONTRACT §2, §7, §8).

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, PATIENCE, WsClient, unix_now};
use curfew_tests::{Attempt, Cluster, Gateway, Redis, Settings, eventually};
use serde_json::{Value, json};

fn by_tenant() -> Settings {
    Settings::default().with(r#"session.revocable_claims = ["tenant", "groups"]"#)
}

#[tokio::test]
async fn each_kind_closes_the_sessions_it_names_and_no_others() {
    let gateway = Gateway::start_with(&by_tenant()).await;
    let key = Key::default_secret();
    let claims = |n: u32| {
        json!({"jti":format!("token-{n}"),"tenant":format!("tenant-{}", n / 2),
            "groups":[format!("group-{n}"), 7 + n]})
    };
    let mut clients: Vec<(WsClient, Value)> = Vec::new();
    for n in 0..7 {
        let token = key.user_with(&format!("user-{n}"), claims(n));
        clients.push(gateway.connected(gateway.ws().bearer(&token)).await);
    }
    let session = clients[1].1["session"].as_str().unwrap().to_owned();
    let mut gone = Vec::new();
    for (revocation, named) in [
        (json!({"kind":"user","value":"user-0"}), vec![0]),
        (json!({"kind":"session","value":session}), vec![1]),
        (json!({"kind":"token","value":"token-2"}), vec![2]),
        (json!({"kind":"groups","value":"group-3"}), vec![3]),
        (json!({"kind":"tenant","value":"tenant-2"}), vec![4, 5]),
        (json!({"kind":"groups","value":"13"}), vec![6]),
        (json!({"kind":"user","value":"nobody"}), vec![]),
    ] {
        let receipt = gateway.revoke(revocation.clone()).await;
        assert_eq!(receipt["closed"], named.len(), "{revocation}: {receipt}");
        assert_eq!(
            receipt["nodes"],
            json!({"live":1,"confirmed":1,"missing":[]}),
            "{receipt}"
        );
        assert!(receipt["took_ms"].is_u64(), "{receipt}");
        let kind = revocation["kind"].as_str().unwrap();
        assert!(receipt["key"].as_str().unwrap().contains(kind), "{receipt}");
        for at in named {
            let closing = clients[at].0.expect_close(4403, "revoked").await;
            assert_eq!(closing["reconnect"], false);
            gone.push(at);
        }
        for (at, (client, _)) in clients.iter_mut().enumerate() {
            if !gone.contains(&at) {
                assert!(
                    client.barrier().await.is_empty(),
                    "{revocation} touched {at}"
                );
            }
        }
    }
}

#[tokio::test]
async fn all_closes_every_session() {
    let gateway = Gateway::start_default().await;
    let (mut alice, mut bob) = (gateway.user("alice").await, gateway.user("bob").await);
    let receipt = gateway
        .revoke(json!({"kind":"all","value":"all","ttl":"1h"}))
        .await;
    assert_eq!(receipt["closed"], 2, "{receipt}");
    alice.expect_close(4403, "revoked").await;
    bob.expect_close(4403, "revoked").await;
    let mut client = gateway
        .ws()
        .bearer(&Key::default_secret().user("carol"))
        .open()
        .await;
    client.expect_auth_failed("revoked", 4403).await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_source_with_4403() {
    let gateway = Gateway::start_default().await;
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    let token = Key::default_secret().user("alice");
    for connect in [
        gateway.ws().bearer(&token),
        gateway.ws().path(format!("/ws?token={token}")),
        gateway
            .ws()
            .subprotocols(&format!("curfew.v1, bearer.{token}")),
    ] {
        connect
            .open()
            .await
            .expect_auth_failed("revoked", 4403)
            .await;
    }
    let mut client = gateway.ws().open().await;
    client.send(json!({"type":"auth","token":token})).await;
    client.expect_auth_failed("revoked", 4403).await;
    gateway.user("bob").await;
    drop(gateway);

    let settings = Settings::default().with(r#"auth.reject = "http""#);
    let gateway = Gateway::start_with(&settings).await;
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    let refused = gateway.ws().bearer(&token).refused().await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["reason"], "revoked");
}

#[tokio::test]
async fn a_cutoff_spares_tokens_issued_after_it() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    let now = unix_now();
    let issued = |iat: Value| key.user_with("alice", json!({"iat":iat}));
    let mut old = gateway.session(&issued(json!(now - 100))).await;
    let mut at = gateway.session(&issued(json!(now - 50))).await;
    let mut new = gateway.session(&issued(json!(now - 49))).await;
    let mut undated = gateway.session(&issued(Value::Null)).await;
    let receipt = gateway
        .revoke(json!({"kind":"user","value":"alice","before":now - 50}))
        .await;
    assert_eq!(receipt["closed"], 3, "{receipt}");
    for client in [&mut old, &mut undated] {
        client.expect_close(4403, "revoked").await;
    }
    at.expect_close(4401, "reauth_required").await;
    assert!(new.barrier().await.is_empty());
    gateway.session(&issued(json!(now - 49))).await;
    for iat in [json!(now - 51), Value::Null] {
        let mut client = gateway.ws().bearer(&issued(iat)).open().await;
        client.expect_auth_failed("revoked", 4403).await;
    }
    // A cutoff does not replace a later cutoff.
    gateway
        .revoke(json!({"kind":"user","value":"alice","before":now - 100}))
        .await;
    let mut client = gateway.ws().bearer(&issued(json!(now - 60))).open().await;
    client.expect_auth_failed("revoked", 4403).await;
}

#[tokio::test]
async fn a_revocation_ends_with_its_ttl() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    gateway
        .revoke(json!({"kind":"user","value":"alice","ttl":"2s"}))
        .await;
    client.expect_close(4403, "revoked").await;
    let token = Key::default_secret().user("alice");
    let mut refused = gateway.ws().bearer(&token).open().await;
    refused.expect_auth_failed("revoked", 4403).await;
    eventually("the end of the revocation", async || {
        let mut client = gateway.ws().bearer(&token).open().await;
        (client.next_json().await["type"] == "connected").then_some(())
    })
    .await;
    let listed = gateway.admin_ok("GET", "/v1/revocations", None).await;
    assert_eq!(listed["revocations"], json!([]));
}

#[tokio::test]
async fn revocations_are_listed_and_lifted() {
    let gateway = Gateway::start_with(&by_tenant()).await;
    let now = unix_now();
    gateway
        .revoke(json!({"kind":"user","value":"alice","reason":"left the company","ttl":"1h"}))
        .await;
    gateway
        .revoke(json!({"kind":"tenant","value":"acme","before":now}))
        .await;
    let listed = gateway.admin_ok("GET", "/v1/revocations", None).await;
    let listed = listed["revocations"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let find = |kind: &str| listed.iter().find(|entry| entry["kind"] == kind).unwrap();
    let alice = find("user");
    assert_eq!(alice["value"], "alice");
    assert_eq!(alice["reason"], "left the company");
    assert!(alice["before"].is_null());
    let ends = alice["expires_at"].as_u64().unwrap();
    assert!((now + 3590..now + 3700).contains(&ends), "{alice}");
    assert_eq!(find("tenant")["before"], now);

    let token = Key::default_secret().user("alice");
    let mut refused = gateway.ws().bearer(&token).open().await;
    refused.expect_auth_failed("revoked", 4403).await;
    gateway
        .admin_ok("DELETE", "/v1/revocations/user/alice", None)
        .await;
    gateway.session(&token).await;
    let (status, _) = gateway
        .admin("DELETE", "/v1/revocations/user/alice", None)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn odd_users_can_be_revoked_and_restored() {
    let gateway = Gateway::start_default().await;
    let long = "x".repeat(3000);
    for user in [
        "a b",
        "a}b",
        "a/b",
        "a%2Fb",
        "zoë",
        "😀",
        "a\nb",
        "\u{1b}[31m",
        "../..",
        "~x",
        &long,
    ] {
        let mut client = gateway.user(user).await;
        let receipt = gateway.revoke(json!({"kind":"user","value":user})).await;
        assert_eq!(receipt["closed"], 1, "{user:?}: {receipt}");
        client.expect_close(4403, "revoked").await;
        let listed = gateway.admin_ok("GET", "/v1/revocations", None).await;
        let written = listed["revocations"][0]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        let encoded: String = written.bytes().map(|byte| format!("%{byte:02X}")).collect();
        gateway
            .admin_ok("DELETE", &format!("/v1/revocations/user/{encoded}"), None)
            .await;
        gateway.user(user).await;
    }
}

#[tokio::test]
async fn a_revocation_that_makes_no_sense_is_refused() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    for body in [
        json!({}),
        json!({"kind":"user"}),
        json!({"value":"alice"}),
        json!({"kind":"user","value":""}),
        json!({"kind":"user","value":7}),
        json!({"kind":"tenant","value":"acme"}),
        json!({"kind":"","value":"alice"}),
        json!({"kind":"session","value":"not-an-id"}),
        json!({"kind":"user","value":"alice","ttl":"soon"}),
        json!({"kind":"user","value":"alice","before":"yesterday"}),
        json!({"kind":"user","value":"alice","extra":1}),
    ] {
        let (status, answer) = gateway
            .admin("POST", "/v1/revocations", Some(body.clone()))
            .await;
        assert!(
            (400..500).contains(&status),
            "{body} gave {status}: {answer}"
        );
    }
    assert!(client.barrier().await.is_empty());
    let listed = gateway.admin_ok("GET", "/v1/revocations", None).await;
    assert_eq!(listed["revocations"], json!([]));
}

#[tokio::test]
async fn a_revocation_while_the_outbound_queue_is_full_delivers_nothing_more() {
    let settings = Settings::default().with("limits.outbound_bytes = 33554432");
    let gateway = Gateway::start_with(&settings).await;
    let connect = gateway
        .ws()
        .bearer(&Key::default_secret().user("alice"))
        .receive_buffer(16 * 1024);
    let (mut slow, _) = gateway.connected(connect).await;
    slow.send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.expect_json(json!({"type":"ok"})).await;
    let mut other = gateway.subscriber("bob", "calm").await;
    let mut publisher = gateway.user("carol").await;
    // The publications are more bytes than the kernel accepts for one connection, so many of them
    // wait in the gateway.
    let pad = "x".repeat(60_000);
    let count = 300;
    for n in 0..count {
        publisher
            .send(json!({"type":"publish","id":n,"channel":"flood","data":[n, pad]}))
            .await;
        publisher.expect_json(json!({"type":"ok","id":n})).await;
    }
    let receipt = gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    assert_eq!(receipt["closed"], 1, "{receipt}");
    publisher
        .send(json!({"type":"publish","channel":"flood","data":"after"}))
        .await;
    gateway.publish("calm", json!("still here")).await;
    other.expect_json(json!({"type":"message"})).await;

    // Frames that are in the kernel may still arrive. Frames that wait in the gateway must not.
    let mut last = None;
    loop {
        match slow.incoming(curfew_testkit::PATIENCE).await {
            curfew_testkit::Incoming::Frame(frame) if frame.opcode == 1 => {
                let text = frame.text();
                assert!(
                    !text.contains("after"),
                    "a publication from after the receipt was delivered"
                );
                if let Ok(value) = serde_json::from_str::<Value>(text)
                    && value["type"] == "message"
                {
                    last = value["data"][0].as_i64();
                }
            }
            curfew_testkit::Incoming::Frame(frame) => {
                if frame.opcode == 8 {
                    assert_eq!(frame.close().0, 4403);
                }
            }
            curfew_testkit::Incoming::End | curfew_testkit::Incoming::Cut(_) => break,
            curfew_testkit::Incoming::Silence => panic!("the connection stays open"),
        }
    }
    assert!(
        last < Some(count - 1),
        "the frames that waited in the gateway were delivered"
    );
    gateway
        .until_metric("curfew_connections", |connections| connections == 2.0)
        .await;
}

#[tokio::test]
async fn commands_sent_with_a_revocation_are_not_acted_on_after_its_receipt() {
    let gateway = Gateway::start_default().await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    for round in 0..20 {
        let user = format!("user-{round}");
        let mut client = gateway.user(&user).await;
        gateway.revoke(json!({"kind":"user","value":user})).await;
        client
            .send_frame(OutFrame::text(
                &json!({"type":"publish","channel":"room:1","data":round}).to_string(),
            ))
            .await;
        client.expect_close(4403, "revoked").await;
    }
    assert!(bob.barrier().await.is_empty());
}

#[tokio::test]
async fn a_session_opened_while_it_is_revoked_never_stays() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    for round in 0..30 {
        let user = format!("user-{round}");
        let token = key.user(&user);
        let opening = async {
            let mut client = gateway.ws().bearer(&token).open().await;
            client.closed().await.0
        };
        let (code, receipt) =
            tokio::join!(opening, gateway.revoke(json!({"kind":"user","value":user})));
        assert_eq!(code, 4403, "{receipt}");
    }
    let sessions = gateway.admin_ok("GET", "/v1/sessions", None).await;
    assert_eq!(sessions["sessions"], json!([]));
}

/// Regression: a token of the very second of a cutoff counted as revoked. Its client then asked the
/// user to sign in again instead of fetching another token.
#[tokio::test]
async fn a_token_from_the_second_of_a_cutoff_is_to_be_renewed() {
    let (redis, now) = (Redis::start().await, unix_now());
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let key = Key::default_secret();
    let issued = |at: u64| key.user_with("alice", json!({"iat":at}));
    let mut old = cluster[1].session(&issued(now - 1)).await;
    let mut as_old = cluster[1].session(&issued(now)).await;
    let mut renewing = cluster[1].session(&issued(now + 1)).await;
    let body = json!({"kind":"user","value":"alice","before":now});
    let receipt = cluster[0].revoke(body).await;
    assert_eq!(receipt["closed"], 2, "{receipt}");
    old.expect_close(4403, "revoked").await;
    let closing = as_old.expect_close(4401, "reauth_required").await;
    assert_eq!(closing["reconnect"], true, "{closing}");
    // On each node, this token opens no session, and a token from the next second opens one.
    for node in [&cluster[0], &cluster[1]] {
        let attempt = node.attempt_with(&issued(now)).await;
        assert!(matches!(attempt, Attempt::Refused(why, 4401) if why == "reauth_required"));
        assert!(node.attempt_with(&issued(now - 1)).await.is_revoked());
        assert!(node.attempt_with(&issued(now + 1)).await.is_open());
    }
    renewing
        .send(json!({"type":"refresh","id":1,"token":issued(now)}))
        .await;
    let told = renewing.next_json().await;
    assert_eq!(told["code"], "reauth_required", "{told}");
    renewing.expect_close(4401, "reauth_required").await;
    // A refusal before the upgrade has the same reason.
    let settings = Settings::default().with("auth.reject = \"http\"");
    let node = Gateway::start_with(&settings.on_redis(&redis.url())).await;
    node.until_in_touch(PATIENCE).await;
    let refused = node.ws().bearer(&issued(now)).refused().await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["reason"], "reauth_required");
}
