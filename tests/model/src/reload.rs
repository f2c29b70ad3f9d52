//! A change of settings while the node runs. The change gives an open session another revocation
//! key: for example, `tenant` becomes a revocable claim.
//!
//! By the old settings the revocation does not cover the session: no push finds the session, and
//! neither a comparison nor an admission asks for the key. By the new settings the revocation
//! covers the session. After the change the node has to index and then compare every session, so
//! that no revocation is missed.
//!
//! Only some searches have a reload in their state.

use crate::message::Request;
use crate::node::{Node, Phase};
use crate::rules::Rules;
use crate::session::{Session, Stage};

/// A node's reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reload {
    /// The stage that the reload has reached.
    pub progress: Progress,
    /// True if the comparison under way asks for the revocation's key.
    pub asks: bool,
    /// True if the comparison under way was begun after every session had been indexed.
    pub counts: bool,
    /// True if the node has confirmed to a receipt that it has no session left that the
    /// revocation names.
    pub confirmed: bool,
}

/// The stages of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// The old settings are in force.
    Old,
    /// The new settings are in force.
    InForce,
    /// Every session is indexed by the new settings.
    Indexed,
    /// Every session was compared with Redis under the new settings. The reload now counts as
    /// successful.
    Compared,
}

impl Reload {
    /// The state before the reload, under the old settings.
    pub(crate) fn old() -> Self {
        Self {
            progress: Progress::Old,
            asks: false,
            counts: false,
            confirmed: false,
        }
    }

    /// The state just after new settings have come into force. `before` is the previous state.
    pub(crate) fn begun(before: Option<Self>) -> Self {
        Self {
            progress: Progress::InForce,
            asks: false,
            counts: false,
            confirmed: before.is_some_and(|before| before.confirmed),
        }
    }

    /// True if the settings in force give the session the revocation's key.
    pub(crate) fn names(self) -> bool {
        self.progress != Progress::Old
    }
}

impl Node {
    /// Puts the new settings in force.
    pub(crate) fn reload(&mut self) {
        self.reload = Some(Reload::begun(self.reload));
    }

    /// True if sessions may be indexed by the new settings now.
    pub(crate) fn may_index(&self, rules: &Rules) -> bool {
        let in_force = |reload: Reload| reload.progress == Progress::InForce;
        rules.index_before_comparing && self.reload.is_some_and(in_force)
    }

    /// Indexes every session by the new settings.
    pub(crate) fn index(&mut self, rules: &Rules) {
        self.session.index(rules);
        if let Some(reload) = &mut self.reload {
            reload.progress = if rules.compare_after_reload {
                Progress::Indexed
            } else {
                Progress::Compared
            };
        }
    }

    /// True if a comparison of every session by the new settings is due.
    pub(crate) fn is_comparison_due(&self, rules: &Rules) -> bool {
        let from = if rules.index_before_comparing {
            Progress::Indexed
        } else {
            Progress::InForce
        };
        self.reload.is_some_and(|reload| reload.progress == from)
    }

    /// Records that `request` is sent. If it is a comparison, it asks for the keys under which
    /// sessions are indexed at this moment. Without M32, [`Request::Compare`] always asks for the
    /// keys of the new settings.
    pub(crate) fn asks_by_index(&mut self, request: Request, rules: &Rules) {
        let due = self.is_comparison_due(rules);
        let indexed = self.session.registered;
        if let Some(reload) = &mut self.reload
            && matches!(request, Request::Reconcile | Request::Compare)
        {
            let by_settings = !rules.index_before_comparing && request == Request::Compare;
            reload.asks = indexed || by_settings;
            reload.counts = due;
        }
    }

    /// Handles the answer to a comparison. Returns true if the comparison found the session
    /// revoked.
    pub(crate) fn compared(&mut self, revoked: bool, rules: &Rules) -> bool {
        let Some(reload) = &mut self.reload else {
            return revoked;
        };
        let found = revoked && reload.asks;
        if reload.counts && reload.progress != Progress::Compared {
            reload.progress = Progress::Compared;
            if !rules.index_before_comparing {
                self.session.index(rules);
            }
        }
        found
    }

    /// True if the node may confirm to a receipt that it has no session left that the revocation
    /// names.
    pub fn confirms(&self, rules: &Rules) -> bool {
        self.reload.is_none_or(|reload| match reload.progress {
            Progress::Old => !rules.confirm_known_kinds,
            Progress::InForce | Progress::Indexed => !rules.confirm_when_compared,
            Progress::Compared => true,
        })
    }

    /// Handles the answer to [`Request::Confirm`], if Redis has the revocation's key: confirms the
    /// revocation to the receipt if the node may.
    pub(crate) fn confirm(&mut self, rules: &Rules) {
        let confirms = self.confirms(rules);
        if let Some(reload) = &mut self.reload {
            reload.confirmed |= confirms;
        }
    }

    /// True if the node may send [`Request::Confirm`].
    pub(crate) fn may_confirm(&self) -> bool {
        let asked = |reload: Reload| !reload.confirmed;
        self.phase == Phase::Synced && self.reload.is_some_and(asked)
    }

    /// True if an admission that begins now gives its session the revocation's key.
    pub(crate) fn names(&self) -> bool {
        self.reload.is_none_or(Reload::names)
    }

    /// Records that a session arrives with a verified token. The settings in force at this moment
    /// determine the session's keys.
    pub(crate) fn verify(&mut self) {
        self.session.stage = Stage::Verified {
            named: self.names(),
        };
    }

    /// Registers the session under its keys (A3).
    pub(crate) fn register(&mut self, rules: &Rules) {
        let named = match self.session.stage {
            Stage::Verified { named } if !rules.register_by_settings_in_force => named,
            _ => self.names(),
        };
        self.session.stage = Stage::Pending;
        self.session.generation = self.generation;
        self.session.registered = rules.register_first && named;
    }
}

impl Session {
    fn index(&mut self, rules: &Rules) {
        self.registered |= match self.stage {
            Stage::Active => rules.index_after_reload,
            Stage::Pending | Stage::Read { .. } => rules.index_after_reload && rules.index_pending,
            Stage::Absent | Stage::Verified { .. } | Stage::Closed => false,
        };
    }
}
