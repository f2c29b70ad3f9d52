//! A publication that contains the time at which it was sent.

use std::time::{Duration, Instant};

use crate::dialect::Dialect;
use crate::wire::{self, opcode};

/// Text before the time in a publication's data.
const MARK: &[u8] = b"{\"t\":\"";

/// Number of digits of the time, which is in nanoseconds since the run began.
const DIGITS: usize = 16;

/// Size of the smallest publication, which has no padding.
pub(crate) const MIN_BYTES: usize = 31;

/// A frame that publishes JSON of a fixed size. It is made once and sent many times.
#[derive(Debug)]
pub(crate) struct Publication {
    frame: Vec<u8>,
    time_at: usize,
}

impl Publication {
    pub(crate) fn new(dialect: Dialect, channel: &str, bytes: usize) -> Self {
        let padding = "x".repeat(bytes.saturating_sub(MIN_BYTES));
        let data = format!(r#"{{"t":"{:0DIGITS$}","p":"{padding}"}}"#, 0);
        let command = dialect.publish(channel, &data);
        let mut frame = Vec::new();
        let head = wire::put_frame(opcode::TEXT, command.as_bytes(), &mut frame);
        let time_at = head + command.len() - dialect.tail().len() - data.len() + MARK.len();
        Self { frame, time_at }
    }

    /// The frame with the current time.
    pub(crate) fn stamped(&mut self, began: Instant) -> &[u8] {
        self.stamped_at(began.elapsed())
    }

    /// The frame with the time `at` at which the publication was due, counted from the start of the
    /// run. The latency then includes the delay of a publisher that could not send in time, so
    /// there is no coordinated omission.
    pub(crate) fn stamped_at(&mut self, at: Duration) -> &[u8] {
        let mut nanos = at.as_nanos();
        for digit in self.frame[self.time_at..self.time_at + DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + (nanos % 10) as u8;
            nanos /= 10;
        }
        &self.frame
    }
}

/// Time since a message's publication was sent; `None` for a foreign message.
pub(crate) fn age(message: &[u8], began: Instant) -> Option<Duration> {
    let at = message
        .windows(MARK.len())
        .position(|window| window == MARK)?
        + MARK.len();
    let digits = message.get(at..at + DIGITS)?;
    let nanos = digits.iter().try_fold(0_u64, |nanos, digit| {
        digit
            .is_ascii_digit()
            .then(|| nanos * 10 + u64::from(digit - b'0'))
    })?;
    Some(began.elapsed().saturating_sub(Duration::from_nanos(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_has_the_size_asked_for_and_says_when_it_was_sent() {
        for bytes in [MIN_BYTES, 64, 1000] {
            let mut publication = Publication::new(Dialect::Curfew, "bench:0", bytes);
            let began = Instant::now();
            let sent = publication.stamped(began).to_vec();
            let (frame, taken) = wire_unmasked(&sent);
            assert_eq!(taken, sent.len());
            let command: serde_json::Value = serde_json::from_slice(&frame).unwrap();
            assert_eq!(
                (&command["type"], &command["channel"]),
                (&"publish".into(), &"bench:0".into())
            );
            let data = frame
                .windows(MARK.len())
                .position(|window| window == MARK)
                .unwrap();
            assert_eq!(frame.len() - 1 - data, bytes);
            let age = age(&frame, began).unwrap();
            assert!(age <= began.elapsed(), "{age:?}");
        }
        assert_eq!(age(b"{\"type\":\"message\"}", Instant::now()), None);
    }

    /// The payload of a client's frame whose masking key is zero, and the length of the frame.
    fn wire_unmasked(frame: &[u8]) -> (Vec<u8>, usize) {
        let head = match frame[1] & 0x7f {
            126 => 8,
            _ => 6,
        };
        (frame[head..].to_vec(), frame.len())
    }
}
