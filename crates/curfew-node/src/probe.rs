//! Probes of clients whose user has reached the limit of sessions.

use std::sync::Arc;
use std::time::Duration;

use curfew_backend::PROBE_PATIENCE;
use curfew_hub::{Hub, Sign};
use curfew_model::SessionId;
use tokio::time::{self, Instant};

/// Interval at which the answers are checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Time that session tasks may take beyond [`PROBE_PATIENCE`]. A session whose task takes longer
/// counts as alive, because the delay proves nothing about its client.
const SLACK: Duration = Duration::from_millis(500);

/// Probes the clients of these sessions. Returns the sessions that are ending or are not on this
/// node. These include the sessions whose clients have not answered within [`PROBE_PATIENCE`],
/// because such a session ends itself.
pub(crate) async fn silent(hub: Arc<Hub>, sessions: Vec<SessionId>) -> Vec<SessionId> {
    let until = Instant::now() + PROBE_PATIENCE + SLACK;
    let mut awaited = sessions;
    let mut gone = Vec::new();
    loop {
        awaited.retain(|session| {
            let sign = match hub.get(*session) {
                Some(member) => member.outbox().probe(),
                None => Sign::Ending,
            };
            if sign == Sign::Ending {
                gone.push(*session);
            }
            sign == Sign::Awaited
        });
        if awaited.is_empty() || Instant::now() >= until {
            return gone;
        }
        time::sleep(LOOK_INTERVAL).await;
    }
}
