//! Costs of processes, as Linux reports them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// Processes on this machine that are measured together, such as the nodes of a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    folders: Vec<PathBuf>,
}

/// CPU times at the start of a measurement.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    server: Option<(Processes, Duration)>,
    redis: Option<(Processes, Duration)>,
    load: (Processes, Duration),
}

/// The cost of a measurement. If the load generator was idle for less than a tenth of the time, it
/// measured itself, and the result is void.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// The share of one core that the server used, summed over the nodes. If each node has one
    /// core, the share is at most the number of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_busy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redis_busy: Option<f64>,
    pub(crate) load_busy: f64,
}

impl Processes {
    pub(crate) fn of(pids: &[u32]) -> Self {
        Self {
            folders: pids
                .iter()
                .map(|pid| PathBuf::from(format!("/proc/{pid}")))
                .collect(),
        }
    }

    fn this() -> Self {
        Self {
            folders: vec![PathBuf::from("/proc/self")],
        }
    }

    /// Resident memory, in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for folder in &self.folders {
            let path = folder.join("status");
            let read = || format!("read {}", path.display());
            let text = std::fs::read_to_string(&path).with_context(read)?;
            sum += rss_kib(&text)
                .with_context(|| format!("{} does not have the expected form", path.display()))?;
        }
        Ok(sum)
    }

    /// CPU time that the running threads of the processes have used so far.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for folder in &self.folders {
            let tasks = folder.join("task");
            let read = || format!("read {}", tasks.display());
            for task in std::fs::read_dir(&tasks).with_context(read)? {
                // A thread may have ended meanwhile.
                let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                    continue;
                };
                sum += cpu(&text).with_context(|| {
                    format!("schedstat does not have the expected form: {text}")
                })?;
            }
        }
        Ok(sum)
    }
}

fn rss_kib(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// The time that a thread spent on a CPU: the first number of `schedstat`, in nanoseconds.
fn cpu(schedstat: &str) -> Option<Duration> {
    let time = schedstat.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(time))
}

impl Meter {
    /// Starts the measurement.
    pub(crate) fn start(
        server: Option<Processes>,
        redis: Option<Processes>,
    ) -> anyhow::Result<Self> {
        let with_cpu = |processes: Processes| processes.cpu().map(|cpu| (processes, cpu));
        Ok(Self {
            server: server.map(with_cpu).transpose()?,
            redis: redis.map(with_cpu).transpose()?,
            load: with_cpu(Processes::this())?,
            started: Instant::now(),
        })
    }

    /// Cost since the start, and the server's CPU time in microseconds.
    pub(crate) fn stop(&self) -> anyhow::Result<(Usage, Option<f64>)> {
        let seconds = self.started.elapsed().as_secs_f64();
        let used = |(processes, before): &(Processes, Duration)| {
            processes
                .cpu()
                .map(|cpu| cpu.saturating_sub(*before).as_secs_f64())
        };
        let server = self.server.as_ref().map(used).transpose()?;
        let redis = self.redis.as_ref().map(used).transpose()?;
        let usage = Usage {
            seconds,
            server_busy: server.map(|used| used / seconds),
            redis_busy: redis.map(|used| used / seconds),
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
        assert_eq!(
            cpu("2000000000 21400181 490\n"),
            Some(Duration::from_secs(2))
        );
        assert_eq!(cpu(""), None);
        assert!(Processes::this().cpu().unwrap() > Duration::ZERO);
        let this = Processes::this().rss_kib().unwrap();
        let twice = Processes::of(&[std::process::id(); 2]).rss_kib().unwrap();
        assert!(this > 0 && twice > this);
    }
}
