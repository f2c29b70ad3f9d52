//! Access that ends because an identity provider says so: one way for logouts, security events and
//! Global Token Revocation.

use std::time::Duration;

use curfew_auth::{AuthConfig, Subject};
use curfew_model::Revocation;
use curfew_node::ReportError;
use curfew_telemetry::Span;
use futures_util::future::join_all;
use http::StatusCode;
use tracing::info;

use super::Reports;
use super::refusal::ReportRefusal;
use crate::config::Snapshot;

/// The time that a report is remembered where `auth.max_token_lifetime` sets no bound for tokens from
/// before it.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// The answer while the backend is away.
const ENDED_HERE: &str =
    "sessions here are closed; those of other nodes as soon as the backend is back";

/// An end of access: the user or login, and the tokens that are meant.
pub(super) struct AccessEnd<'a> {
    /// The configured name of the issuer that says so.
    pub(super) issuer: &'a str,
    /// The kind of report, which is the reason of the revocations.
    pub(super) report: &'static str,
    /// All of these name the same.
    pub(super) subjects: &'a [Subject],
    /// The time at which it happened, Unix seconds.
    pub(super) at: u64,
}

impl Reports {
    /// Ends access on every node: sessions of this node are silent at once, and the receipts of the others
    /// are in the log.
    ///
    /// # Errors
    ///
    /// The backend is away, or too much waits for it, see [`curfew_node::Node::revoke_reported`].
    pub(super) async fn end_access(
        &self,
        end: AccessEnd<'_>,
        settings: &Snapshot,
        span: &Span,
    ) -> Result<SessionsFound, ReportError> {
        let node = &self.context.node;
        let expires_at = node.clock().unix() + remembered(&settings.auth).as_secs();
        // Together: each is held back before any is waited for, even if the sender hangs up meanwhile.
        let revocations = end.subjects.iter().map(|subject| {
            let key = subject.key();
            let revocation = Revocation {
                before: subject.can_return().then_some(end.at),
                reason: Some(end.report.into()),
                expires_at: Some(expires_at),
                trace: span.context(),
            };
            async move {
                let result = node.revoke_reported(key.clone(), revocation).await;
                (key, result)
            }
        });
        let mut found = Ok(SessionsFound::None);
        for (key, result) in join_all(revocations).await {
            match result {
                // Neither the user nor the login: both name a person.
                Ok(receipt) => {
                    node.tell_receipt(&key, &receipt);
                    info!(
                        issuer = end.issuer,
                        report = end.report,
                        kind = key.kind(),
                        live = receipt.nodes.live,
                        confirmed = receipt.nodes.confirmed,
                        missing = ?receipt.nodes.missing,
                        closed = receipt.closed,
                        "access ended by the identity provider"
                    );
                    if receipt.closed > 0 || !receipt.nodes.missing.is_empty() {
                        found = found.map(|_| SessionsFound::Some);
                    }
                }
                Err(error) => found = Err(error),
            }
        }
        found
    }
}

/// The answer to a sender whose report is not in force everywhere; `away` is the status while the backend
/// is away.
pub(super) fn not_ended(error: &ReportError, away: StatusCode) -> ReportRefusal {
    match error {
        ReportError::Backend(_) => ReportRefusal::unavailable(away, ENDED_HERE),
        ReportError::Full => ReportRefusal::unavailable(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many reports wait to be written: send it again",
        ),
    }
}

/// The sessions that a report has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionsFound {
    /// Sessions were closed, or may have been by a node that has not answered.
    Some,
    /// Every node has answered that it had none.
    None,
}

/// The time after which no token from before a report can be good any more.
fn remembered(auth: &AuthConfig) -> Duration {
    match auth.max_token_lifetime {
        Duration::ZERO => LONG,
        // A token's `iat` may be ahead by the leeway, and its end later by as much.
        lifetime => lifetime + 2 * auth.leeway,
    }
}
