use super::*;

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use curfew_model::{Claims, PrincipalParts};
use proptest::prelude::*;
use serde_json::json;

use crate::GRANT;
use crate::explain::ConditionResult;

fn principal(claims: &str) -> Principal {
    Principal::new(PrincipalParts {
        user: "alice".into(),
        issuer: "main".into(),
        key_id: None,
        token_id: None,
        issued_at: None,
        expires_at: 2,
        leeway: Duration::ZERO,
        claims: Claims::from_json(claims),
    })
}

fn config(rules: Value) -> PolicyConfig {
    serde_json::from_value(json!({ "rules": rules })).unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn rule(name: &str, channels: &[&str], effect: &str, when: Option<&str>) -> Value {
    json!({
        "name": name, "channels": channels, "actions": ["publish"], "effect": effect, "when": when,
    })
}

fn publish(policy: &Policy, claims: &str, name: &str) -> Decision {
    policy.decide(&principal(claims), Action::Publish, &channel(name))
}

#[test]
fn nothing_is_allowed_without_a_rule_or_a_grant() {
    let policy = Policy::new(&PolicyConfig::default());
    let decision = publish(&policy, "{}", "room:1");
    assert!(!decision.allowed);
    assert_eq!(decision.rule, None);
    assert_eq!(decision.to_string(), "no rule allows publish on room:1");
}

#[test]
fn the_contracts_example_lets_members_into_their_own_tenants_rooms() {
    let policy = Policy::new(&config(json!([{
        "name": "members talk in their tenant's rooms",
        "channels": ["room:{tenant}:*"],
        "actions": ["subscribe", "publish"],
        "when": "claims.tenant == params.tenant && 'member' in claims.roles",
        "effect": "allow",
    }])));
    for (claims, name, expect) in [
        (
            r#"{"tenant":"acme","roles":["member"]}"#,
            "room:acme:1",
            true,
        ),
        (
            r#"{"tenant":"acme","roles":["member"]}"#,
            "room:acme:1:x",
            true,
        ),
        (
            r#"{"tenant":"acme","roles":["member"]}"#,
            "room:other:1",
            false,
        ),
        (
            r#"{"tenant":"acme","roles":["member"]}"#,
            "room:acme",
            false,
        ),
        (
            r#"{"tenant":"acme","roles":["member"]}"#,
            "room:acme:",
            false,
        ),
        (
            r#"{"tenant":"acme","roles":["guest"]}"#,
            "room:acme:1",
            false,
        ),
        (
            r#"{"tenant":"acme","roles":"member"}"#,
            "room:acme:1",
            false,
        ),
        (r#"{"tenant":"acme","roles":null}"#, "room:acme:1", false),
        (r#"{"tenant":"acme"}"#, "room:acme:1", false),
        (r#"{"roles":["member"]}"#, "room:acme:1", false),
        (
            r#"{"tenant":["acme"],"roles":["member"]}"#,
            "room:acme:1",
            false,
        ),
        ("{}", "room:acme:1", false),
    ] {
        let principal = principal(claims);
        for action in [Action::Subscribe, Action::Publish] {
            let decision = policy.decide(&principal, action, &channel(name));
            assert_eq!(decision.allowed, expect, "{claims} {action} {name}");
        }
    }
    let decision = publish(&policy, r#"{"tenant":"a","roles":["member"]}"#, "room:a:1");
    assert_eq!(
        decision.to_string(),
        r#"rule "members talk in their tenant's rooms" allows publish on room:a:1"#
    );
}

/// States of a rule in the truth table: absent, about another channel, or with a condition that is
/// missing, true, false, failing or not compiling.
const STATES: [(&str, Option<&str>); 7] = [
    ("absent", None),
    ("elsewhere", None),
    ("always", None),
    ("true", Some("claims.yes")),
    ("false", Some("!claims.yes")),
    ("failing", Some("claims.absent")),
    ("broken", Some("claims.")),
];

#[test]
fn every_combination_of_allow_deny_and_grant_decides_as_the_table_says() {
    for (allow, allow_when) in STATES {
        for (deny, deny_when) in STATES {
            for granted in [false, true] {
                for deny_first in [false, true] {
                    let mut rules = Vec::new();
                    for (state, effect, when) in
                        [(allow, "allow", allow_when), (deny, "deny", deny_when)]
                    {
                        let on = if state == "elsewhere" {
                            "other"
                        } else {
                            "room:1"
                        };
                        if state != "absent" {
                            rules.push(rule(effect, &[on], effect, when));
                        }
                    }
                    if deny_first {
                        rules.reverse();
                    }
                    let policy = Policy::new(&config(Value::Array(rules)));
                    let claims = json!({
                        "yes": true,
                        "curfew": {"publish": if granted { vec!["room:*"] } else { vec![] }},
                    });
                    let decision = publish(&policy, &claims.to_string(), "room:1");

                    let denied = matches!(deny, "always" | "true" | "failing" | "broken")
                        || allow == "broken";
                    let (rule, why) = match (deny, allow) {
                        ("always" | "true", _) => (Some("deny"), Why::Denied),
                        ("failing", _) => (Some("deny"), Why::ConditionFailed),
                        ("broken", _) => (Some("deny"), Why::DoesNotCompile),
                        (_, "broken") => (Some("allow"), Why::DoesNotCompile),
                        (_, "always" | "true") => (Some("allow"), Why::Allowed),
                        _ if granted => (Some(GRANT), Why::Granted),
                        _ => (None, Why::NoRule),
                    };
                    let case = format!("allow {allow}, deny {deny}, granted {granted}");
                    let expect = !denied && (granted || matches!(allow, "always" | "true"));
                    assert_eq!(decision.allowed, expect, "{case}");
                    // If both rules deny, the decision may name either rule.
                    if !(allow == "broken" && denied && deny != "absent") {
                        assert_eq!(decision.why, why, "{case}");
                        assert_eq!(decision.rule.as_deref(), rule, "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_rule_is_about_its_own_actions_only() {
    let policy = Policy::new(&config(json!([
        {"name": "listen", "channels": ["*"], "actions": ["subscribe"]},
        {"name": "quiet", "channels": ["quiet"], "actions": ["subscribe"], "effect": "deny"},
    ])));
    let alice = principal(r#"{"curfew":{"publish":["quiet"]}}"#);
    let subject = policy.subject(&alice);
    for (action, name, expect) in [
        (Action::Subscribe, "room", true),
        (Action::Publish, "room", false),
        (Action::Subscribe, "quiet", false),
        (Action::Publish, "quiet", true),
    ] {
        assert_eq!(
            subject.decide(action, &channel(name)).allowed,
            expect,
            "{action} {name}"
        );
    }
}

#[test]
fn patterns_of_a_rule_are_alternatives_each_with_its_own_captures() {
    let when = Some("has(params.a) ? params.a == 'x' : params.b == 'x'");
    let policy = Policy::new(&config(json!([
        rule("either", &["room:{a}:1", "room:{b}:*"], "allow", when),
        rule(
            "never",
            &["log:{a}:1", "log:1:{b}"],
            "deny",
            Some("params.b == 'x'")
        ),
        rule("logs", &["log:*"], "allow", None),
        rule(
            "second",
            &["top:{a}:1", "top:{b}:*"],
            "allow",
            Some("!has(params.a)")
        ),
    ])));
    for (name, expect) in [
        ("room:x:1", Why::Allowed),
        ("room:x:2", Why::Allowed),
        ("room:y:1", Why::NoRule),
        // The captures of the first pattern are discarded, because that pattern does not match.
        ("top:x:2", Why::Allowed),
        ("log:1:x", Why::Denied),
        ("log:1:y", Why::Allowed),
        // The first pattern captures no `b`, so the evaluation of the condition fails, and the rule
        // denies.
        ("log:1:1", Why::ConditionFailed),
    ] {
        assert_eq!(publish(&policy, "{}", name).why, expect, "{name}");
    }
}

#[test]
fn a_rule_that_does_not_compile_denies_where_its_good_patterns_match() {
    let broken = rule("broken", &["room:1", "room*"], "allow", None);
    let policy = Policy::new(&config(json!([
        rule("all", &["*"], "allow", None),
        broken,
        rule("nowhere", &["*:x"], "deny", None),
    ])));
    let decision = publish(&policy, "{}", "room:1");
    assert_eq!(decision.why, Why::DoesNotCompile);
    assert_eq!(
        decision.to_string(),
        r#"rule "broken" denies publish on room:1: the rule does not compile"#
    );
    for elsewhere in ["room:2", "room*", "a:x"] {
        assert!(publish(&policy, "{}", elsewhere).allowed, "{elsewhere}");
    }
}

#[test]
fn grants_are_read_from_the_configured_claim_or_not_at_all() {
    let claims = r#"{"curfew":{"publish":["a"]},"grants":{"publish":["b"]},"":{"publish":["*"]}}"#;
    for (claim, expect) in [
        ("curfew", [true, false]),
        ("grants", [false, true]),
        ("", [false, false]),
    ] {
        let policy = Policy::new(&PolicyConfig {
            grants_claim: claim.into(),
            ..PolicyConfig::default()
        });
        let allowed = ["a", "b"].map(|name| publish(&policy, claims, name).allowed);
        assert_eq!(allowed, expect, "{claim:?}");
    }
    let decision = publish(&Policy::new(&PolicyConfig::default()), claims, "a");
    assert_eq!(decision.rule.as_deref(), Some("grant"));
    assert_eq!(decision.to_string(), "the token grants publish on a");
}

#[test]
fn a_subject_is_judged_by_the_policy_it_was_made_of() {
    let none = Policy::new(&PolicyConfig::default());
    let all = Policy::new(&config(json!([rule("all", &["*"], "allow", None)])));
    let alice = principal("{}");
    let (before, after) = (none.subject(&alice), all.subject(&alice));
    let room = channel("room");
    assert!(!before.decide(Action::Publish, &room).allowed);
    assert!(after.decide(Action::Publish, &room).allowed);
    assert!(!none.decide(&alice, Action::Publish, &room).allowed);
    assert!(all.decide(&alice, Action::Publish, &room).allowed);
}

#[test]
fn an_explanation_lists_what_every_rule_said_in_the_order_of_the_configuration() {
    let policy = Policy::new(&config(json!([
        rule("all", &["*"], "allow", None),
        rule("elsewhere", &["log:*"], "deny", None),
        rule("blocked", &["*"], "deny", Some("claims.blocked")),
        rule("admins", &["*"], "allow", Some("claims.role == 'admin'")),
    ])));
    let claims = json!({"role": "canary", "curfew": {"publish": ["log:*"]}});
    let explanation = policy.explain(
        claims.as_object().unwrap(),
        "alice",
        Action::Publish,
        &channel("room:1"),
    );
    assert_eq!(
        serde_json::to_value(&explanation).unwrap(),
        json!({
            "allowed": false,
            "rule": "blocked",
            "why": "rule \"blocked\" denies publish on room:1: its condition failed",
            "considered": [
                {"rule": "all", "effect": "allow", "matched": true, "condition": null},
                {"rule": "elsewhere", "effect": "deny", "matched": false, "condition": null},
                {"rule": "blocked", "effect": "deny", "matched": true,
                 "condition": "no such key: blocked; check with has() that the key exists"},
                {"rule": "admins", "effect": "allow", "matched": true, "condition": false},
                {"rule": "grant", "effect": "allow", "matched": false, "condition": null},
            ],
        })
    );
}

#[test]
fn an_explanation_says_why_a_rule_does_not_compile() {
    let policy = Policy::new(&config(json!([rule(
        "x",
        &["*"],
        "allow",
        Some("now() > 1")
    )])));
    let explanation = policy.explain(&Map::new(), "alice", Action::Publish, &channel("a"));
    let Some(ConditionResult::Error(text)) = &explanation.considered[0].condition else {
        panic!("{explanation:?}");
    };
    assert!(
        text.starts_with("does not compile: unknown function"),
        "{text}"
    );
}

#[test]
fn a_failing_condition_is_logged_once_a_minute_and_without_claims() {
    let policy = Policy::new(&config(json!([
        rule("sizes", &["*"], "allow", Some("claims.secret + 1 == 2")),
        rule("keys", &["*"], "allow", Some("{'a': true}[claims.secret]")),
    ])));
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..20 {
            assert!(!publish(&policy, r#"{"secret":"canary"}"#, "room").allowed);
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("WARN") && text.contains("rule=sizes"),
        "{text}"
    );
    assert!(
        !text.contains("canary") && !text.contains("alice"),
        "{text}"
    );
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn debug_shows_no_claim_and_no_user() {
    let policy = Policy::new(&PolicyConfig::default());
    let text = format!(
        "{:?} {policy:?}",
        policy.subject(&principal(r#"{"a":"canary"}"#))
    );
    assert!(
        !text.contains("canary") && !text.contains("alice"),
        "{text}"
    );
}

/// Names made of the special characters of patterns, and a few others.
fn awkward_name() -> impl Strategy<Value = String> {
    "[ab_:.*{}/|+#-]{1,8}"
}

/// An independent implementation of matching: compares the segments as vectors.
fn matches_naively(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split(':').collect();
    let name: Vec<&str> = name.split(':').collect();
    if let Some((&"*", head)) = pattern.split_last() {
        return name.len() > head.len()
            && head
                .iter()
                .zip(&name)
                .all(|(part, segment)| takes(part, segment))
            && !name[head.len()..].join(":").is_empty();
    }
    pattern.len() == name.len()
        && pattern
            .iter()
            .zip(&name)
            .all(|(part, segment)| takes(part, segment))
}

fn takes(part: &str, segment: &str) -> bool {
    if part.starts_with('{') {
        !segment.is_empty()
    } else {
        part == segment
    }
}

proptest! {
    #[test]
    fn names_built_to_collide_are_each_decided_on_their_own(
        allowed in "[ab_:.-]{1,6}",
        denied in "[ab_:.-]{1,6}",
        names in prop::collection::vec(awkward_name(), 1..12),
    ) {
        let policy = Policy::new(&config(json!([
            rule("allow", &[&allowed], "allow", None),
            rule("deny", &[&denied], "deny", None),
        ])));
        let alice = principal("{}");
        let subject = policy.subject(&alice);
        for name in names.iter().chain([&allowed, &denied]) {
            let expect = *name == allowed && *name != denied;
            let channel = channel(name);
            prop_assert_eq!(subject.decide(Action::Publish, &channel).allowed, expect);
            prop_assert_eq!(policy.decide(&alice, Action::Publish, &channel).allowed, expect);
            prop_assert!(!subject.decide(Action::Subscribe, &channel).allowed);
        }
    }

    #[test]
    fn patterns_match_as_their_segments_do(
        parts in prop::collection::vec("a|b|a_b|\\{x\\}|\\{y\\}|", 1..4),
        rest in any::<bool>(),
        names in prop::collection::vec(awkward_name(), 1..12),
    ) {
        let mut pattern = parts.join(":");
        if rest {
            pattern.push_str(":*");
        }
        prop_assume!(curfew_model::pattern::check(&pattern).is_ok());
        let policy = Policy::new(&config(json!([rule("r", &[&pattern], "allow", None)])));
        for name in names {
            let decision = publish(&policy, "{}", &name);
            prop_assert_eq!(decision.allowed, matches_naively(&pattern, &name), "{} {}", pattern, name);
        }
    }

    #[test]
    fn an_explanation_agrees_with_the_decision(
        rules in prop::collection::vec(
            (any::<bool>(), 0..3_usize, prop::sample::select(STATES.to_vec())), 0..5),
        name in prop::sample::select(vec!["a", "a:b", "b", "a:b:c"]),
    ) {
        let rules = rules.into_iter().enumerate().map(|(at, (deny, pattern, (_, when)))| {
            let pattern = ["a", "a:{x}", "*"][pattern];
            rule(&at.to_string(), &[pattern], if deny { "deny" } else { "allow" }, when)
        });
        let policy = Policy::new(&config(rules.collect()));
        let claims = json!({"yes": true, "curfew": {"publish": ["b"]}});
        let decision = publish(&policy, &claims.to_string(), name);
        let explanation =
            policy.explain(claims.as_object().unwrap(), "alice", Action::Publish, &channel(name));
        prop_assert_eq!(explanation.allowed, decision.allowed);
        prop_assert_eq!(explanation.why, decision.to_string());
        prop_assert_eq!(explanation.rule.as_deref(), decision.rule.as_deref());
    }
}
