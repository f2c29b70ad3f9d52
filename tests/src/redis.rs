//! A Redis server for one test.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use curfew_testkit::PATIENCE;
use redis::RedisResult;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{Reply, Resp, eventually};

/// Number of ports to try before the start counts as failed.
const ATTEMPTS: usize = 20;

/// A running `redis-server` with its own directory. It is killed when this value is dropped.
///
/// The server saves no data unless the settings enable saving. The command `DEBUG` is allowed.
#[derive(Debug)]
pub struct Redis {
    process: Option<Child>,
    directory: TempDir,
    port: u16,
    mode: &'static [&'static str],
}

impl Redis {
    /// Starts a server with the default settings.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with additional lines of `redis.conf`.
    pub async fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::start_in(directory, settings).await
    }

    /// Like [`Redis::start_with`], in a directory that may already hold files that the settings
    /// name.
    pub async fn start_in(directory: TempDir, settings: &[&str]) -> Self {
        let mut lines = vec!["save \"\"", "appendonly no", "enable-debug-command yes"];
        lines.extend(settings);
        Self::launch(directory, &lines, &[]).await
    }

    /// Starts a `redis-server --sentinel` with these lines of configuration.
    pub(crate) async fn start_sentinel(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::launch(directory, settings, &["--sentinel"]).await
    }

    async fn launch(directory: TempDir, settings: &[&str], mode: &'static [&'static str]) -> Self {
        let mut redis = Self {
            process: None,
            directory,
            port: 0,
            mode,
        };
        for _ in 0..ATTEMPTS {
            redis.port = free_port();
            redis.write_configuration(settings);
            if redis.run_process().await {
                return redis;
            }
        }
        panic!("redis-server does not start:\n{}", redis.log());
    }

    fn write_configuration(&self, settings: &[&str]) {
        let directory = self.directory();
        let mut text = format!(
            "port {}\nbind 127.0.0.1\nprotected-mode no\ndir {}\nlogfile {}\n",
            self.port,
            directory.display(),
            directory.join("log").display(),
        );
        for line in settings {
            writeln!(text, "{line}").expect("a string takes all text");
        }
        fs::write(directory.join("redis.conf"), text).expect("the configuration can be written");
    }

    /// Starts the process and waits until it answers. Returns false if the process ends instead,
    /// for example because the port is taken.
    async fn run_process(&mut self) -> bool {
        let child = Command::new(redis_program("redis-server"))
            .arg(self.directory().join("redis.conf"))
            .args(self.mode)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let process = self.process.insert(child);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if process
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
            {
                return false;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            if let Ok(mut connection) = Resp::connect(address).await
                && let Ok(Reply::Text(info)) = connection.call(&["INFO"]).await
                // Another test's server may have taken the port first, so the process id is
                // compared.
                && info.contains(&format!("process_id:{}\r\n", process.id()))
                && !info.contains("loading:1")
            {
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    // Addresses.

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Address of the TLS port, if the settings have one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        let settings = fs::read_to_string(self.directory().join("redis.conf"));
        let settings = settings.expect("the configuration was written");
        let port = settings
            .lines()
            .find_map(|line| line.strip_prefix("tls-port "))?;
        let port = port.parse().expect("a port is a number");
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The server's URL: `redis://…`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Folder of the server's files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    // Commands.

    /// Opens a connection to the server.
    pub async fn connect(&self) -> Resp {
        Resp::connect(self.address())
            .await
            .expect("the server accepts connections")
    }

    /// Sends one command on a new connection. Returns the answer, which must not be an error.
    pub async fn run(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        let reply = match self.call(command).await {
            // A sentinel cuts every connection of a server when it changes the server's role.
            Err(error) if error.is_connection_dropped() => self.call(command).await,
            reply => reply,
        };
        reply.expect("the server answers").accepted()
    }

    /// Sends one command on a new connection. Returns the answer, which may be an error of the
    /// server.
    pub async fn call(&self, command: &[impl AsRef<[u8]>]) -> RedisResult<Reply> {
        Resp::connect(self.address()).await?.call(command).await
    }

    /// Every key of database 0.
    pub async fn keys(&self) -> BTreeSet<String> {
        self.run(&["KEYS", "*"]).await.texts().into_iter().collect()
    }

    /// True if the key exists.
    pub async fn has(&self, key: &str) -> bool {
        self.run(&["EXISTS", key]).await.integer() == 1
    }

    /// Waits until the key exists.
    pub async fn until_key(&self, key: &str) {
        eventually(&format!("the key {key}"), async || {
            self.has(key).await.then_some(())
        })
        .await;
    }

    // The process.

    /// Kills the process by SIGKILL, so that it cannot save anything.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The calls fail only if the process has already ended.
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts the process again on the same port, with its saved data.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(
            self.run_process().await,
            "redis-server does not restart:\n{}",
            self.log()
        );
    }

    /// Starts the process again on the same port, without any data.
    pub async fn restart_empty(&mut self) {
        self.kill();
        for name in ["appendonlydir", "dump.rdb"] {
            let path = self.directory().join(name);
            // The path is a directory, a file or missing, so at most one of the two calls succeeds.
            drop(fs::remove_dir_all(&path));
            drop(fs::remove_file(&path));
        }
        self.restart().await;
    }

    /// Stops the process (SIGSTOP). Connections stay open, but the server answers nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Continues the process (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("the server runs");
        crate::gateway::signal(process.id(), name);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Path of a program of Redis, in the folder that the variable `CURFEW_REDIS` names.
/// `tests/redis/matrix` sets this variable. Without the variable, the path is the name of the
/// installed program.
pub fn redis_program(name: &str) -> PathBuf {
    let folder = std::env::var_os("CURFEW_REDIS").map(PathBuf::from);
    folder.map_or_else(|| name.into(), |folder| folder.join(name))
}

/// A free port below the range that the kernel uses for outgoing connections. If the port were in
/// that range, the kernel could assign it to an outgoing connection while the server is down.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static START: OnceLock<u16> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time start the search at different ports.
    let start = *START.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id()) % u64::from(COUNT);
        u16::try_from(random).expect("the number is below 20,000")
    });
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start % COUNT).wrapping_add(step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
