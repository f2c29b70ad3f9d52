//! Gaps: publications that sessions may have missed.

/// The cause of a gap. In a gap, publications of a channel did not reach the channel's subscribers
/// on a node, or may not have reached these subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The node lost the connection that receives the channel's publications.
    LinkLost,
    /// The node held no delivery lease and delivered nothing.
    NoLease,
    /// A publication exceeds the maximum size that a node reads.
    TooLarge,
    /// A publication is malformed.
    Malformed,
    /// The channel's stream has begun another epoch.
    Epoch,
    /// The channel's stream no longer has the missing publications.
    Trimmed,
    /// The channel's stream could not be read in time.
    Unread,
    /// A publication has no position in its channel's stream: the node that published it has other
    /// settings.
    Unplaced,
}

impl GapReason {
    /// Every reason, in the order of [`GapReason::index`].
    pub const ALL: [Self; 8] = [
        Self::LinkLost,
        Self::NoLease,
        Self::TooLarge,
        Self::Malformed,
        Self::Epoch,
        Self::Trimmed,
        Self::Unread,
        Self::Unplaced,
    ];

    /// The reason's index in [`GapReason::ALL`].
    pub fn index(self) -> u8 {
        self as u8
    }

    /// The reason with this index; `None` if no reason has it.
    pub fn at(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_at_its_place() {
        for reason in GapReason::ALL {
            assert_eq!(GapReason::at(reason.index()), Some(reason));
        }
        assert_eq!(GapReason::at(8), None);
    }
}
