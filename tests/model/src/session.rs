//! The only session of a node in the model.

/// A session whose token was issued before the revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The stage of the session's admission.
    pub stage: Stage,
    /// The node's generation when the session's keys were last read.
    pub generation: u64,
    /// True if a push or a reconciliation finds the session.
    pub registered: bool,
    /// True if the session was found revoked by a step other than its own admission.
    pub revoked: bool,
    /// True if nothing is delivered to the session until a pushed key has been read.
    pub suspended: bool,
    /// True if the session's keys were read after the revocation was committed, and the revocation
    /// was not found.
    pub read_stale: bool,
}

/// Stage of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The admission has not begun.
    Absent,
    /// The token has been verified. Only searches with changing settings have this stage, because
    /// the settings at the time of the verification matter.
    Verified {
        /// True if the session has the revocation's key by the settings at the time of the
        /// verification.
        named: bool,
    },
    /// The session is registered, or is about to be registered (A3).
    Pending,
    /// The session's keys have been read, and its record has been written (A6).
    Read {
        /// True if the session must be denied: its keys are revoked, Redis refused to write its
        /// record, or (V7) the node knows of the revocation.
        denied: bool,
    },
    /// The session is active, so the node delivers to it (A7).
    Active,
    /// The session has ended, for good.
    Closed,
}

impl Session {
    /// A session that has not arrived yet.
    pub fn absent() -> Self {
        Self {
            stage: Stage::Absent,
            generation: 0,
            registered: false,
            revoked: false,
            suspended: false,
            read_stale: false,
        }
    }

    /// A session that was admitted in this generation.
    pub fn active(generation: u64) -> Self {
        Self {
            stage: Stage::Active,
            generation,
            registered: true,
            ..Self::absent()
        }
    }

    /// Ends the session, because it was found revoked.
    pub(crate) fn revoke(&mut self) {
        self.revoked = true;
        if self.stage != Stage::Absent {
            self.stage = Stage::Closed;
        }
    }

    /// If the admission has read a denial, voids the generation of that read, so that the node does
    /// not take the denial for a known revocation. The data of the primary may have changed since.
    pub(crate) fn forget_denial(&mut self) {
        if self.stage == (Stage::Read { denied: true }) {
            self.generation = 0;
        }
    }

    /// True if the session's own state allows delivery.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Active && !self.revoked && !self.suspended
    }
}
