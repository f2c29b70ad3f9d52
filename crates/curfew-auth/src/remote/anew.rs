//! Waiting for a fetch that begins after the call, even if the rate of on-demand fetches delays it.

use std::future;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Asked, Phase, RemoteKeys};

impl RemoteKeys {
    /// The time until the keys can next be fetched, on schedule or on demand.
    pub(crate) fn next_fetch(&self) -> Duration {
        let now = Instant::now();
        let state = self.state();
        let at = match state.phase {
            Phase::Waiting(due) if state.failure.is_some() => due,
            Phase::Waiting(due) => due.min(state.in_hand_at(now)),
            Phase::Wanted | Phase::Fetching => now,
        };
        at.saturating_duration_since(now)
    }

    /// Resolves when a fetch that begins after this call has succeeded. Starts a fetch as soon as
    /// the rate of on-demand fetches allows it.
    pub(crate) async fn answers_anew(&self) {
        let mut ended = self.ended.subscribe();
        let mut is_new = {
            let state = self.state();
            // The count is marked as seen under the lock, because every fetch that it counts began
            // before this call.
            ended.borrow_and_update();
            !matches!(state.phase, Phase::Fetching)
        };
        loop {
            let in_hand_at = {
                let mut state = self.state();
                match state.phase {
                    // The schedule retries a failing provider soon, so no fetch is started here.
                    Phase::Waiting(_) if state.failure.is_none() => match state.draw() {
                        true => {
                            state.phase = Phase::Wanted;
                            self.wanted.notify_one();
                            None
                        }
                        false => Some(state.in_hand_at(Instant::now())),
                    },
                    _ => None,
                }
            };
            let in_hand = async {
                match in_hand_at {
                    Some(at) => time::sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                _ = ended.changed() => {
                    if is_new && self.state().outcome() == Asked::Answered {
                        return;
                    }
                    is_new = true;
                }
                () = in_hand => {}
            }
        }
    }
}
