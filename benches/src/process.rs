//! What a process costs, as Linux tells it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// The unit of CPU times in `/proc`: USER_HZ, a hundredth of a second on every common machine.
const TICK: Duration = Duration::from_millis(10);

/// Where the CPU times are behind the process's name in `/proc/<pid>/stat`: user, then system.
const CPU_FIELDS: std::ops::Range<usize> = 11..13;

/// A process on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    folder: PathBuf,
}

/// CPU times at the start of a measurement.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    server: Option<(Process, Duration)>,
    load: (Process, Duration),
}

/// What a measurement cost. The load generator must have been idle for a tenth of the time at
/// least, or it measured itself.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_busy: Option<f64>,
    pub(crate) load_busy: f64,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            folder: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    fn this() -> Self {
        Self {
            folder: PathBuf::from("/proc/self"),
        }
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.folder.join(file);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Resident memory, in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        rss_kib(&status).context("VmRSS is missing")
    }

    /// CPU time used so far by all its threads.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.read("stat")?;
        cpu(&stat).context("CPU times are missing")
    }
}

fn rss_kib(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name may hold spaces and parentheses: fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: Result<Vec<u32>, _> = fields
        .get(CPU_FIELDS)?
        .iter()
        .map(|field| field.parse::<u32>())
        .collect();
    Some(TICK * ticks.ok()?.iter().sum())
}

impl Meter {
    /// Starts measuring.
    pub(crate) fn start(server: Option<Process>) -> anyhow::Result<Self> {
        let with_cpu = |process: Process| process.cpu().map(|cpu| (process, cpu));
        Ok(Self {
            server: server.map(with_cpu).transpose()?,
            load: with_cpu(Process::this())?,
            started: Instant::now(),
        })
    }

    /// What it cost since then, and the server's CPU time in microseconds.
    pub(crate) fn stop(&self) -> anyhow::Result<(Usage, Option<f64>)> {
        let seconds = self.started.elapsed().as_secs_f64();
        let used = |(process, before): &(Process, Duration)| {
            process
                .cpu()
                .map(|cpu| cpu.saturating_sub(*before).as_secs_f64())
        };
        let server = self.server.as_ref().map(used).transpose()?;
        let usage = Usage {
            seconds,
            server_busy: server.map(|used| used / seconds),
            load_busy: used(&self.load)? / seconds,
        };
        Ok((usage, server.map(|used| used * 1e6)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_times_are_found() {
        assert_eq!(
            rss_kib("Name:\tx\nVmRSS:\t   12345 kB\nRssAnon:\t 1 kB\n"),
            Some(12345)
        );
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 100 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu("42 (x) S 1"), None);
        assert!(Process::this().rss_kib().unwrap() > 0);
    }
}
