//! Log lines that a client or an outage would repeat: said once in an interval, with how often it was.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::boottime;

/// Between two lines of one cause.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// One cause of a log line.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The time of the last line, of [`boottime`].
    said_at: Option<Duration>,
    /// The number that came since.
    unsaid: u64,
}

impl Repeats {
    /// It happened once more. `Some` when a line is due, with the number of times it stands for.
    pub fn note(&self) -> Option<u64> {
        self.note_at(boottime())
    }

    /// As [`Repeats::note`], at a time of [`boottime`].
    pub fn note_at(&self, now: Duration) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid += 1;
        let is_due = |at| now.saturating_sub(at) >= REPEAT_INTERVAL;
        if !state.said_at.is_none_or(is_due) {
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_of_at_once_and_then_once_in_an_interval_with_its_count() {
        let repeats = Repeats::default();
        let begin = Duration::from_secs(7);
        assert_eq!(repeats.note_at(begin), Some(1));
        for second in 0..59 {
            assert_eq!(repeats.note_at(begin + Duration::from_secs(second)), None);
        }
        assert_eq!(repeats.note_at(begin + REPEAT_INTERVAL), Some(60));
        assert_eq!(repeats.note_at(begin + REPEAT_INTERVAL), None);
    }
}
