//! The next answer of an issuer that may not be asked at the moment: when it can come, and waiting for
//! it.

use std::future;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Asked, Phase, RemoteKeys};

impl RemoteKeys {
    /// The time until the keys are fetched again, or may be for one who asks then.
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

    /// Resolves when the issuer has answered a fetch that begins from now on. One is made as soon as one
    /// is in hand.
    pub(crate) async fn answers_anew(&self) {
        let mut ended = self.ended.subscribe();
        let mut is_new = !matches!(self.state().phase, Phase::Fetching);
        loop {
            let in_hand_at = {
                let mut state = self.state();
                match state.phase {
                    // A provider that fails is tried again soon in any case.
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
