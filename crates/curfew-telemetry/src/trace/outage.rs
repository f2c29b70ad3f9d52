//! Outages: times in which spans are dropped. The beginning and the end of each outage are logged.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::endpoint;

/// An outage is over once no span was dropped for this time and the collector accepts spans again.
/// The time is long, because a slow collector loses spans in every burst, and the pause between two
/// bursts must not count as the end of the outage.
const QUIET: Duration = Duration::from_secs(5);

/// Reason why an export failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The export was refused, or could not be sent.
    #[error(transparent)]
    Failed(OTelSdkError),
    /// The collector did not answer in time.
    #[error("the collector does not answer in time")]
    Silent,
}

/// Detects outages by the number of dropped spans.
#[derive(Debug)]
pub(super) struct Outage {
    /// The collector's port.
    port: Option<u16>,
    /// The number of dropped spans at the last check.
    seen: u64,
    now: Option<Current>,
}

#[derive(Debug)]
struct Current {
    began: Instant,
    /// The number of spans dropped before the outage.
    before: u64,
    last_drop: Instant,
    /// The number of spans accepted since the last drop.
    taken_since: u64,
}

impl Outage {
    pub(super) fn new(port: Option<u16>) -> Self {
        Self {
            port,
            seen: 0,
            now: None,
        }
    }

    /// Returns the earliest time at which the outage can be over. The result is `None` without an
    /// outage, or while the collector accepts no spans.
    pub(super) fn may_be_over_at(&self) -> Option<Instant> {
        let current = self.now.as_ref()?;
        (current.taken_since > 0).then(|| current.last_drop + QUIET)
    }

    /// Compares `dropped`, the total number of dropped spans, with the last check. `result` is the
    /// number of spans that the collector accepted in the last export, or the export's fault.
    pub(super) fn look(&mut self, dropped: u64, result: Result<u64, Fault>, at: Instant) {
        let (before, lost) = (self.seen, dropped.saturating_sub(self.seen));
        self.seen = dropped;
        match &mut self.now {
            None if lost == 0 => {}
            None => {
                self.tell(lost, result.as_ref().err());
                self.now = Some(Current {
                    began: at,
                    before,
                    last_drop: at,
                    taken_since: 0,
                });
            }
            Some(current) if lost > 0 => {
                current.last_drop = at;
                current.taken_since = 0;
            }
            Some(current) => {
                current.taken_since += result.unwrap_or(0);
                if current.taken_since > 0 && at >= current.last_drop + QUIET {
                    info!(
                        dropped = dropped - current.before,
                        lasted_ms = milliseconds(current.last_drop - current.began),
                        "no span is dropped any more"
                    );
                    self.now = None;
                }
            }
        }
    }

    /// Logs the beginning of an outage.
    fn tell(&self, dropped: u64, fault: Option<&Fault>) {
        let Some(fault) = fault else {
            warn!(
                dropped,
                reason = "the collector accepts spans more slowly than the node records them",
                "spans are dropped"
            );
            return;
        };
        let error = fault.to_string();
        // A port other than the usual one may serve another protocol, whose answers cause arbitrary
        // errors.
        match self.port.filter(|port| *port != endpoint::GRPC_PORT) {
            Some(port) => warn!(
                dropped,
                error,
                hint = endpoint::doubt(port),
                "spans are dropped"
            ),
            None => warn!(dropped, error, "spans are dropped"),
        }
    }

    /// Logs an outage that lasts until the process ends.
    pub(super) fn end(&self) {
        if let Some(current) = &self.now {
            warn!(
                dropped = self.seen - current.before,
                lasted_ms = milliseconds(current.began.elapsed()),
                "spans were dropped until the process ended"
            );
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
