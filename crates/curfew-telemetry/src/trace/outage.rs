//! Detects outages, which are times in which spans are dropped, and logs the beginning and the end
//! of each outage.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::endpoint;

/// An outage is over if no span was dropped for this time and the collector accepts spans again.
/// The time is long enough to bridge the pause between two bursts: a slow collector causes dropped
/// spans in every burst, and the bursts belong to one outage.
const QUIET: Duration = Duration::from_secs(5);

/// The reason why an export failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The collector has refused the export, or the export could not be sent.
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
    /// The total number of dropped spans at the last check.
    seen: u64,
    now: Option<Current>,
}

#[derive(Debug)]
struct Current {
    began: Instant,
    /// The total number of dropped spans before the outage.
    before: u64,
    last_drop: Instant,
    /// The number of spans that the collector has accepted since the last dropped span.
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

    /// Returns the earliest time at which the current outage can be over; `None` if there is no
    /// outage, or if the collector has accepted no span since the last dropped span.
    pub(super) fn may_be_over_at(&self) -> Option<Instant> {
        let current = self.now.as_ref()?;
        (current.taken_since > 0).then(|| current.last_drop + QUIET)
    }

    /// Detects the beginning and the end of an outage. `dropped` is the total number of dropped
    /// spans. `result` is the number of spans that the collector has accepted since the last call,
    /// or the fault of the last export.
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

    /// Logs the beginning of an outage. `fault` is the fault of the last export; `None` if the
    /// export has not failed.
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
        // If the port is not the usual one, the server may use another protocol. Its answers then
        // cause arbitrary errors, so the log line has a hint about the port.
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

    /// If there is an outage, logs that it lasts until the process ends.
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
