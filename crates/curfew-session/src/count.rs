//! What a session counts, in the words of the metrics.

use curfew_model::{Command, Reply, Request};
use curfew_policy::Decision;
use curfew_protocol::DecodeError;

use crate::Context;
use crate::commands::RequestInfo;
use crate::metrics::{self, CommandOutcome, PublishOutcome, PublishSource};
use crate::open::State;

/// Of so many publications of a session one is timed: reading the clock and the buckets would be a
/// fifth of what a publication costs, where nobody listens.
const TIMED_ONE_IN: u8 = 16;

impl Context {
    pub(crate) fn count_decision(&self, decision: &Decision) {
        self.metrics().authorizations.inc(if decision.allowed {
            metrics::Decision::Allowed
        } else {
            metrics::Decision::Denied
        });
    }

    pub(crate) fn count_publish(&self, outcome: PublishOutcome) {
        self.metrics()
            .publishes
            .inc((outcome, PublishSource::Client));
    }
}

impl State {
    pub(crate) fn count_command(&self, request: &RequestInfo, reply: &Reply<'_>) {
        let outcome = match reply {
            Reply::Error { .. } | Reply::AuthFailed { .. } => CommandOutcome::Error,
            _ => CommandOutcome::Ok,
        };
        let metrics = self.context.metrics();
        metrics.commands.inc(request.command, outcome);
        if let Some(began) = request.began {
            let duration = metrics.command_duration.of(request.command);
            duration.observe(began.elapsed().as_secs_f64());
        }
    }

    /// Whether a command is timed: all are but publications, of which a session's first is, and one
    /// in so many.
    pub(crate) fn is_timed(&mut self, decoded: &Result<Request<'_>, DecodeError>) -> bool {
        let Ok(Request {
            command: Command::Publish { .. },
            ..
        }) = decoded
        else {
            return true;
        };
        let timed = self.untimed == 0;
        self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_ONE_IN - 1);
        timed
    }
}
