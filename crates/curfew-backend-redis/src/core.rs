//! What every part of the backend shares.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use curfew_backend::{Events, LocalSessions};
use curfew_model::{Clock, DeliveryLease, NodeId, boottime, env};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::RedisBackendConfig;
use crate::connect::Connector;
use crate::keys::Keys;
use crate::metrics::{RedisCommand, RedisMetrics};

/// Clocks may differ by this much before sessions are refused: a cutoff would cover the wrong
/// tokens.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// The skew before the first comparison.
const NOT_COMPARED: u64 = u64::MAX;

/// What every part of the backend shares.
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
    pub(crate) stop: CancellationToken,
    /// Tells the control connection that this process was stopped for a moment.
    pub(crate) stopped: Notify,
    tasks: TaskTracker,
}

impl Core {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that the backend is given"
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
            stop: CancellationToken::new(),
            stopped: Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs a task until it ends or the backend is stopped.
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

    /// Counts the time that Redis' answer to a command of this name took.
    pub(crate) fn answered(&self, name: &str, began: Instant) {
        let durations = &self.metrics.redis_command_duration;
        durations.of(RedisCommand::of(name)).observe_since(began);
    }

    /// Ends every task.
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

/// 128 random bits: the id of a question or a revocation, the name of an epoch.
pub(crate) fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// How the node stands with Redis, for `/readyz` and for whoever must not go on without it.
#[derive(Debug)]
pub(crate) struct Status {
    /// Why the node is out of touch; `None` while it is in touch.
    down: Mutex<Option<Cow<'static, str>>>,
    /// The end of the last delivery lease, in nanoseconds of the boot clock.
    leased_until: AtomicU64,
    /// By how much this node's clock was off when last compared, in milliseconds; or
    /// [`NOT_COMPARED`].
    skew_ms: AtomicU64,
    /// What fences a primary that was replaced; `None` without replicas.
    fencing: Mutex<Option<&'static str>>,
    /// Whether commands can be sent to every primary.
    commanding: AtomicBool,
    /// Why the last connection for commands was lost or not made.
    no_commands: Mutex<Option<String>>,
    /// Whether publications can be received from every primary.
    listening: AtomicBool,
    /// Whether nothing has kept sessions out at some moment since the start.
    was_ready: AtomicBool,
    /// The number of times that the node's registration may have been lost, and for which of them it
    /// was registered last.
    registrations: [AtomicU64; 2],
    /// Asks for the node to be registered.
    pub(crate) unregistered: Notify,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            down: Mutex::new(Some("connecting to redis for the first time".into())),
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
    /// The node is out of touch. Returns whether that, or the reason, is news.
    pub(crate) fn set_down(&self, why: String) -> bool {
        let mut down = self.down.lock();
        let news = down.as_deref() != Some(why.as_str());
        *down = Some(why.into());
        news
    }

    /// The node holds its delivery lease until `until`. Returns whether it was out of touch.
    pub(crate) fn set_leased_until(&self, until: Duration) -> bool {
        let nanoseconds = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.leased_until.store(nanoseconds, Ordering::Relaxed);
        let was_down = self.down.lock().take().is_some();
        self.note_ready();
        was_down
    }

    /// For how long the node has held no lease, if it ever did.
    pub(crate) fn without_lease_for(&self) -> Option<Duration> {
        match self.leased_until.load(Ordering::Relaxed) {
            0 => None,
            until => Some(boottime().saturating_sub(Duration::from_nanos(until))),
        }
    }

    pub(crate) fn set_skew(&self, skew: Duration) {
        let milliseconds = u64::try_from(skew.as_millis()).unwrap_or(NOT_COMPARED);
        self.skew_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// By how much this node's clock was off when last compared, either way.
    pub(crate) fn skew(&self) -> Duration {
        Duration::from_millis(self.skew_ms.load(Ordering::Relaxed))
    }

    /// Whether clocks are known to agree well enough to admit sessions.
    pub(crate) fn clocks_agree(&self) -> bool {
        u128::from(self.skew_ms.load(Ordering::Relaxed)) <= MAX_CLOCK_SKEW.as_millis()
    }

    /// Returns whether that is news.
    pub(crate) fn set_fencing(&self, fencing: Option<&'static str>) -> bool {
        std::mem::replace(&mut *self.fencing.lock(), fencing) != fencing
    }

    pub(crate) fn fencing(&self) -> Option<&'static str> {
        *self.fencing.lock()
    }

    /// The node is not among those that others clean up after, or may not be.
    pub(crate) fn forget_registration(&self) {
        self.registrations[0].fetch_add(1, Ordering::SeqCst);
        self.unregistered.notify_one();
    }

    /// To be taken before the node is registered.
    pub(crate) fn registration(&self) -> u64 {
        self.registrations[0].load(Ordering::SeqCst)
    }

    /// The node was registered since `registration` was taken.
    pub(crate) fn set_registered(&self, registration: u64) {
        self.registrations[1].fetch_max(registration, Ordering::SeqCst);
    }

    /// True if the node is among those that others clean up after, as far as it knows.
    pub(crate) fn is_registered(&self) -> bool {
        self.registrations[1].load(Ordering::SeqCst) == self.registration()
    }

    /// A connection for commands was lost or not made. Returns whether the reason is news.
    pub(crate) fn set_no_commands(&self, why: String) -> bool {
        let mut no_commands = self.no_commands.lock();
        let news = no_commands.as_deref() != Some(why.as_str());
        *no_commands = Some(why);
        news
    }

    pub(crate) fn set_connected(&self, commanding: bool, listening: bool) {
        self.commanding.store(commanding, Ordering::Relaxed);
        self.listening.store(listening, Ordering::Relaxed);
        self.note_ready();
    }

    /// To be called after whatever may have been the last thing missing.
    fn note_ready(&self) {
        if self.unready().is_none() {
            self.was_ready.store(true, Ordering::Relaxed);
        }
    }

    /// Whether sessions could be admitted at some moment since the start.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Why sessions are not admitted.
    pub(crate) fn unready(&self) -> Option<Cow<'static, str>> {
        if let Some(why) = &*self.down.lock() {
            return Some(format!("out of touch with redis: {why}").into());
        }
        if !self.clocks_agree() {
            let seconds = self.skew_ms.load(Ordering::Relaxed) / 1000;
            let most = MAX_CLOCK_SKEW.as_secs();
            return Some(
                format!(
                    "this node's clock and redis' differ by {seconds} s, more than {most} s: set the clocks"
                )
                .into(),
            );
        }
        if !self.commanding.load(Ordering::Relaxed) {
            let why = self.no_commands.lock();
            let why = why.as_deref().unwrap_or("not made yet");
            return Some(format!("no connection for commands to redis: {why}").into());
        }
        if !self.listening.load(Ordering::Relaxed) {
            return Some("not subscribed to publications at redis".into());
        }
        None
    }
}
