//! Events that end access, and the sessions that they end.

use super::*;

#[tokio::test]
async fn a_revoked_session_is_closed_on_every_node() {
    let (redis, transmitter) = (Redis::start().await, Transmitter::start().await);
    let cluster = Cluster::start(2, &redis.url(), &transmitter.settings("")).await;
    let token = transmitter.older("alice", 10);
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    let mut bob = cluster[1].session(&transmitter.older("bob", 10)).await;
    let set = transmitter.set(
        json!({"iat":unix_now() - 5,"events":{format!("{CAEP}session-revoked"):{
            "initiating_entity":"admin","reason_admin":{"en":"policy"},"reason_user":{"en":"away"},
        }}}),
    );
    for _ in 0..2 {
        // RFC 8935 §2: a repeated event gets the same answer.
        assert_accepted(&push(&cluster[0], &set).await);
    }
    here.expect_close(4403, "revoked").await;
    there.expect_close(4403, "revoked").await;
    bob.assert_open().await;
    assert!(cluster[1].attempt_with(&token).await.is_revoked());
    // A later sign-in is accepted.
    let again = transmitter.access("alice", json!({}));
    assert!(cluster[1].attempt_with(&again).await.is_open());
    assert_eq!(outcomes(&cluster[0], "ended").await, 2.0);
    let log = cluster[0].log().text();
    assert!(log.contains("access ended by the identity provider"));
    assert!(log.contains("session_revoked") && !log.contains("alice"));
    let known = cluster[0].admin_ok("GET", "/v1/issuers", None).await;
    let last = &known["issuers"][0]["last_report"];
    assert_eq!(
        (&last["report"], &last["outcome"]),
        (&json!("session_revoked"), &json!("ended")),
        "{known}"
    );
    let revocations = cluster[1].admin_ok("GET", "/v1/revocations", None).await;
    let revocation = &revocations["revocations"][0];
    assert_eq!(revocation["reason"], "session_revoked", "{revocations}");
    assert!(revocation["expires_at"].as_u64().unwrap() > unix_now() + 3600);
}

#[tokio::test]
async fn only_sessions_from_before_the_event_are_closed() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let mut before = node.session(&transmitter.older("alice", 100)).await;
    let mut after = node.session(&transmitter.older("alice", 50)).await;
    let at = unix_now() - 75;
    for (claim, about) in [
        // CAEP 1.0 §2 allows any number as `event_timestamp`. RFC 8417 §2.2 defines `toe`.
        (json!(null), json!({"event_timestamp":at as f64 + 0.5})),
        (json!(at), json!({})),
        // An event may have both times.
        (json!(at), json!({"event_timestamp":at})),
    ] {
        let events = json!({format!("{CAEP}session-revoked"):about});
        assert_accepted(
            &push(
                &node,
                &transmitter.set(json!({"toe":claim,"events":events})),
            )
            .await,
        );
        after.assert_open().await;
    }
    before.expect_close(4403, "revoked").await;
    // Some senders write the time in milliseconds. It must not be read as a time in the year
    // 50,000.
    let wrong = json!({format!("{CAEP}session-revoked"):{"event_timestamp":unix_now() * 1000}});
    assert_accepted(&push(&node, &transmitter.set(json!({"events":wrong}))).await);
    after.expect_close(4403, "revoked").await;
    eventually("a token from after the event to be accepted", async || {
        // The event's time is at most the leeway from now: the sender's clock may be ahead by that.
        let token = transmitter.access("alice", json!({"iat":unix_now() + 4}));
        node.attempt_with(&token).await.is_open().then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_that_end_access() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let change =
        |credential: &str, change: &str| json!({"credential_type":credential,"change_type":change});
    for (user, uri, about) in [
        ("a", format!("{CAEP}session-revoked"), json!({})),
        (
            "b",
            format!("{CAEP}token-claims-change"),
            json!({"claims":{"role":"guest"}}),
        ),
        (
            "c",
            format!("{CAEP}credential-change"),
            change("password", "update"),
        ),
        (
            "d",
            format!("{CAEP}credential-change"),
            change("password", "delete"),
        ),
        (
            "e",
            format!("{CAEP}credential-change"),
            change("pin", "revoke"),
        ),
        (
            "f",
            format!("{RISC}account-disabled"),
            json!({"reason":"hijacking"}),
        ),
        ("g", format!("{RISC}account-purged"), json!({})),
        (
            "h",
            format!("{RISC}account-credential-change-required"),
            json!({}),
        ),
        ("i", format!("{RISC}sessions-revoked"), json!({})),
        (
            "j",
            format!("{RISC}credential-compromise"),
            json!({"credential_type":"password"}),
        ),
        ("k", format!("{GOOGLE}tokens-revoked"), json!({})),
    ] {
        let mut client = node.session(&transmitter.older(user, 10)).await;
        let set = transmitter.event(&uri, about, transmitter.user(user));
        assert_accepted(&push(&node, &set).await);
        client.expect_close(4403, "revoked").await;
    }
}

/// Events that end no access, unless the configuration says otherwise.
fn harmless() -> Vec<(String, Value)> {
    let change =
        |credential: &str, change: &str| json!({"credential_type":credential,"change_type":change});
    vec![
        (
            format!("{CAEP}credential-change"),
            change("fido2-roaming", "delete"),
        ),
        (
            format!("{CAEP}assurance-level-change"),
            json!({"namespace":"NIST-AAL","current_level":"nist-aal1","change_direction":"decrease"}),
        ),
        (
            format!("{CAEP}device-compliance-change"),
            json!({"previous_status":"compliant","current_status":"not-compliant"}),
        ),
        (
            format!("{CAEP}risk-level-change"),
            json!({"principal":"USER","current_level":"HIGH"}),
        ),
    ]
}

#[tokio::test]
async fn events_that_end_no_access() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let mut client = node.session(&transmitter.older("alice", 10)).await;
    let change =
        |credential: &str, change: &str| json!({"credential_type":credential,"change_type":change});
    let mut events = harmless();
    events.extend([
        (
            format!("{CAEP}credential-change"),
            change("password", "create"),
        ),
        (format!("{CAEP}session-established"), json!({})),
        (format!("{CAEP}session-presented"), json!({})),
        (format!("{RISC}account-enabled"), json!({})),
        // RFC 8417 §2: unknown events are skipped and acknowledged.
        (
            "https://example.com/of-the-future".to_owned(),
            json!({"x":[{}]}),
        ),
    ]);
    for (count, (uri, about)) in events.into_iter().enumerate() {
        let set = transmitter.event(&uri, about, transmitter.user("alice"));
        assert_accepted(&push(&node, &set).await);
        client.assert_open().await;
        assert_eq!(
            outcomes(&node, "no_effect").await,
            count as f64 + 1.0,
            "{uri}"
        );
    }
}

#[tokio::test]
async fn events_that_are_made_to_end_access() {
    let transmitter = Transmitter::start().await;
    let more = "revoke_on = [\"any-credential\", \"assurance-decrease\", \"device-not-compliant\", \"high-risk\"]";
    let node = Gateway::start_with(&transmitter.settings(more)).await;
    for (number, (uri, about)) in harmless().into_iter().enumerate() {
        let user = format!("user-{number}");
        let mut client = node.session(&transmitter.older(&user, 10)).await;
        let set = transmitter.event(&uri, about, transmitter.user(&user));
        assert_accepted(&push(&node, &set).await);
        client.expect_close(4403, "revoked").await;
    }
}
