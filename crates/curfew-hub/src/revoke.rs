//! Revocations: the sessions that a key names, and the subscriptions whose own tokens it names.

use std::sync::Arc;

use curfew_model::{Channel, Disconnect, Principal, Revocation, RevocationKey};

use crate::metrics::DropReason;
use crate::{Ending, Hub, Member, Suspension};

/// The sessions and subscriptions that a revocation has ended.
#[derive(Debug, Default)]
pub struct Revoked {
    /// The sessions.
    pub sessions: Vec<Arc<Member>>,
    /// The number of those sessions that were still opening.
    pub unopened: usize,
    /// The number of subscriptions of other sessions.
    pub subscriptions: usize,
}

impl Hub {
    /// Ends every session that the revocation names and covers, and every subscription with a token
    /// of its own that it names and covers.
    ///
    /// Nothing is queued for them after this returns. Nothing is delivered to a session that [has
    /// left](Member::has_left). A session whose subscription ends lives on, unless frames of that
    /// subscription are out of reach in its queue: then it ends, and its client comes back.
    pub fn revoke(&self, key: &RevocationKey, revocation: &Revocation) -> Revoked {
        let mut revoked = Revoked::default();
        for member in self.named(key) {
            match member.covered(key, revocation) {
                // Its subscriptions end with it.
                Some(disconnect) => {
                    let was_open = member.is_open();
                    if self.end(&member, Ending::new(disconnect)) {
                        revoked.unopened += usize::from(!was_open);
                        revoked.sessions.push(member);
                    }
                }
                None => {
                    revoked.subscriptions += self.revoke_subscriptions(&member, |principal| {
                        member.covered_by(principal, key, revocation)
                    });
                }
            }
        }
        revoked
    }

    /// Ends the subscriptions of a session whose own tokens `revoked` has a disconnect for. Returns
    /// their number.
    pub fn revoke_subscriptions(
        &self,
        member: &Arc<Member>,
        revoked: impl Fn(&Principal) -> Option<Disconnect>,
    ) -> usize {
        let channels = member.withdraw(revoked);
        for channel in &channels {
            self.withdraw(channel, member, DropReason::Revoked);
            member.outbox().reconsider();
        }
        channels.len()
    }

    /// Sessions that the revocation names and covers, themselves or in a subscription, that a
    /// revocation has ended already, and that have not left yet.
    pub fn leaving(&self, key: &RevocationKey, revocation: &Revocation) -> Vec<Arc<Member>> {
        let mut named = self.named(key);
        named.retain(|member| match member.outbox().ending() {
            Some(ending) if ending.is_revocation() => member.covered(key, revocation).is_some(),
            Some(ending) if ending.disconnect == Disconnect::INSUFFICIENT_STATE => {
                member.has_covered_subscription(key, revocation)
            }
            _ => false,
        });
        named
    }

    /// Holds back the sessions that `key` names, with all of their subscriptions. Returns `None` if
    /// it names no session.
    pub fn suspend(&self, key: &RevocationKey) -> Option<Suspension> {
        let mut named = self.named(key);
        named.retain(|member| member.is_named_by(key));
        (!named.is_empty()).then(|| Suspension::new(named))
    }

    /// The sessions that `key` names, and perhaps some that it does not. A session of which several
    /// tokens are named may be there several times.
    fn named(&self, key: &RevocationKey) -> Vec<Arc<Member>> {
        match key.kind() {
            "all" | "anonymous" => self.members(),
            "session" => match key.plain_value().map(str::parse) {
                Some(Ok(id)) => self.get(id).into_iter().collect(),
                Some(Err(_)) => Vec::new(),
                // The key holds only the digest of the id. Such keys are rare, so every session is
                // compared; an index by digest would cost memory for every session.
                None => {
                    let mut members = self.members();
                    members.retain(|member| key.names(&member.session().to_string()));
                    members
                }
            },
            _ => self.index.find(key),
        }
    }

    /// Begins a subscription with a token of its own: revocations find the session by its keys as
    /// well. Returns those keys.
    pub fn bind(
        &self,
        member: &Arc<Member>,
        channel: &Channel,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        member.bind(&self.index, channel, principal)
    }

    /// Removes the keys of such a token. With the last one of a channel, frames of the channel that
    /// wait are dropped: no revocation would find them any more.
    pub fn unbind(&self, member: &Member, channel: &Channel, principal: &Arc<Principal>) {
        if member.unbind(&self.index, channel, principal) {
            self.drop_waiting(channel, member, DropReason::Closed);
        }
    }

    /// Takes a channel away from a session: it listens no more, and no frame of the channel waits
    /// for it. Its task is to tell the client. The session ends if such a frame is out of reach in
    /// its queue; then its client comes back.
    pub fn withdraw(&self, channel: &Channel, member: &Member, reason: DropReason) {
        self.channels.remove(channel, member);
        self.end_telling(channel, member);
        if !self.drop_waiting(channel, member, reason) {
            self.end(member, Ending::new(Disconnect::INSUFFICIENT_STATE));
        }
    }

    /// Drops the frames of a channel that wait for a session, and counts them. Returns false, and
    /// drops nothing, if one of them is out of reach.
    fn drop_waiting(&self, channel: &Channel, member: &Member, reason: DropReason) -> bool {
        let wire = self.wires.get(member.wire());
        let dropped = member.outbox().withdraw(channel, wire);
        if let Some((bytes, frames)) = dropped {
            self.give_back(bytes);
            let counted = &self.metrics().messages_dropped;
            counted.inc_by(reason, frames as u64);
        }
        dropped.is_some()
    }
}
