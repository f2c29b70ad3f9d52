//! The cost of one decision of the policy: permission by a pattern, by a condition and by the
//! token's own grants, and a refusal.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use curfew_model::{Action, Channel, Claims, Principal, PrincipalParts};
use curfew_policy::{Policy, PolicyConfig, Rule};

const CLAIMS: &str = r#"{"sub":"alice","exp":2000000000,"tenant":"acme","roles":["guest","member"],
    "curfew":{"subscribe":["room:*"],"publish":["room:*"]}}"#;

fn rule(when: Option<&str>) -> Rule {
    Rule {
        name: "members talk in their tenant's rooms".to_owned(),
        channels: vec!["room:{tenant}:*".to_owned()],
        actions: vec![Action::Subscribe, Action::Publish],
        when: when.map(str::to_owned),
        ..Rule::default()
    }
}

fn decide(criterion: &mut Criterion) {
    let principal = Principal::new(PrincipalParts {
        user: "alice".into(),
        issuer: "main".into(),
        key_id: None,
        token_id: None,
        issued_at: None,
        expires_at: 2_000_000_000,
        leeway: Duration::ZERO,
        claims: Claims::from_json(CLAIMS),
    });
    let condition = "claims.tenant == params.tenant && 'member' in claims.roles";
    let mut group = criterion.benchmark_group("decide");
    for (name, rules, channel, allowed) in [
        ("pattern", vec![rule(None)], "room:acme:1", true),
        (
            "condition",
            vec![rule(Some(condition))],
            "room:acme:1",
            true,
        ),
        ("grant", vec![], "room:acme:1", true),
        ("nothing allows", vec![rule(None)], "other:acme:1", false),
    ] {
        let policy = Policy::new(&PolicyConfig {
            rules,
            ..PolicyConfig::default()
        });
        let channel = Channel::parse(channel).expect("the channel's name is valid");
        let decision = policy.decide(&principal, Action::Publish, &channel);
        assert_eq!(decision.allowed, allowed, "{decision}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| policy.decide(black_box(&principal), Action::Publish, &channel));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decide(&mut criterion);
    criterion.final_summary();
}
