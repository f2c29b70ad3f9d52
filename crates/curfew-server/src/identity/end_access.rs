//! Ends the access of the subjects that a report of an identity provider names. Logouts, security
//! events and Global Token Revocation use this file.

use std::time::Duration;

use curfew_auth::{AuthConfig, ReportSubject};
use curfew_model::Revocation;
use curfew_node::ReportError;
use curfew_telemetry::Span;
use futures_util::future::join_all;
use http::StatusCode;
use tracing::info;

use super::Reports;
use super::refusal::ReportRefusal;
use crate::config::Snapshot;

/// The duration of a report's revocations if `auth.max_token_lifetime` is 0, which means no limit.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// The description in the answer to a report while the backend is unavailable.
const ENDED_HERE: &str = "sessions of this node are closed; sessions of other nodes are closed once the backend is available";

/// The content of a report that requires the access of its subjects to end.
pub(super) struct AccessEnd<'a> {
    /// The configured name of the issuer that sent the report.
    pub(super) issuer: &'a str,
    /// The kind of the report, or the type of its event. It becomes the reason of the revocations.
    pub(super) report: &'static str,
    /// The subjects to revoke.
    pub(super) subjects: &'a [ReportSubject],
    /// The time of the reported event, in Unix seconds.
    pub(super) at: u64,
}

impl Reports {
    /// Revokes every subject of `end`, and so ends access on every node. This node stops deliveries
    /// to the sessions of the subjects at once. The numbers of nodes that have confirmed the
    /// revocations are logged.
    ///
    /// # Errors
    ///
    /// The backend is unavailable, or too many revocations wait to be written: see
    /// [`curfew_node::Node::revoke_reported`].
    pub(super) async fn end_access(
        &self,
        end: AccessEnd<'_>,
        settings: &Snapshot,
        span: &Span,
    ) -> Result<SessionsFound, ReportError> {
        let node = &self.context.node;
        let expires_at = node.clock().unix() + remembered(&settings.auth).as_secs();
        // All revocations start together, so that each takes effect on this node even if the sender
        // disconnects and this future is dropped.
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
                // The log line names neither the user nor the login, because both identify a
                // person.
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

/// Returns the answer to a report whose revocations were not written to the backend. `away` is the
/// status of the answer if the backend is unavailable.
pub(super) fn not_ended(error: &ReportError, away: StatusCode) -> ReportRefusal {
    match error {
        ReportError::Backend(_) => ReportRefusal::unavailable(away, ENDED_HERE),
        ReportError::Full => ReportRefusal::unavailable(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many reports wait to be stored: send the report again",
        ),
    }
}

/// The result of [`Reports::end_access`]: says if the report has closed sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionsFound {
    /// Sessions were closed, or a node that has not confirmed a revocation may have closed some.
    Some,
    /// Every node has confirmed that it closed no session.
    None,
}

/// Returns the duration of a report's revocations. When they end, every token that is older than
/// the report has expired.
fn remembered(auth: &AuthConfig) -> Duration {
    match auth.max_token_lifetime {
        Duration::ZERO => LONG,
        // The leeway widens both bounds of a token's validity, `iat` and `exp`.
        lifetime => lifetime + 2 * auth.leeway,
    }
}
