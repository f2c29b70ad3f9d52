//! Explanations of decisions for operators, rule by rule.

use curfew_model::{Action, Channel};
use schemars::JsonSchema;
use serde::Serialize;

use crate::GRANT;
use crate::claims::LazyClaims;
use crate::config::Effect;
use crate::grants;
use crate::rules::{Ruleset, Verdict};

/// The explanation of a decision. It shows names from the rules, the action and the channel, but no
/// value of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    /// True if the action is allowed.
    pub allowed: bool,
    /// The rule that allows or denies the action; `grant` if the token's own grants allow it; null
    /// if neither a rule nor a grant decides.
    pub rule: Option<String>,
    /// The reason, in one sentence.
    pub why: String,
    /// Every rule in the order of the configuration, then the token's grants if the token has any.
    pub considered: Vec<Considered>,
}

/// Result of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Considered {
    /// The rule's name.
    pub rule: String,
    /// The rule's configured effect.
    pub effect: Effect,
    /// True if the rule covers this action and this channel.
    pub matched: bool,
    /// The result of the condition: true, false, or the reason why its evaluation failed or the
    /// rule does not compile. Null if the rule did not match, or compiles and has no condition.
    pub condition: Option<ConditionResult>,
}

/// Result of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ConditionResult {
    /// True or false.
    Answer(bool),
    /// The reason why there is no result.
    Error(String),
}

impl Explanation {
    /// The explanation for a refused token, which allows nothing.
    pub fn refused(why: String) -> Self {
        Self {
            allowed: false,
            rule: None,
            why,
            considered: Vec::new(),
        }
    }
}

/// Evaluates every rule in the order of the configuration, and then the token's grants.
pub(crate) fn consider(
    rules: &Ruleset,
    claims: &LazyClaims<'_>,
    user: &str,
    action: Action,
    channel: &Channel,
) -> Vec<Considered> {
    let mut in_order: Vec<_> = rules.rules.iter().collect();
    in_order.sort_by_key(|rule| rule.position);
    let mut considered: Vec<_> = in_order
        .into_iter()
        .map(|rule| {
            let verdict = rule.judge(claims, user, action, channel);
            Considered {
                rule: rule.name.to_string(),
                effect: rule.effect,
                matched: verdict != Verdict::NoMatch,
                condition: match verdict {
                    Verdict::NoMatch | Verdict::Applies => None,
                    Verdict::Condition(answer) => Some(ConditionResult::Answer(answer)),
                    Verdict::Failed(error) => Some(ConditionResult::Error(error.to_string())),
                    Verdict::Broken => {
                        let problem = rule.problem().unwrap_or_default();
                        Some(ConditionResult::Error(format!(
                            "does not compile: {problem}"
                        )))
                    }
                },
            }
        })
        .collect();
    let claim = rules
        .grants_claim
        .as_deref()
        .and_then(|name| claims.json().get(name));
    if let Some(claim) = claim {
        considered.push(Considered {
            rule: GRANT.into(),
            effect: Effect::Allow,
            matched: grants::allow(claim, action, channel),
            condition: None,
        });
    }
    considered
}
