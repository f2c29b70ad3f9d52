//! The policy: the rules in force. A reload replaces it as a whole. Every command on a channel asks
//! it for a decision.

use std::fmt;
use std::sync::Arc;

use curfew_model::{Action, Channel, Principal};
use serde_json::{Map, Value};

use crate::claims::LazyClaims;
use crate::config::PolicyConfig;
use crate::decision::{Decision, Why};
use crate::explain::{self, Explanation};
use crate::grants;
use crate::rules::{Ruleset, Verdict};

/// Decides on actions. Denies unless a rule or a grant in the token allows the action. A rule that
/// denies wins over every rule and grant that allows. Decisions are synchronous.
pub struct Policy {
    rules: Ruleset,
}

/// A principal, bound to the rules that were in force when this value was made. All its decisions
/// share one parse of the claims, and a reload in between has no effect. Make a new `PolicySubject`
/// for each batch of decisions.
pub struct PolicySubject<'a> {
    rules: &'a Ruleset,
    user: &'a str,
    claims: LazyClaims<'a>,
}

impl Policy {
    /// Compiles the rules. Never fails: a rule that does not compile is logged, and denies its
    /// actions on every channel that one of its valid patterns matches. [`PolicyConfig::check`]
    /// reports such rules beforehand.
    pub fn new(config: &PolicyConfig) -> Self {
        Self {
            rules: Ruleset::compile(config),
        }
    }

    /// Decides if `principal` may do `action` on `channel`. Use [`Policy::subject`] for several
    /// decisions.
    pub fn decide(&self, principal: &Principal, action: Action, channel: &Channel) -> Decision {
        self.subject(principal).decide(action, channel)
    }

    /// Binds `principal` to these rules.
    pub fn subject<'a>(&'a self, principal: &'a Principal) -> PolicySubject<'a> {
        PolicySubject {
            rules: &self.rules,
            user: principal.user(),
            claims: LazyClaims::from_text(principal.claims()),
        }
    }

    /// Explains the decision for a user with these `claims`, with the result of every rule.
    /// Evaluates all rules and logs nothing.
    pub fn explain(
        &self,
        claims: &Map<String, Value>,
        user: &str,
        action: Action,
        channel: &Channel,
    ) -> Explanation {
        let subject = PolicySubject {
            rules: &self.rules,
            user,
            claims: LazyClaims::from_parsed(claims),
        };
        let decision = subject.ask(action, channel, false);
        Explanation {
            allowed: decision.allowed,
            rule: decision.rule.as_deref().map(str::to_owned),
            why: decision.to_string(),
            considered: explain::consider(subject.rules, &subject.claims, user, action, channel),
        }
    }
}

impl PolicySubject<'_> {
    /// Decides if the principal may do `action` on `channel`. Decisions are not cached. A rule
    /// whose patterns do not match costs no evaluation.
    pub fn decide(&self, action: Action, channel: &Channel) -> Decision {
        self.ask(action, channel, true)
    }

    fn ask(&self, action: Action, channel: &Channel, report: bool) -> Decision {
        let decision = |rule: Option<&Arc<str>>, why| Decision {
            allowed: matches!(why, Why::Allowed | Why::Granted),
            rule: rule.cloned(),
            why,
            action,
            channel: channel.clone(),
        };
        for rule in &self.rules.rules {
            let verdict = rule.judge(&self.claims, self.user, action, channel);
            if let (Verdict::Failed(error), true) = (&verdict, report) {
                rule.report(error);
            }
            let why = match (verdict, rule.denies()) {
                (Verdict::Applies | Verdict::Condition(true), true) => Why::Denied,
                (Verdict::Applies | Verdict::Condition(true), false) => Why::Allowed,
                (Verdict::Failed(_), true) => Why::ConditionFailed,
                (Verdict::Broken, _) => Why::DoesNotCompile,
                (Verdict::NoMatch | Verdict::Condition(false), _) | (Verdict::Failed(_), false) => {
                    continue;
                }
            };
            return decision(Some(&rule.name), why);
        }
        let granted = self
            .rules
            .grants_claim
            .as_deref()
            .and_then(|claim| self.claims.json().get(claim))
            .is_some_and(|claim| grants::allow(claim, action, channel));
        if granted {
            return decision(Some(&self.rules.grant), Why::Granted);
        }
        decision(None, Why::NoRule)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("rules", &self.rules.rules.len())
            .finish()
    }
}

impl fmt::Debug for PolicySubject<'_> {
    /// Omits the user and the claims, so that neither reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySubject").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
