//! Limits log lines that a client or an outage would repeat. Each cause gets at most one line in an
//! interval, with the number of events that the line stands for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::boottime;

/// Interval between two log lines of one cause.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The counter of the events of one cause. `T` describes one event.
#[derive(Debug)]
pub struct Repeats<T = ()>(Mutex<State<T>>);

/// The events of a cause since the last log line of the cause.
#[derive(Debug)]
struct State<T> {
    /// The time of the last line, as [`boottime`].
    said_at: Option<Duration>,
    /// The number of events since the last line.
    unsaid: u64,
    /// The latest event that has no line.
    last: Option<T>,
}

impl<T> Default for Repeats<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            said_at: None,
            unsaid: 0,
            last: None,
        }))
    }
}

impl<T> State<T> {
    /// Takes the number of events for the next line, if a line is due.
    fn take(&mut self, now: Duration) -> Option<u64> {
        let is_due = |at| now.saturating_sub(at) >= REPEAT_INTERVAL;
        if self.unsaid == 0 || !self.said_at.is_none_or(is_due) {
            // No event has occurred since the last line, or the interval of the last line is not
            // over.
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl<T> Repeats<T> {
    /// Locks the state. It is consistent at any moment, so a poisoned lock is safe to use.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event. If a log line is due, returns the number of events that the line stands
    /// for, and this event.
    pub fn note_event(&self, event: T) -> Option<(u64, T)> {
        self.note_event_at(event, boottime())
    }

    /// Like [`Repeats::note_event`], at the given [`boottime`].
    pub fn note_event_at(&self, event: T, now: Duration) -> Option<(u64, T)> {
        let mut state = self.state();
        state.unsaid += 1;
        match state.take(now) {
            Some(times) => Some((times, event)),
            None => {
                state.last = Some(event);
                None
            }
        }
    }

    /// The number of events without a line, and the latest of these events, once the interval of
    /// the last line is over. Call this method about every second. Otherwise these events get a
    /// line only with the next event, which may never occur.
    pub fn rest(&self) -> Option<(u64, T)> {
        self.rest_at(boottime())
    }

    /// Like [`Repeats::rest`], at the given [`boottime`].
    pub fn rest_at(&self, now: Duration) -> Option<(u64, T)> {
        let mut state = self.state();
        let times = state.take(now)?;
        state.last.take().map(|last| (times, last))
    }
}

impl Repeats {
    /// Counts an event. If a log line is due, returns the number of events that the line stands
    /// for.
    pub fn note(&self) -> Option<u64> {
        self.note_event(()).map(|(times, ())| times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_of_at_once_and_then_once_in_an_interval_with_its_count() {
        let repeats = Repeats::default();
        let begin = Duration::from_secs(7);
        assert_eq!(repeats.note_event_at((), begin), Some((1, ())));
        for second in 0..59 {
            let at = begin + Duration::from_secs(second);
            assert_eq!(repeats.note_event_at((), at), None);
        }
        let end = begin + REPEAT_INTERVAL;
        assert_eq!(repeats.note_event_at((), end), Some((60, ())));
        assert_eq!(repeats.note_event_at((), end), None);
    }

    /// Regression: events within the interval of a line got no line if no event followed.
    #[test]
    fn what_was_not_told_is_told_at_the_end_of_the_interval() {
        let repeats = Repeats::default();
        let begin = Duration::from_secs(7);
        assert_eq!(repeats.rest_at(begin), None);
        assert_eq!(repeats.note_event_at("first", begin), Some((1, "first")));
        assert_eq!(repeats.note_event_at("second", begin), None);
        assert_eq!(repeats.note_event_at("third", begin), None);
        assert_eq!(repeats.rest_at(begin), None);
        let end = begin + REPEAT_INTERVAL;
        assert_eq!(repeats.rest_at(end), Some((2, "third")));
        assert_eq!(
            repeats.rest_at(end + REPEAT_INTERVAL),
            None,
            "events that were returned once are not returned again"
        );
        assert_eq!(repeats.note_event_at("fourth", end), None);
    }
}
