//! The server ends a subscription after a revocation, a gap or a change of the settings, or when
//! the subscription's token expires.

use std::sync::Arc;

use curfew_hub::DropReason;
use curfew_model::{Action, Channel, Disconnect, ErrorCode, Push};
use tracing::debug;

use crate::commands::subscribe::allows;
use crate::metrics::LostSubscription;
use crate::open::{SessionState, Subscription};
use crate::run::End;

impl SessionState {
    /// Ends the subscriptions whose tokens have expired.
    pub(crate) fn end_subscriptions(&mut self) {
        let now = self.context.node.clock().now();
        self.take_away(|_, subscription| {
            let grant = subscription.grant.as_ref();
            grant
                .is_some_and(|grant| grant.ends_at() <= now)
                .then_some(LostSubscription::Expired)
        });
        self.schedule_subscriptions();
    }

    /// Ends the subscriptions whose tokens a revocation covers. In a protocol where a gap ends a
    /// subscription, also removes the subscriptions that the hub has ended after a gap. If the
    /// server made one of those subscriptions, removes none of them and returns `Some`, which ends
    /// the session: only a new connection can resume a subscription that the server made.
    pub(crate) fn drop_lost(&mut self) -> Option<End> {
        self.drop_revoked();
        if !self.wire().rules().gap_ends_subscription {
            return None;
        }
        let live = self.live.as_mut()?;
        let member = Arc::clone(live.attachment.member());
        let node = &self.context.node;
        let is_lost = |channel: &Channel| !node.hub().listens(channel, &member);
        let lost = live
            .subscriptions
            .iter()
            .filter(|(channel, _)| is_lost(channel));
        let lost: Vec<_> = lost
            .map(|(channel, subscription)| (channel.clone(), subscription.by_server))
            .collect();
        if lost.iter().any(|(_, by_server)| *by_server) {
            return Some(Disconnect::INSUFFICIENT_STATE.into());
        }
        for (channel, _) in &lost {
            live.subscriptions.remove(channel);
            node.unsubscribe(channel, &member);
        }
        for (channel, _) in &lost {
            self.push(&Push::Gap {
                channel,
                position: None,
            });
        }
        None
    }

    /// Ends the subscriptions whose tokens a revocation covers. The hub has already ended delivery
    /// to the subscriptions that existed when the revocation arrived. A subscription that began
    /// later is found only here.
    fn drop_revoked(&mut self) {
        let Some(live) = &self.live else { return };
        let member = Arc::clone(live.attachment.member());
        self.take_away(|channel, subscription| {
            subscription.grant.as_ref()?;
            let disconnect = member.withdrawn(channel)?;
            Some(match disconnect == Disconnect::REAUTH_REQUIRED {
                true => LostSubscription::ReauthRequired,
                false => LostSubscription::Revoked,
            })
        });
    }

    /// Asks the policy again about every subscription, and discards the cached decisions on whether
    /// the client may publish. The caller calls this after the claims, the policy or the channels'
    /// settings have changed.
    pub(crate) fn reconsider(&mut self) {
        let Some(live) = &mut self.live else { return };
        if live.subscriptions.is_empty() {
            return;
        }
        for subscription in live.subscriptions.values_mut() {
            subscription.publish = None;
        }
        let principal = live.attachment.member().principal();
        let context = Arc::clone(&self.context);
        let settings = context.settings.load();
        let subject = settings.policy.subject(&principal);
        let carries_bytes = self.wire().rules().carries_bytes;
        self.take_away(|channel, subscription| {
            let decision = subject.decide(Action::Subscribe, channel);
            context.count_decision(&decision);
            let grants = subscription.grant.is_some() && settings.subscription_tokens;
            if !allows(&decision, grants) {
                return Some(LostSubscription::Forbidden);
            }
            let is_carried = carries_bytes || !settings.channels.of(channel).is_binary;
            (!is_carried).then_some(LostSubscription::NotAvailable)
        });
    }

    /// Ends the subscriptions for which `why` returns a reason, and tells the client.
    fn take_away(
        &mut self,
        mut why: impl FnMut(&Channel, &Subscription) -> Option<LostSubscription>,
    ) {
        let Some(live) = &mut self.live else { return };
        let member = Arc::clone(live.attachment.member());
        let lost = live.subscriptions.iter();
        let lost = lost.filter_map(|(channel, subscription)| {
            why(channel, subscription).map(|reason| (channel.clone(), reason))
        });
        let lost: Vec<_> = lost.collect();
        for (channel, reason) in &lost {
            let ended = live.subscriptions.remove(channel);
            let node = &self.context.node;
            // No waiting frame of the channel may be written any more.
            node.hub().withdraw(channel, &member, reason.dropped());
            node.unsubscribe(channel, &member);
            // Dropping the subscription's token also discards queued frames, but counts them under
            // `DropReason::Closed`. The token is therefore dropped after `withdraw` has discarded
            // the frames.
            drop(ended);
        }
        for (channel, reason) in &lost {
            self.tell_lost(channel, *reason);
        }
    }

    /// Notifies the client that the server has ended or refused a subscription, and counts the
    /// reason.
    pub(crate) fn tell_lost(&mut self, channel: &Channel, reason: LostSubscription) {
        let code = reason.code();
        let session = self.session_id();
        debug!(session, channel = %channel, reason = code.as_str(), "the server ended a subscription");
        self.context.metrics().subscriptions_lost.inc(reason);
        self.push(&Push::Unsubscribed {
            channel,
            reason: code,
        });
    }
}

impl LostSubscription {
    /// The reason that the client receives.
    fn code(self) -> ErrorCode {
        match self {
            Self::Forbidden => ErrorCode::Forbidden,
            Self::Expired => ErrorCode::Expired,
            Self::Revoked => ErrorCode::Revoked,
            Self::ReauthRequired => ErrorCode::ReauthRequired,
            Self::NotAvailable => ErrorCode::NotAvailable,
        }
    }

    /// The reason under which the dropped frames of the channel are counted.
    fn dropped(self) -> DropReason {
        match self {
            Self::Forbidden | Self::NotAvailable => DropReason::Forbidden,
            Self::Expired => DropReason::Expired,
            Self::Revoked | Self::ReauthRequired => DropReason::Revoked,
        }
    }
}
