//! The one session a node of the model has.

/// A session whose token was issued before the revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// Stage of its admission.
    pub stage: Stage,
    /// The node's generation when its keys were last read.
    pub generation: u64,
    /// True if a push or a reconciliation finds it.
    pub registered: bool,
    /// True if a step other than its admission has found it revoked.
    pub revoked: bool,
    /// True if it waits for the answer to a push.
    pub suspended: bool,
    /// True if its keys were read after the revocation was committed, and nothing was found.
    pub read_stale: bool,
}

/// Stage of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It has not begun.
    Absent,
    /// Its token has been verified; only where settings change, for then it matters by which.
    Verified {
        /// True when the revocation's key is one of its keys, by the settings of that moment.
        named: bool,
    },
    /// Registered, or about to be: A3.
    Pending,
    /// Its keys have been read and its record written: A6.
    Read {
        /// True if that denies it.
        denied: bool,
    },
    /// Delivered to: A7.
    Active,
    /// It has ended, and does not come back.
    Closed,
}

impl Session {
    /// One that has not come yet.
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

    /// One that was admitted in this generation.
    pub fn active(generation: u64) -> Self {
        Self {
            stage: Stage::Active,
            generation,
            registered: true,
            ..Self::absent()
        }
    }

    /// It was found revoked.
    pub(crate) fn revoke(&mut self) {
        self.revoked = true;
        if self.stage != Stage::Absent {
            self.stage = Stage::Closed;
        }
    }

    /// Forgets the keys its admission has read: they no longer say anything about the primary.
    pub(crate) fn forget_denial(&mut self) {
        if self.stage == (Stage::Read { denied: true }) {
            self.generation = 0;
        }
    }

    /// True if it, for its part, may be delivered to.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Active && !self.revoked && !self.suspended
    }
}
