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

use crate::identity::Reports;
use crate::identity::form::FormError;
use crate::receipt;

/// How long a report is remembered where `auth.max_token_lifetime` does not say for how long tokens
/// from before it may come back.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is said when the backend is away.
const ENDED_HERE: &str =
    "sessions here are closed; those of other nodes as soon as the backend is back";

/// Whose access ends, and which of their tokens are meant.
pub(crate) struct Ending<'a> {
    /// The configured name of the issuer that says so.
    pub(crate) issuer: &'a str,
    /// What it reports; the reason of the revocations.
    pub(crate) report: &'static str,
    /// All of these name the same.
    pub(crate) subjects: &'a [Subject],
    /// When it happened, Unix seconds.
    pub(crate) at: u64,
}

impl Reports {
    /// Ends access on every node: what is named here is silent at once, and the receipts of the
    /// others are in the log.
    ///
    /// # Errors
    ///
    /// The backend is away, or too much waits for it, see [`curfew_node::Node::revoke_reported`].
    pub(crate) async fn end_access(
        &self,
        ending: Ending<'_>,
        span: &Span,
    ) -> Result<Ended, NotEnded> {
        let node = &self.context.node;
        let settings = self.settings.load_full();
        let expires_at = node.clock().unix() + remembered(&settings.auth).as_secs();
        // Together: each is held back before any is waited for, whoever hangs up meanwhile.
        let revocations = ending.subjects.iter().map(|subject| {
            let key = subject.key();
            let revocation = Revocation {
                before: subject.can_return().then_some(ending.at),
                reason: Some(ending.report.into()),
                expires_at: Some(expires_at),
                trace: span.context(),
            };
            async move {
                let result = node.revoke_reported(key.clone(), revocation).await;
                (key, result)
            }
        });
        let mut ended = Ok(Ended::Nobody);
        for (key, result) in join_all(revocations).await {
            match result {
                // Neither the user nor the login: both name a person.
                Ok(receipt) => {
                    receipt::tell(node.metrics().tracer(), &key, &receipt);
                    info!(
                        issuer = ending.issuer,
                        report = ending.report,
                        kind = key.kind(),
                        live = receipt.nodes.live,
                        confirmed = receipt.nodes.confirmed,
                        missing = ?receipt.nodes.missing,
                        closed = receipt.closed,
                        "access ended by the identity provider"
                    );
                    if receipt.closed > 0 || !receipt.nodes.missing.is_empty() {
                        ended = ended.map(|_| Ended::Some);
                    }
                }
                Err(error) => ended = Err(NotEnded(error)),
            }
        }
        ended
    }
}

/// Access has not ended everywhere.
#[derive(Debug)]
pub(crate) struct NotEnded(ReportError);

impl NotEnded {
    /// The answer to the sender; `away` is the status while the backend is.
    pub(crate) fn into_refused(self, away: StatusCode) -> FormError {
        match self.0 {
            ReportError::Backend(_) => FormError::unavailable(away, ENDED_HERE),
            ReportError::Full => FormError::unavailable(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many reports wait to be written: send it again",
            ),
        }
    }
}

/// Whom a report has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Sessions were closed, or may have been by a node that has not answered.
    Some,
    /// Every node has answered that it had none.
    Nobody,
}

/// After so long no token from before can be good any more.
fn remembered(auth: &AuthConfig) -> Duration {
    match auth.max_token_lifetime {
        Duration::ZERO => LONG,
        // A token's `iat` may be ahead by the leeway, and its end later by as much.
        lifetime => lifetime + 2 * auth.leeway,
    }
}
