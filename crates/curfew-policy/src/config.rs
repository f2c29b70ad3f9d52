//! The `[policy]` section and its checks.

use std::collections::HashSet;

use curfew_model::{Action, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::GRANT;
use crate::condition::Condition;
use curfew_model::pattern::Pattern;

/// Permissions for the actions on channels. Without a rule or a grant, everything is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// The claim in which a token carries its own grants,
    /// `{"subscribe":["room:*"],"publish":["room:1"]}`. Default `curfew`; empty: grants in tokens
    /// are not read.
    pub grants_claim: String,
    /// The rules. A rule that denies wins over every rule and grant that allows, so the order of
    /// the rules does not matter. Default: none, which denies everything without a grant.
    pub rules: Vec<Rule>,
}

/// One rule of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The rule's unique name in decisions and in the log. Required; `grant` is reserved.
    pub name: String,
    /// The rule's channels, as patterns: `{x}` captures one segment, a last `*` takes the rest (at
    /// least one byte), `*` alone matches every channel. Required; one matching pattern is enough.
    pub channels: Vec<String>,
    /// The rule's actions, at least one. `history` reads the stored publications of a channel, and
    /// `presence` the sessions that are subscribed to it. Required.
    pub actions: Vec<Action>,
    /// A CEL expression over `claims`, `params` (the captures of the pattern), `channel`, `user`
    /// and `action` that must be true for the rule to apply. At most 2048 bytes, without `all`,
    /// `exists`, `exists_one`, `map` and `filter`. If the evaluation fails, because a claim is
    /// missing or the claims are too large, a rule that allows does not apply, and a rule that
    /// denies applies. Default: none, the rule always applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The rule's effect: `allow` or `deny`. Default `allow`.
    pub effect: Effect,
}

/// Effect of a rule that applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Allows, unless another rule denies.
    #[default]
    Allow,
    /// Denies, even if another rule or a grant allows.
    Deny,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            grants_claim: "curfew".into(),
            rules: Vec::new(),
        }
    }
}

impl PolicyConfig {
    /// Reports every problem with its key and its remedy.
    pub fn check(&self, problems: &mut Problems) {
        let mut names = HashSet::new();
        for (at, rule) in self.rules.iter().enumerate() {
            problems.within(format!("rules[{at}]"), |problems| {
                if rule.name == GRANT {
                    problems.report(
                        "name",
                        "\"grant\" stands for the token's own grants; choose another name",
                    );
                } else if rule.name.trim().is_empty() {
                    problems.report(
                        "name",
                        "give the rule a name; decisions and the log refer to it",
                    );
                } else if !names.insert(rule.name.as_str()) {
                    problems.report(
                        "name",
                        format!(
                            "another rule is named {:?}; names must be unique",
                            rule.name
                        ),
                    );
                }
                rule.check(problems);
            });
        }
    }
}

impl Rule {
    fn check(&self, problems: &mut Problems) {
        if self.channels.is_empty() {
            problems.report(
                "channels",
                "name at least one channel pattern; * matches every channel",
            );
        }
        let mut patterns = Vec::with_capacity(self.channels.len());
        for (at, channel) in self.channels.iter().enumerate() {
            match Pattern::parse(channel) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => problems.report(&format!("channels[{at}]"), error.to_string()),
            }
        }
        if self.actions.is_empty() {
            problems.report(
                "actions",
                "name at least one of subscribe, publish, history and presence",
            );
        }
        let condition = match self.when.as_deref().map(Condition::compile) {
            None => return,
            Some(Ok(condition)) => condition,
            Some(Err(error)) => return problems.report("when", error.to_string()),
        };
        // The check of `params` is skipped, because the pattern that captures a name may be one of
        // the bad patterns.
        if patterns.len() < self.channels.len() {
            return;
        }
        for name in condition.params() {
            if !patterns.iter().any(|pattern| pattern.captures(name)) {
                problems.report(
                    "when",
                    format!("no channel pattern of the rule captures params.{name}; write {{{name}}} in a pattern"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &PolicyConfig) -> Vec<String> {
        let mut problems = Problems::new();
        problems.within("policy", |problems| config.check(problems));
        problems
            .into_vec()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn config(json: &str) -> PolicyConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_default_reads_grants_from_the_claim_curfew_and_has_no_rules() {
        assert_eq!(config("{}"), PolicyConfig::default());
        assert_eq!(PolicyConfig::default().grants_claim, "curfew");
        assert_eq!(problems(&PolicyConfig::default()), [""; 0]);
    }

    #[test]
    fn the_contracts_example_is_right() {
        let config = config(
            r#"{"rules":[{"name":"members talk in their tenant's rooms",
                "channels":["room:{tenant}:*"],"actions":["subscribe","publish"],
                "when":"claims.tenant == params.tenant && 'member' in claims.roles",
                "effect":"allow"}]}"#,
        );
        assert_eq!(problems(&config), [""; 0]);
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key() {
        let long = format!("'{}' == user", "x".repeat(2048));
        let config = config(&format!(
            r#"{{"rules":[
                {{}},
                {{"name":"a","channels":["foo*","ok","*:x"],"actions":["publish"],"when":"claims."}},
                {{"name":"a","channels":["{{x}}"],"actions":["publish"],"when":"claims.roles.exists(r, r == 'a')"}},
                {{"name":"grant","channels":["*"],"actions":["publish"],"when":"{long}"}},
                {{"name":"typo","channels":["room:{{id}}"],"actions":["publish"],"when":"params.di == clams.id"}},
                {{"name":"uncaptured","channels":["room:{{id}}"],"actions":["publish"],"when":"params.di == user"}}
            ]}}"#
        ));
        let found = problems(&config);
        let expect = [
            "policy.rules[0].name: give the rule a name",
            "policy.rules[0].channels: name at least one",
            "policy.rules[0].actions: name at least one",
            "policy.rules[1].channels[0]: * must be a whole segment in \"foo*\"",
            "policy.rules[1].channels[2]: * matches the rest of the name, so it must be the last segment; {x} matches",
            "policy.rules[1].when: line 1, column ",
            "policy.rules[2].name: another rule is named \"a\"",
            "policy.rules[2].when: all, exists, exists_one, map and filter are not allowed",
            "policy.rules[3].name: \"grant\" stands for",
            "policy.rules[3].when: the expression has 2058 bytes; at most 2048",
            "policy.rules[4].when: unknown variable \"clams\"",
            "policy.rules[5].when: no channel pattern of the rule captures params.di",
        ];
        assert_eq!(found.len(), expect.len(), "{found:#?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found}");
        }
    }

    #[test]
    fn unknown_keys_actions_and_effects_are_refused() {
        for json in [
            r#"{"rule":[]}"#,
            r#"{"rules":[{"channel":["*"]}]}"#,
            r#"{"rules":[{"actions":["connect"]}]}"#,
            r#"{"rules":[{"effect":"Deny"}]}"#,
        ] {
            assert!(
                serde_json::from_str::<PolicyConfig>(json).is_err(),
                "{json}"
            );
        }
    }
}
