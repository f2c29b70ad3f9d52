//! Messages to one node. Each node has a pub/sub channel of its own for these messages.
//!
//! The node answers on the channel of the sender. `PUBLISH` returns the number of receivers, so the
//! sender learns at once if the node no longer receives messages.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::{BackendError, BoxFuture, RELAY_PATIENCE, Relay, Relayed};
use curfew_model::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{self, Instant};
use tracing::debug;

use crate::Redis;
use crate::connections::{Connections, Keyed};
use crate::fault::Fault;
use crate::request::MAX_REQUESTS;
use crate::subscriber::Verbs;

/// The first byte of a message that is to be answered.
const ASKED: u8 = b'?';

/// The first byte of an answer.
const ANSWERED: u8 = b'!';

/// Interval between two checks that the receiving node still holds a lease, while its answer is
/// awaited.
const LOOK: Duration = Duration::from_secs(1);

/// A message on the channel of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A message from another node.
    Asked {
        /// The node that has sent the message.
        from: NodeId,
        /// The number by which the answer is matched.
        number: u64,
        /// The message itself.
        message: Bytes,
    },
    /// The answer to a message of this node.
    Answered {
        /// The number that the message had.
        number: u64,
        /// The answer itself.
        relayed: Relayed,
    },
}

impl Message {
    /// Reads a message. Returns `None` if it is malformed.
    pub(crate) fn read(payload: Vec<u8>) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        match *kind {
            ASKED => {
                let (from, rest) = rest.split_first_chunk()?;
                let (number, _) = rest.split_first_chunk()?;
                let (from, number) = (NodeId::from_bytes(*from), u64::from_be_bytes(*number));
                let message = Bytes::from(payload).slice(Self::HEAD_BYTES..);
                Some(Self::Asked {
                    from,
                    number,
                    message,
                })
            }
            ANSWERED => {
                let (number, rest) = rest.split_first_chunk()?;
                let number = u64::from_be_bytes(*number);
                let relayed = match rest {
                    [b't'] => Relayed::Taken,
                    [b'u'] => Relayed::Unknown,
                    [b'r'] => Relayed::Refused,
                    _ => return None,
                };
                Some(Self::Answered { number, relayed })
            }
            _ => None,
        }
    }

    /// Number of bytes before the message itself: kind, node, number.
    const HEAD_BYTES: usize = 1 + 16 + 8;

    /// Encodes the message.
    pub(crate) fn write(&self) -> Vec<u8> {
        match self {
            Self::Asked {
                from,
                number,
                message,
            } => {
                let mut written = Vec::with_capacity(Self::HEAD_BYTES + message.len());
                written.push(ASKED);
                written.extend_from_slice(&from.to_bytes());
                written.extend_from_slice(&number.to_be_bytes());
                written.extend_from_slice(message);
                written
            }
            Self::Answered { number, relayed } => {
                let mut written = vec![ANSWERED];
                written.extend_from_slice(&number.to_be_bytes());
                written.push(match relayed {
                    Relayed::Taken => b't',
                    Relayed::Unknown => b'u',
                    Relayed::Refused => b'r',
                });
                written
            }
        }
    }
}

/// The messages that this node has sent or received and whose answers are pending.
pub(crate) struct Relays {
    next: AtomicU64,
    /// The messages of this node that wait for their answers, by number.
    asked: Mutex<HashMap<u64, oneshot::Sender<Relayed>>>,
    /// Permits for messages of other nodes that are not answered yet. The permits bound the memory
    /// that these messages take.
    taking: Arc<Semaphore>,
}

/// A message of this node that waits for its answer, until the value is dropped.
struct Question<'a> {
    relays: &'a Relays,
    number: u64,
    answer: oneshot::Receiver<Relayed>,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.relays.asked.lock().remove(&self.number);
    }
}

impl Default for Relays {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            asked: Mutex::default(),
            taking: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays")
            .field("asked", &self.asked.lock().len())
            .finish_non_exhaustive()
    }
}

impl Relays {
    fn ask(&self) -> Question<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.asked.lock().insert(number, sender);
        Question {
            relays: self,
            number,
            answer,
        }
    }

    /// Handles a message on the channel of this node. Never waits.
    pub(crate) fn take(&self, connections: &Arc<Connections>, message: Message) {
        match message {
            Message::Answered { number, relayed } => {
                // If an answer comes too late, its message is no longer in `asked`.
                if let Some(question) = self.asked.lock().remove(&number) {
                    question.send(relayed).ok();
                }
            }
            Message::Asked {
                from,
                number,
                message,
            } => {
                // Without a free permit the message is dropped, because other Redis clients could
                // otherwise fill the memory.
                let Ok(place) = Arc::clone(&self.taking).try_acquire_owned() else {
                    debug!(node = %from, "a message of another node is dropped, because too many are being handled");
                    return;
                };
                // `relayed` is called outside of the task, so that messages are handled in the
                // order of arrival.
                let taken = connections.core.events.relayed(message);
                let answering = Arc::clone(connections);
                connections.core.spawn(async move {
                    let relayed = taken.await;
                    drop(place);
                    let answer = Message::Answered { number, relayed };
                    if let Err(fault) = answering.relay(from, &answer).await {
                        debug!(node = %from, error = %fault, "the answer to another node could not be sent");
                    }
                });
            }
        }
    }
}

impl Connections {
    /// Sends a message to a node. Returns the number of receivers.
    async fn relay(&self, node: NodeId, message: &Message) -> Result<i64, Fault> {
        let verb = Verbs::new(self.is_cluster()).publish;
        let command = Keyed::new(verb, &self.core.keys.relay(node));
        self.call(command.arg(message.write())).await
    }
}

impl Relay for Redis {
    fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<Relayed>, BackendError>> {
        Box::pin(async move {
            let mut question = self.inbox.relays.ask();
            let message = Message::Asked {
                from: self.core.node,
                number: question.number,
                message,
            };
            if self.connections.relay(node, &message).await? == 0 {
                return match self.is_leased(node).await? {
                    // The node is alive, but does not listen. Either it is about to subscribe
                    // again, or its version has no relay.
                    true => Err(Fault::NoAnswer.into()),
                    false => Ok(None),
                };
            }
            let until = Instant::now() + RELAY_PATIENCE + self.core.connector.timeout();
            loop {
                match time::timeout(LOOK, &mut question.answer).await {
                    Ok(Ok(relayed)) => return Ok(Some(relayed)),
                    _ if !self.is_leased(node).await? => return Ok(None),
                    Err(_) if Instant::now() < until => {}
                    _ => return Err(Fault::NoAnswer.into()),
                }
            }
        })
    }
}

impl Redis {
    /// True if the node holds a lease.
    async fn is_leased(&self, node: NodeId) -> Result<bool, Fault> {
        Ok(self.leases(&[node]).await? == [true])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        let message = |message: &'static [u8]| Message::Asked {
            from: NodeId::new(),
            number: u64::MAX - 1,
            message: Bytes::from_static(message),
        };
        let answer = |relayed| Message::Answered { number: 7, relayed };
        for message in [
            message(b""),
            message(b"\0\xff"),
            answer(Relayed::Taken),
            answer(Relayed::Unknown),
            answer(Relayed::Refused),
        ] {
            assert_eq!(Message::read(message.write()), Some(message));
        }
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        for payload in [
            &b""[..],
            b"?",
            b"!",
            b"x234567890123456789012345",
            b"?23456789012345678901234",
            b"!2345678",
            b"!23456789",
            b"!23456789x",
            b"!23456789tt",
        ] {
            assert_eq!(Message::read(payload.to_vec()), None, "{payload:?}");
        }
    }
}
