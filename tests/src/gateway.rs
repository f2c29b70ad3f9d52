//! One gateway process, with its listeners, its log and its metrics.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curfew_model_check::replay;
use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE, WsClient};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{ADMIN_KEY, Log, Settings, curfew_binary};

/// Interval between two checks of an awaited condition.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The file in a gateway's directory that holds the offset of the gateway's wall clock; see
/// [`Gateway::start_with_own_clock`].
const CLOCK: &str = "clock";

/// A running `curfew serve`, which is killed when this value is dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    directory: TempDir,
    public: SocketAddr,
    admin: SocketAddr,
    log: Log,
}

impl Gateway {
    /// Starts a gateway with the default settings.
    pub async fn start_default() -> Self {
        Self::start_with(&Settings::default()).await
    }

    /// Starts a gateway with these settings.
    pub async fn start_with(settings: &Settings) -> Self {
        Self::start(&settings.to_toml()).await
    }

    /// Starts a gateway with this configuration, which should name port 0 for both listeners. Waits
    /// until both listeners are open.
    pub async fn start(config_toml: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), config_toml).await
    }

    /// Like [`Gateway::start`], with the configuration in `directory`. The directory may already
    /// hold files that the configuration names.
    pub async fn start_in(directory: TempDir, config_toml: &str) -> Self {
        Self::spawn(directory, config_toml, &[]).await
    }

    /// Like [`Gateway::start_with`], with a wall clock that [`Gateway::set_clock`] sets. A library
    /// replaces `CLOCK_REALTIME` in the gateway's process.
    pub async fn start_with_own_clock(settings: &Settings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = directory.path().join(CLOCK);
        fs::write(&clock, "+0").expect("the clock can be written");
        let environment = [
            ("LD_PRELOAD", faketime_library()),
            ("FAKETIME_TIMESTAMP_FILE", clock),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        Self::spawn(directory, &settings.to_toml(), &environment).await
    }

    pub(crate) async fn spawn(directory: TempDir, toml: &str, env: &[(&str, PathBuf)]) -> Self {
        let config = directory.path().join("curfew.toml");
        fs::write(&config, toml).expect("the configuration can be written");
        let mut child = Command::new(curfew_binary())
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = Log::new();
        log.collect(child.stderr.take().expect("stderr is piped"));
        log.collect(child.stdout.take().expect("stdout is piped"));
        let (public, admin) = (
            listening(&log, "public").await,
            listening(&log, "admin").await,
        );
        let (Some(public), Some(admin)) = (public, admin) else {
            drop(child.kill());
            panic!("the gateway does not listen; its log:\n{}", log.text());
        };
        Self {
            child,
            directory,
            public,
            admin,
            log,
        }
    }

    /// The public listener.
    pub fn address(&self) -> SocketAddr {
        self.public
    }

    /// The admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Folder of the configuration.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory().join("curfew.toml")
    }

    /// Replaces the configuration file atomically, without a signal to the gateway.
    pub fn write_config(&self, settings: &Settings) {
        self.write("curfew.toml", &settings.to_toml());
    }

    /// Replaces a file beside the configuration atomically: no reader sees a half-written file.
    pub fn write(&self, name: &str, content: &str) {
        let new = self.directory().join(format!("{name}.new"));
        fs::write(&new, content).expect("the file can be written");
        fs::rename(&new, self.directory().join(name)).expect("the file can be replaced");
    }

    /// Replaces the configuration file and waits until the gateway logs the end of the reload. If
    /// `told` is true, a signal starts the reload. Otherwise the gateway must notice the change
    /// itself.
    pub async fn take_over(&self, settings: &Settings, told: bool) {
        let reloads = || {
            self.log
                .text()
                .matches("\"configuration reloaded\"")
                .count()
        };
        let before = reloads();
        self.write_config(settings);
        if told {
            self.reload();
        }
        eventually("the reload to be over", async || {
            (reloads() > before).then_some(())
        })
        .await;
        self.until_metric("curfew_config_last_reload_successful", |value| value == 1.0)
            .await;
    }

    /// The log and the output of the gateway so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    // The public listener.

    /// A WebSocket connection to the public listener, which the caller opens.
    pub fn ws(&self) -> Connect {
        Connect::to(self.public)
    }

    /// An open session of `user` with a token of the default issuer, after its `connected` message.
    pub async fn user(&self, user: &str) -> WsClient {
        self.session(&Key::default_secret().user(user)).await
    }

    /// An open session with `token`, after its `connected` message.
    pub async fn session(&self, token: &str) -> WsClient {
        self.connected(self.ws().bearer(token)).await.0
    }

    /// An open session and its `connected` message.
    pub async fn connected(&self, connect: Connect) -> (WsClient, Value) {
        let mut client = connect.open().await;
        let connected = client.expect_json(json!({"type":"connected"})).await;
        (client, connected)
    }

    /// A session of `user` subscribed to `channel`. Drops publications that arrive before the
    /// confirmation.
    pub async fn subscriber(&self, user: &str, channel: &str) -> WsClient {
        let mut client = self.user(user).await;
        client
            .send(json!({"type":"subscribe","id":0,"channel":channel}))
            .await;
        client.until_json(json!({"type":"ok","id":0})).await;
        client
    }

    // The admin listener.

    /// An admin request with the admin key of the default settings.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self.admin_as(Some(ADMIN_KEY), method, path, body).await;
        (response.status, response.json())
    }

    /// An admin request with this key, or without a key.
    pub async fn admin_as(
        &self,
        key: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Response {
        let bearer = format!("Bearer {}", key.unwrap_or_default());
        let mut headers = vec![("Content-Type", "application/json")];
        if key.is_some() {
            headers.push(("Authorization", bearer.as_str()));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        http::request(self.admin, method, path, &headers, body.as_bytes()).await
    }

    /// An admin request that must succeed. Returns its body.
    pub async fn admin_ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.admin(method, path, body).await;
        assert!(
            (200..300).contains(&status),
            "{method} {path} gave {status}: {answer}"
        );
        answer
    }

    /// Publishes through the admin API.
    pub async fn publish(&self, channel: &str, data: Value) {
        self.admin_ok(
            "POST",
            "/v1/publish",
            Some(json!({"channel":channel,"data":data})),
        )
        .await;
    }

    /// Revokes through the admin API. Returns the receipt.
    pub async fn revoke(&self, revocation: Value) -> Value {
        self.admin_ok("POST", "/v1/revocations", Some(revocation))
            .await
    }

    /// True if `/readyz` answers that the node is ready.
    pub async fn ready(&self) -> bool {
        let answer = http::request(self.admin, "GET", "/readyz", &[], b"").await;
        answer.status == 200
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let answer = http::request(self.admin, "GET", "/metrics", &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// A metric's value, summed over its series; 0 if the metric has no series. With labels, as in
    /// `name{a="b"}`, only the series with these labels count.
    pub async fn metric(&self, name: &str) -> f64 {
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty())
            .collect();
        let text = self.metrics().await;
        text.lines()
            .filter_map(|line| {
                let series = line.strip_prefix(name)?;
                if !series.starts_with(['{', ' ']) || !labels.iter().all(|l| series.contains(l)) {
                    return None;
                }
                let value = series.rsplit_once('}').map_or(series, |(_, value)| value);
                value.split_whitespace().next()?.parse::<f64>().ok()
            })
            .sum()
    }

    /// The names of all series, without values and exemplars.
    pub async fn series(&self) -> BTreeSet<String> {
        let text = self.metrics().await;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| match line.split_once('}') {
                Some((series, _)) => series.to_owned(),
                None => line.split(' ').next().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    /// Waits until a metric satisfies `wanted`.
    pub async fn until_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        eventually(&format!("the wanted value of {name}"), async || {
            wanted(self.metric(name).await).then_some(())
        })
        .await;
    }

    // The process.

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGHUP, which reloads the configuration.
    pub fn reload(&self) {
        self.signal("HUP");
    }

    /// Steps the gateway's own wall clock to `seconds` ahead of the machine's clock.
    pub fn set_clock(&self, seconds: i64) {
        // The file is replaced atomically, because the gateway may read it at any time.
        let new = self.directory.path().join("new-clock");
        fs::write(&new, format!("{seconds:+}")).expect("the clock can be written");
        fs::rename(&new, self.directory.path().join(CLOCK)).expect("the clock is set");
    }

    /// Sends SIGTERM, so that the gateway drains and stops.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Stops the process (SIGSTOP) until [`Gateway::thaw`], and waits until each of its threads has
    /// stopped.
    pub async fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        eventually("a process that is stopped", async || {
            let mut threads = fs::read_dir(&tasks).expect("the process runs");
            let stopped = threads.all(|thread| {
                let stat = thread.expect("the thread is listed").path().join("stat");
                // The state follows the name in parentheses. An ended thread counts as stopped.
                fs::read_to_string(stat).map_or(true, |stat| {
                    stat.rsplit_once(") ")
                        .is_some_and(|(_, rest)| rest.starts_with('T'))
                })
            });
            stopped.then_some(())
        })
        .await;
    }

    /// Continues the process (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for the end of the process. Returns its exit code.
    pub async fn exited(&mut self, patience: Duration) -> i32 {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the process does not end");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Fails unless the process runs and answers.
    pub async fn assert_alive(&self) {
        let answer = http::request(self.admin, "GET", "/livez", &[], b"").await;
        assert_eq!(answer.status, 200);
        let log = self.log.text();
        assert!(!log.contains("panicked at"), "{log}");
    }

    /// Resident memory without the pages of files, in KiB. The program's own pages are loaded when
    /// its code first runs, so they would count as growth.
    pub fn rss_kib(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .expect("a process has memory");
        let number = line.split_whitespace().next().expect("RssAnon has a value");
        number.parse().expect("the field is a number")
    }

    /// Processor time used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("stat exists");
        // Field 3 follows the name. Fields 14 and 15 are utime and stime, in units of 10 ms.
        let (_, fields) = stat.rsplit_once(')').expect("stat is `pid (name) …`");
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("the field is a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Number of open file descriptors.
    pub fn open_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The calls fail only if the process has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let lines = self.log.lines();
            let last = lines.len().saturating_sub(40);
            eprintln!(
                "the end of the gateway's log:\n{}",
                lines[last..].join("\n")
            );
        } else {
            self.assert_follows_the_model();
        }
    }
}

impl Gateway {
    /// Fails unless the model allows each step of the protocol that this node has logged.
    fn assert_follows_the_model(&self) {
        let lines = self.log.lines();
        if let Err(violation) = replay::check(lines.iter().map(String::as_str)) {
            panic!("{violation}");
        }
    }
}

/// The library that steps a process's wall clock. The library's path depends on the architecture.
fn faketime_library() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").expect("there are libraries");
    let mut paths = libraries.filter_map(|entry| {
        let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then_some(path)
    });
    paths.next().expect("faketime is installed")
}

/// The address that a listener logs in time. A Unix socket gives `0.0.0.0:0`.
pub(crate) async fn listening(log: &Log, listener: &str) -> Option<SocketAddr> {
    log.line(PATIENCE, |line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let found = entry["message"] == "listening" && entry["listener"] == listener;
        let address = entry["address"].as_str().filter(|_| found)?;
        match address.starts_with("unix:") {
            true => Some(SocketAddr::from(([0, 0, 0, 0], 0))),
            false => address.parse().ok(),
        }
    })
    .await
}

/// Sends a signal by name to a process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {pid}"))
        .status()
        .expect("sh runs");
    assert!(status.success(), "kill -{name} fails");
}

/// Calls `look` repeatedly until it returns `Some`. Fails after [`PATIENCE`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// Calls `look` repeatedly until it returns `Some`. Fails after `patience`.
pub async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(LOOK_AGAIN).await;
    }
}
