//! Which channels the broker is asked for: those that somebody here listens to.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::{BackendError, StreamBounds};
use curfew_hub::{Join, Joined, Member};
use curfew_model::{Channel, Position};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{self, Instant};
use tracing::debug;

use crate::Node;
use crate::metrics::RecoveryOutcome;
use crate::streams::StreamRead;

/// Longer than a page reload or a reconnect, so that those cost no traffic to the backend.
const UNSUBSCRIBE_DELAY: Duration = Duration::from_secs(1);

/// Locks over the channels; two channels that share one wait for each other's round trip.
const STRIPES: usize = 256;

/// Reads of a channel's stream for one subscriber. Publications that come faster are not recovered.
const MAX_READS: usize = 3;

#[derive(Debug)]
pub(crate) struct Subscriptions {
    hasher: RandomState,
    /// The channels the broker was asked for. Held while it is asked, so that a first subscription
    /// and a last unsubscription of one channel cannot overtake each other.
    stripes: Box<[AsyncMutex<HashMap<Channel, Asked>>]>,
    abandoned: Mutex<Abandoned>,
    added: Notify,
}

/// Channels that nobody listens to any more, each once.
#[derive(Debug, Default)]
struct Abandoned {
    /// In the order in which they are to be looked at.
    queue: VecDeque<(Instant, Channel)>,
    /// When the broker may be told, at the earliest.
    due: HashMap<Channel, Instant>,
}

impl Abandoned {
    fn add(&mut self, channel: &Channel, at: Instant) {
        if self.due.insert(channel.clone(), at).is_none() {
            self.queue.push_back((at, channel.clone()));
        }
    }

    /// Takes the first one; `None` when it was abandoned again meanwhile and has to wait once more.
    fn take(&mut self) -> Option<Channel> {
        let (at, channel) = self.queue.pop_front()?;
        match self.due.remove(&channel) {
            Some(later) if later > at => {
                self.add(&channel, later);
                None
            }
            _ => Some(channel),
        }
    }
}

/// What is known of a channel the broker was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It has not answered, or that it failed: it may listen or not.
    Unsure,
    /// It listens.
    Listening,
}

impl Subscriptions {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| AsyncMutex::default()).collect(),
            abandoned: Mutex::default(),
            added: Notify::new(),
        }
    }

    fn stripe(&self, channel: &Channel) -> &AsyncMutex<HashMap<Channel, Asked>> {
        &self.stripes[self.hasher.hash_one(channel) as usize % STRIPES]
    }

    /// Has the broker told a little later that nobody here listens to the channel, if that is so
    /// then.
    fn abandon(&self, channel: &Channel) {
        let at = Instant::now() + UNSUBSCRIBE_DELAY;
        self.abandoned.lock().add(channel, at);
        self.added.notify_one();
    }
}

/// A question to the broker under way. Unless it is answered well, the channel is abandoned: the
/// broker may have begun to listen all the same.
struct Asking<'a> {
    subscriptions: &'a Subscriptions,
    channel: &'a Channel,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.subscriptions.abandon(self.channel);
        }
    }
}

impl Node {
    /// Subscribes a session. The broker is asked first, so that nothing published after this
    /// returns is missed.
    pub async fn subscribe(
        &self,
        channel: &Channel,
        member: &Arc<Member>,
    ) -> Result<(), BackendError> {
        let mut asked = self.subscriptions.stripe(channel).lock().await;
        self.listen(&mut asked, channel).await?;
        self.hub.subscribe(channel, member);
        self.metrics.subscriptions.inc();
        Ok(())
    }

    /// Has the broker listen to a channel.
    async fn listen(
        &self,
        asked: &mut HashMap<Channel, Asked>,
        channel: &Channel,
    ) -> Result<(), BackendError> {
        if asked.get(channel) == Some(&Asked::Listening) {
            return Ok(());
        }
        asked.insert(channel.clone(), Asked::Unsure);
        let mut asking = Asking {
            subscriptions: &self.subscriptions,
            channel,
            answered: false,
        };
        self.backends.broker.subscribe(channel).await?;
        asking.answered = true;
        asked.insert(channel.clone(), Asked::Listening);
        Ok(())
    }

    /// Subscribes a session to a channel with a stream. In this order it is sent what `answer` makes of its place,
    /// what came after `since`, and what follows.
    pub async fn join(
        &self,
        channel: &Channel,
        member: &Arc<Member>,
        bounds: StreamBounds,
        since: Option<Position>,
        answer: impl Fn(Joined) -> Option<Bytes>,
    ) -> Result<Joined, BackendError> {
        let joining = self
            .hub
            .begin_join(channel, bounds.size as usize, bounds.ttl);
        // Until it has joined: a channel that nobody listens to then is left.
        let mut abandons = Asking {
            subscriptions: &self.subscriptions,
            channel,
            answered: false,
        };
        {
            let mut asked = self.subscriptions.stripe(channel).lock().await;
            let is_new = asked.get(channel) != Some(&Asked::Listening);
            self.listen(&mut asked, channel).await?;
            if is_new {
                // Nothing was heard of the channel until now.
                self.hub.doubt(channel);
            }
        }
        let mut read: Option<Arc<StreamRead>> = None;
        let mut reads = 0;
        loop {
            let part = read.as_deref().map(StreamRead::part);
            let is_last = reads >= MAX_READS;
            let join = self
                .hub
                .join(&joining, channel, member, since, part, is_last, &answer);
            match join {
                Join::Done(joined) => {
                    abandons.answered = true;
                    self.metrics.subscriptions.inc();
                    let outcome = match (joined.recovered, reads) {
                        (None, _) => None,
                        (Some(false), _) => Some(RecoveryOutcome::Lost),
                        (Some(true), 0) => Some(RecoveryOutcome::Window),
                        (Some(true), _) => Some(RecoveryOutcome::Read),
                    };
                    if let Some(outcome) = outcome {
                        self.metrics.stream_recoveries.inc(outcome);
                    }
                    return Ok(joined);
                }
                Join::Read { after } => read = Some(self.read_stream(channel, after).await?),
            }
            reads += 1;
        }
    }

    /// Unsubscribes a session that is subscribed. The broker is told a little later, unless
    /// somebody listens again by then.
    pub fn unsubscribe(&self, channel: &Channel, member: &Member) {
        self.metrics.subscriptions.dec();
        if self.hub.unsubscribe(channel, member) {
            self.subscriptions.abandon(channel);
        }
    }
}

/// Tells the broker about abandoned channels for as long as the runtime lives.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        let next = node
            .subscriptions
            .abandoned
            .lock()
            .queue
            .front()
            .map(|(at, _)| *at);
        let Some(at) = next else {
            node.subscriptions.added.notified().await;
            continue;
        };
        time::sleep_until(at).await;
        let taken = node.subscriptions.abandoned.lock().take();
        let Some(channel) = taken else { continue };
        let mut asked = node.subscriptions.stripe(&channel).lock().await;
        // Somebody may listen again.
        if node.hub.has_subscribers(&channel) || asked.remove(&channel).is_none() {
            continue;
        }
        node.hub.end_stream(&channel);
        if let Err(error) = node.backends.broker.unsubscribe(&channel).await {
            // What arrives meanwhile is dropped.
            asked.insert(channel.clone(), Asked::Unsure);
            node.subscriptions.abandon(&channel);
            debug!(channel = %channel, error = %error, "unsubscribe from the broker failed, will retry");
        }
    }
}
