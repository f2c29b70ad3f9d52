//! What every rule said, for people.

use curfew_model::{Action, Channel};
use schemars::JsonSchema;
use serde::Serialize;

use crate::GRANT;
use crate::claims::LazyClaims;
use crate::config::Effect;
use crate::grants;
use crate::rules::{Ruleset, Verdict};

/// A decision explained. Shows names from the rules and what they are about, no claim's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that decides; `grant` for the token's own grants, null when nothing allows it.
    pub rule: Option<String>,
    /// The reason, in one sentence.
    pub why: String,
    /// Every rule in the order of the configuration, then the token's grants if it carries any.
    pub considered: Vec<Considered>,
}

/// What one rule said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Considered {
    /// The rule's name.
    pub rule: String,
    /// What it does when it applies.
    pub effect: Effect,
    /// Whether it is about this action and this channel.
    pub matched: bool,
    /// What its condition said: true, false, or why it failed or does not compile. Null when the
    /// rule has none or did not match.
    pub condition: Option<ConditionResult>,
}

/// What a condition said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ConditionResult {
    /// Its answer.
    Answer(bool),
    /// Why it has none.
    Error(String),
}

impl Explanation {
    /// Nothing is allowed because there is nobody to allow it to: the token is refused.
    pub fn refused(why: String) -> Self {
        Self {
            allowed: false,
            rule: None,
            why,
            considered: Vec::new(),
        }
    }
}

/// Asks every rule.
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
