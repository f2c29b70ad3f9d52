//! `curfew dev`, as someone who tries it has it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use curfew_testkit::{Connect, PATIENCE};

use crate::{Log, curfew_binary};

/// A running `curfew dev`, killed when dropped.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    /// The public listener, with the demo page.
    pub address: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Log,
}

impl Dev {
    /// Starts it on free ports and waits until it has printed its addresses.
    pub async fn start() -> Self {
        Self::start_with_variables(&[]).await
    }

    /// As [`Dev::start`], with these environment variables.
    pub async fn start_with_variables(variables: &[(&str, &str)]) -> Self {
        Self::spawn(&[], variables).await
    }

    /// Ends it, and starts another on the same addresses.
    pub async fn start_anew(self) -> Self {
        let (address, admin) = (self.address.to_string(), self.admin.to_string());
        drop(self);
        Self::start_with_flags(&["--listen", &address, "--admin", &admin]).await
    }

    /// As [`Dev::start`], with these flags.
    pub async fn start_with_flags(flags: &[&str]) -> Self {
        Self::spawn(flags, &[]).await
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
        }
    }

    /// Output and log so far.
    pub fn output(&self) -> &Log {
        &self.log
    }

    /// The key of the admin API, as it is printed.
    pub async fn admin_key(&self) -> String {
        let key = self.log.line(PATIENCE, |line| {
            let (_, key) = line.split_once("CURFEW_ADMIN_KEY=")?;
            Some(key.to_owned())
        });
        key.await.expect("curfew dev prints its admin key")
    }

    /// A WebSocket to be opened.
    pub fn ws(&self) -> Connect {
        Connect::to(self.address)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address after a word of what is printed, such as `Open http://127.0.0.1:8080/`.
async fn printed(log: &Log, word: &str) -> Option<SocketAddr> {
    log.line(PATIENCE, |line| {
        let rest = line.trim_start().strip_prefix(word)?;
        let (_, url) = rest.split_once("http://")?;
        url.trim_end_matches('/').parse().ok()
    })
    .await
}
