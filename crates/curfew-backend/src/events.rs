//! What a backend tells its node.

use curfew_model::{Disconnect, Publication, Revocation, RevocationKey, SessionId};

/// The node's side of a backend: called when something happened that concerns local sessions.
///
/// Every method is synchronous, never blocks and never calls back into the backend, so that a
/// backend may call it from wherever the news arrives: its connection's reader, or the publisher
/// itself. (A queue between the two would cost a wake-up per publication and could overflow.)
pub trait Events: Send + Sync + 'static {
    /// A publication arrived in a channel.
    fn publication(&self, publication: &Publication);

    /// A revocation was written. Ends every local session it names and covers; returns how many.
    /// When it returns, nothing more is delivered to or accepted from them.
    fn revoked(&self, key: &RevocationKey, revocation: &Revocation) -> usize;

    /// Somebody asked to end one session. Returns whether it lives on this node.
    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool;
}
