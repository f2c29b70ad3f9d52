//! Authorization: decides if a principal may do something on a channel, and names the deciding
//! rule.
//!
//! Owns: the `[policy]` section of the configuration, conditions, the grants a token carries, and
//! their precedence. A rule that denies wins over rules and grants that allow. An action that no
//! rule and no grant allows is denied.
//! Knows nothing of: sessions, sockets, Redis, verification of tokens. No I/O; never awaits.
//! Start at [`Policy::decide`].
//!
//! ```
//! use std::time::Duration;
//! use curfew_model::{Action, Channel, Claims, Principal, PrincipalParts};
//! use curfew_policy::{PolicyConfig, Policy};
//!
//! let config: PolicyConfig = serde_json::from_str(r#"{"rules": [{
//!     "name": "tenants read their rooms",
//!     "channels": ["room:{tenant}:*"],
//!     "actions": ["subscribe"],
//!     "when": "claims.tenant == params.tenant",
//!     "effect": "allow"
//! }]}"#)?;
//! let alice = Principal::new(PrincipalParts {
//!     user: "alice".into(),
//!     issuer: "main".into(),
//!     key_id: None,
//!     token_id: None,
//!     issued_at: None,
//!     expires_at: 2_000_000_000,
//!     leeway: Duration::ZERO,
//!     claims: Claims::from_json(r#"{"tenant":"acme"}"#),
//! });
//! let policy = Policy::new(&config);
//! let ours = Channel::parse("room:acme:1")?;
//! let theirs = Channel::parse("room:other:1")?;
//! assert!(policy.decide(&alice, Action::Subscribe, &ours).allowed);
//! assert!(!policy.decide(&alice, Action::Subscribe, &theirs).allowed);
//! assert!(!policy.decide(&alice, Action::Publish, &ours).allowed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channels;
mod claims;
mod condition;
mod config;
mod decision;
mod explain;
mod grants;
mod policy;
mod report;
mod rules;

pub use channels::ChannelPatterns;
pub use config::{Effect, PolicyConfig, Rule};
pub use decision::{Decision, Why};
pub use explain::{ConditionResult, Considered, Explanation};
pub use policy::{Policy, PolicySubject};

/// The value of [`Decision::rule`] if the token's own grants decide. Rules must not use this name.
pub const GRANT: &str = "grant";
