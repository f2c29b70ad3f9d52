//! Revocations: the sessions that a key names, and the subscriptions whose own tokens the key
//! names.

use std::sync::Arc;

use curfew_model::{Channel, Disconnect, Principal, Revocation, RevocationKey};

use crate::metrics::DropReason;
use crate::{Ending, Hub, Member, Suspension};

/// The sessions and subscriptions that a revocation has ended.
#[derive(Debug, Default)]
pub struct Revoked {
    /// The sessions.
    pub sessions: Vec<Arc<Member>>,
    /// The number of `sessions` that were still opening.
    pub unopened: usize,
    /// The number of ended subscriptions of other sessions.
    pub subscriptions: usize,
}

impl Hub {
    /// Ends every session whose token `key` names and `revocation` covers. Also ends every
    /// subscription whose own token `key` names and `revocation` covers.
    ///
    /// After the call returns, nothing is queued for the ended sessions and subscriptions. Nothing
    /// is delivered to a session that [has left](Member::has_left). A session whose subscription
    /// ends stays open, unless frames of that subscription can no longer be removed from its queue:
    /// then the session ends, and its client reconnects.
    pub fn revoke(&self, key: &RevocationKey, revocation: &Revocation) -> Revoked {
        let mut revoked = Revoked::default();
        for member in self.named(key) {
            match member.covered(key, revocation) {
                // The session's subscriptions end with the session.
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

    /// Calls `revoked` with each token that belongs to a subscription of the session, and ends the
    /// subscription if the result is a disconnect. Returns the number of subscriptions that ended.
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

    /// Sessions that a revocation has told to end and that have not left yet. A session is returned
    /// only if `key` names its own token or the token of one of its subscriptions, and `revocation`
    /// covers that token.
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
    /// `key` names no session.
    pub fn suspend(&self, key: &RevocationKey) -> Option<Suspension> {
        let mut named = self.named(key);
        named.retain(|member| member.is_named_by(key));
        (!named.is_empty()).then(|| Suspension::new(named))
    }

    /// The sessions that `key` names, and perhaps other sessions. A session with several named
    /// tokens may be listed several times.
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

    /// Begins a subscription with a token of its own: revocations find the session by the keys of
    /// that token as well. Returns those keys.
    pub fn bind(
        &self,
        member: &Arc<Member>,
        channel: &Channel,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        member.bind(&self.index, channel, principal)
    }

    /// Removes a subscription's token and its keys. If the session has no other token for the
    /// channel, the waiting frames of the channel are dropped, because no revocation would drop
    /// them any more.
    pub fn unbind(&self, member: &Member, channel: &Channel, principal: &Arc<Principal>) {
        if member.unbind(&self.index, channel, principal) {
            self.drop_waiting(channel, member, DropReason::Closed);
        }
    }

    /// Takes a channel away from a session: the session no longer listens to the channel, and the
    /// waiting frames of the channel are dropped. The session's task notifies the client. If a
    /// frame of the channel can no longer be dropped, the session ends, and its client reconnects.
    pub fn withdraw(&self, channel: &Channel, member: &Member, reason: DropReason) {
        // The listener is removed first, so that no frame is queued after the waiting frames are
        // dropped.
        self.channels.remove(channel, member);
        self.end_telling(channel, member);
        if !self.drop_waiting(channel, member, reason) {
            self.end(member, Ending::new(Disconnect::INSUFFICIENT_STATE));
        }
    }

    /// Drops the frames of a channel that wait for a session, and counts them. Returns false, and
    /// drops nothing, if one of these frames can no longer be dropped.
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
