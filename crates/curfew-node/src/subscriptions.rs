//! The channels requested from the broker: the channels with a listener on this node. A listener is
//! a session that is subscribed to the channel. The feed of a channel, which the hub holds,
//! delivers the publications of a channel with a stream in order.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::{BackendError, StreamBounds};
use curfew_hub::{Join, Joined, Member, Subscriber};
use curfew_model::{Channel, Position, Publication};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{self, Instant};
use tracing::debug;

use crate::metrics::RecoveryOutcome;
use crate::streams::{RETRY_DELAY, StreamRead};
use crate::{ChannelOptions, Departure, JoinLeave, Node};

/// Time between the end of a channel's last subscription on this node and the unsubscription from
/// the broker. A page reload and a reconnect take less time, so neither causes traffic to the
/// backend.
const UNSUBSCRIBE_DELAY: Duration = Duration::from_secs(1);

/// Number of locks among which the channels are distributed. Channels that share a lock wait for
/// each other's round trips to the broker.
const STRIPES: usize = 256;

/// Maximum number of reads of a channel's stream for one subscriber. If publications arrive faster
/// than these reads catch up, the missed publications are not recovered.
const MAX_READS: usize = 3;

#[derive(Debug)]
pub(crate) struct Subscriptions {
    hasher: RandomState,
    /// Channels requested from the broker. A stripe is locked during a request, so that a first
    /// subscription and a last unsubscription of one channel cannot overtake each other.
    stripes: Box<[AsyncMutex<HashMap<Channel, Asked>>]>,
    abandoned: Mutex<Abandoned>,
    added: Notify,
}

/// Channels that have lost their last listener on this node. Each channel is queued once.
#[derive(Debug, Default)]
struct Abandoned {
    /// The channels in the order of their first deadlines.
    queue: VecDeque<(Instant, Channel)>,
    /// For each queued channel, the earliest time at which the broker may be asked to stop
    /// listening.
    due: HashMap<Channel, Instant>,
}

impl Abandoned {
    fn add(&mut self, channel: &Channel, at: Instant) {
        if self.due.insert(channel.clone(), at).is_none() {
            self.queue.push_back((at, channel.clone()));
        }
    }

    /// Takes the first channel; `None` if that channel was abandoned again meanwhile and is queued
    /// anew.
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

/// State of a channel requested from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The broker has not answered, or an unsubscription failed. The broker may or may not listen
    /// to the channel.
    Unsure,
    /// The broker listens to the channel.
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

    /// Schedules the unsubscription of a channel, which is skipped if the channel has a listener
    /// again by then.
    fn abandon(&self, channel: &Channel) {
        let at = Instant::now() + UNSUBSCRIBE_DELAY;
        self.abandoned.lock().add(channel, at);
        self.added.notify_one();
    }
}

/// The options of a session's subscription.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The position after which the session wants the publications that it missed.
    pub since: Option<Position>,
    /// The `info` of the session's entry in the channel's presence, as JSON.
    pub info: Option<Arc<str>>,
    /// Information about the subscription in the session's presence entry, as JSON.
    pub channel_info: Option<Arc<str>>,
    /// True if the session wants the joins and leaves of the channel.
    pub join_leave: bool,
    /// True if the session wants no subscription unless all publications after `since` can be
    /// recovered.
    pub must_recover: bool,
    /// True if the session accepts publications as differences. It gets differences if the channel
    /// also allows them.
    pub delta: bool,
}

/// The outcome of [`Node::subscribe`], unless the backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// The session is subscribed.
    Joined(Joined),
    /// The policy does not allow the subscription any more.
    Forbidden,
    /// The session wants no subscription without a recovery, and the missed publications cannot be
    /// recovered.
    Unrecoverable,
}

/// A subscription in progress. Unless the subscription succeeds, the channel is abandoned on drop,
/// because the broker may have begun to listen.
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
    /// Subscribes a session. The broker is asked first, so that the session misses nothing that is
    /// published after this method returns. The session is sent, in this order: the reply that
    /// `answer` makes, the publications after `wish.since`, and the live publications. `answer`
    /// receives the missed publications if the protocol carries them in the reply.
    ///
    /// `may` is called after the broker has answered. If it returns false, the session is not
    /// subscribed.
    pub async fn subscribe(
        &self,
        channel: &Channel,
        member: &Arc<Member>,
        options: ChannelOptions,
        wish: Wish,
        may: impl Fn() -> bool,
        answer: impl Fn(Joined, &[Publication]) -> Option<Bytes>,
    ) -> Result<SubscribeOutcome, BackendError> {
        let Wish {
            since,
            info,
            channel_info,
            join_leave,
            must_recover,
            delta,
        } = wish;
        // The presence entry is added first, so that the session is listed by the time its
        // `subscribe` is answered.
        let entering = match options.presence {
            true => {
                let infos = (info, channel_info);
                Some(self.enter(channel, member, options, infos).await?)
            }
            false => None,
        };
        let subscription = match options.stream {
            None => self.join_plain(channel, member, since, may, answer).await?,
            Some(bounds) => {
                let subscriber = Subscriber {
                    member,
                    since: since.filter(|_| options.recover),
                    // If the channel has no recovery, or the session names no position,
                    // `must_recover` has no effect.
                    must_recover: must_recover && options.recover && since.is_some(),
                    delta: delta && options.delta,
                };
                let answer = |mut joined: Joined, missed: &[Publication]| {
                    joined.recovered = joined.recovered.or(since.map(|_| false));
                    answer(joined, missed)
                };
                self.join(channel, subscriber, bounds, may, answer).await?
            }
        };
        if matches!(subscription, SubscribeOutcome::Joined(_))
            && let Some(entering) = entering
        {
            let is_told = match options.join_leave {
                JoinLeave::Never => false,
                JoinLeave::Asked => join_leave,
                JoinLeave::All => true,
            };
            entering.complete(member, is_told);
        }
        Ok(subscription)
    }

    /// Subscribes a session to a channel without a stream.
    async fn join_plain(
        &self,
        channel: &Channel,
        member: &Arc<Member>,
        since: Option<Position>,
        may: impl Fn() -> bool,
        answer: impl Fn(Joined, &[Publication]) -> Option<Bytes>,
    ) -> Result<SubscribeOutcome, BackendError> {
        let mut asked = self.subscriptions.stripe(channel).lock().await;
        let mut asking = self.asking(channel);
        self.listen(&mut asked, channel).await?;
        if !may() {
            return Ok(SubscribeOutcome::Forbidden);
        }
        let joined = Joined {
            position: None,
            recovered: since.map(|_| false),
            is_delta: false,
            was_read: false,
        };
        // The reply is queued before the session listens, so that no publication precedes the
        // reply.
        if let Some(frame) = answer(joined, &[]) {
            self.hub.send(member, frame);
        }
        self.hub.subscribe(channel, member);
        asking.answered = true;
        self.metrics.subscriptions.inc();
        Ok(SubscribeOutcome::Joined(joined))
    }

    /// Subscribes a session to a channel with a stream.
    async fn join(
        &self,
        channel: &Channel,
        subscriber: Subscriber<'_>,
        bounds: StreamBounds,
        may: impl Fn() -> bool,
        answer: impl Fn(Joined, &[Publication]) -> Option<Bytes>,
    ) -> Result<SubscribeOutcome, BackendError> {
        // `asking` begins before the channel has a feed, and is dropped after `joining`. If this
        // join is given up at any point, the channel is abandoned, and its feed ends.
        let mut asking = self.asking(channel);
        let joining =
            self.hub
                .begin_join(channel, bounds.size as usize, bounds.ttl, self.clock.now());
        {
            let mut asked = self.subscriptions.stripe(channel).lock().await;
            let is_new = asked.get(channel) != Some(&Asked::Listening);
            if is_new {
                // The channel is resumed before the request. If the connection to the broker is
                // lost later, the channel is interrupted again.
                self.hub.resume(channel);
            }
            self.listen(&mut asked, channel).await?;
            if is_new {
                // The node was not listening to the channel, so the feed may have missed
                // publications.
                self.hub.doubt(channel);
            }
        }
        let mut read: Option<Arc<StreamRead>> = None;
        let mut reads = 0;
        loop {
            if !may() {
                return Ok(SubscribeOutcome::Forbidden);
            }
            let part = read.as_deref().map(StreamRead::part);
            let is_last = reads >= MAX_READS;
            let join = self
                .hub
                .join(&joining, channel, subscriber, part, is_last, &answer);
            match join {
                Join::Done(joined) => {
                    asking.answered = true;
                    self.metrics.subscriptions.inc();
                    self.count_recovery(joined);
                    return Ok(SubscribeOutcome::Joined(joined));
                }
                Join::Unrecoverable => {
                    self.metrics.stream_recoveries.inc(RecoveryOutcome::Lost);
                    return Ok(SubscribeOutcome::Unrecoverable);
                }
                Join::Read { after } => {
                    if is_last {
                        // While the node holds no lease, the feed accepts no read. This loop ends
                        // when the lease is held again, or when the session ends after
                        // `backend.grace`.
                        time::sleep(RETRY_DELAY).await;
                    }
                    read = Some(self.read_stream(channel, after).await?);
                }
            }
            reads += 1;
        }
    }

    fn count_recovery(&self, joined: Joined) {
        let outcome = match (joined.recovered, joined.was_read) {
            (None, _) => return,
            (Some(false), _) => RecoveryOutcome::Lost,
            (Some(true), false) => RecoveryOutcome::Window,
            (Some(true), true) => RecoveryOutcome::Read,
        };
        self.metrics.stream_recoveries.inc(outcome);
    }

    /// Begins a subscription. Dropping the result abandons the channel. The caller prevents this by
    /// setting `answered` once the channel has a listener.
    fn asking<'a>(&'a self, channel: &'a Channel) -> Asking<'a> {
        Asking {
            subscriptions: &self.subscriptions,
            channel,
            answered: false,
        }
    }

    /// Asks the broker to listen to a channel, unless the broker already does. The caller holds an
    /// [`Asking`] for the channel, so that the channel is abandoned if the request fails.
    async fn listen(
        &self,
        asked: &mut HashMap<Channel, Asked>,
        channel: &Channel,
    ) -> Result<(), BackendError> {
        if asked.get(channel) != Some(&Asked::Listening) {
            // The channel is recorded before the request, because the broker may listen to it even
            // if the request fails.
            asked.insert(channel.clone(), Asked::Unsure);
            self.backends.broker.subscribe(channel).await?;
            asked.insert(channel.clone(), Asked::Listening);
        }
        Ok(())
    }

    /// Unsubscribes a subscribed session. The broker is asked to stop listening a second later,
    /// unless the channel has a listener again by then. The entry in the channel's presence, if the
    /// session has one, is removed at once.
    pub fn unsubscribe(&self, channel: &Channel, member: &Member) -> Option<Departure> {
        self.metrics.subscriptions.dec();
        if self.hub.unsubscribe(channel, member) {
            self.subscriptions.abandon(channel);
        }
        self.hub.end_telling(channel, member);
        self.depart(channel, member.session())
    }
}

/// Unsubscribes abandoned channels for the lifetime of the runtime.
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
        // The stripe is locked before the check, so that no subscription begins between the check
        // and the request.
        let mut asked = node.subscriptions.stripe(&channel).lock().await;
        // The channel may have a listener again.
        if node.hub.has_subscribers(&channel) {
            continue;
        }
        // A join that was given up before the broker was asked may have left a feed.
        node.hub.end_stream(&channel);
        if asked.remove(&channel).is_none() {
            continue;
        }
        if let Err(error) = node.backends.broker.unsubscribe(&channel).await {
            // Publications that arrive meanwhile are dropped, because the channel has no listener.
            asked.insert(channel.clone(), Asked::Unsure);
            node.subscriptions.abandon(&channel);
            debug!(channel = %channel, error = %error, "unsubscribe from the broker failed, will retry");
        }
    }
}
