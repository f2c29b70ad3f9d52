//! The state shared by every part of the backend.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use curfew_backend::{Events, LocalSessions};
use curfew_model::{Clock, DeliveryLease, NodeId, Repeats, boottime, env};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channels::ChannelSettings;
use crate::config::RedisBackendConfig;
use crate::connect::Connector;
use crate::keys::Keys;
use crate::metrics::{RedisCommand, RedisMetrics};

/// Largest difference between this node's clock and Redis' clock at which sessions are admitted.
/// With a larger difference, a revocation's cutoff would cover the wrong tokens.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Value of `Status::skew_ms` before the first comparison of the clocks.
const NOT_COMPARED: u64 = u64::MAX;

/// The state shared by every part of the backend.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) config: RedisBackendConfig,
    pub(crate) keys: Keys,
    pub(crate) connector: Connector,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) local: Arc<dyn LocalSessions>,
    pub(crate) lease: Arc<DeliveryLease>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<RedisMetrics>,
    pub(crate) status: Status,
    pub(crate) channels: ChannelSettings,
    /// Limits the warnings about unreadable entries of streams.
    pub(crate) unreadable: Repeats,
    pub(crate) stop: CancellationToken,
    /// Notifies the control connection that this process was paused.
    pub(crate) stopped: Notify,
    /// Every task of the backend.
    tasks: TaskTracker,
}

impl Core {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one part of the node that the backend needs"
    )]
    pub(crate) fn new(
        node: NodeId,
        config: RedisBackendConfig,
        connector: Connector,
        events: Arc<dyn Events>,
        local: Arc<dyn LocalSessions>,
        lease: Arc<DeliveryLease>,
        clock: Arc<dyn Clock>,
        metrics: Arc<RedisMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            keys: Keys::new(&config.redis.prefix),
            config,
            connector,
            events,
            local,
            lease,
            clock,
            metrics,
            status: Status::default(),
            channels: ChannelSettings::default(),
            unreadable: Repeats::default(),
            stop: CancellationToken::new(),
            stopped: Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs a task until it ends or the backend stops.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this crate that spawns, tracked until the backend is stopped"
    )]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(env::task(self.tasks.track_future(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        })));
    }

    /// Records the time that Redis took to answer the command `name`, sent at `began`.
    pub(crate) fn answered(&self, name: &str, began: Instant) {
        let durations = &self.metrics.redis_command_duration;
        durations.of(RedisCommand::of(name)).observe_since(began);
    }

    /// Stops every task, and waits until all tasks have ended.
    pub(crate) async fn end_tasks(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Makes 128 random bits in hexadecimal, for the id of a message between nodes or of a revocation,
/// or for the name of an epoch.
pub(crate) fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The state of the node's connections to Redis, for `/readyz` and for operations that need a
/// connection.
#[derive(Debug)]
pub(crate) struct Status {
    /// The reason why the node is disconnected from Redis; `None` while it is connected.
    down: Mutex<Option<Cow<'static, str>>>,
    /// The end of the last delivery lease, in nanoseconds of the boot clock.
    leased_until: AtomicU64,
    /// The difference between this node's clock and Redis' clock at the last comparison, in
    /// milliseconds, or [`NOT_COMPARED`].
    skew_ms: AtomicU64,
    /// The name of the Redis setting that fences a replaced primary, or `none` if no setting does
    /// so; `None` if Redis has no replicas.
    fencing: Mutex<Option<&'static str>>,
    /// True if every primary has a connection for commands.
    commanding: AtomicBool,
    /// The reason why the last connection for commands was lost or could not be made.
    no_commands: Mutex<Option<String>>,
    /// True if every primary has a connection for publications.
    listening: AtomicBool,
    /// True if sessions could be admitted at some moment since the start.
    was_ready: AtomicBool,
    /// Two numbers: the count of the node's lost registrations so far, and the value of this count
    /// at the node's latest registration. The two numbers are equal while the node is registered.
    registrations: [AtomicU64; 2],
    /// Wakes the task that registers the node.
    pub(crate) unregistered: Notify,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            down: Mutex::new(Some("the first connection is not made yet".into())),
            leased_until: AtomicU64::new(0),
            skew_ms: AtomicU64::new(NOT_COMPARED),
            fencing: Mutex::new(None),
            commanding: AtomicBool::new(false),
            no_commands: Mutex::new(None),
            listening: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            registrations: [AtomicU64::new(1), AtomicU64::new(0)],
            unregistered: Notify::new(),
        }
    }
}

impl Status {
    /// Records that the node is disconnected from Redis. Returns true if the state or the reason is
    /// new.
    pub(crate) fn set_down(&self, why: String) -> bool {
        // The lock is held until the end, because the comparison and the write below must see the
        // same reason.
        let mut down = self.down.lock();
        let news = down.as_deref() != Some(why.as_str());
        *down = Some(why.into());
        news
    }

    /// Records that the node holds its delivery lease until `until`. Returns true if the node was
    /// disconnected from Redis before.
    pub(crate) fn set_leased_until(&self, until: Duration) -> bool {
        let nanoseconds = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.leased_until.store(nanoseconds, Ordering::Relaxed);
        let was_down = self.down.lock().take().is_some();
        self.note_ready();
        was_down
    }

    /// The time since the end of the node's last lease: zero while the node holds a lease, and
    /// `None` if it never held one.
    pub(crate) fn without_lease_for(&self) -> Option<Duration> {
        match self.leased_until.load(Ordering::Relaxed) {
            0 => None,
            until => Some(boottime().saturating_sub(Duration::from_nanos(until))),
        }
    }

    /// Records a clock difference that was just measured.
    pub(crate) fn set_skew(&self, skew: Duration) {
        let milliseconds = u64::try_from(skew.as_millis()).unwrap_or(NOT_COMPARED);
        self.skew_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// The absolute difference of the clocks at the last comparison.
    pub(crate) fn skew(&self) -> Duration {
        Duration::from_millis(self.skew_ms.load(Ordering::Relaxed))
    }

    /// True if the clocks are known to agree well enough to admit sessions.
    pub(crate) fn clocks_agree(&self) -> bool {
        u128::from(self.skew_ms.load(Ordering::Relaxed)) <= MAX_CLOCK_SKEW.as_millis()
    }

    /// Records the setting that fences a replaced primary. Returns true if the setting has changed.
    pub(crate) fn set_fencing(&self, fencing: Option<&'static str>) -> bool {
        std::mem::replace(&mut *self.fencing.lock(), fencing) != fencing
    }

    /// The setting that fences a replaced primary.
    pub(crate) fn fencing(&self) -> Option<&'static str> {
        *self.fencing.lock()
    }

    /// Records that the node may be missing from the set of nodes. Other nodes need this set to
    /// find and remove the node's records after a crash.
    pub(crate) fn forget_registration(&self) {
        self.registrations[0].fetch_add(1, Ordering::SeqCst);
        self.unregistered.notify_one();
    }

    /// The number of registrations lost so far. Read it before the node is registered: see
    /// [`Status::set_registered`].
    pub(crate) fn registration(&self) -> u64 {
        self.registrations[0].load(Ordering::SeqCst)
    }

    /// Records that the node was registered. `registration` is the value of
    /// [`Status::registration`] before the node was registered. A registration that was lost since
    /// then still counts as lost.
    pub(crate) fn set_registered(&self, registration: u64) {
        self.registrations[1].fetch_max(registration, Ordering::SeqCst);
    }

    /// True if the node is in the set of nodes, as far as it knows.
    pub(crate) fn is_registered(&self) -> bool {
        self.registrations[1].load(Ordering::SeqCst) == self.registration()
    }

    /// Records that a connection for commands was lost or could not be made. Returns true if the
    /// reason is new.
    pub(crate) fn set_no_commands(&self, why: String) -> bool {
        let mut no_commands = self.no_commands.lock();
        let news = no_commands.as_deref() != Some(why.as_str());
        *no_commands = Some(why);
        news
    }

    /// Stores two states. `commanding` is true if every primary has a connection for commands, and
    /// `listening` if every primary has a connection for publications.
    pub(crate) fn set_connected(&self, commanding: bool, listening: bool) {
        self.commanding.store(commanding, Ordering::Relaxed);
        self.listening.store(listening, Ordering::Relaxed);
        self.note_ready();
    }

    /// If the node is ready, records this for [`Status::was_ready`]. Call it after each change that
    /// may make the node ready.
    fn note_ready(&self) {
        if self.unready().is_none() {
            self.was_ready.store(true, Ordering::Relaxed);
        }
    }

    /// True if sessions could be admitted at some moment since the start.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// The reason why sessions are not admitted; `None` while they are admitted.
    pub(crate) fn unready(&self) -> Option<Cow<'static, str>> {
        if let Some(why) = &*self.down.lock() {
            return Some(format!("disconnected from redis: {why}").into());
        }
        if !self.clocks_agree() {
            let seconds = self.skew_ms.load(Ordering::Relaxed) / 1000;
            let most = MAX_CLOCK_SKEW.as_secs();
            return Some(
                format!(
                    "the clocks of this node and of redis differ by {seconds} s, more than {most} s: synchronise the clocks"
                )
                .into(),
            );
        }
        if !self.commanding.load(Ordering::Relaxed) {
            let why = self.no_commands.lock();
            let why = why.as_deref().unwrap_or("not connected yet");
            return Some(format!("no connection to redis for commands: {why}").into());
        }
        if !self.listening.load(Ordering::Relaxed) {
            return Some("not subscribed to publications at redis".into());
        }
        None
    }
}
