//! Delivery of events: requests, permitted senders, and faults.

use super::*;

#[tokio::test]
async fn what_is_no_such_request_is_refused() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let set = transmitter.set(json!({}));
    let get = http::request(node.address(), "GET", "/events/main", &[], b"").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    for headers in [
        &[][..],
        &[("Content-Type", "application/jwt")],
        &[("Content-Type", "application/json")],
    ] {
        assert_refused(
            &send(&node, "main", headers, &set).await,
            400,
            "invalid_request",
        );
    }
    let headers = [("Content-Type", "Application/SecEvent+JWT; charset=utf-8")];
    assert_accepted(&send(&node, "main", &headers, &set).await);
    let large = "x".repeat(1 << 20);
    assert_eq!(push(&node, &large).await.status, 413);
    for nowhere in ["", "other", "main/", "main/x", "MAIN"] {
        assert_eq!(
            send(&node, nowhere, &headers, &set).await.status,
            404,
            "{nowhere}"
        );
    }
    node.assert_alive().await;
}

#[tokio::test]
async fn a_lenient_stream_accepts_what_some_transmitters_send() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("lenient = true")).await;
    let set = transmitter.set(json!({}));
    for headers in [
        &[][..],
        &[("Content-Type", "application/jwt")],
        &[("Content-Type", MEDIA_TYPE)],
    ] {
        assert_accepted(&send(&node, "main", headers, &set).await);
    }
    let json = [("Content-Type", "application/json")];
    assert_refused(
        &send(&node, "main", &json, &set).await,
        400,
        "invalid_request",
    );
}

#[tokio::test]
async fn the_transmitter_says_what_it_was_given() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    node.write("authorization", "Bearer 0123456789abcdef\n");
    let file = node.directory().join("authorization");
    let more = format!("authorization_file = {file:?}");
    node.write_config(&transmitter.settings(&more));
    node.reload();
    let set = transmitter.set(json!({}));
    let with = async |authorization: &str| {
        let headers = [
            ("Content-Type", MEDIA_TYPE),
            ("Authorization", authorization),
        ];
        send(&node, "main", &headers, &set).await
    };
    eventually("the header to be asked for", async || {
        let answer = push(&node, &set).await;
        (answer.status == 401).then_some(())
    })
    .await;
    let wrong = push(&node, &set).await;
    assert_refused(&wrong, 401, "authentication_failed");
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer"));
    assert_refused(
        &with("Bearer 0123456789abcdeX").await,
        401,
        "authentication_failed",
    );
    assert_refused(
        &with("0123456789abcdef").await,
        401,
        "authentication_failed",
    );
    assert_accepted(&with("Bearer 0123456789abcdef").await);
    // The node reads the file for each request.
    node.write("authorization", "Bearer fedcba9876543210");
    assert_refused(
        &with("Bearer 0123456789abcdef").await,
        401,
        "authentication_failed",
    );
    assert_accepted(&with("Bearer fedcba9876543210").await);
    // An empty file must not accept every request.
    node.write("authorization", "");
    assert_eq!(push(&node, &set).await.status, 503);
    std::fs::remove_file(file).unwrap();
    let ours = with("Bearer fedcba9876543210").await;
    assert_eq!(ours.status, 503, "{}", ours.text());
    assert!(!node.log().text().contains("fedcba9876543210"));
}

#[tokio::test]
async fn a_stream_is_verified_and_stopped() {
    let transmitter = Transmitter::start().await;
    let more = "verification_state = \"as agreed\"";
    let node = Gateway::start_with(&transmitter.settings(more)).await;
    let about = |name: &str, about: Value| {
        let stream = json!({"format":"opaque","id":"f67e39a0"});
        transmitter.event(&format!("{SSF}{name}"), about, stream)
    };
    for good in [
        json!({}),
        json!({"state":null}),
        json!({"state":"as agreed"}),
    ] {
        assert_accepted(&push(&node, &about("verification", good)).await);
    }
    let wrong = push(&node, &about("verification", json!({"state":"other"}))).await;
    assert_refused(&wrong, 400, "invalid_state");
    assert_eq!(outcomes(&node, "stream").await, 3.0);
    let stopped = "curfew_event_streams_stopped";
    assert_eq!(node.metric(stopped).await, 0.0);
    for status in ["paused", "disabled"] {
        assert_accepted(&push(&node, &about("stream-updated", json!({"status":status}))).await);
        let (code, ready) = node.readiness().await;
        assert_eq!((code, &ready["stopped_streams"]), (200, &json!(["main"])));
        assert_eq!(node.metric(stopped).await, 1.0);
        let known = node.admin_ok("GET", "/v1/issuers", None).await;
        assert_eq!(known["issuers"][0]["stream"], status);
    }
    assert_accepted(&push(&node, &about("stream-updated", json!({"status":"enabled"}))).await);
    let (_, ready) = node.readiness().await;
    assert!(ready["stopped_streams"].is_null(), "{ready}");
    assert_eq!(node.metric(stopped).await, 0.0);
}

#[tokio::test]
async fn while_redis_is_away_the_transmitter_may_send_again() {
    let (redis, transmitter) = (Redis::start().await, Transmitter::start().await);
    let settings = transmitter.settings("").with("backend.grace = \"60s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let token = transmitter.older("alice", 10);
    let mut here = cluster[0].session(&token).await;
    let mut there = cluster[1].session(&token).await;
    cluster.proxy(0).set(Link::CUT);
    let set = transmitter.set(json!({}));
    let answer = push(&cluster[0], &set).await;
    assert_refused(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    here.expect_close(4403, "revoked").await;
    there.assert_open().await;
    cluster.proxy(0).set(Link::PASS);
    // The transmitter sends the event again, because no node has stored it.
    eventually("the event to be accepted", async || {
        (push(&cluster[0], &set).await.status == 202).then_some(())
    })
    .await;
    there.expect_close(4403, "revoked").await;
    assert!(cluster[1].attempt_with(&token).await.is_revoked());
}

#[tokio::test]
async fn without_the_issuers_keys_an_event_is_not_refused_as_forged() {
    let transmitter = Transmitter::start().await;
    transmitter.provider.behave(Manner::Status(500));
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let answer = push(&node, &transmitter.set(json!({}))).await;
    assert_refused(&answer, 503, "temporarily_unavailable");
}

#[tokio::test]
async fn an_event_by_a_key_newer_than_the_last_answer_is_not_refused_for_good() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    drop(node.session(&transmitter.older("alice", 10)).await);
    for kid in ["two", "two-again"] {
        let strange = transmitter.set_by(&Key::generate("ES256").with_kid(kid));
        // The node asks the issuer, which does not list the key.
        assert_refused(&push(&node, &strange).await, 400, "invalid_key");
    }
    let fetches = transmitter.provider.fetches();
    let newer = transmitter.set_by(&Key::generate("ES256").with_kid("three"));
    let answer = push(&node, &newer).await;
    assert_refused(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    // A token without a signature is refused without asking the issuer.
    let unsigned = newer.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_refused(&push(&node, &unsigned).await, 400, "invalid_key");
    assert_eq!(
        transmitter.provider.fetches(),
        fetches,
        "the node has asked the issuer again"
    );
}

#[tokio::test]
async fn an_issuer_reports_on_the_users_of_another() {
    let (users, organisation) = (Transmitter::start().await, Transmitter::start().await);
    let other = Transmitter::start().await;
    let issuers = users.provider.by_url("users")
        + &other.provider.by_url("other")
        + &organisation.provider.by_url("organisation")
        + "reports_on = \"users\"\n"
        + &format!("[auth.issuers.event_stream]\naudience = [{US:?}]\n");
    let node = Gateway::start_with(&Settings::default().issuers(&issuers)).await;
    // The organisation's own tokens open no session.
    let mut refused = node
        .ws()
        .bearer(&organisation.access("alice", json!({})))
        .open()
        .await;
    refused.expect_auth_failed("wrong_issuer", 4401).await;
    let mut alice = node.session(&users.older("alice", 10)).await;
    let mut namesake = node.session(&other.older("alice", 10)).await;
    let headers = [("Content-Type", MEDIA_TYPE)];
    let about = |subject| organisation.revoked(subject);
    // The organisation does not report on users of the issuer `other`.
    let answer = send(&node, "organisation", &headers, &about(other.user("alice"))).await;
    assert_accepted(&answer);
    assert_eq!(outcomes(&node, "nobody_found").await, 1.0);
    // A subject with the users' issuer and a subject with the organisation as its issuer have the
    // same effect.
    for subject in [users.user("alice"), organisation.user("alice")] {
        assert_accepted(&send(&node, "organisation", &headers, &about(subject)).await);
    }
    alice.expect_close(4403, "revoked").await;
    namesake.assert_open().await;
    // The users' issuer has no stream, and may not push to the organisation's stream.
    assert_eq!(
        send(&node, "users", &headers, &users.set(json!({})))
            .await
            .status,
        404
    );
    let forged = users.set(json!({"iss":organisation.provider.issuer()}));
    assert_refused(
        &send(&node, "organisation", &headers, &forged).await,
        400,
        "invalid_key",
    );
    assert_refused(
        &send(&node, "organisation", &headers, &users.set(json!({}))).await,
        400,
        "invalid_issuer",
    );
}

#[tokio::test]
async fn a_session_that_no_event_could_find_is_not_opened() {
    let transmitter = Transmitter::start().await;
    let more = "[auth.issuers.subjects]\nemail = \"email\"\n";
    let node = Gateway::start_with(&transmitter.settings(more)).await;
    for (claims, missing) in [
        (json!({}), "email"),
        (json!({"email":""}), "email"),
        (json!({"email":"a@b","iat":null}), "iat"),
    ] {
        let token = transmitter.access("alice", claims);
        let mut refused = node.ws().bearer(&token).open().await;
        let told = refused.expect_auth_failed("missing_claim", 4401).await;
        assert!(
            told["message"].as_str().unwrap().contains(missing),
            "{told}"
        );
    }
    let good = transmitter.access("alice", json!({"email":"a@b"}));
    assert!(node.attempt_with(&good).await.is_open());
}

#[tokio::test]
async fn an_issuer_that_is_added_keeps_no_session_from_being_found() {
    let (transmitter, other) = (Transmitter::start().await, Transmitter::start().await);
    let alone = transmitter.settings("");
    let both = transmitter.issuer("main", "") + &other.provider.by_url("other");
    let both = Settings::default().issuers(&both);
    let node = Gateway::start_with(&alone).await;
    let configured = async |settings: &Settings, count: usize| {
        node.write_config(settings);
        node.reload();
        eventually("the reload to be done", async || {
            let known = node.admin_ok("GET", "/v1/issuers", None).await;
            (known["issuers"].as_array()?.len() == count).then_some(())
        })
        .await;
    };
    let token = transmitter.older("alice", 10);
    let mut client = node.session(&token).await;
    configured(&both, 2).await;
    assert_accepted(&push(&node, &transmitter.set(json!({}))).await);
    client.expect_close(4403, "revoked").await;
    // The issuer `other` is removed again. The revoked token is still refused.
    configured(&alone, 1).await;
    assert!(node.attempt_with(&token).await.is_revoked());
}

#[tokio::test]
async fn an_older_event_does_not_take_the_place_of_one_that_waits() {
    let (redis, transmitter) = (Redis::start().await, Transmitter::start().await);
    let settings = transmitter.settings("").with("backend.grace = \"60s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let mut there = cluster[1].session(&transmitter.older("alice", 50)).await;
    let at = |seconds: u64| {
        let events =
            json!({format!("{CAEP}session-revoked"):{"event_timestamp":unix_now() - seconds}});
        transmitter.set(json!({"events":events}))
    };
    cluster.proxy(0).set(Link::CUT);
    let newer = push(&cluster[0], &at(10)).await;
    assert_refused(&newer, 503, "temporarily_unavailable");
    cluster.proxy(0).set(Link::PASS);
    // The older event does not cover this session. The newer event, which waits for Redis, still
    // ends it.
    eventually("the older event to be accepted", async || {
        (push(&cluster[0], &at(100)).await.status == 202).then_some(())
    })
    .await;
    there.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn a_time_that_was_never_set_keeps_nobody_out() {
    let redis = Redis::start().await;
    let transmitter = Transmitter::start().await;
    let cluster = Cluster::start(1, &redis.url(), &transmitter.settings("")).await;
    let events = json!({format!("{CAEP}session-revoked"):{"event_timestamp":0}});
    let set = transmitter.set(json!({"events":events}));
    assert_accepted(&push(&cluster[0], &set).await);
    let token = transmitter.access("alice", json!({}));
    assert!(cluster[0].attempt_with(&token).await.is_open());
}

#[tokio::test]
async fn an_event_closes_sessions_from_before_its_stream_was_configured() {
    let subjects = "[auth.issuers.subjects]\nsession = \"sid\"\n";
    for told in [true, false] {
        let (redis, transmitter) = (Redis::start().await, Transmitter::start().await);
        let by_url = transmitter.provider.by_url("main");
        let before = Settings::default().issuers(&by_url);
        let cluster = Cluster::start(1, &redis.url(), &before).await;
        let node = &cluster[0];
        let access = |user: &str, login: &str| {
            let more = json!({"iat":unix_now() - 10,"sid":login});
            transmitter.access(user, more)
        };
        let mut of_login = node.session(&access("alice", "one")).await;
        let mut of_user = node.session(&access("alice", "two")).await;
        let mut bob = node.session(&access("bob", "three")).await;
        let with_stream = transmitter.settings(subjects).on_redis(&redis.url());
        node.take_over(&with_stream, told).await;
        let login = json!({"format":"complex","session":{"format":"opaque","id":"one"}});
        assert_accepted(&push(node, &transmitter.revoked(login)).await);
        of_login.expect_close(4403, "revoked").await;
        of_user.assert_open().await;
        let user = transmitter.user("alice");
        assert_accepted(&push(node, &transmitter.revoked(user)).await);
        of_user.expect_close(4403, "revoked").await;
        bob.assert_open().await;
    }
}
