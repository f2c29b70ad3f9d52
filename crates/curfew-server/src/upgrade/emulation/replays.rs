//! Detects messages from other nodes that a session has already received, so that no message is
//! executed twice.
//!
//! A third party may copy a message between two nodes and send it again. Each message therefore has
//! the id of its sender, which is a node, and a number that the sender uses only once. Each number
//! is higher than the sender's last number, but messages may arrive in another order than they were
//! sent. [`Received`] stores the highest numbers of each sender. A stored number, and a number
//! below all stored numbers, counts as a replay.

use std::collections::{BTreeSet, HashMap};

use curfew_model::NodeId;

/// Maximum number of message numbers that are stored for each sender.
const NUMBERS: usize = 64;

/// Maximum number of nodes that may send messages to one session. The numbers of a sender are
/// stored as long as the session exists, because otherwise its messages could be replayed.
const SENDERS: usize = 64;

/// The numbers of the messages that one session has received, by sender.
#[derive(Debug, Default)]
pub(super) struct Received(HashMap<NodeId, Numbers>);

/// The numbers of the messages of one sender.
#[derive(Debug, Default)]
struct Numbers {
    latest: BTreeSet<u64>,
    /// Numbers up to this number are not accepted.
    over: u64,
}

/// The reasons that a message is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNew {
    /// The message was received before, or its number is too low to be distinguished from a replay.
    Replayed,
    /// The session has already received messages from the maximum number of senders.
    TooManySenders,
}

impl Received {
    /// Stores the number of a message whose sender is authenticated. Fails if the message is not
    /// accepted.
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
        // A sender numbers its messages to all sessions in one sequence, so one session does not
        // receive every number.
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
