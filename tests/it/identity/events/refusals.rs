//! Rules for security event tokens (SETs), each with a token that breaks the rule. A section
//! without a document is a section of Shared Signals Framework 1.0.

use super::*;

/// A test of an event token with one fault: the fault's name, and the expected error.
macro_rules! refused {
    ($($(#[doc = $section:literal])+ $name:ident, $err:literal: $token:expr;)+) => {$(
        $(#[doc = $section])+
        #[tokio::test]
        async fn $name() {
            let transmitter = Transmitter::start().await;
            let node = Gateway::start_with(&transmitter.settings("")).await;
            let mut client = node.session(&transmitter.older("alice", 10)).await;
            let token: fn(&Transmitter) -> String = $token;
            assert_refused(&push(&node, &token(&transmitter)).await, 400, $err);
            client.assert_open().await;
            assert_eq!(outcomes(&node, "refused").await, 1.0);
        }
    )+};
}

refused! {
    /// RFC 8935 §2: the body is a security event token.
    what_is_no_token, "invalid_request": |_| "{\"a\":1}".to_owned();
    /// RFC 8417 §2.3: explicit typing is required by Shared Signals Framework 1.0 §4.1.1.
    a_set_of_another_type, "invalid_request": |it| it.set_of_type(json!("JWT"), json!({}));
    /// §4.1.1: the type is required.
    a_set_of_no_type, "invalid_request": |it| it.set_of_type(Value::Null, json!({}));
    /// §4.1.1: the type of a logout token is not accepted.
    a_logout_token, "invalid_request": |it| it.set_of_type(json!("logout+jwt"), json!({}));
    /// §4.1.2: `sub` is not allowed.
    a_set_with_sub, "invalid_request": |it| it.set(json!({"sub":"alice"}));
    /// §4.1.2: `sub_id` is required.
    a_set_about_nobody, "invalid_request": |it| it.set(json!({"sub_id":null}));
    /// §3.1: `sub_id` is a subject.
    a_set_about_a_text, "invalid_request": |it| it.set(json!({"sub_id":"alice"}));
    /// RFC 9493 §3.2.3: the subject has the members of its format.
    a_set_about_a_number, "invalid_request": |it| {
        it.set(json!({"sub_id":{"format":"iss_sub","iss":it.provider.issuer(),"sub":7}}))
    };
    /// §4.1.7: `exp` is not allowed.
    a_set_that_expires, "invalid_request": |it| it.set(json!({"exp":unix_now() + 60}));
    /// §4.1.6: `iss` is the stream's issuer.
    a_set_of_another_issuer, "invalid_issuer": |it| it.set(json!({"iss":"https://other.example"}));
    /// RFC 8417 §2.2: `iss` is required.
    a_set_of_no_issuer, "invalid_issuer": |it| it.set(json!({"iss":null}));
    /// §4.1.8: `aud` is this receiver.
    a_set_for_somebody_else, "invalid_audience": |it| it.set(json!({"aud":["https://other.example"]}));
    /// §4.1.8: `aud` is required.
    a_set_for_nobody, "invalid_audience": |it| it.set(json!({"aud":null}));
    /// RFC 8417 §2.2: `iat` is required.
    a_set_without_iat, "invalid_request": |it| it.set(json!({"iat":null}));
    /// RFC 8417 §2.2: `iat` is not in the future.
    a_set_of_the_future, "invalid_request": |it| it.set(json!({"iat":unix_now() + 60}));
    /// RFC 8417 §2.2: `jti` is required.
    a_set_without_jti, "invalid_request": |it| it.set(json!({"jti":null}));
    /// RFC 8417 §2.2: `events` is required.
    a_set_without_events, "invalid_request": |it| it.set(json!({"events":null}));
    /// RFC 8417 §2.2: `events` is an object.
    a_set_whose_events_are_a_list, "invalid_request": |it| {
        it.set(json!({"events":[format!("{CAEP}session-revoked")]}))
    };
    /// RFC 8417 §2.2: `events` has at least one event.
    a_set_with_no_event, "invalid_request": |it| it.set(json!({"events":{}}));
    /// RFC 8417 §2.2: each event is an object.
    a_set_whose_event_is_null, "invalid_request": |it| {
        it.set(json!({"events":{format!("{CAEP}session-revoked"):null}}))
    };
    /// §4.2.1: several events are allowed only if they all describe the same event.
    a_set_with_two_events, "invalid_request": |it| it.set(json!({"events":{
        format!("{CAEP}session-revoked"):{}, format!("{RISC}account-purged"):{},
    }}));
    /// RFC 8417 §5.1: the token is signed.
    an_unsigned_set, "invalid_request": |it| {
        let header = r#"{"alg":"none","typ":"secevent+jwt"}"#;
        format!("{}.{}.", encode(header), encode(it.claims(json!({})).to_string()))
    };
    /// RFC 8417 §5.1: the issuer signs it.
    a_set_by_another_key, "invalid_key": |it| {
        it.set_by(&Key::generate("ES256").with_kid("one"))
    };
    /// RFC 8417 §5.1: the key is known.
    a_set_by_an_unknown_key, "invalid_key": |it| {
        it.set_by(&Key::generate("ES256").with_kid("two"))
    };
    /// An access token is no event token.
    an_access_token, "invalid_request": |it| it.access("alice", json!({}));
    /// §8.1.5: the status is `enabled`, `paused` or `disabled`.
    a_stream_update_without_status, "invalid_request": |it| {
        it.event(&format!("{SSF}stream-updated"), json!({"status":"gone"}), json!({"format":"opaque","id":"s"}))
    };
    /// §8.1.4.1: the state must be the requested one.
    a_verification_that_nobody_asked_for, "invalid_state": |it| {
        it.event(&format!("{SSF}verification"), json!({"state":"x"}), json!({"format":"opaque","id":"s"}))
    };
}

#[tokio::test]
async fn an_event_opens_no_session_and_logs_nobody_out() {
    let transmitter = Transmitter::start().await;
    let issuer = transmitter.issuer("main", "");
    let (head, stream) = issuer.split_once("[auth.issuers.event").unwrap();
    let settings = format!(
        "{head}backchannel_logout = true\nlogout_scope = \"user\"\nlogout_audience = [{US:?}]\n[auth.issuers.event{stream}"
    );
    let node = Gateway::start_with(&Settings::default().issuers(&settings)).await;
    let mut client = node.session(&transmitter.older("alice", 10)).await;
    for typ in ["secevent+jwt", "JWT"] {
        let more = json!({"sub":"alice","exp":unix_now() + 60});
        let token = transmitter.set_of_type(json!(typ), more);
        let attempt = node.attempt_with(&token).await;
        assert!(matches!(attempt, Attempt::Refused(why, 4401) if why == "malformed"));
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = format!("logout_token={token}");
        let path = "/logout/backchannel";
        let answer = http::request(node.address(), "POST", path, &form, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    client.assert_open().await;
}
