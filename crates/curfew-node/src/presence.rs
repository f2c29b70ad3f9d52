//! Presence of this node's sessions. An entry is added when a session subscribes, and removed after
//! the subscription ends.
//!
//! A subscription may end where nothing can be awaited, so the end of a subscription only queues
//! the removal of the entry. A task executes the removals in order, and retries while the backend
//! is unavailable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use curfew_backend::{BackendError, PresenceList};
use curfew_hub::Member;
use curfew_model::{
    Channel, MAX_PRESENCE_SESSIONS, PresenceChange, PresenceEntry, Present, Push, Repeats,
    SessionId,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time;
use tracing::warn;

use crate::{ChannelOptions, JoinLeave, Node};

/// Number of entries changed in one call to the backend.
const BATCH: usize = 512;

/// Pause before changes that failed are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum number of changes that wait. During a long outage of the backend, further changes are
/// dropped. The backend corrects its entries later, when it compares them with the node's sessions.
const MAX_WAITING: usize = 64 * 1024;

/// Longest time that an unsubscription, or the confirmation of a revocation, waits for the removal
/// of a presence entry. If the backend is unavailable, the entry is removed later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A change of the presence of a session of this node.
#[derive(Debug)]
enum Change {
    /// The session has left the channel. The sender reports that the entry was removed.
    Leave(PresenceEntry, oneshot::Sender<()>),
    /// The entry shows other information, or its session's token was replaced.
    Renew(PresenceEntry),
}

#[derive(Debug)]
pub(crate) struct PresenceChanges {
    /// The number of the next entry.
    next: AtomicU64,
    waiting: Mutex<VecDeque<Change>>,
    /// Number of changes not yet made, in the queue or in a running call.
    left: AtomicUsize,
    added: Notify,
    failures: Repeats<BackendError>,
}

/// The removal of an entry, in progress.
#[derive(Debug)]
pub struct Departure(oneshot::Receiver<()>);

impl Departure {
    /// Waits until the entry is removed, but at most for a second.
    pub async fn wait(self) {
        time::timeout(PATIENCE, self.0).await.ok();
    }
}

impl PresenceChanges {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            left: AtomicUsize::new(0),
            added: Notify::new(),
            failures: Repeats::default(),
        }
    }

    /// Queues a change. Returns false if the queue is full.
    fn add(&self, change: Change) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return false;
        }
        // The change is counted before it is queued, so that `is_done` is never true while a change
        // waits.
        self.left.fetch_add(1, Ordering::SeqCst);
        waiting.push_back(change);
        drop(waiting);
        self.added.notify_one();
        true
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Logs the failures since the last log line, once the interval of that line is over.
    pub(crate) fn tell_rest(&self) {
        if let Some((failures, error)) = self.failures.rest() {
            self.warn_of(failures, &error);
        }
    }

    fn warn_of(&self, failures: u64, error: &BackendError) {
        let entries = self.left.load(Ordering::SeqCst);
        warn!(entries, failures, error = %error, "presence entries could not be written or removed, will retry");
    }

    /// Takes at most [`BATCH`] changes from the front of the queue, all of the same kind as the
    /// first.
    fn take(&self) -> Vec<Change> {
        let mut waiting = self.waiting.lock();
        let is_leave = |change: &Change| matches!(change, Change::Leave(..));
        let kind = waiting.front().map(is_leave);
        let alike = waiting.iter().take(BATCH);
        let count = alike
            .take_while(|change| Some(is_leave(change)) == kind)
            .count();
        let batch = waiting.drain(..count).collect();
        if waiting.is_empty() {
            // Frees the memory that a long queue has used.
            *waiting = VecDeque::new();
        }
        batch
    }

    /// Puts changes back behind the waiting changes, because only a part of the backend may be
    /// unavailable. The order of changes does not matter, because an entry is not renewed once its
    /// removal is queued.
    fn put_back(&self, changes: Vec<Change>) {
        self.waiting.lock().extend(changes);
    }
}

/// The entry of a subscription in progress. Unless the subscription is completed, dropping this
/// value removes the entry.
pub(crate) struct Entering<'a> {
    node: &'a Node,
    channel: &'a Channel,
    session: SessionId,
    is_complete: bool,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.node.depart(self.channel, self.session);
        }
    }
}

impl Entering<'_> {
    /// Completes the subscription. With `is_told`, the session receives its own join, and from then
    /// on the joins and leaves of other sessions.
    pub(crate) fn complete(mut self, member: &Arc<Member>, is_told: bool) {
        self.is_complete = true;
        let hub = &self.node.hub;
        if !is_told {
            return;
        }
        let entries = hub.presence_of(&[self.session]);
        let mut entries = entries.into_iter();
        let told = entries.find(|entry| entry.channel == *self.channel && entry.is_told);
        let Some(entry) = told else { return };
        let push = Push::Presence {
            channel: self.channel,
            change: PresenceChange::Join,
            present: &entry.present,
        };
        if let Some(frame) = hub.wires().get(member.wire()).push(&push) {
            hub.send(member, frame);
        }
        hub.begin_telling(self.channel, member);
    }
}

impl Node {
    /// Lists the sessions that are present in a channel, on any node.
    pub async fn presence(&self, channel: &Channel) -> Result<PresenceList, BackendError> {
        let presence = &self.backends.presence;
        presence.list(channel, MAX_PRESENCE_SESSIONS).await
    }

    /// Adds the presence entry of a session that subscribes. Other clients see in it `info` about
    /// the session and `channel_info` about the subscription.
    pub(crate) async fn enter<'a>(
        &'a self,
        channel: &'a Channel,
        member: &Member,
        options: ChannelOptions,
        (info, channel_info): (Option<Arc<str>>, Option<Arc<str>>),
    ) -> Result<Entering<'a>, BackendError> {
        let principal = member.principal();
        let session = member.session();
        let entry = PresenceEntry {
            channel: channel.clone(),
            present: Present {
                session,
                user: principal.user().into(),
                info,
                channel_info,
            },
            node: self.id,
            number: self.presence.next.fetch_add(1, Ordering::Relaxed),
            is_told: options.join_leave != JoinLeave::Never,
            ends_at: principal.ends_at(),
        };
        // The hub notes the entry first. If the backend loses the entry from now on, the entry is
        // written again.
        self.hub.note_presence(entry.clone());
        let entering = Entering {
            node: self,
            channel,
            session,
            is_complete: false,
        };
        self.backends.presence.enter(&[entry]).await?;
        Ok(entering)
    }

    /// Queues the removal of a session's entry in a channel. `None` if there is no entry.
    pub(crate) fn depart(&self, channel: &Channel, session: SessionId) -> Option<Departure> {
        let entry = self.hub.take_presence(session, channel)?;
        Some(self.remove_presence(entry))
    }

    /// Begins to remove a session's entries in every channel. Call it as soon as the session ends,
    /// before the session's last frames are written, because a slow client may take long to read
    /// them.
    pub fn depart_from_all(&self, member: &Member) -> Vec<Departure> {
        let entries = self.hub.take_all_presence(member).into_iter();
        entries.map(|entry| self.remove_presence(entry)).collect()
    }

    fn remove_presence(&self, entry: PresenceEntry) -> Departure {
        let session = entry.present.session;
        let (done, departed) = oneshot::channel();
        if !self.presence.add(Change::Leave(entry, done)) {
            self.hub.note_departed(session);
        }
        Departure(departed)
    }

    /// Renews the entries of a session whose token was replaced: the entries then show `info`, and
    /// end when the new token ends.
    pub fn renew_presence(&self, member: &Member, info: impl Fn() -> Option<Arc<str>>) {
        let ends_at = member.principal().ends_at();
        let renewed = self.hub.change_presence(member.session(), |entry| {
            entry.ends_at = ends_at;
            entry.present.info = info();
        });
        for entry in renewed {
            self.presence.add(Change::Renew(entry));
        }
    }

    /// Renews the entry of a session in one channel, to show `info` about its subscription.
    pub fn renew_channel_info(&self, member: &Member, channel: &Channel, info: Option<Arc<str>>) {
        let renewed = self.hub.change_presence(member.session(), |entry| {
            if entry.channel == *channel {
                entry.present.channel_info.clone_from(&info);
            }
        });
        for entry in renewed
            .into_iter()
            .filter(|entry| entry.channel == *channel)
        {
            self.presence.add(Change::Renew(entry));
        }
    }

    async fn change_presence(&self, changes: &[Change]) -> Result<(), BackendError> {
        let (mut left, mut renewed) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Leave(entry, _) => left.push(entry.clone()),
                // An entry whose removal was queued meanwhile must not be written again.
                Change::Renew(entry) if self.hub.is_present(entry) => renewed.push(entry.clone()),
                Change::Renew(_) => {}
            }
        }
        let presence = &self.backends.presence;
        if !left.is_empty() {
            presence.leave(&left).await?;
        }
        if !renewed.is_empty() {
            presence.enter(&renewed).await?;
        }
        Ok(())
    }
}

/// Executes changes for the lifetime of the runtime.
pub(crate) async fn run(node: Arc<Node>) {
    let changes = &node.presence;
    loop {
        changes.added.notified().await;
        loop {
            let batch = changes.take();
            if batch.is_empty() {
                break;
            }
            match node.change_presence(&batch).await {
                Ok(()) => {
                    changes.left.fetch_sub(batch.len(), Ordering::SeqCst);
                    for change in batch {
                        if let Change::Leave(entry, done) = change {
                            node.hub.note_departed(entry.present.session);
                            // The send fails if no task waits for the removal any more.
                            done.send(()).ok();
                        }
                    }
                }
                Err(error) => {
                    if let Some((failures, error)) = changes.failures.note_event(error) {
                        changes.warn_of(failures, &error);
                    }
                    changes.put_back(batch);
                    time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
