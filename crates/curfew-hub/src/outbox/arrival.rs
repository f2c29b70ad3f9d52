//! Timing of publications on their way through a session's queue.

use std::sync::Arc;
use std::time::Instant;

use curfew_telemetry::Writes;

/// Maximum number of traced publications that are followed through one session's queue behind the
/// oldest timed publication. The writes of further traced publications are not counted.
const MAX_FOLLOWED: usize = 16;

/// A publication timed on its way to one session.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The time at which the publication reached this node.
    pub(crate) at: Instant,
    /// The record of the publication's writes to sockets, if the publication is traced.
    pub(crate) writes: Option<Arc<Writes>>,
    /// The number of messages in the write that takes the publication, including the publication; 0
    /// before that write.
    pub(crate) messages: u32,
    /// The number of those messages that are not written yet.
    left: u32,
    /// True if the delivery's time enters the metrics.
    pub(crate) is_observed: bool,
}

impl Arrival {
    /// Starts timing a publication that has just reached this node.
    pub(crate) fn now(writes: Option<Arc<Writes>>) -> Self {
        Self {
            at: Instant::now(),
            writes,
            messages: 0,
            left: 0,
            is_observed: true,
        }
    }

    /// Notes that a write has taken this publication, as one of `messages` messages. Only the first
    /// call has an effect.
    fn taken(&mut self, messages: u32) {
        if self.messages == 0 {
            self.messages = messages;
            self.left = messages;
        }
    }

    /// Notes that `messages` messages were written. Returns true once the write that took this
    /// publication has written all of its messages.
    fn is_written(&mut self, messages: u32) -> bool {
        self.left = self.left.saturating_sub(messages);
        self.messages > 0 && self.left == 0
    }
}

/// The timed publications in one session's queue, in order. The queue nearly always holds none.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Option<Box<Queued>>);

#[derive(Debug)]
struct Queued {
    /// The oldest timed publication.
    first: Arrival,
    /// Traced publications behind `first`.
    more: Vec<Arrival>,
}

impl Arrivals {
    /// Starts timing the frame just queued. An untraced frame is skipped while an older frame is
    /// timed.
    #[cold]
    pub(super) fn add(&mut self, arrival: &Arrival) {
        match &mut self.0 {
            None => {
                self.0 = Some(Box::new(Queued {
                    first: arrival.clone(),
                    more: Vec::new(),
                }));
            }
            Some(queued) if arrival.writes.is_some() && queued.more.len() < MAX_FOLLOWED => {
                queued.more.push(Arrival {
                    // One sample of each session at a time is enough for the metrics.
                    is_observed: false,
                    ..arrival.clone()
                });
            }
            Some(_) => {}
        }
    }

    /// Notes that a write takes all queued messages.
    pub(super) fn taken(&mut self, messages: usize) {
        let Some(queued) = &mut self.0 else { return };
        let messages = count(messages);
        queued.first.taken(messages);
        for arrival in &mut queued.more {
            arrival.taken(messages);
        }
    }

    /// Notes that `messages` messages were written, and moves the timed publications among them to
    /// `written`.
    pub(super) fn written(&mut self, messages: usize, written: &mut Vec<Arrival>) {
        let Some(queued) = &mut self.0 else { return };
        let messages = count(messages);
        // Nearly always, only one publication is timed. No list is needed then.
        if queued.more.is_empty() {
            if queued.first.is_written(messages) {
                written.extend(self.0.take().map(|queued| queued.first));
            }
            return;
        }
        if let Some(queued) = self.0.take() {
            let all = std::iter::once(queued.first).chain(queued.more);
            let mut left = Vec::new();
            for mut arrival in all {
                match arrival.is_written(messages) {
                    true => written.push(arrival),
                    false => left.push(arrival),
                }
            }
            let mut left = left.into_iter();
            self.0 = left.next().map(|first| {
                let more = left.collect();
                Box::new(Queued { first, more })
            });
        }
    }

    /// Stops timing, because the queue was dropped.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

/// Converts a number of messages. A queue is bounded in bytes, far below `u32::MAX` messages.
fn count(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}
