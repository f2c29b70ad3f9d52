//! Pushed security events: RFC 8935, Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0
//! (IDENTITY rows 126 to 134).

mod effects;
mod refusals;
mod streams;
mod subjects;

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::{Key, encode};
use curfew_testkit::unix_now;
use curfew_tests::{
    Attempt, Cluster, Gateway, Link, Manner, Provider, Redis, Settings, eventually,
};
use serde_json::{Value, json};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
const GOOGLE: &str = "https://schemas.openid.net/secevent/oauth/event-type/";
const US: &str = "https://rt.example.com/events";
const MEDIA_TYPE: &str = "application/secevent+jwt";

/// A provider that pushes events, and its key.
pub(super) struct Transmitter {
    provider: Provider,
    key: Key,
}

impl Transmitter {
    pub(super) async fn start() -> Self {
        let key = Key::generate("ES256").with_kid("one");
        let provider = Provider::start(&[&key]).await;
        Self { provider, key }
    }

    /// The lines of `[[auth.issuers]]` with an event stream. `more` is added to the stream's
    /// section.
    fn issuer(&self, name: &str, more: &str) -> String {
        let by_url = self.provider.by_url(name);
        format!("{by_url}[auth.issuers.event_stream]\naudience = [{US:?}]\n{more}\n")
    }

    pub(super) fn settings(&self, more: &str) -> Settings {
        Settings::default().issuers(&self.issuer("main", more))
    }

    fn access(&self, user: &str, more: Value) -> String {
        let mut claims = json!({"iss":self.provider.issuer()});
        claims.as_object_mut().unwrap().extend(members(more));
        self.key.user_with(user, claims)
    }

    /// An access token that was issued `seconds` seconds ago.
    fn older(&self, user: &str, seconds: u64) -> String {
        self.access(user, json!({"iat":unix_now() - seconds}))
    }

    /// The subject that stands for a user.
    fn user(&self, user: &str) -> Value {
        json!({"format":"iss_sub","iss":self.provider.issuer(),"sub":user})
    }

    /// A valid event token, changed by `changes`; `null` removes a claim.
    pub(super) fn set(&self, changes: Value) -> String {
        self.set_of_type(json!("secevent+jwt"), changes)
    }

    fn set_of_type(&self, typ: Value, changes: Value) -> String {
        let mut header = self.key.header();
        match typ {
            Value::Null => drop(header.as_object_mut().unwrap().remove("typ")),
            typ => header["typ"] = typ,
        }
        self.key
            .sign(&header.to_string(), &self.claims(changes).to_string())
    }

    /// An event token that `key` has signed, and that is valid if the issuer has `key`.
    fn set_by(&self, key: &Key) -> String {
        let mut header = key.header();
        header["typ"] = json!("secevent+jwt");
        key.sign(&header.to_string(), &self.claims(json!({})).to_string())
    }

    fn claims(&self, changes: Value) -> Value {
        let now = unix_now();
        let mut claims = json!({
            "iss": self.provider.issuer(),
            "aud": US,
            "iat": now,
            "jti": format!("jti-{now}"),
            "txn": "8675309",
            "sub_id": self.user("alice"),
            "events": {format!("{CAEP}session-revoked"): {"event_timestamp": now}},
        });
        for (name, value) in members(changes) {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(&name)),
                value => claims[name] = value,
            }
        }
        claims
    }

    /// An event token with one event about `subject`.
    fn event(&self, uri: &str, about: Value, subject: Value) -> String {
        self.set(json!({"events":{uri:about},"sub_id":subject}))
    }

    /// An event token that revokes the sessions of `subject`.
    fn revoked(&self, subject: Value) -> String {
        self.event(&format!("{CAEP}session-revoked"), json!({}), subject)
    }
}

fn members(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is not an object"),
    }
}

pub(super) async fn push(node: &Gateway, token: &str) -> Response {
    send(node, "main", &[("Content-Type", MEDIA_TYPE)], token).await
}

async fn send(node: &Gateway, issuer: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let path = format!("/events/{issuer}");
    http::request(node.address(), "POST", &path, headers, body.as_bytes()).await
}

fn assert_accepted(answer: &Response) {
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
}

/// Checks that the answer is an error in the form of RFC 8935 §2.3.
fn assert_refused(answer: &Response, status: u16, err: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-language"), Some("en"));
    assert_eq!(answer.json()["err"], err, "{}", answer.text());
    assert!(answer.json()["description"].is_string());
}

async fn outcomes(node: &Gateway, outcome: &str) -> f64 {
    let name = format!("curfew_security_events_total{{outcome=\"{outcome}\"}}");
    node.metric(&name).await
}
