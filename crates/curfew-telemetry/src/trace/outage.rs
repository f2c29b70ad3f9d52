//! Times in which spans are dropped: each is told of when it begins, and when it is over.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::endpoint;

/// After this long without a dropped span an outage is over, once the collector takes spans again: a
/// slow one loses some in every burst.
const QUIET: Duration = Duration::from_secs(5);

/// The reasons for which an export fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It was refused, or could not be sent.
    #[error(transparent)]
    Failed(OTelSdkError),
    /// There was no answer in time.
    #[error("the collector does not answer in time")]
    Silent,
}

/// Notices outages, by the number of spans that were dropped.
#[derive(Debug)]
pub(super) struct Outage {
    /// The collector's port.
    port: Option<u16>,
    /// Spans dropped as of the last look.
    seen: u64,
    now: Option<Current>,
}

#[derive(Debug)]
struct Current {
    began: Instant,
    /// Spans dropped before it began.
    before: u64,
    last_drop: Instant,
    /// Spans that the collector took since.
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

    /// The time to look again, though there be nothing to export.
    pub(super) fn may_be_over_at(&self) -> Option<Instant> {
        let current = self.now.as_ref()?;
        (current.taken_since > 0).then(|| current.last_drop + QUIET)
    }

    /// Looks at the number of all spans that were `dropped` so far, and at what became of the last
    /// export: the spans that were taken.
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

    /// Says that it has begun.
    fn tell(&self, dropped: u64, fault: Option<&Fault>) {
        let Some(fault) = fault else {
            warn!(
                dropped,
                reason = "the collector does not take them as fast as they come",
                "spans are dropped"
            );
            return;
        };
        let error = fault.to_string();
        // At another port than the usual one it may speak something else, by any error.
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

    /// The process ends.
    pub(super) fn end(&self) {
        if let Some(current) = &self.now {
            warn!(
                dropped = self.seen - current.before,
                lasted_ms = milliseconds(current.began.elapsed()),
                "spans were dropped until the end"
            );
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
