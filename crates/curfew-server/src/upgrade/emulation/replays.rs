//! The messages of other nodes that a session has had: none is taken twice.
//!
//! Others may read a message on its way and send it again. Each has the id of its sender and a number that the
//! sender uses once. Numbers rise, but messages that are sent at once may overtake each other, so the latest of each
//! sender are remembered, and every lower number counts as one that was there.

use std::collections::{BTreeSet, HashMap};

use curfew_model::NodeId;

/// Numbers remembered of each sender: by so many messages of one session may another be overtaken.
const NUMBERS: usize = 64;

/// Most senders of one session. All are remembered: one that is forgotten could be repeated.
const SENDERS: usize = 64;

/// The messages that one session has had.
#[derive(Debug, Default)]
pub(super) struct Received(HashMap<NodeId, Numbers>);

/// The numbers of one sender's messages.
#[derive(Debug, Default)]
struct Numbers {
    latest: BTreeSet<u64>,
    /// No number up to this one is taken any more.
    over: u64,
}

/// A message that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNew {
    /// It was there before, or is older than all that are remembered.
    Replayed,
    /// It is of one sender more than a session may have.
    TooManySenders,
}

impl Received {
    /// Notes a message, whose sender is known to be true.
    pub(super) fn note(&mut self, sender: NodeId, number: u64) -> Result<(), NotNew> {
        if self.0.len() >= SENDERS && !self.0.contains_key(&sender) {
            return Err(NotNew::TooManySenders);
        }
        let numbers = self.0.entry(sender).or_default();
        if number <= numbers.over || !numbers.latest.insert(number) {
            return Err(NotNew::Replayed);
        }
        if numbers.latest.len() > NUMBERS
            && let Some(lowest) = numbers.latest.pop_first()
        {
            numbers.over = lowest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_a_sender_is_taken_twice() {
        let (one, two) = (NodeId::new(), NodeId::new());
        let mut received = Received::default();
        for number in 1..1000 {
            assert_eq!(received.note(one, number), Ok(()));
            for again in 1..=number {
                assert_eq!(received.note(one, again), Err(NotNew::Replayed), "{again}");
            }
        }
        assert_eq!(received.note(two, 1), Ok(()));
        assert_eq!(received.note(two, 1), Err(NotNew::Replayed));
        assert_eq!(received.note(two, 0), Err(NotNew::Replayed));
    }

    #[test]
    fn messages_that_overtake_each_other_are_all_taken() {
        let sender = NodeId::new();
        let mut received = Received::default();
        // A sender counts the messages of all sessions together: there are gaps.
        for block in 0..20_u64 {
            for number in (0..64).rev() {
                let number = 1 + 1000 * block + 7 * number;
                assert_eq!(received.note(sender, number), Ok(()), "{number}");
                assert_eq!(received.note(sender, number), Err(NotNew::Replayed));
            }
        }
    }

    #[test]
    fn no_sender_is_forgotten() {
        let senders: Vec<_> = (0..SENDERS).map(|_| NodeId::new()).collect();
        let mut received = Received::default();
        for sender in &senders {
            assert_eq!(received.note(*sender, 9), Ok(()));
        }
        let more = received.note(NodeId::new(), 1);
        assert_eq!(more, Err(NotNew::TooManySenders));
        for sender in &senders {
            assert_eq!(received.note(*sender, 9), Err(NotNew::Replayed));
            assert_eq!(received.note(*sender, 10), Ok(()));
        }
    }
}
