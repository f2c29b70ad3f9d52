//! A Redis server for one measurement.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use curfew_benches::resp::Resp;
use tempfile::TempDir;

/// Number of keys in one write.
const BATCH: usize = 1000;

/// Deadline for the server's start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `redis-server` that saves nothing. It is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server: apt-get install redis-server")?;
        let server = Self {
            child,
            port,
            _folder: folder,
        };
        let deadline = Instant::now() + PATIENCE;
        while server.connect().is_err() {
            if Instant::now() > deadline {
                bail!("redis-server did not start in time");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Resp> {
        Resp::connect(&format!("127.0.0.1:{}", self.port))
    }

    /// Writes revocations of `count` users without a session, and adds the revocations to the
    /// index, as nodes do.
    pub(crate) fn revoke_others(&self, count: usize) -> anyhow::Result<()> {
        let mut redis = self.connect()?;
        for from in (0..count).step_by(BATCH) {
            let mut keys = vec!["MSET".to_owned()];
            let mut index = vec!["ZADD".to_owned(), "curfew:index:{revoked}".to_owned()];
            for number in from..count.min(from + BATCH) {
                keys.extend([
                    format!("curfew:{{revoked}}:user:other-{number}"),
                    "1".to_owned(),
                ]);
                index.extend(["+inf".to_owned(), format!("user:other-{number}")]);
            }
            redis.call(&keys)?;
            redis.call(&index)?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The calls fail only if the process has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
