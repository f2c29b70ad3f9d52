//! Frames of a subscription whose token is revoked.

use curfew_model::Channel;

use super::Outbox;

/// The special treatment of a frame in the normal lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A notice that waits in the normal lane, so that it does not overtake normal frames.
    Notice,
    /// A frame of a channel whose subscription has a token of its own.
    Of(Channel),
    /// The reply to such a subscription, with the publications that the client missed.
    Answer(Channel),
}

impl Mark {
    /// The mark of a subscription's reply, if the subscription's other frames have this mark.
    pub(crate) fn of_answer(self) -> Self {
        match self {
            Self::Of(channel) => Self::Answer(channel),
            other => other,
        }
    }

    /// True for a frame that is sent only while the subscription to `channel` lasts.
    pub(super) fn is_of(&self, channel: &Channel) -> bool {
        match self {
            Self::Notice => false,
            Self::Of(of) | Self::Answer(of) => of == channel,
        }
    }
}

impl Outbox {
    /// Drops the frames of a withdrawn subscription. Returns the dropped bytes and frames; `None`
    /// if one of them must stay: it is being written, or it is the reply that the client waits for.
    pub(crate) fn withdraw(&self, channel: &Channel) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        if state.lanes.normal_bytes() < state.unwritten {
            // A write is in progress, with frames that are not in the lanes.
            return None;
        }
        let (bytes, frames) = state.lanes.withdraw(channel)?;
        if frames > 0 {
            // Timed deliveries are found by their index in the queue, which has changed.
            state.arrivals.clear();
        }
        state.unwritten -= bytes;
        Some((bytes, frames))
    }
}
