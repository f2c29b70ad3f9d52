//! The answer, with its reason.

use std::fmt;
use std::sync::Arc;

use curfew_model::{Action, Channel};

/// Whether something is allowed, and why. Displays as one sentence, made only when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that decided; [`GRANT`](crate::GRANT) when the token's own grants did, `None` when
    /// nothing allows it.
    pub rule: Option<Arc<str>>,
    /// What the rule did.
    pub why: Why,
    /// What was asked for.
    pub action: Action,
    /// Where.
    pub channel: Channel,
}

/// How a decision came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A rule allows it.
    Allowed,
    /// The token's own grants allow it.
    Granted,
    /// A rule denies it.
    Denied,
    /// A rule that denies has a condition that failed.
    ConditionFailed,
    /// A rule that does not compile denies what it is about.
    DoesNotCompile,
    /// Nothing allows it.
    NoRule,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action, channel, ..
        } = self;
        let rule = self.rule.as_deref().unwrap_or_default();
        match self.why {
            Why::Allowed => write!(f, "rule {rule:?} allows {action} on {channel}"),
            Why::Granted => write!(f, "the token grants {action} on {channel}"),
            Why::Denied => write!(f, "rule {rule:?} denies {action} on {channel}"),
            Why::ConditionFailed => write!(
                f,
                "rule {rule:?} denies {action} on {channel}: its condition failed"
            ),
            Why::DoesNotCompile => write!(
                f,
                "rule {rule:?} denies {action} on {channel}: it does not compile"
            ),
            Why::NoRule => write!(f, "no rule allows {action} on {channel}"),
        }
    }
}
