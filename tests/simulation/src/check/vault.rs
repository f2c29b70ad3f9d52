//! Checks of R1, R3 and R8 for subscriptions with a token of their own. A revocation of that token
//! ends the subscription.

use super::timeline::{Kind, Line, Timeline};
use super::{Check, Violation, number_of, shown};
use crate::client::{CHANNELS, VAULT};
use crate::node::LEASE;
use crate::record::{Ban, Target, Token};

impl Check<'_> {
    pub(super) fn vault(&self, found: &mut Vec<Violation>) {
        for timeline in self.lines.values() {
            if timeline.wire.vault_tokens.is_empty() {
                continue;
            }
            let mut held: Option<&Token> = None;
            for line in &timeline.lines {
                if let Some((promise, why)) = self.of_vault(timeline, line, &mut held) {
                    let (client, node) = (timeline.wire.client, timeline.wire.node);
                    let line_shown = line.shown();
                    found.push(Violation {
                        promise,
                        at: line.at,
                        what: format!("{why}: client {client} of process {node}: {line_shown}"),
                    });
                    break;
                }
            }
        }
    }

    /// Checks a frame. Returns the promise that the frame breaks, and the reason. `held` is the
    /// token of the subscription that the client has according to the frames so far.
    fn of_vault<'a>(
        &self,
        timeline: &Timeline<'a>,
        line: &Line<'_>,
        held: &mut Option<&'a Token>,
    ) -> Option<(&'static str, String)> {
        let begins = |word: &str| line.payload.starts_with(word.as_bytes());
        let vault = CHANNELS[VAULT];
        let asked = |line: &Line<'_>| timeline.wire.vault_tokens.get(&number_of(line.payload)?);
        if begins(r#"{"type":"ok""#) {
            let token = asked(line)?;
            *held = Some(token);
            let ban = self.ban_of(timeline, token, line, |from| token.sent_at > from)?;
            return Some(("R3", ban));
        }
        if begins(r#"{"type":"unsubscribed""#) {
            let Some(token) = held.take() else {
                return Some((
                    "vault",
                    "`unsubscribed` came without a subscription".to_owned(),
                ));
            };
            let revoked = line.shown().contains(r#""reason":"revoked""#);
            // A ban that was lifted or lost a moment ago counts too.
            let tokens = std::slice::from_ref(token);
            let named = |ban: &Ban| {
                let covers = self.in_force(ban, timeline, tokens, line.at).is_some();
                // As for sessions, a reload may have changed the kinds of revocation shortly before.
                covers || matches!(&ban.target, Target::Tenant(tenant) if *tenant == token.tenant)
            };
            let known = self.record.bans.iter().any(named);
            return (revoked && !known).then(|| {
                (
                    "R8",
                    "no revocation covers the token of the subscription".to_owned(),
                )
            });
        }
        if line.kind != Kind::Message
            || !begins(&format!(r#"{{"type":"message","channel":"{vault}""#))
        {
            return None;
        }
        let Some(token) = *held else {
            return Some(("vault", "a message came without a subscription".to_owned()));
        };
        let late = self.ban_of(timeline, token, line, |from| line.at > from + LEASE);
        let late = late.map(|ban| ("R1", ban));
        late.or_else(|| {
            let slow = |from| {
                self.promptly(timeline.wire.node, from)
                    .is_some_and(|by| line.at > by)
            };
            let ban = self.ban_of(timeline, token, line, slow)?;
            Some(("R1, promptly", ban))
        })
    }

    /// Describes a ban that covers `token` at the time of the frame, if `late` returns true for the
    /// time at which the ban began.
    fn ban_of(
        &self,
        timeline: &Timeline<'_>,
        token: &Token,
        line: &Line<'_>,
        late: impl Fn(std::time::Duration) -> bool,
    ) -> Option<String> {
        let tokens = std::slice::from_ref(token);
        let (from, ban) = self.covering(timeline, tokens, line.at, late)?;
        Some(format!(
            "its token is revoked at {from:?} by {}",
            shown(&ban.key)
        ))
    }
}
