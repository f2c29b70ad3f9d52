//! Which channels the broker is asked for: those that somebody here listens to.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::BackendError;
use curfew_hub::Member;
use curfew_model::Channel;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{self, Instant};
use tracing::warn;

use crate::Node;

/// Longer than a page reload or a reconnect, so that those cost no traffic to the backend.
const UNSUBSCRIBE_DELAY: Duration = Duration::from_secs(1);

/// Locks over the channels; two channels that share one wait for each other's round trip.
const STRIPES: usize = 256;

#[derive(Debug)]
pub(crate) struct Subscriptions {
    hasher: RandomState,
    /// The channels the broker was asked for. Held while it is asked, so that a first subscription
    /// and a last unsubscription of one channel cannot overtake each other.
    stripes: Box<[AsyncMutex<HashSet<Channel>>]>,
    /// Channels that lost their last listener, oldest first.
    abandoned: Mutex<VecDeque<(Instant, Channel)>>,
    added: Notify,
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

    fn stripe(&self, channel: &Channel) -> &AsyncMutex<HashSet<Channel>> {
        &self.stripes[self.hasher.hash_one(channel) as usize % STRIPES]
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
        if !asked.contains(channel) {
            self.backends.broker.subscribe(channel).await?;
            asked.insert(channel.clone());
        }
        self.hub.subscribe(channel, member);
        self.metrics.subscriptions.inc();
        Ok(())
    }

    /// Unsubscribes a session that is subscribed. The broker is told a little later, unless
    /// somebody listens again by then.
    pub fn unsubscribe(&self, channel: &Channel, member: &Member) {
        self.metrics.subscriptions.dec();
        if self.hub.unsubscribe(channel, member) {
            let at = Instant::now() + UNSUBSCRIBE_DELAY;
            self.subscriptions.abandoned.lock().push_back((at, channel.clone()));
            self.subscriptions.added.notify_one();
        }
    }
}

/// Tells the broker about abandoned channels for as long as the runtime lives.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        let next = node.subscriptions.abandoned.lock().front().cloned();
        let Some((at, channel)) = next else {
            node.subscriptions.added.notified().await;
            continue;
        };
        time::sleep_until(at).await;
        node.subscriptions.abandoned.lock().pop_front();
        let mut asked = node.subscriptions.stripe(&channel).lock().await;
        // Somebody may listen again, and a channel may have been abandoned twice.
        if node.hub.has_subscribers(&channel) || !asked.remove(&channel) {
            continue;
        }
        if let Err(error) = node.backends.broker.unsubscribe(&channel).await {
            // Publications nobody listens to are dropped; the next abandonment tries again.
            asked.insert(channel.clone());
            warn!(channel = %channel, error = %error, "unsubscribe from the broker failed");
        }
    }
}
