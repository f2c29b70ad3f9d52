//! What a session counts, in the words of the metrics.

use curfew_auth::AuthError;
use curfew_model::{Principal, Reply};
use curfew_policy::Decision;
use curfew_telemetry::{CommandOutcome, Opcode, PublishOutcome, PublishSource};

use crate::Context;
use crate::open::State;

impl Context {
    pub(crate) fn count_decision(&self, decision: &Decision) {
        self.metrics().authorizations.inc(if decision.allowed {
            curfew_telemetry::Decision::Allowed
        } else {
            curfew_telemetry::Decision::Denied
        });
    }

    pub(crate) fn count_publish(&self, outcome: PublishOutcome) {
        self.metrics().publishes.inc((outcome, PublishSource::Client));
    }
}

impl State {
    pub(crate) fn count_authentication(&self, result: &Result<Principal, AuthError>) {
        let authentications = &self.context.metrics().authentications;
        match result {
            Ok(_) => authentications.accepted(),
            Err(error) => authentications.refused(error.failure().as_str()),
        }
    }

    pub(crate) fn count_command(&self, command: &'static str, reply: &Reply<'_>) {
        let outcome = match reply {
            Reply::Error { .. } => CommandOutcome::Error,
            Reply::Ok | Reply::Refreshed { .. } | Reply::Pong => CommandOutcome::Ok,
        };
        self.context.metrics().commands.inc(command, outcome);
    }

    /// Nearly all frames are text; a ping or a pong among them is not told apart here.
    pub(crate) fn count_sent(&self, frames: usize) {
        self.context.metrics().frames_sent.inc_by(Opcode::Text, frames as u64);
    }
}
