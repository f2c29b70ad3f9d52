//! Tokens of subscriptions. A revocation finds the session by the keys of such a token as well, but
//! ends only the subscription that the token belongs to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use curfew_model::{Channel, Disconnect, Principal, Revocation, RevocationKey};

use super::Member;
use crate::index::Index;

/// The token of a subscription.
#[derive(Debug)]
pub(super) struct Bound {
    channel: Channel,
    pub(super) principal: Arc<Principal>,
    /// The disconnect of the revocation that covers the token; `None` if no revocation covers it.
    revoked: Option<Disconnect>,
}

impl Member {
    /// Registers the session in the index under the keys of a subscription's token as well. Returns
    /// those keys.
    pub(crate) fn bind(
        self: &Arc<Self>,
        index: &Index,
        channel: &Channel,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        let mut principals = self.principals.lock();
        let keys = self.add_keys(index, &principals, &principal);
        principals.bound.get_or_insert_default().push(Bound {
            channel: channel.clone(),
            principal,
            revoked: None,
        });
        self.is_bound.store(true, Ordering::Relaxed);
        keys
    }

    /// Removes a token of a subscription and its keys. Returns true if no other token is bound to
    /// the channel.
    pub(crate) fn unbind(
        &self,
        index: &Index,
        channel: &Channel,
        principal: &Arc<Principal>,
    ) -> bool {
        let mut principals = self.principals.lock();
        let Some(bound) = &mut principals.bound else {
            return true;
        };
        let is_it = |one: &Bound| one.channel == *channel && Arc::ptr_eq(&one.principal, principal);
        if let Some(at) = bound.iter().position(is_it) {
            bound.swap_remove(at);
        }
        let is_last = bound.iter().all(|other| other.channel != *channel);
        if bound.is_empty() {
            principals.bound = None;
            self.is_bound.store(false, Ordering::Relaxed);
        }
        self.remove_keys(index, &principals, principal);
        is_last
    }

    /// The disconnect of the revocation that covers a token of the subscription to `channel`;
    /// `None` if no revocation covers such a token.
    pub fn withdrawn(&self, channel: &Channel) -> Option<Disconnect> {
        let principals = self.principals.lock();
        let mut bound = principals.bound.iter().flat_map(|bound| bound.iter());
        bound.find_map(|one| one.revoked.filter(|_| one.channel == *channel))
    }

    /// Marks each subscription's token as revoked if `revoked` returns a disconnect for it. Returns
    /// the channels of the newly marked tokens.
    pub(crate) fn withdraw(
        &self,
        revoked: impl Fn(&Principal) -> Option<Disconnect>,
    ) -> Vec<Channel> {
        let mut channels = Vec::new();
        if !self.is_bound.load(Ordering::Relaxed) {
            return channels;
        }
        let mut principals = self.principals.lock();
        let bound = principals.bound.iter_mut();
        for one in bound.flat_map(|bound| bound.iter_mut()) {
            if one.revoked.is_none() {
                one.revoked = revoked(&one.principal);
                channels.extend(one.revoked.map(|_| one.channel.clone()));
            }
        }
        channels
    }

    /// True if a revocation of `key` covers the token of any subscription of the session.
    pub(crate) fn has_covered_subscription(
        &self,
        key: &RevocationKey,
        revocation: &Revocation,
    ) -> bool {
        let principals = self.principals.lock();
        let mut bound = principals.bound.iter().flat_map(|bound| bound.iter());
        bound.any(|one| self.covered_by(&one.principal, key, revocation).is_some())
    }
}
