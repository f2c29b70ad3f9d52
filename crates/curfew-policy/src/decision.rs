//! Decisions and their reasons.

use std::fmt;
use std::sync::Arc;

use curfew_model::{Action, Channel};

/// A decision with its reason. `Display` writes the decision as one sentence, which is composed
/// only on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// True if the action is allowed.
    pub allowed: bool,
    /// The rule that allows or denies the action; [`GRANT`](crate::GRANT) if the token's own grants
    /// allow it; `None` if neither a rule nor a grant decides.
    pub rule: Option<Arc<str>>,
    /// The reason.
    pub why: Why,
    /// The requested action.
    pub action: Action,
    /// The requested channel.
    pub channel: Channel,
}

/// Reason of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A rule allows the action.
    Allowed,
    /// The token's own grants allow the action.
    Granted,
    /// A rule denies the action.
    Denied,
    /// A rule denies the action, because the evaluation of the rule's condition failed.
    ConditionFailed,
    /// A rule denies the action, because the rule does not compile.
    DoesNotCompile,
    /// Neither a rule nor a grant allows the action.
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
                "rule {rule:?} denies {action} on {channel}: the rule does not compile"
            ),
            Why::NoRule => write!(f, "no rule allows {action} on {channel}"),
        }
    }
}
