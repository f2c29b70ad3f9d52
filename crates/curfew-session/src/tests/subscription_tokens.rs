//! Subscriptions of the Centrifuge protocol with tokens of their own, and the reasons for which the
//! server ends subscriptions.

use curfew_model::RevocationKey;
use curfew_node::{ChannelConfig, ChannelEntries, DataFormat};
use curfew_protocol_centrifuge::{Centrifuge, Encoding, Over};

use super::rig::{Call, When};
use super::*;
use crate::metrics::LostSubscription;

/// A node that speaks the JSON encoding, with subscription tokens. Its rules allow only the channel
/// `hall`.
fn harness() -> Harness {
    let change = |settings: &mut SessionSettings| {
        settings.subscription_tokens = true;
        settings.policy = Arc::new(Policy::new(&hall_alone()));
    };
    let wire = Wire::websocket(Centrifuge {
        encoding: Encoding::Json,
        transport: Over::WebSocket,
    });
    Harness::build(change, vec![wire])
}

fn hall_alone() -> curfew_policy::PolicyConfig {
    let mut rules = allowing(&[Action::Subscribe]);
    rules.rules[0].channels = vec!["hall".to_owned()];
    rules
}

impl Harness {
    fn subscription_token(&self, id: &str) -> String {
        self.token(json!({"jti": id, "channel": "room"}))
    }

    fn subscribe(&self, id: u64, token: &str) -> String {
        let token = self.subscription_token(token);
        json!({"id":id,"subscribe":{"channel":"room","token":token}}).to_string()
    }

    /// A session with a subscription to `hall`.
    async fn in_hall(&self) -> Peer {
        let mut peer = self.awaiting();
        let connect = json!({"id":1,"connect":{"token":self.token(json!({}))}});
        let hall = r#"{"id":2,"subscribe":{"channel":"hall"}}"#;
        peer.send(&connect.to_string()).await;
        peer.send(hall).await;
        for answer in ["connect", "subscribe"] {
            assert!(peer.text().await[answer].is_object(), "{answer}");
        }
        peer
    }

    /// A session with subscriptions to `hall` and, by the token `s1`, to `room`.
    async fn in_room(&self) -> Peer {
        let mut peer = self.in_hall().await;
        peer.send(&self.subscribe(3, "s1")).await;
        let answer = peer.text().await;
        assert_eq!((&answer["id"], &answer["error"]), (&3.into(), &Value::Null));
        peer
    }

    fn revoke_token(&self, id: &str) {
        self.rig.revoke(RevocationKey::token(id));
    }

    #[track_caller]
    fn assert_lost(&self, reason: LostSubscription) {
        assert_eq!(self.metrics.subscriptions_lost.get(reason), 1);
    }
}

fn unsubscribed(code: u16, reason: &str) -> Value {
    json!({"push":{"channel":"room","unsubscribe":{"code":code,"reason":reason}}})
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_takes_its_channel_alone() {
    let harness = harness();
    let mut peer = harness.in_room().await;
    // The publications and the revocation happen before the session's task runs.
    harness.publish("room", "1");
    harness.revoke_token("s1");
    harness.publish("room", "2");
    harness.publish("hall", "3");
    assert_eq!(peer.text().await["push"]["pub"]["data"], 3);
    assert_eq!(peer.text().await, unsubscribed(2000, "revoked"));
    harness.assert_lost(LostSubscription::Revoked);
    // The same token is refused from now on. Another token is accepted.
    peer.send(&harness.subscribe(4, "s1")).await;
    assert_eq!(peer.text().await["error"]["code"], 103);
    peer.send(&harness.subscribe(5, "s2")).await;
    assert!(peer.text().await["subscribe"].is_object());
    harness.publish("room", "4");
    assert_eq!(peer.text().await["push"]["pub"]["data"], 4);
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_while_its_subscription_is_made_opens_none() {
    for (when, call) in [
        (When::Before, Call::Check),
        (When::After, Call::Check),
        (When::Before, Call::Subscribe),
        (When::After, Call::Subscribe),
    ] {
        let harness = harness();
        let mut peer = harness.in_hall().await;
        let rig = Arc::clone(&harness.rig);
        harness.rig.hook(when, call, move || {
            rig.revoke(RevocationKey::token("s1"));
        });
        peer.send(&harness.subscribe(3, "s1")).await;
        let answer = peer.text().await;
        assert_eq!(answer["error"]["code"], 103, "{when:?} {call:?}: {answer}");
        harness.publish("room", "1");
        harness.publish("hall", "2");
        assert_eq!(peer.text().await["push"]["pub"]["data"], 2);
        drop(peer);
        harness.assert_nothing_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_is_the_one_that_counts() {
    let harness = harness();
    let mut peer = harness.in_room().await;
    let token = harness.subscription_token("s2");
    let refresh = json!({"id":4,"sub_refresh":{"channel":"room","token":token}});
    peer.send(&refresh.to_string()).await;
    assert!(peer.text().await["sub_refresh"].is_object());
    harness.revoke_token("s1");
    harness.publish("room", "1");
    assert_eq!(peer.text().await["push"]["pub"]["data"], 1);
    harness.revoke_token("s2");
    assert_eq!(peer.text().await, unsubscribed(2000, "revoked"));
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_without_a_lease_takes_what_was_held_back() {
    let harness = harness();
    let mut peer = harness.in_room().await;
    harness.publish("room", "1");
    harness.publish("hall", "2");
    harness.lease.expire();
    harness.revoke_token("s1");
    peer.silence(1).await;
    let until = curfew_model::boottime() + Duration::from_secs(3600);
    let reopened = harness.lease.renew(until, harness.lease.stretch());
    assert_eq!(reopened, Some(true));
    harness.hub().reopened();
    assert_eq!(peer.text().await["push"]["pub"]["data"], 2);
    assert_eq!(peer.text().await, unsubscribed(2000, "revoked"));
    drop(peer);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_right_by_token_outlives_other_rules_and_no_denial() {
    let harness = harness();
    let mut peer = harness.in_room().await;
    harness.reload(&hall_alone());
    harness.publish("room", "1");
    assert_eq!(peer.text().await["push"]["pub"]["data"], 1);
    let mut denying = hall_alone();
    denying.rules.push(Rule {
        name: "closed".to_owned(),
        channels: vec!["room".to_owned()],
        actions: vec![Action::Subscribe],
        effect: curfew_policy::Effect::Deny,
        ..Rule::default()
    });
    harness.reload(&denying);
    assert_eq!(peer.text().await, unsubscribed(2000, "forbidden"));
    harness.assert_lost(LostSubscription::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_begins_to_carry_bytes_is_taken_from_sessions_of_json() {
    let harness = harness();
    let mut peer = harness.in_room().await;
    let mut settings = SessionSettings::clone(&harness.context.settings.load());
    settings.channels = ChannelEntries::new(&[ChannelConfig {
        pattern: "room".to_owned(),
        format: DataFormat::Binary,
        ..ChannelConfig::default()
    }]);
    harness.context.settings.store(Arc::new(settings));
    harness.hub().reconsider_all();
    assert_eq!(peer.text().await, unsubscribed(2000, "not_available"));
    harness.assert_lost(LostSubscription::NotAvailable);
    // If the server subscribes the session to the channel, the reason is the same.
    let mut server_side = harness.awaiting();
    let claims = json!({"channels": ["hall", "room"]});
    let connect = json!({"id":1,"connect":{"token":harness.token(claims)}});
    let mut everything = allowing(&[Action::Subscribe]);
    everything.rules[0].channels = vec!["*".to_owned()];
    harness.reload(&everything);
    server_side.send(&connect.to_string()).await;
    let answer = server_side.text().await;
    let subscriptions = answer["connect"]["subs"].as_object().unwrap();
    assert_eq!(subscriptions.keys().collect::<Vec<_>>(), ["hall"]);
    let refused = server_side.text().await;
    assert_eq!(refused, unsubscribed(2000, "not_available"));
    drop((peer, server_side));
    harness.assert_nothing_left().await;
}
