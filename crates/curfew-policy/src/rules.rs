//! Compiled rules: an immutable set, and the evaluation of one rule.

use std::sync::Arc;
use std::time::Instant;

use curfew_model::{Action, Channel};
use tracing::{error, warn};

use crate::GRANT;
use crate::claims::LazyClaims;
use crate::condition::{Condition, EvaluationError, Inputs};
use crate::config::{self, Effect, PolicyConfig};
use crate::report::Limiter;
use curfew_model::pattern::Pattern;

/// The compiled policy: everything that a decision needs.
#[derive(Debug)]
pub(crate) struct Ruleset {
    /// The rules. Rules that deny come first, because the first rule that applies decides.
    pub(crate) rules: Vec<Rule>,
    /// The claim with a token's grants; `None` if grants in tokens are ignored.
    pub(crate) grants_claim: Option<Box<str>>,
    /// [`GRANT`], allocated once.
    pub(crate) grant: Arc<str>,
}

/// One compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    /// The rule's index in the configuration.
    pub(crate) position: usize,
    /// The configured effect. A rule that does not compile denies in spite of it: see
    /// [`Rule::denies`].
    pub(crate) effect: Effect,
    actions: Vec<Action>,
    patterns: Vec<Pattern>,
    when: When,
    failures: Limiter,
}

/// Condition of a rule.
#[derive(Debug)]
enum When {
    Always,
    If(Condition),
    /// The rule does not compile, for this reason.
    Broken(String),
}

/// Result of one rule for one action and channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The rule does not cover this action or this channel.
    NoMatch,
    /// The rule has no condition and applies.
    Applies,
    /// The condition is true or false.
    Condition(bool),
    /// The evaluation of the condition failed.
    Failed(EvaluationError),
    /// The rule does not compile.
    Broken,
}

impl Ruleset {
    /// Compiles the rules. A rule that does not compile is logged, and denies its actions on every
    /// channel that one of its valid patterns matches.
    pub(crate) fn compile(config: &PolicyConfig) -> Self {
        let mut rules: Vec<Rule> = config
            .rules
            .iter()
            .enumerate()
            .map(|(position, rule)| Rule::compile(rule, position))
            .collect();
        rules.sort_by_key(|rule| !rule.denies());
        Self {
            rules,
            grants_claim: Some(config.grants_claim.as_str())
                .filter(|claim| !claim.is_empty())
                .map(Into::into),
            grant: GRANT.into(),
        }
    }
}

impl Rule {
    fn compile(rule: &config::Rule, position: usize) -> Self {
        let mut problem = None;
        let mut patterns = Vec::with_capacity(rule.channels.len());
        for channel in &rule.channels {
            match Pattern::parse(channel) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => problem = Some(error.to_string()),
            }
        }
        let condition = match rule.when.as_deref().map(Condition::compile).transpose() {
            Ok(condition) => condition,
            Err(error) => {
                problem = Some(error.to_string());
                None
            }
        };
        let when = match (problem, condition) {
            (Some(problem), _) => {
                error!(
                    rule = rule.name,
                    problem,
                    "policy rule does not compile, so it denies every action that it matches"
                );
                When::Broken(problem)
            }
            (None, Some(condition)) => When::If(condition),
            (None, None) => When::Always,
        };
        Self {
            name: rule.name.as_str().into(),
            position,
            effect: rule.effect,
            actions: rule.actions.clone(),
            patterns,
            when,
            failures: Limiter::new(Instant::now()),
        }
    }

    /// Returns true if the rule can only deny, by its effect or because it does not compile.
    pub(crate) fn denies(&self) -> bool {
        self.effect == Effect::Deny || self.problem().is_some()
    }

    /// The reason why the rule does not compile; `None` if it compiles.
    pub(crate) fn problem(&self) -> Option<&str> {
        match &self.when {
            When::Broken(problem) => Some(problem),
            When::Always | When::If(_) => None,
        }
    }

    /// Evaluates the rule. The condition is evaluated for each pattern that matches, until one
    /// evaluation is true. If no evaluation is true, a failed evaluation takes precedence over a
    /// false one.
    pub(crate) fn judge(
        &self,
        claims: &LazyClaims<'_>,
        user: &str,
        action: Action,
        channel: &Channel,
    ) -> Verdict {
        if !self.actions.contains(&action) {
            return Verdict::NoMatch;
        }
        let name = channel.as_str();
        let condition = match &self.when {
            When::If(condition) => condition,
            _ if !self.patterns.iter().any(|it| it.matches(name, |_, _| {})) => {
                return Verdict::NoMatch;
            }
            When::Always => return Verdict::Applies,
            When::Broken(_) => return Verdict::Broken,
        };
        let mut verdict = Verdict::NoMatch;
        let mut params = Vec::new();
        for pattern in &self.patterns {
            params.clear();
            if !pattern.matches(name, |name, segment| params.push((name, segment))) {
                continue;
            }
            let inputs = Inputs {
                claims,
                params: &params,
                user,
                action,
                channel,
            };
            match condition.evaluate(&inputs) {
                Ok(true) => return Verdict::Condition(true),
                Err(error) => verdict = Verdict::Failed(error),
                Ok(false) if verdict == Verdict::NoMatch => verdict = Verdict::Condition(false),
                Ok(false) => {}
            }
        }
        verdict
    }

    /// Logs that the evaluation of the condition failed, at most once a minute.
    pub(crate) fn report(&self, error: &EvaluationError) {
        if self.failures.permits(Instant::now()) {
            warn!(rule = %self.name, %error, "condition of a policy rule failed");
        }
    }
}
