//! Counts of sent frames, by kind.

use bytes::Bytes;

use crate::metrics::{HubMetrics, Opcode};

/// Numbers of frames by kind, taken from the opcode in their first byte (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    text: u64,
    binary: u64,
    close: u64,
    ping: u64,
    pong: u64,
}

impl FrameCounts {
    /// Counts a frame by the opcode in its first byte. The caller calls this before it removes
    /// written bytes from the frame.
    pub(crate) fn add(&mut self, frame: &Bytes) {
        *self.kind(frame) += 1;
    }

    /// Adds the counts of `other`.
    pub(crate) fn join(&mut self, other: Self) {
        self.text += other.text;
        self.binary += other.binary;
        self.close += other.close;
        self.ping += other.ping;
        self.pong += other.pong;
    }

    fn kind(&mut self, frame: &Bytes) -> &mut u64 {
        match frame.first().map(|byte| byte & 0x0f) {
            Some(0x2) => &mut self.binary,
            Some(0x8) => &mut self.close,
            Some(0x9) => &mut self.ping,
            Some(0xa) => &mut self.pong,
            _ => &mut self.text,
        }
    }

    /// Adds the counts to the metrics.
    pub fn count(self, metrics: &HubMetrics) {
        // Five comparisons replace a loop, because most counts are 0 and this code runs for each
        // session that is written to.
        let add = |opcode, count| {
            if count > 0 {
                metrics.frames_sent.inc_by(opcode, count);
            }
        };
        add(Opcode::Text, self.text);
        add(Opcode::Binary, self.binary);
        add(Opcode::Close, self.close);
        add(Opcode::Ping, self.ping);
        add(Opcode::Pong, self.pong);
    }
}
