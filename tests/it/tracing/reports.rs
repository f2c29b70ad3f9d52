//! Each report of an identity provider is one trace across nodes. This holds for every kind of
//! report.

use curfew_testkit::http;
use curfew_testkit::mint::{Key, SECRET};
use curfew_testkit::unix_now;
use curfew_tests::{Cluster, Redis};
use serde_json::{Value, json};

use super::collector::Collector;

const ISSUER: &str = "https://id.example";
const US: &str = "https://rt.example.com";
const REVOCATION: &str = "https://rt.example.com/v1/global-token-revocation";

fn issuer() -> String {
    format!(
        "[[auth.issuers]]\nname = \"main\"\nissuer = {ISSUER:?}\nsecret = {SECRET:?}\n\
         backchannel_logout = true\nlogout_scope = \"user\"\nlogout_audience = [{US:?}]\n\
         global_token_revocation = [{REVOCATION:?}]\naudience = [\"curfew\"]\n[auth.issuers.event_stream]\naudience = [{US:?}]\n"
    )
}

fn signed(typ: &str, more: Value) -> String {
    let key = Key::default_secret();
    let now = unix_now();
    let mut claims = json!({"iss":ISSUER,"aud":US,"iat":now,"jti":format!("jti-{typ}")});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = json!({"alg":"HS256","typ":typ});
    key.sign(&header.to_string(), &claims.to_string())
}

#[tokio::test]
async fn a_report_is_one_trace_across_nodes() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector
        .settings()
        .with("telemetry.trace_sample_ratio = 0.0")
        .issuers(&issuer());
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let ends = unix_now() + 120;
    let logout = signed(
        "logout+jwt",
        json!({"sub":"a","exp":ends,"events":{"http://schemas.openid.net/event/backchannel-logout":{}}}),
    );
    let event = signed(
        "secevent+jwt",
        json!({
            "sub_id":{"format":"iss_sub","iss":ISSUER,"sub":"b"},
            "events":{"https://schemas.openid.net/secevent/caep/event-type/session-revoked":{}},
        }),
    );
    let bearer = format!(
        "Bearer {}",
        signed("JWT", json!({"exp":ends,"aud":REVOCATION}))
    );
    let user = json!({"sub_id":{"format":"iss_sub","iss":ISSUER,"sub":"c"}}).to_string();
    let form = format!("logout_token={logout}");
    for (user, path, route, headers, body, status) in [
        (
            "a",
            "/logout/backchannel",
            "/logout/backchannel",
            vec![("Content-Type", "application/x-www-form-urlencoded")],
            &form,
            200,
        ),
        (
            "b",
            "/events/main",
            "/events/{issuer}",
            vec![("Content-Type", "application/secevent+jwt")],
            &event,
            202,
        ),
        (
            "c",
            "/v1/global-token-revocation",
            "/v1/global-token-revocation",
            vec![
                ("Content-Type", "application/json"),
                ("Authorization", bearer.as_str()),
            ],
            &user,
            204,
        ),
    ] {
        let before = json!({"iss":ISSUER,"aud":"curfew","iat":unix_now() - 10});
        let token = Key::default_secret().user_with(user, before);
        let mut here = cluster[0].session(&token).await;
        let mut there = cluster[1].session(&token).await;
        let address = cluster[0].address();
        let answer = http::request(address, "POST", path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        here.expect_close(4403, "revoked").await;
        there.expect_close(4403, "revoked").await;
        let call = collector.wait(&format!("POST {route}"), 1).await.remove(0);
        assert_eq!((call.parent.as_str(), call.kind), ("", 2));
        assert_eq!(call.attributes["http.route"], route);
        collector.wait_below("MULTI", &call).await;
        let nodes = async || {
            let mut applied = collector.named("revocation apply");
            applied.retain(|span| span.trace == call.trace && span.parent == call.id);
            (applied.len() == 2).then_some(applied)
        };
        for span in curfew_tests::eventually("both nodes to apply it", nodes).await {
            assert_eq!(span.attributes["curfew.sessions.closed"], "1");
        }
    }
    for span in collector.spans() {
        assert!(!span.text.contains("eyJ"), "{}", span.text);
    }
}
