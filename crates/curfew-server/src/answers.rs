//! Every answer is counted by its reason, and refusals are logged: a line for each reason and minute.

use std::net::IpAddr;
use std::sync::Arc;

use curfew_model::Repeats;
use curfew_telemetry::Label as _;
use http::StatusCode;
use tracing::{info, warn};

use crate::metrics::{AnswerReason, Listener, ServerMetrics};
use crate::respond::{Code, Response};

/// The answers of one listener.
#[derive(Debug)]
pub(crate) struct Answers {
    listener: Listener,
    metrics: Arc<ServerMetrics>,
    /// By reason.
    refusals: Vec<Repeats>,
}

impl Answers {
    pub(crate) fn new(listener: Listener, metrics: Arc<ServerMetrics>) -> Self {
        Self {
            listener,
            metrics,
            refusals: AnswerReason::VALUES
                .iter()
                .map(|_| Repeats::default())
                .collect(),
        }
    }

    /// Counts an answer to `peer`, and logs it where it is a refusal.
    pub(crate) fn note(&self, response: &Response, peer: IpAddr) {
        let code = response.extensions().get::<Code>().map(|Code(code)| *code);
        let status = response.status();
        let reason = AnswerReason::of(status.as_u16(), code);
        self.count(reason);
        // A node that is not ready says so in an answer of its own.
        let is_refusal = status.is_client_error() || status.is_server_error() && code.is_some();
        if is_refusal {
            self.log(reason, status, peer);
        }
    }

    /// Counts and logs a refusal that is no [`Response`].
    pub(crate) fn refused(&self, reason: AnswerReason, status: StatusCode, peer: IpAddr) {
        self.count(reason);
        self.log(reason, status, peer);
    }

    fn count(&self, reason: AnswerReason) {
        self.metrics.http_answers.inc((self.listener, reason));
    }

    fn log(&self, reason: AnswerReason, status: StatusCode, peer: IpAddr) {
        let Some(count) = self.refusals[reason.index()].note() else {
            return;
        };
        let listener = self.listener.as_str();
        let (reason, status) = (reason.as_str(), status.as_u16());
        match advice(reason) {
            Some(advice) => {
                warn!(listener, reason, status, count, peer = %peer, advice, "requests refused");
            }
            None => info!(listener, reason, status, count, peer = %peer, "requests refused"),
        }
    }
}

/// Advice to the operator, where the reason may lie in the configuration.
fn advice(reason: &str) -> Option<&'static str> {
    match reason {
        "head_too_large" => Some("tokens, cookies and proxies' headers must fit limits.head_bytes"),
        "too_many_headers" => Some("what clients and proxies send must fit limits.headers"),
        "limit" => Some(
            "see limits.connections, limits.unauthenticated, limits.unauthenticated_per_address and admin.connections",
        ),
        "http_version" => Some("a proxy in front must speak HTTP/1.1 to this node"),
        "internal" => Some("see the lines before"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use curfew_model::{REPEAT_INTERVAL, boottime};
    use curfew_protocol::Protocols;
    use curfew_protocol::native::Native;
    use curfew_telemetry::Registry;

    use super::*;

    #[test]
    fn a_reason_is_logged_once_a_minute_with_the_number_of_refusals() {
        let protocols = Protocols::new(vec![Arc::new(Native)]);
        let answers = Answers::new(
            Listener::Public,
            ServerMetrics::register(&Registry::default(), &protocols),
        );
        let start = boottime();
        let due = |reason: AnswerReason, now| answers.refusals[reason.index()].note_at(now);
        assert_eq!(due(AnswerReason::NotFound, start), Some(1));
        assert_eq!(due(AnswerReason::NotFound, start), None);
        assert_eq!(
            due(AnswerReason::BadRequest, start),
            Some(1),
            "another reason"
        );
        let later = start + REPEAT_INTERVAL;
        assert_eq!(due(AnswerReason::NotFound, later), Some(2));
    }
}
