//! Counts answers by their reason, and logs refusals. Each cause of refusals gets at most one log
//! line a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use curfew_model::Repeats;
use http::StatusCode;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::{Code, Limit, Problem, Response};
use crate::metrics::{AnswerReason, ListenerKind, ServerMetrics};

/// The counts of the answers of one listener, and the refusals to log.
#[derive(Debug)]
pub(crate) struct Answers {
    listener: ListenerKind,
    metrics: Arc<ServerMetrics>,
    /// The refusals of each cause that no log line has counted yet.
    refusals: Mutex<HashMap<Cause, Repeats<Refusal>>>,
}

/// The cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cause {
    reason: AnswerReason,
    /// The name of the exceeded setting, if the reason is [`AnswerReason::Limit`].
    limit: Option<&'static str>,
}

/// A refusal, for the log.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    peer: IpAddr,
}

impl Answers {
    pub(crate) fn new(listener: ListenerKind, metrics: Arc<ServerMetrics>) -> Self {
        Self {
            listener,
            metrics,
            refusals: Mutex::default(),
        }
    }

    /// Counts an answer to `peer`, and logs it if it is a refusal.
    pub(crate) fn note(&self, response: &Response, peer: IpAddr) {
        let extensions = response.extensions();
        let code = extensions.get::<Code>().map(|Code(code)| *code);
        let status = response.status();
        if let Some(Limit(limit)) = extensions.get() {
            return self.over_limit(limit, status, peer);
        }
        let reason = AnswerReason::of(status.as_u16(), code);
        self.metrics.http_answers.inc((self.listener, reason));
        // A 5xx answer without a code is the report of a health endpoint that the node is not
        // healthy. That answer is not a refusal.
        let is_refusal = status.is_client_error() || status.is_server_error() && code.is_some();
        if is_refusal {
            let limit = None;
            self.log(Cause { reason, limit }, Refusal { status, peer });
        }
    }

    /// Counts and logs a refusal for which the caller has a [`Problem`] but no [`Response`].
    pub(crate) fn problem(&self, problem: &Problem, peer: IpAddr) {
        let status = problem.status();
        match problem.limit {
            Some(limit) => self.over_limit(limit, status, peer),
            None => {
                let reason = AnswerReason::of(problem.status, Some(problem.code));
                self.refused(reason, status, peer);
            }
        }
    }

    /// Counts and logs the refusal of a request or connection that exceeds the setting `limit`.
    pub(crate) fn over_limit(&self, limit: &'static str, status: StatusCode, peer: IpAddr) {
        let reason = AnswerReason::Limit;
        self.metrics.http_answers.inc((self.listener, reason));
        let limit = Some(limit);
        self.log(Cause { reason, limit }, Refusal { status, peer });
    }

    /// Counts and logs a refusal with this reason, if no exceeded setting is the reason.
    pub(crate) fn refused(&self, reason: AnswerReason, status: StatusCode, peer: IpAddr) {
        self.metrics.http_answers.inc((self.listener, reason));
        let limit = None;
        self.log(Cause { reason, limit }, Refusal { status, peer });
    }

    fn log(&self, cause: Cause, refusal: Refusal) {
        let due = {
            // The lock is released before the line is written, because writing may block.
            let mut refusals = self.refusals.lock();
            refusals.entry(cause).or_default().note_event(refusal)
        };
        if let Some((count, refusal)) = due {
            self.tell(cause, count, refusal);
        }
    }

    /// Logs the refusals that no log line has counted yet. A cause is skipped if its last line is
    /// less than a minute old.
    pub(crate) fn tell_rest(&self) {
        let due: Vec<_> = {
            let refusals = self.refusals.lock();
            let rest = |(cause, repeats): (&Cause, &Repeats<Refusal>)| {
                repeats
                    .rest()
                    .map(|(count, refusal)| (*cause, count, refusal))
            };
            refusals.iter().filter_map(rest).collect()
        };
        for (cause, count, refusal) in due {
            self.tell(cause, count, refusal);
        }
    }

    fn tell(&self, cause: Cause, count: u64, refusal: Refusal) {
        let listener = self.listener.as_str();
        let reason = cause.reason.as_str();
        let status = refusal.status.as_u16();
        let peer = refusal.peer;
        match (cause.limit, advice(reason)) {
            (Some(limit), _) => {
                warn!(listener, reason, limit, status, count, peer = %peer, "requests refused");
            }
            (None, Some(advice)) => {
                warn!(listener, reason, status, count, peer = %peer, advice, "requests refused");
            }
            (None, None) => {
                info!(listener, reason, status, count, peer = %peer, "requests refused");
            }
        }
    }
}

/// Returns advice to the operator for refusals that the configuration or a fault of the node may
/// cause.
fn advice(reason: &str) -> Option<&'static str> {
    match reason {
        "head_too_large" => Some(
            "limits.head_bytes must be large enough for tokens, cookies and the headers that proxies add",
        ),
        "too_many_headers" => Some(
            "limits.headers must be large enough for the headers that clients and proxies send",
        ),
        "http_version" => Some("a proxy in front must speak HTTP/1.1 to this node"),
        "internal" => Some("see the log lines before this one"),
        _ => None,
    }
}
