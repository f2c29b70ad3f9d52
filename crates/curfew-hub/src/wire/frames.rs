//! The frames of one push, encoded once for each wire.

use bytes::Bytes;

use crate::{Hub, Wire, WireId};

/// The frames of a push, one per wire, encoded on first use. A wire whose protocol cannot carry the
/// push has `None`.
pub(crate) struct Frames<'a, F> {
    hub: &'a Hub,
    encode: F,
    /// The first wire that has a frame, with that frame. It is stored apart, because most channels
    /// have listeners of one wire only.
    first: Option<(WireId, Bytes)>,
    others: Vec<(WireId, Option<Bytes>)>,
}

impl<'a, F: Fn(&Wire) -> Option<Bytes>> Frames<'a, F> {
    /// `encode` returns the frame of the push on one wire.
    pub(crate) fn new(hub: &'a Hub, encode: F) -> Self {
        Self {
            hub,
            encode,
            first: None,
            others: Vec::new(),
        }
    }

    /// The frame on this wire.
    #[inline]
    pub(crate) fn of(&mut self, wire: WireId) -> Option<Bytes> {
        match &self.first {
            Some((id, frame)) if *id == wire => Some(frame.clone()),
            _ => self.of_another(wire),
        }
    }

    /// The frame on a wire that `first` does not hold.
    #[cold]
    fn of_another(&mut self, wire: WireId) -> Option<Bytes> {
        if let Some((_, frame)) = self.others.iter().find(|(id, _)| *id == wire) {
            return frame.clone();
        }
        let frame = (self.encode)(self.hub.wires.get(wire));
        match &frame {
            Some(told) if self.first.is_none() => self.first = Some((wire, told.clone())),
            _ => self.others.push((wire, frame.clone())),
        }
        frame
    }
}
