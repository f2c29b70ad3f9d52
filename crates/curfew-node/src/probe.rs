//! Clients that are asked for a sign of life, because their user has as many sessions as are allowed.

use std::sync::Arc;
use std::time::Duration;

use curfew_backend::PROBE_PATIENCE;
use curfew_hub::{Hub, Sign};
use curfew_model::SessionId;
use tokio::time::{self, Instant};

/// Between two looks at whether there was one.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Time that sessions' tasks may take beyond the time that clients have. One that takes longer is no proof
/// of anything, and its session counts.
const SLACK: Duration = Duration::from_millis(500);

/// Asks the clients of these sessions, and says which do not live here or are ending: those included
/// that gave no sign.
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
