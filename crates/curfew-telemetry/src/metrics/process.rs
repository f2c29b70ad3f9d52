//! The standard `process_*` metrics, read from `/proc/self` at each scrape. On a system without
//! `/proc` they are absent.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The number of clock ticks per second in `/proc/self/stat`. It is 100 on every supported Linux
/// architecture.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    /// The start of the process, in Unix seconds.
    started: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { started: started() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time used, user and system, in seconds.";
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?;
            counter.encode(encoder)?;
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                resident_bytes(),
            ),
            ("process_open_fds", "Open file descriptors.", open_fds()),
            (
                "process_max_fds",
                "The limit on open file descriptors.",
                max_fds(),
            ),
            (
                "process_start_time_seconds",
                "The Unix time at which the process started.",
                self.started,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(
                    name,
                    help,
                    None,
                    gauge.metric_type(),
                )?)?;
            }
        }
        Ok(())
    }
}

/// Returns the field number `at` of `/proc/self/stat`, counted from 1 as in proc(5). `at` must be
/// at least 3: the search begins after the command, which is field 2, because the command may
/// contain spaces and parentheses.
fn stat_field(at: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command
        .split_whitespace()
        .nth(at.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SECOND)
}

fn started() -> Option<f64> {
    let booted: f64 = line_number("/proc/stat", "btime ")?;
    Some(booted + stat_field(22)? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    Some(line_number("/proc/self/status", "VmRSS:")? * 1024.0)
}

fn max_fds() -> Option<f64> {
    line_number("/proc/self/limits", "Max open files")
}

fn open_fds() -> Option<f64> {
    // Since Linux 6.2, the size of this directory is the number of open files. In earlier versions
    // its size is 0, so the entries are counted.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        count => Some(count as f64),
    }
}

/// Returns the number after `label` in the first line of the file that begins with `label`.
fn line_number(path: &str, label: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}
