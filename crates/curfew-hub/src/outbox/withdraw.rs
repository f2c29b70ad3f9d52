//! Frames of a subscription that the server takes away.

use bytes::Bytes;
use curfew_model::Channel;

use super::Outbox;
use crate::Wire;

/// Facts about a frame in the normal lane, besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The frame is a notice that must not overtake normal frames.
    Notice,
    /// The frame is an answer that carries publications of this channel.
    Answer(Channel),
    /// The frame is written in part; the value is the whole frame.
    Begun(Bytes),
}

impl Mark {
    /// True for a frame of `channel` that cannot be taken back: the client waits for the frame, or
    /// has received a part of it.
    pub(super) fn is_out_of_reach(&self, channel: &Channel, wire: &Wire) -> bool {
        match self {
            Self::Notice => false,
            Self::Answer(of) => of == channel,
            Self::Begun(frame) => wire.is_of(frame, channel),
        }
    }
}

impl Outbox {
    /// For the session's task, at the end: true if its subscriptions must be decided anew before it
    /// writes.
    pub fn take_reconsider(&self) -> bool {
        std::mem::take(&mut self.state.lock().reconsider)
    }

    /// Drops the frames of a subscription that was taken away. The frames are recognized by their
    /// bytes, which `wire` has encoded. Returns the dropped bytes and frames. Returns `None` if one
    /// of the frames cannot be taken back: it is being written, or the client waits for it.
    pub(crate) fn withdraw(&self, channel: &Channel, wire: &Wire) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        if state.lanes.normal_bytes() < state.unwritten {
            // A write is in progress, with frames that are not in the lanes.
            return None;
        }
        let (bytes, frames) = state.lanes.withdraw(channel, wire)?;
        if frames > 0 {
            // Timed deliveries are found by their index in the queue, which has changed.
            state.arrivals.clear();
        }
        state.unwritten -= bytes;
        Some((bytes, frames))
    }
}
