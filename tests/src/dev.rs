//! A running `curfew dev`.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use curfew_testkit::{Connect, PATIENCE};

use crate::gateway::signal;
use crate::{Log, curfew_binary};

/// Deadline for the end of a node and of the program beside it.
const ENDING: Duration = Duration::from_secs(10);

/// Interval between two checks for the end of the node.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running `curfew dev`, which ends when this value is dropped.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    /// The public listener, with the demo page.
    pub address: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Log,
    runs_a_program: bool,
}

impl Dev {
    /// Starts `curfew dev` on free ports and waits until it has printed its addresses.
    pub async fn start() -> Self {
        Self::start_with_variables(&[]).await
    }

    /// Like [`Dev::start`], with these environment variables.
    pub async fn start_with_variables(variables: &[(&str, &str)]) -> Self {
        Self::spawn(&[], variables).await
    }

    /// Ends this node, and starts another node on the same addresses.
    pub async fn start_anew(self) -> Self {
        let (address, admin) = (self.address.to_string(), self.admin.to_string());
        drop(self);
        Self::start_with_flags(&["--listen", &address, "--admin", &admin]).await
    }

    /// Like [`Dev::start`], with these flags.
    pub async fn start_with_flags(flags: &[&str]) -> Self {
        Self::spawn(flags, &[]).await
    }

    /// Like [`Dev::start`], with this program beside the node.
    pub async fn start_beside(program: &[&str]) -> Self {
        Self::spawn(&[&["--"], program].concat(), &[]).await
    }

    async fn spawn(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(curfew_binary());
        child.arg("dev");
        for flag in ["--listen", "--admin"] {
            if !flags.contains(&flag) {
                child.args([flag, "127.0.0.1:0"]);
            }
        }
        let mut child = child
            .args(flags)
            .env("NO_COLOR", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = Log::new();
        log.collect(child.stdout.take().expect("stdout is piped"));
        log.collect(child.stderr.take().expect("stderr is piped"));
        let (address, admin) = (
            printed(&log, "Open").await,
            printed(&log, "Admin API").await,
        );
        let (Some(address), Some(admin)) = (address, admin) else {
            drop(child.kill());
            panic!("curfew dev does not listen; it printed:\n{}", log.text());
        };
        Self {
            child,
            address,
            admin,
            log,
            runs_a_program: flags.contains(&"--"),
        }
    }

    /// The output and the log of the node so far.
    pub fn output(&self) -> &Log {
        &self.log
    }

    /// The printed key of the admin API.
    pub async fn admin_key(&self) -> String {
        let key = self.log.line(PATIENCE, |line| {
            let (_, key) = line.split_once("CURFEW_ADMIN_KEY=")?;
            Some(key.to_owned())
        });
        key.await.expect("curfew dev prints its admin key")
    }

    /// A WebSocket connection to the public listener, which the caller opens.
    pub fn ws(&self) -> Connect {
        Connect::to(self.address)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The node gets SIGTERM instead of SIGKILL, because only the node can end the program
        // beside it.
        if self.runs_a_program {
            signal(self.child.id(), "TERM");
            let deadline = Instant::now() + ENDING;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(LOOK_AGAIN);
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address that the output shows after `word`, as in `Open http://127.0.0.1:8080/`.
async fn printed(log: &Log, word: &str) -> Option<SocketAddr> {
    log.line(PATIENCE, |line| {
        let rest = line.trim_start().strip_prefix(word)?;
        let (_, url) = rest.split_once("http://")?;
        url.trim_end_matches('/').parse().ok()
    })
    .await
}
