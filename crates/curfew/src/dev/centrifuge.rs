//! `curfew dev --centrifuge`: the settings that the published test suites of Centrifuge's SDKs
//! assume. The suites send tokens that never expire and are signed with a short and well-known
//! secret, or they send no token.

use std::time::Duration;

use curfew_model::{Action, Secret};
use curfew_node::{ChannelConfig, HistoryConfig, JoinLeave};
use curfew_policy::{Effect, Rule};

use crate::config::Config;

/// The secret with which the suites sign tokens.
pub(super) const SECRET: &str = "secret";

/// The warning that the log and the printed text show: it lists the checks that such a node omits.
pub(super) const WARNING: &str = "--centrifuge is only for test suites: everyone can sign tokens, because their secret is public, tokens need no exp, and clients need no token";

/// The channels whose history is too short for some recoveries.
const SMALL_HISTORY: &str = "smallhistory:*";

/// The history of the channels in [`SMALL_HISTORY`].
const SMALL: HistoryConfig = HistoryConfig {
    size: 2,
    ttl: Duration::from_secs(300),
};

/// Channels on which the suites expect every action to be refused.
const UNKNOWN: &str = "test:*";

/// Changes the configuration of `curfew dev` to the one that the suites assume.
pub(super) fn apply(config: &mut Config) {
    for issuer in &mut config.auth.issuers {
        issuer.secret = Some(Secret::new(SECRET));
    }
    config.auth.development = true;
    config.centrifuge.personal_channels = true;
    config.auth.anonymous = true;
    // A suite connects often, and from one address.
    config.limits.anonymous_per_address = 0;
    let refused = Rule {
        name: "the suites have no such channels".to_owned(),
        channels: vec![UNKNOWN.to_owned()],
        actions: vec![
            Action::Subscribe,
            Action::Publish,
            Action::History,
            Action::Presence,
        ],
        effect: Effect::Deny,
        ..Rule::default()
    };
    config.policy.rules.insert(0, refused);
    let small = ChannelConfig {
        pattern: SMALL_HISTORY.to_owned(),
        history: Some(SMALL),
        ..ChannelConfig::default()
    };
    for channels in &mut config.channels {
        channels.join_leave = JoinLeave::All;
        channels.delta = true;
    }
    config.channels.insert(0, small);
}
