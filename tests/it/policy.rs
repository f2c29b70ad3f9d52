//! Subscriptions and publications that the policy permits (CONTRACT §5).

use curfew_testkit::WsClient;
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, curfew};
use serde_json::{Value, json};

const RULES: &str = r#"
[[policy.rules]]
name = "members talk in their tenant's rooms"
channels = ["room:{tenant}:*"]
actions = ["subscribe", "publish"]
when = "claims.tenant == params.tenant && 'member' in claims.roles"

[[policy.rules]]
name = "news is for everyone"
channels = ["news", "news:*"]
actions = ["subscribe"]

[[policy.rules]]
name = "editors publish news"
channels = ["news:*"]
actions = ["publish"]
when = "'editor' in claims.roles"

[[policy.rules]]
name = "nobody touches the secret room"
channels = ["room:acme:secret", "news:secret:*"]
actions = ["subscribe", "publish"]
effect = "deny"

[[policy.rules]]
name = "a user's own inbox"
channels = ["inbox:{user}"]
actions = ["subscribe"]
when = "claims.sub == params.user"

[[policy.rules]]
name = "divides by zero"
channels = ["broken:*"]
actions = ["subscribe", "publish"]
when = "1 / 0 == 1 || claims.absent.deeper == 'x'"

[[policy.rules]]
name = "denies by dividing by zero"
channels = ["halfbroken:*"]
actions = ["subscribe"]
effect = "deny"
when = "1 / 0 == 1"

[[policy.rules]]
name = "allows what the other cannot decide"
channels = ["halfbroken:*"]
actions = ["subscribe"]
"#;

async fn asks(client: &mut WsClient, action: &str, channel: &str) -> bool {
    let mut command = json!({"type":action,"id":action,"channel":channel});
    if action == "publish" {
        command["data"] = json!(1);
    }
    client.send(command).await;
    let reply = client.until_json(json!({"id":action})).await;
    if reply["type"] == "ok" {
        return true;
    }
    assert_eq!(reply["code"], "forbidden", "{action} {channel}: {reply}");
    false
}

#[tokio::test]
async fn without_a_rule_or_a_grant_nothing_is_allowed() {
    let gateway = Gateway::start_with(&Settings::default().rules("")).await;
    let mut client = gateway.user("alice").await;
    for action in ["subscribe", "publish"] {
        for channel in ["room:1", "alice", "user:alice", "*"] {
            assert!(
                !asks(&mut client, action, channel).await,
                "{action} {channel}"
            );
        }
    }
}

#[tokio::test]
async fn rules_decide_by_channel_action_and_claims_and_deny_wins() {
    let gateway = Gateway::start_with(&Settings::default().rules(RULES)).await;
    let key = Key::default_secret();
    let member = json!({"tenant":"acme","roles":["member"]});
    let editor = json!({"tenant":"acme","roles":["editor"]});
    for (claims, action, channel, expect) in [
        (&member, "subscribe", "room:acme:1", true),
        (&member, "publish", "room:acme:1", true),
        (&member, "subscribe", "room:acme:a:b", true),
        (&member, "subscribe", "room:other:1", false),
        (&member, "subscribe", "room:acme", false),
        (&member, "subscribe", "xroom:acme:1", false),
        (&member, "subscribe", "room:acme:secret", false),
        (&member, "publish", "room:acme:secret", false),
        (&member, "subscribe", "room:acme:secret2", true),
        (&editor, "subscribe", "room:acme:1", false),
        (&member, "subscribe", "news", true),
        (&member, "subscribe", "news:sport", true),
        (&member, "publish", "news:sport", false),
        (&editor, "publish", "news:sport", true),
        (&editor, "publish", "news", false),
        (&editor, "publish", "news:secret:1", false),
        (&editor, "subscribe", "news:secret:1", false),
        (&member, "subscribe", "inbox:alice", true),
        (&member, "subscribe", "inbox:bob", false),
        (&member, "publish", "inbox:alice", false),
        (&member, "subscribe", "broken:1", false),
        (&member, "publish", "broken:1", false),
        (&member, "subscribe", "halfbroken:1", false),
        (&member, "subscribe", "unheard:of", false),
    ] {
        let token = key.user_with("alice", claims.clone());
        let mut client = gateway.session(&token).await;
        let allowed = asks(&mut client, action, channel).await;
        assert_eq!(allowed, expect, "{action} {channel} with {claims}");
    }
    // A claim that is absent or has another type never allows anything.
    for claims in [
        json!({}),
        json!({"tenant":"acme"}),
        json!({"tenant":["acme"],"roles":["member"]}),
        json!({"tenant":"acme","roles":"member"}),
        json!({"tenant":"acme","roles":{"member":false}}),
        json!({"tenant":"{tenant}","roles":["member"]}),
        json!({"tenant":"*","roles":["member"]}),
    ] {
        let mut client = gateway
            .session(&key.user_with("alice", claims.clone()))
            .await;
        let expect = claims["roles"] == json!({"member":false}) && claims["tenant"] == "acme";
        let allowed = asks(&mut client, "subscribe", "room:acme:1").await;
        // CEL's `in` also looks up a key in a map, so the object with the member `member` matches.
        assert!(!allowed || expect, "{claims}");
    }
}

#[tokio::test]
async fn publishing_is_decided_apart_from_subscribing() {
    let gateway = Gateway::start_with(&Settings::default().rules(RULES)).await;
    let token = Key::default_secret().user_with("alice", json!({"tenant":"acme","roles":[]}));
    let mut client = gateway.session(&token).await;
    assert!(asks(&mut client, "subscribe", "news:sport").await);
    assert!(!asks(&mut client, "publish", "news:sport").await);
    assert!(!asks(&mut client, "publish", "news:sport").await);
    let heard = client.barrier().await;
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn a_token_may_carry_its_own_grants() {
    let rules = r#"
[[policy.rules]]
name = "not here"
channels = ["room:closed"]
actions = ["subscribe", "publish"]
effect = "deny"
"#;
    let gateway = Gateway::start_with(&Settings::default().rules(rules)).await;
    let key = Key::default_secret();
    let grants = json!({"curfew":{"subscribe":["room:*"],"publish":["room:1"]}});
    let mut client = gateway.session(&key.user_with("alice", grants)).await;
    for (action, channel, expect) in [
        ("subscribe", "room:1", true),
        ("subscribe", "room:2:x", true),
        ("subscribe", "hall", false),
        ("publish", "room:1", true),
        ("publish", "room:2", false),
        ("subscribe", "room:closed", false),
    ] {
        let allowed = asks(&mut client, action, channel).await;
        assert_eq!(allowed, expect, "{action} {channel}");
    }
    // A malformed grant allows nothing, and has no other effect.
    for grants in [
        json!("room:*"),
        json!(["room:*"]),
        json!({"subscribe":"room:*"}),
        json!({"subscribe":[7,null,{}]}),
        json!({"subscribe":{"room:*":true}}),
        json!({"all":["room:*"]}),
        json!(true),
    ] {
        let token = key.user_with("alice", json!({"curfew":grants}));
        let mut client = gateway.session(&token).await;
        assert!(!asks(&mut client, "subscribe", "room:1").await, "{grants}");
    }
    drop(gateway);

    let settings = Settings::default()
        .rules("")
        .with(r#"policy.grants_claim = "channels""#);
    let gateway = Gateway::start_with(&settings).await;
    let grants = json!({"channels":{"subscribe":["a"]},"curfew":{"subscribe":["b"]}});
    let mut client = gateway.session(&key.user_with("alice", grants)).await;
    assert!(asks(&mut client, "subscribe", "a").await);
    assert!(!asks(&mut client, "subscribe", "b").await);
}

#[tokio::test]
async fn explain_names_the_deciding_rule_by_api_and_offline_alike() {
    let settings = Settings::default().rules(RULES);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let claims = json!({"tenant":"acme","roles":["member"]});
    let token = key.user_with("alice", claims);
    for (action, channel, allowed, rule) in [
        (
            "subscribe",
            "room:acme:1",
            true,
            Some("members talk in their tenant's rooms"),
        ),
        (
            "subscribe",
            "room:acme:secret",
            false,
            Some("nobody touches the secret room"),
        ),
        ("publish", "news:sport", false, None),
        ("subscribe", "news", true, Some("news is for everyone")),
        ("subscribe", "inbox:bob", false, None),
        ("subscribe", "unheard:of", false, None),
    ] {
        let what = format!("{action} {channel}");
        let by_token = gateway
            .admin_ok(
                "POST",
                "/v1/explain",
                Some(json!({"token":token,"action":action,"channel":channel})),
            )
            .await;
        assert_eq!(by_token["allowed"], allowed, "{what}: {by_token}");
        assert!(
            by_token["why"].as_str().is_some_and(|why| !why.is_empty()),
            "{by_token}"
        );
        match rule {
            Some(rule) => assert_eq!(by_token["rule"], rule, "{what}: {by_token}"),
            None => assert!(by_token["rule"].is_null(), "{what}: {by_token}"),
        }
        let mut claims = curfew_testkit::mint::claims("alice");
        claims["tenant"] = json!("acme");
        claims["roles"] = json!(["member"]);
        let by_claims = gateway
            .admin_ok(
                "POST",
                "/v1/explain",
                Some(json!({"claims":claims,"action":action,"channel":channel})),
            )
            .await;
        let verdict = |answer: &Value| ["allowed", "rule", "why"].map(|name| answer[name].clone());
        assert_eq!(verdict(&by_claims), verdict(&by_token), "{what}");

        let config = gateway.config_path();
        let offline = curfew(&[
            "explain",
            "--config",
            config.to_str().unwrap(),
            "--token",
            &token,
            "--action",
            action,
            "--channel",
            channel,
            "--json",
        ])
        .await;
        let said: Value = serde_json::from_str(&offline.stdout)
            .unwrap_or_else(|error| panic!("{error}: {offline:?}"));
        assert_eq!(verdict(&said), verdict(&by_token), "{what}");
        assert!(!offline.stdout.contains(&token) && !offline.stderr.contains(&token));

        let mut client = gateway.session(&token).await;
        assert_eq!(asks(&mut client, action, channel).await, allowed, "{what}");
    }
}

#[tokio::test]
async fn explain_refuses_what_it_cannot_explain() {
    let gateway = Gateway::start_default().await;
    let claims = json!({"sub":"alice"});
    for body in [
        json!({}),
        json!({"claims":claims,"action":"dance","channel":"a"}),
        json!({"claims":claims,"action":"subscribe","channel":"a b"}),
        json!({"claims":claims,"action":"subscribe"}),
        json!({"claims":[],"action":"subscribe","channel":"a"}),
        json!({"action":"subscribe","channel":"a"}),
    ] {
        let (status, answer) = gateway
            .admin("POST", "/v1/explain", Some(body.clone()))
            .await;
        assert!(
            (400..500).contains(&status),
            "{body} gave {status}: {answer}"
        );
    }
    // The explanation says that the node would refuse the token.
    let body = json!({"token":"nonsense","action":"subscribe","channel":"a"});
    let refused = gateway.admin_ok("POST", "/v1/explain", Some(body)).await;
    assert_eq!(refused["allowed"], false, "{refused}");
    assert!(
        refused["why"].as_str().unwrap().contains("malformed"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_policy_change_takes_subscriptions_away_and_gives_new_ones() {
    let settings = Settings::default();
    let gateway = Gateway::start_with(&settings).await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    alice
        .send(json!({"type":"subscribe","id":1,"channel":"hall"}))
        .await;
    alice.expect_json(json!({"type":"ok","id":1})).await;
    let only_hall = settings.clone().rules(
        "[[policy.rules]]\nname = \"hall\"\nchannels = [\"hall\"]\nactions = [\"subscribe\"]\n",
    );
    gateway.write_config(&only_hall);
    gateway.reload();
    let taken = alice.next_json().await;
    assert_eq!(
        taken,
        json!({"type":"unsubscribed","channel":"room:1","reason":"forbidden"})
    );
    gateway.publish("room:1", json!("not for alice")).await;
    gateway.publish("hall", json!("for alice")).await;
    alice
        .expect_json(json!({"type":"message","channel":"hall","data":"for alice"}))
        .await;
    for (command, code) in [
        (
            json!({"type":"publish","id":2,"channel":"room:1","data":1}),
            "forbidden",
        ),
        (
            json!({"type":"publish","id":2,"channel":"hall","data":1}),
            "forbidden",
        ),
        (
            json!({"type":"subscribe","id":2,"channel":"room:1"}),
            "forbidden",
        ),
        (
            json!({"type":"unsubscribe","id":2,"channel":"room:1"}),
            "not_subscribed",
        ),
    ] {
        alice.send(command.clone()).await;
        let reply = alice.next_json().await;
        assert_eq!(reply["code"], code, "{command}: {reply}");
    }
    gateway.write_config(&settings);
    gateway.reload();
    curfew_tests::eventually("the old rules", async || {
        alice
            .send(json!({"type":"subscribe","id":3,"channel":"room:1"}))
            .await;
        let reply = alice.next_json().await;
        (reply["type"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_built_to_collide_are_decided_each_on_its_own() {
    let rules = r#"
[[policy.rules]]
name = "a tenant's rooms"
channels = ["t:{tenant}:{room}"]
actions = ["subscribe"]
when = "params.tenant == claims.tenant && params.room == claims.room"
"#;
    let gateway = Gateway::start_with(&Settings::default().rules(rules)).await;
    let key = Key::default_secret();
    for (tenant, room, channel, expect) in [
        ("a_b", "c", "t:a_b:c", true),
        ("a", "b_c", "t:a:b_c", true),
        ("a_b", "c", "t:a:b_c", false),
        ("a", "b_c", "t:a_b:c", false),
        ("a", "b", "t:a:b:c", false),
        ("a:b", "c", "t:a:b:c", false),
        ("", "c", "t::c", false),
    ] {
        let token = key.user_with("alice", json!({"tenant":tenant,"room":room}));
        let mut client = gateway.session(&token).await;
        // Each channel is tried twice, because a cached decision must be one of the same session.
        for _ in 0..2 {
            let allowed = asks(&mut client, "subscribe", channel).await;
            if allowed {
                client
                    .send(json!({"type":"unsubscribe","channel":channel}))
                    .await;
            }
            // With an empty claim, both results are safe: an empty segment is still a segment.
            assert!(
                allowed == expect || tenant.is_empty(),
                "{tenant} {room} {channel}"
            );
        }
    }
}
