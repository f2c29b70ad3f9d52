//! Publications that are timed on their way through a session's queue.

use std::sync::Arc;
use std::time::Instant;

use curfew_telemetry::Writes;

/// Most traced publications that are followed through one session's queue. What comes behind them is
/// missing from the count of its writes.
const MAX_FOLLOWED: usize = 16;

/// A publication that is timed on its way to a session.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The time when it reached this node.
    pub(crate) at: Instant,
    /// The record of its writes to sockets, where it is traced.
    pub(crate) writes: Option<Arc<Writes>>,
    /// The number of messages that are written together with it; 0 while it is queued.
    pub(crate) messages: u32,
    /// The number of them that are yet to be written.
    left: u32,
    /// It is one of those whose times are in the metrics.
    pub(crate) is_observed: bool,
}

impl Arrival {
    /// It is here.
    pub(crate) fn now(writes: Option<Arc<Writes>>) -> Self {
        Self {
            at: Instant::now(),
            writes,
            messages: 0,
            left: 0,
            is_observed: true,
        }
    }

    /// It is about to be written, if it was not already, as one of so many messages.
    fn taken(&mut self, messages: u32) {
        if self.messages == 0 {
            self.messages = messages;
            self.left = messages;
        }
    }

    /// So many messages were written. True if it is among them.
    fn is_written(&mut self, messages: u32) -> bool {
        self.left = self.left.saturating_sub(messages);
        self.messages > 0 && self.left == 0
    }
}

/// The timed publications that are queued for one session, in order. Nearly always there is none.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Option<Box<Queued>>);

#[derive(Debug)]
struct Queued {
    first: Arrival,
    /// Traced ones behind it.
    more: Vec<Arrival>,
}

impl Arrivals {
    /// Times what was just queued, unless something older is timed and this is not traced.
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
                    // One of the session's is enough for the metrics.
                    is_observed: false,
                    ..arrival.clone()
                });
            }
            Some(_) => {}
        }
    }

    /// All that is queued is about to be written: so many messages.
    pub(super) fn taken(&mut self, messages: usize) {
        let Some(queued) = &mut self.0 else { return };
        let messages = count(messages);
        queued.first.taken(messages);
        for arrival in &mut queued.more {
            arrival.taken(messages);
        }
    }

    /// So many messages were written. Passes those on that were among them.
    pub(super) fn written(&mut self, messages: usize, written: &mut Vec<Arrival>) {
        let Some(queued) = &mut self.0 else { return };
        let messages = count(messages);
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

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

/// A queue is bounded by bytes far below this.
fn count(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}
