//! A node's life: start, reload, drain, end.

use std::cell::Cell;
use std::future::{self, Future};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::{App, Running};
use crate::config::{self, Check, Config, Files};
use crate::failure::Failure;

/// The interval at which files are checked for changes.
const POLL: Duration = Duration::from_secs(1);

/// The time that is left for the drain after a second signal.
const HURRIED: Duration = Duration::from_millis(500);

/// Longest wait for the backend to remove this node.
const LEAVE: Duration = Duration::from_secs(3);

/// Longest wait for the collector to accept the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// The sources of a configuration, which a reload reads again.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: Option<PathBuf>,
    pub(crate) sets: Vec<String>,
    /// The configuration file and the files that it names, as they were just before the load. The
    /// first check thus notices a change during the load.
    pub(crate) seen: LastRead,
}

/// Files as they were last read, valid or not.
#[derive(Debug, Default)]
pub(crate) struct LastRead {
    /// The contents of the configuration file.
    file: Option<Vec<u8>>,
    /// The files that the configuration names. If the configuration cannot be parsed, its files are
    /// not known, and the files of the last valid configuration stay.
    named: Files,
}

impl LastRead {
    /// Reads the files of a configuration that is about to be loaded.
    pub(crate) fn look(&mut self, file: Option<&Path>, sets: &[String]) {
        self.file = file.and_then(|file| std::fs::read(file).ok());
        if let Ok(loaded) = config::load(file, sets, Check::Form) {
            self.named = Files::of(&loaded.config);
        }
    }
}

/// Runs a node until a signal stops it. The node reloads changes from `source`; without a source,
/// the node never reloads.
pub(crate) async fn run(app: App, config: Config, source: Option<Source>) -> Result<(), Failure> {
    let stop_public = CancellationToken::new();
    let stop_admin = CancellationToken::new();
    let mut hangup = listen_for(SignalKind::hangup())?;
    let mut stop = Stop {
        terminate: listen_for(SignalKind::terminate())?,
        interrupt: listen_for(SignalKind::interrupt())?,
    };
    let running = app.listen(stop_public.clone(), stop_admin.clone())?;
    let node = Arc::clone(&running.context.node);
    let mut reloader = Reloader::new(running, config, source);

    let life = async {
        reload_until(stop.asked(), &mut reloader, &mut hangup).await;
        drain(&reloader, &stop_public, stop.asked()).await;
    };
    // The heartbeat runs in the task that reloads and drains, so it stops if that task is stuck.
    tokio::select! {
        () = life => {}
        never = node.beat() => match never {},
    }
    stop_admin.cancel();
    node.metrics().tracer().shutdown(LAST_SPANS).await;
    info!("stopped");
    Ok(())
}

/// The signals that end a node.
#[derive(Debug)]
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Waits for the next signal of either kind.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reloads when files change and on SIGHUP, until `stop`.
async fn reload_until(
    stop: impl Future<Output = ()>,
    reloader: &mut Reloader,
    hangup: &mut Signal,
) {
    let mut poll = time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            _ = hangup.recv() => reloader.reload(),
            _ = poll.tick() => reloader.poll(),
            () = reloader.settled() => reloader.complete(),
            () = &mut stop => return,
        }
    }
}

/// Leaves service. The node first reports that it is not ready, but still accepts connections for a
/// while. It then closes its sessions, spread over the drain window. A second signal shortens the
/// drain.
async fn drain(
    reloader: &Reloader,
    stop_public: &CancellationToken,
    again: impl Future<Output = ()>,
) {
    let node = &reloader.running.context.node;
    let drain = &reloader.config.drain;
    info!("a signal stops the node");
    let whole = async {
        node.begin_drain();
        time::sleep(drain.accept_grace).await;
        node.refuse_sessions();
        node.drain(drain.window).await;
    };
    tokio::select! {
        () = whole => {}
        () = again => {
            warn!("a second signal stops the node, the drain is shortened");
            node.refuse_sessions();
            node.drain(HURRIED).await;
        }
    }
    stop_public.cancel();
    // `Public::serve` bounds the wait for the last answers, and the timeout bounds the wait for the
    // backend. The timeout is short, because a supervisor kills a node that takes too long.
    let (_, left) = tokio::join!(
        reloader.running.answered.cancelled(),
        time::timeout(LEAVE, node.backends().nodes.leave()),
    );
    if left.is_err() {
        warn!("the backend took too long, other nodes will remove the records of this node");
    }
}

fn listen_for(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("listen for signals")
}

/// Reloads the settings and the files that may change while the node runs.
#[derive(Debug)]
struct Reloader {
    running: Running,
    config: Config,
    source: Option<Source>,
    seen: LastRead,
    /// True if key files had changed at the last check.
    keys_changed: Cell<bool>,
    /// The time at which the last configuration came into force; `None` once revocations find all
    /// sessions by the revocable claims of this configuration.
    unsettled: Option<Instant>,
}

impl Reloader {
    fn new(running: Running, config: Config, mut source: Option<Source>) -> Self {
        let seen = source
            .as_mut()
            .map(|source| std::mem::take(&mut source.seen));
        Self {
            running,
            config,
            source,
            seen: seen.unwrap_or_default(),
            keys_changed: Cell::new(false),
            unsettled: None,
        }
    }

    fn read_file(&self) -> Option<Vec<u8>> {
        std::fs::read(self.source.as_ref()?.file.as_ref()?).ok()
    }

    /// Logs repeated events, then checks the configuration's own file and the files that it names.
    fn poll(&mut self) {
        self.running.tell_rest();
        let now = self.read_file();
        // A missing file is being replaced, so it does not count as a change.
        let is_new = now.is_some() && now != self.seen.file;
        let changed = self.seen.named.changed();
        if !changed.keys.is_empty() {
            info!(keys = changed.keys.join(", "), "files changed");
        }
        if is_new || changed.needs_reload {
            self.reload();
        } else if !changed.keys.is_empty() || self.keys_changed.get() {
            self.poll_keys();
        }
    }

    fn poll_keys(&self) {
        let authenticator = &self.running.context.authenticator;
        let changed = !authenticator.reload_changed_files().is_empty();
        let changed_before = self.keys_changed.replace(changed);
        // The next check after a change repeats this step, because sessions may have been admitted
        // with the old keys in between.
        if changed || changed_before {
            self.running.keys_read();
        }
        match self.running.tls.as_ref().map(|tls| tls.reload()) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => info!("certificate reloaded"),
            Some(Err(error)) => {
                error!(error = %error, "certificate not reloaded, the old one stays")
            }
        }
    }

    /// Reads the configuration again and puts it in force. An invalid configuration is reported,
    /// and the old configuration stays in force. The reload is complete once revocations find every
    /// session by the new configuration: see [`Reloader::complete`].
    fn reload(&mut self) {
        let Some(source) = &self.source else { return };
        // The files are looked at before the load, so that a change during the load causes another
        // reload.
        self.seen.look(source.file.as_deref(), &source.sets);
        let node = &self.running.context.node;
        let metrics = &self.running.metrics;
        // From here on the metrics are about this reload, even if an earlier reload is not
        // complete.
        metrics.config_last_reload_successful.set(0);
        self.unsettled = None;
        let file = source.file.as_deref();
        let config = match config::load(file, &source.sets, Check::Everything) {
            Ok(loaded) => {
                loaded.warn();
                loaded.config
            }
            Err(problems) => {
                for problem in &problems {
                    error!(problem = %problem, "configuration not reloaded, the old one stays");
                }
                return;
            }
        };
        if let Err(error) = self.running.apply(&config) {
            error!(error = %error, "configuration not reloaded, the old one stays");
            return;
        }
        // `started` is the configuration that was in force. A comparison with it shows which
        // changes need a restart.
        let started = std::mem::replace(&mut self.config, config);
        let waiting = keep_boot_settings(&mut self.config, &started);
        metrics
            .config_restart_required
            .set(i64::from(!waiting.is_empty()));
        self.unsettled = Some(Instant::now());
        if node.is_settled() {
            self.complete();
        } else {
            info!("configuration in force, sessions are being compared with revocations by it");
        }
        if !waiting.is_empty() {
            warn!(
                keys = waiting.join(", "),
                "changes of these settings take effect only at the next start"
            );
        }
        self.poll_keys();
    }

    /// Waits until revocations find every session by the configuration in force.
    async fn settled(&self) {
        match self.unsettled {
            Some(_) => self.running.context.node.until_settled().await,
            None => future::pending().await,
        }
    }

    /// Reports that the last reload is complete.
    fn complete(&mut self) {
        let Some(began) = self.unsettled.take() else {
            return;
        };
        let metrics = &self.running.metrics;
        metrics.config_last_reload_successful.set(1);
        info!(
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "configuration reloaded"
        );
    }
}

/// A setting that takes effect only at start.
struct BootSetting {
    key: &'static str,
    differs: fn(&Config, &Config) -> bool,
    copy: fn(&mut Config, &Config),
}

macro_rules! boot_settings {
    ($($key:literal => $section:ident $(. $field:ident)?,)+) => {
        &[$(BootSetting {
            key: $key,
            differs: |one, other| one.$section$(.$field)? != other.$section$(.$field)?,
            copy: |to, from| to.$section$(.$field)?.clone_from(&from.$section$(.$field)?),
        },)+]
    };
}

const BOOT_SETTINGS: &[BootSetting] = boot_settings![
    "server.listen" => server.listen,
    "server.node_name" => server.node_name,
    "server.node_address" => server.node_address,
    "server.tls_cert_file" => server.tls_cert_file,
    "server.tls_key_file" => server.tls_key_file,
    "admin.listen" => admin.listen,
    "admin.connections" => admin.connections,
    "auth.jwks_timeout" => auth.jwks_timeout,
    "backend" => backend,
    "telemetry.log_format" => telemetry.log_format,
    "telemetry.otlp_endpoint" => telemetry.otlp_endpoint,
    "telemetry.trace_sample_ratio" => telemetry.trace_sample_ratio,
    "telemetry.trust_client_traces" => telemetry.trust_client_traces,
    "telemetry.trace_user_ids" => telemetry.trace_user_ids,
    "telemetry.trace_url" => telemetry.trace_url,
];

/// Copies the settings that take effect only at start from `running` to `new`. Returns the keys of
/// the settings that differed.
fn keep_boot_settings(new: &mut Config, running: &Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    for setting in BOOT_SETTINGS {
        if (setting.differs)(running, new) {
            (setting.copy)(new, running);
            kept.push(setting.key);
        }
    }
    kept
}

/// Builds a runtime and runs `future` on it, for every command that needs one.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(future);
    // Only connections that did not end in time still have tasks here.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
