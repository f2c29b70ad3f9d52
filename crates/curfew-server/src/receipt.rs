//! The words of a receipt: on the span of what asked for the revocation, and in the log where it is
//! not whole.

use curfew_backend::Receipt;
use curfew_model::{RevocationKey, Spelling};
use curfew_telemetry::Tracer;
use tracing::warn;

/// `error.type` of what asked for a revocation that not every live node has confirmed.
const UNCONFIRMED: &str = "unconfirmed";

/// Tells the span that the caller runs in, and warns if a node is missing. The log has the key with
/// the digest of its value, and the value of a user where spans may name users.
pub(crate) fn tell(tracer: &Tracer, key: &RevocationKey, receipt: &Receipt) {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let nodes = &receipt.nodes;
    let missing: Vec<String> = nodes.missing.iter().map(ToString::to_string).collect();
    let missing = missing.join(",");
    let user = (key.kind() == "user" && tracer.names_users()).then(|| key.value());
    let mut span = tracer.here();
    span.set("curfew.revocation.kind", key.kind().to_owned());
    span.set("curfew.nodes.live", count(nodes.live));
    span.set("curfew.nodes.confirmed", count(nodes.confirmed));
    span.set("curfew.nodes.missing", missing.clone());
    span.set("curfew.sessions.closed", count(receipt.closed));
    if let Some(user) = &user {
        tracer.name_user(&mut span, user);
    }
    if nodes.missing.is_empty() {
        return;
    }
    span.failed(UNCONFIRMED);
    warn!(
        revocation = key.written(Spelling::Digest),
        user = user.as_deref(),
        live = nodes.live,
        confirmed = nodes.confirmed,
        missing,
        names = ?nodes.names,
        closed = receipt.closed,
        took_ms = receipt.took_ms,
        "a revocation is not confirmed by every node"
    );
}
