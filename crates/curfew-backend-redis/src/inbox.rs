//! Messages received by pub/sub: publications, and messages between nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::Ended;
use curfew_model::json::object_text;
use curfew_model::{Disconnect, GapReason, NodeId, RevocationKey, SessionId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time;
use tracing::debug;

use crate::connections::{Connections, Keyed};
use crate::core::Core;
use crate::envelope;
use crate::fault::Fault;
use crate::metrics::BackendDropReason;
use crate::presence;
use crate::relay::{self, Relays};
use crate::request::{ControlRequest, ControlRequests, MAX_REQUESTS};
use crate::subscriber::Verbs;

/// Largest message between nodes that is parsed, in bytes.
const MAX_CONTROL_BYTES: usize = 16 * 1024;

/// Interval between two calls of [`Ended::has_left`] while a task waits for ended sessions to
/// leave.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Interval between two checks for the end of a reload. It is longer than [`LOOK_INTERVAL`],
/// because many confirmations may wait at once.
const RELOAD_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A message between nodes on `curfew:control`. A message may get lost; no guarantee depends on it.
/// A message is a question or an answer. Each question has a random id, which its answers repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message {
    /// A revocation was written. Each node answers once the revocation is in force on it.
    Revoked {
        /// The id of the question.
        id: String,
        /// The revocation's key, without prefix.
        key: String,
        /// The node that asks.
        from: NodeId,
    },
    /// The revocation is in force on a node, and the sessions that it ended there have left.
    Applied {
        /// The id of the question.
        id: String,
        /// The node that answers.
        node: NodeId,
        /// The number of sessions that the revocation ended on that node.
        closed: u64,
    },
    /// Asks the node of a session to end the session.
    Disconnect {
        /// The id of the question.
        id: String,
        /// The session.
        session: SessionId,
        /// The node that asks.
        from: NodeId,
        /// True if a newer session replaces this session; false if an operator closes it.
        #[serde(default)]
        replaced: bool,
    },
    /// Asks a node to check that clients still respond.
    Probe {
        /// The id of the question.
        id: String,
        /// The node that is to check the clients.
        node: NodeId,
        /// The sessions of these clients.
        sessions: Vec<SessionId>,
    },
    /// The node has checked the clients.
    Probed {
        /// The id of the question.
        id: String,
        /// The node that answers.
        node: NodeId,
        /// The sessions that are not on that node, and the sessions that the node ends because
        /// their clients did not respond.
        gone: Vec<SessionId>,
    },
    /// The node has told the session to end.
    Disconnected {
        /// The id of the question.
        id: String,
        /// The node that answers.
        node: NodeId,
    },
}

impl Message {
    /// Parses a message. Returns `None` if it is malformed or too long.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let text = object_text(payload).filter(|text| text.len() <= MAX_CONTROL_BYTES)?;
        serde_json::from_str(text).ok()
    }
}

/// An answer to a question of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAnswer {
    pub(crate) node: NodeId,
    pub(crate) closed: u64,
    pub(crate) gone: Vec<SessionId>,
}

impl NodeAnswer {
    /// The answer of a node that ended `closed` sessions.
    fn closed(node: NodeId, closed: u64) -> Self {
        Self {
            node,
            closed,
            gone: Vec::new(),
        }
    }
}

/// The receiver of every message that arrives by pub/sub.
#[derive(Debug)]
pub(crate) struct Inbox {
    core: Arc<Core>,
    requests: ControlRequests,
    /// Questions that wait for answers, by id.
    asked: Mutex<HashMap<String, mpsc::Sender<NodeAnswer>>>,
    /// Permits for the questions of other nodes that this node answers in a separate task. The
    /// permits bound the memory that these tasks take.
    confirming: Arc<Semaphore>,
    pub(crate) relays: Relays,
}

/// A question that waits for answers, until it is dropped.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    inbox: &'a Inbox,
    pub(crate) id: String,
    pub(crate) answers: mpsc::Receiver<NodeAnswer>,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.inbox.asked.lock().remove(&self.id);
    }
}

impl Inbox {
    pub(crate) fn new(core: Arc<Core>, requests: ControlRequests) -> Arc<Self> {
        Arc::new(Self {
            core,
            requests,
            asked: Mutex::default(),
            confirming: Arc::new(Semaphore::new(MAX_REQUESTS)),
            relays: Relays::default(),
        })
    }

    /// Registers the question `id`, so that answers to it are received. At most `most` unread
    /// answers are queued.
    pub(crate) fn ask(&self, id: String, most: usize) -> Question<'_> {
        let (sender, answers) = mpsc::channel(most.max(1));
        self.asked.lock().insert(id.clone(), sender);
        Question {
            inbox: self,
            id,
            answers,
        }
    }

    /// Handles a message of a pub/sub channel. Never waits.
    pub(crate) fn take(&self, connections: &Arc<Connections>, name: &[u8], payload: Vec<u8>) {
        let metrics = &self.core.metrics;
        let Ok(name) = str::from_utf8(name) else {
            // Every channel name of this backend is UTF-8, so the message is foreign.
            return;
        };
        if payload.len() > envelope::MAX_BYTES {
            metrics
                .broker_messages_dropped
                .inc(BackendDropReason::TooLarge);
            self.tell_gap(name, GapReason::TooLarge);
            return;
        }
        if let Some(channel) = self.core.keys.parse_channel(name) {
            if payload == envelope::CLEARED {
                self.core.events.cleared(&channel);
                return;
            }
            metrics.broker_messages_received.inc();
            // Nearly every message is a publication, so other kinds of messages are tried only if
            // decoding fails.
            let payload = Bytes::from(payload);
            match envelope::decode(channel, &payload) {
                Some(publication) => self.core.events.publication(&publication),
                None => self.take_other(name, &payload),
            }
        } else if name == self.core.keys.control() {
            match Message::read(&payload) {
                Some(message) => self.on_message(connections, message),
                None => self.drop_malformed(name),
            }
        } else if name == self.core.keys.relay(self.core.node) {
            match relay::Message::read(payload) {
                Some(message) => self.relays.take(connections, message),
                None => self.drop_malformed(name),
            }
        }
    }

    /// Handles a channel's message that could not be decoded as a publication.
    #[cold]
    fn take_other(&self, name: &str, payload: &[u8]) {
        let channel = self.core.keys.parse_channel(name);
        match (channel, presence::read_news(payload)) {
            (Some(channel), Some((change, present))) => {
                self.core
                    .events
                    .presence_changed(&channel, change, &present);
            }
            _ => {
                self.drop_malformed(name);
                self.tell_gap(name, GapReason::Malformed);
            }
        }
    }

    /// Reports a gap for a dropped message. The message may have been a publication, perhaps one
    /// that a newer version of Curfew encoded.
    #[cold]
    fn tell_gap(&self, name: &str, reason: GapReason) {
        if let Some(channel) = self.core.keys.parse_channel(name) {
            self.core.events.gap(&channel, reason);
        }
    }

    /// Counts and logs a malformed message.
    fn drop_malformed(&self, name: &str) {
        self.core
            .metrics
            .broker_messages_dropped
            .inc(BackendDropReason::Malformed);
        // The message is logged at debug level, because any client of Redis could otherwise fill
        // the log.
        debug!(channel = name, "malformed message dropped");
    }

    /// Handles a message between nodes.
    fn on_message(&self, connections: &Arc<Connections>, message: Message) {
        match message {
            Message::Revoked { id, key, from } => {
                // A node confirms its own revocations without a message.
                if from != self.core.node
                    && let Ok((key, _)) = RevocationKey::parse_written(key.as_bytes())
                {
                    self.confirm(connections, id, key);
                }
            }
            Message::Applied { id, node, closed } => {
                self.answer(&id, NodeAnswer::closed(node, closed))
            }
            Message::Disconnect {
                id,
                session,
                replaced,
                ..
            } => {
                let disconnect = match replaced {
                    true => Disconnect::REPLACED,
                    false => Disconnect::DISCONNECTED,
                };
                if self.core.events.disconnect(session, disconnect) {
                    let node = self.core.node;
                    self.send(connections, Message::Disconnected { id, node });
                }
            }
            Message::Disconnected { id, node } => self.answer(&id, NodeAnswer::closed(node, 0)),
            Message::Probe { id, node, sessions } => {
                if node == self.core.node {
                    self.probe(connections, id, sessions);
                }
            }
            Message::Probed { id, node, gone } => {
                let closed = 0;
                self.answer(&id, NodeAnswer { node, closed, gone });
            }
        }
    }

    /// Passes an answer to the question that waits for it.
    fn answer(&self, id: &str, answer: NodeAnswer) {
        let node = answer.node;
        if let Some(question) = self.asked.lock().get(id)
            && question.try_send(answer).is_err()
        {
            debug!(node = %node, "the answer of another node came too late");
        }
    }

    /// Checks that the clients of these sessions respond. Answers with the sessions whose clients
    /// did not respond, and the sessions that are not on this node.
    fn probe(&self, connections: &Arc<Connections>, id: String, sessions: Vec<SessionId>) {
        // Without a free permit the question is dropped, because other Redis clients could
        // otherwise fill the memory.
        let Ok(place) = Arc::clone(&self.confirming).try_acquire_owned() else {
            return;
        };
        let (probed, node) = (self.core.events.probe(sessions), self.core.node);
        let outgoing = self.outgoing(connections);
        self.core.spawn(async move {
            let gone = probed.await;
            drop(place);
            outgoing.send(&Message::Probed { id, node, gone }).await;
        });
    }

    /// Confirms a revocation through the control connection, and answers once the ended sessions
    /// have left.
    fn confirm(&self, connections: &Arc<Connections>, id: String, key: RevocationKey) {
        // Without a free permit the question is dropped, because other Redis clients could
        // otherwise fill the memory.
        let Ok(place) = Arc::clone(&self.confirming).try_acquire_owned() else {
            debug!("a revocation is not confirmed, because too many confirmations are in progress");
            return;
        };
        let (core, command) = (Arc::clone(&self.core), self.outgoing(connections));
        let requests = self.requests.clone();
        self.core.spawn(async move {
            if !found_within(&core, key.kind(), core.config.lease).await {
                debug!(
                    kind = key.kind(),
                    "{}, so a revocation is not confirmed",
                    Fault::Unfound
                );
                return;
            }
            let (reply, applied) = oneshot::channel();
            let request = ControlRequest::Confirm {
                id: id.clone(),
                key,
                reply,
            };
            if requests.try_send(request).is_err() {
                debug!("a revocation is not confirmed, because too many requests wait");
                return;
            }
            drop(place);
            let Ok(Ok(ended)) = applied.await else {
                // No answer is sent, so the asking node counts this node as missing.
                return;
            };
            let closed = ended.count() as u64;
            if !left_within(ended, core.config.lease).await {
                // A session has not left in time, so the revocation is not confirmed.
                return;
            }
            let node = core.node;
            command.send(&Message::Applied { id, node, closed }).await;
        });
    }

    /// Sends a message to the other nodes in a separate task.
    pub(crate) fn send(&self, connections: &Arc<Connections>, message: Message) {
        let outgoing = self.outgoing(connections);
        self.core
            .spawn(async move { outgoing.send(&message).await });
    }

    /// Prepares a message to the other nodes.
    fn outgoing(&self, connections: &Arc<Connections>) -> Outgoing {
        let control = self.core.keys.control();
        let verb = Verbs::new(connections.is_cluster()).publish;
        Outgoing {
            command: Keyed::new(verb, &control),
            connections: Arc::clone(connections),
        }
    }
}

/// A message on its way to the other nodes.
struct Outgoing {
    command: Keyed,
    connections: Arc<Connections>,
}

impl Outgoing {
    /// Sends the message. A failure is only logged, because no guarantee depends on the message.
    async fn send(self, message: &Message) {
        let text = serde_json::to_string(message).expect("a message is JSON");
        if let Err(fault) = self.connections.call::<i64>(self.command.arg(text)).await {
            debug!(error = %fault, "a message to the other nodes could not be sent");
        }
    }
}

/// Waits until this node can find, for any revocation of the kind `kind`, every session that the
/// revocation names. During a reload, the node may not find all of these sessions. Returns false if
/// the wait takes longer than `patience`.
pub(crate) async fn found_within(core: &Core, kind: &str, patience: Duration) -> bool {
    let found = async {
        while !core.events.finds(kind) {
            time::sleep(RELOAD_LOOK_INTERVAL).await;
        }
    };
    time::timeout(patience, found).await.is_ok()
}

/// Waits until ended sessions have left. Returns false if a session takes longer than `patience`.
pub(crate) async fn left_within(mut ended: Ended, patience: Duration) -> bool {
    let left = async {
        while !ended.has_left() {
            time::sleep(LOOK_INTERVAL).await;
        }
    };
    time::timeout(patience, left).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        let (node, session) = (NodeId::new(), SessionId::new());
        let id = "x".to_owned();
        for message in [
            Message::Revoked {
                id: id.clone(),
                key: "user:a\"b".to_owned(),
                from: node,
            },
            Message::Applied {
                id: id.clone(),
                node,
                closed: 7,
            },
            Message::Disconnect {
                id: id.clone(),
                session,
                from: node,
                replaced: true,
            },
            Message::Probe {
                id: id.clone(),
                node,
                sessions: vec![session],
            },
            Message::Probed {
                id: id.clone(),
                node,
                gone: vec![session],
            },
            Message::Disconnected { id, node },
        ] {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(Message::read(text.as_bytes()), Some(message));
        }
        // An id without hyphens is refused, because an id has only one spelling.
        let id = session.to_string().replace('-', "");
        let text = format!(r#"{{"type":"disconnected","id":"x","node":"{id}"}}"#);
        assert_eq!(Message::read(text.as_bytes()), None);
    }
}
