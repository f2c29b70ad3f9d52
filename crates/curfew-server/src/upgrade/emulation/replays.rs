//! The messages from other nodes that a session has received. The record prevents a second
//! execution.
//!
//! A third party may copy a message on its way and send it again. Each message has the id of its
//! sender and a number that the sender uses once. A sender's numbers rise, but messages that are
//! sent at the same time may overtake each other. So the latest numbers of each sender are
//! remembered, and every number below them counts as a replay.

use std::collections::{BTreeSet, HashMap};

use curfew_model::NodeId;

/// Number of message numbers that are remembered for each sender. A message is accepted even if up
/// to this number of later messages arrive before it.
const NUMBERS: usize = 64;

/// Maximum number of senders of one session. No sender is forgotten, because the messages of a
/// forgotten sender could be replayed.
const SENDERS: usize = 64;

/// The messages that one session has received.
#[derive(Debug, Default)]
pub(super) struct Received(HashMap<NodeId, Numbers>);

/// The numbers of one sender's messages.
#[derive(Debug, Default)]
struct Numbers {
    latest: BTreeSet<u64>,
    /// No number up to this one is accepted any more.
    over: u64,
}

/// The reasons that a message is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNew {
    /// The message was received before, or its number is lower than every remembered number.
    Replayed,
    /// The session has already received messages from the maximum number of senders.
    TooManySenders,
}

impl Received {
    /// Notes a message whose sender is authenticated.
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
        // A sender numbers the messages to all sessions in one sequence, so there are gaps.
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
