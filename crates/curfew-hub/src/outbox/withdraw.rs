//! Withdrawal of queued frames, after the server has taken a subscription away.

use bytes::Bytes;
use curfew_model::Channel;

use super::Outbox;
use crate::Wire;

/// A fact about a frame in the normal lane that the frame's bytes do not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The frame is a notice that must not overtake the frames before it.
    Notice,
    /// The frame is an answer that contains publications of the channel.
    Answer(Channel),
    /// The frame is written in part. The complete frame is stored here.
    Begun(Bytes),
}

impl Mark {
    /// True if the frame belongs to `channel` and cannot be dropped, because the client waits for
    /// the answer or already has a part of the frame.
    pub(super) fn is_out_of_reach(&self, channel: &Channel, wire: &Wire) -> bool {
        match self {
            Self::Notice => false,
            Self::Answer(of) => of == channel,
            Self::Begun(frame) => wire.is_of(frame, channel),
        }
    }
}

impl Outbox {
    /// For the session's task, while the session ends: true if the task must authorize the
    /// subscriptions again before it writes. The call also clears this request.
    pub fn take_reconsider(&self) -> bool {
        std::mem::take(&mut self.state.lock().reconsider)
    }

    /// Drops the queued frames of a subscription that was taken away. `wire` is the encoding of the
    /// queued frames, and recognizes the frames of the channel. Returns the dropped bytes and
    /// frames; `None` if a frame cannot be dropped, because it is being written or the client waits
    /// for it.
    pub(crate) fn withdraw(&self, channel: &Channel, wire: &Wire) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        if state.lanes.normal_bytes() < state.unwritten {
            // A write is in progress, and has taken frames out of the lanes.
            return None;
        }
        let (bytes, frames) = state.lanes.withdraw(channel, wire)?;
        if frames > 0 {
            // The timing of deliveries counts the frames in the queue, and their number has
            // changed.
            state.arrivals.clear();
        }
        state.unwritten -= bytes;
        Some((bytes, frames))
    }
}
