//! A change of settings while the node runs, by which a session that is open already gets another
//! revocation key: `tenant` becomes a claim that can be revoked, say.
//!
//! By the old settings the revocation does not concern the session: no push finds it, no comparison
//! and no admission asks for the key. By the new ones it does. In between the node has to go over
//! every session it has, without a gap through which a revocation could slip, and must not hold a lease over
//! anything that it has not gone through.
//!
//! Searches that are not about this have none of it in their state.

use crate::message::Request;
use crate::node::{Node, Phase};
use crate::rules::Rules;
use crate::session::{Session, Stage};

/// A node's reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reload {
    /// The stage it has reached.
    pub progress: Progress,
    /// True when the comparison under way asks for the revocation's key.
    pub asks: bool,
    /// True when that comparison was begun after every session had been indexed.
    pub counts: bool,
    /// True when the node has confirmed to a receipt that no session of it is left that the
    /// revocation names.
    pub confirmed: bool,
}

/// The stages of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// The old settings are in force.
    Old,
    /// The new ones are.
    InForce,
    /// Every session is indexed by them.
    Indexed,
    /// Every session has been compared with Redis by them: the reload counts as successful.
    Compared,
}

impl Reload {
    /// The old settings are in force.
    pub(crate) fn old() -> Self {
        Self {
            progress: Progress::Old,
            asks: false,
            counts: false,
            confirmed: false,
        }
    }

    /// New settings have just come into force.
    pub(crate) fn begun(before: Option<Self>) -> Self {
        Self {
            progress: Progress::InForce,
            asks: false,
            counts: false,
            confirmed: before.is_some_and(|before| before.confirmed),
        }
    }

    /// True when the settings in force name the session by the revocation's key.
    pub(crate) fn names(self) -> bool {
        self.progress != Progress::Old
    }
}

impl Node {
    /// New settings come into force.
    pub(crate) fn reload(&mut self) {
        self.reload = Some(Reload::begun(self.reload));
    }

    /// True when sessions are to be indexed by the new settings now.
    pub(crate) fn may_index(&self, rules: &Rules) -> bool {
        let in_force = |reload: Reload| reload.progress == Progress::InForce;
        rules.index_before_comparing && self.reload.is_some_and(in_force)
    }

    /// Every session is indexed by the new settings.
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

    /// True when a comparison of every session by the new settings is due.
    pub(crate) fn is_comparison_due(&self, rules: &Rules) -> bool {
        let from = if rules.index_before_comparing {
            Progress::Indexed
        } else {
            Progress::InForce
        };
        self.reload.is_some_and(|reload| reload.progress == from)
    }

    /// It sends `request`, which may be a comparison: its keys are those that sessions are indexed
    /// by now.
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

    /// A comparison has been answered. Says whether it found the session revoked.
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

    /// True when it confirms to a receipt that no session is left which a revocation names.
    pub fn confirms(&self, rules: &Rules) -> bool {
        self.reload.is_none_or(|reload| match reload.progress {
            Progress::Old => !rules.confirm_known_kinds,
            Progress::InForce | Progress::Indexed => !rules.confirm_when_compared,
            Progress::Compared => true,
        })
    }

    /// A receipt's question has been answered: the revocation is there, or is not.
    pub(crate) fn confirm(&mut self, rules: &Rules) {
        let confirms = self.confirms(rules);
        if let Some(reload) = &mut self.reload {
            reload.confirmed |= confirms;
        }
    }

    /// True when a receipt's question may be asked of Redis.
    pub(crate) fn may_confirm(&self) -> bool {
        let asked = |reload: Reload| !reload.confirmed;
        self.phase == Phase::Synced && self.reload.is_some_and(asked)
    }

    /// True when an admission that begins now takes the revocation's key for one of its session's.
    pub(crate) fn names(&self) -> bool {
        self.reload.is_none_or(Reload::names)
    }

    /// A session comes, its token has been verified: its keys are those of the settings in force.
    pub(crate) fn verify(&mut self) {
        self.session.stage = Stage::Verified {
            named: self.names(),
        };
    }

    /// It is registered under its keys: A3.
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
