//! Fetched keys: their schedule, their lifetime, and the tokens that wait for them.
//!
//! Knows nothing of HTTP: the fetcher awaits [`RemoteKeys::due`] and reports the outcome.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use crate::{AuthConfig, Issuer, Trust};

mod anew;

/// Mean pause between fetches caused by unknown keys. A stranger who knows the form of an issuer's
/// tokens can send tokens that each name a new `kid`. These tokens must not load the issuer with
/// fetches.
const ON_DEMAND_PAUSE: Duration = Duration::from_secs(30);

/// Number of fetches caused by unknown keys that may follow each other without a pause. An issuer
/// may rotate its keys twice in a row.
const ON_DEMAND_BURST: u32 = 2;

/// Longest wait of a token for its key.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// Pauses after failed fetches, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Longest pause before the first success. It is short, because no user can connect until then and
/// the provider may be starting.
const LAST_FIRST_RETRY: Duration = Duration::from_secs(4);

/// Share of the keys' lifetime after which the keys are fetched again.
const REFRESH_AT: f64 = 0.8;

/// Maximum share by which a fetch starts earlier, at random. Nodes that start together thus do not
/// always fetch together.
const JITTER: f64 = 0.1;

/// The source of an issuer's fetched keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// The URL of a key set.
    Url(String),
    /// The key set that this issuer's OpenID configuration names (OpenID Connect Discovery 1.0 §4).
    Discovery(String),
}

/// State of an issuer's fetched keys, shared by verification and the fetcher.
#[derive(Debug)]
pub struct RemoteKeys {
    /// The issuer's configured name.
    pub issuer: Arc<str>,
    /// The source of the keys.
    pub location: KeyLocation,
    /// The rules of fetching the keys.
    pub trust: Trust,
    lifetime: Duration,
    max_stale: Duration,
    state: Mutex<FetchState>,
    /// Wakes the fetcher for a fetch that is due earlier than scheduled.
    wanted: Notify,
    /// The number of fetches that have ended.
    ended: watch::Sender<u64>,
}

/// State of the fetches, with their times.
#[derive(Debug, Default)]
struct FetchState {
    phase: Phase,
    fetched_at: Option<Instant>,
    /// The set of the last successful fetch; `None` if it has no usable key.
    set: Option<Arc<[u8]>>,
    /// The time at which all on-demand fetches are available again; `None` if none was used.
    full_at: Option<Instant>,
    /// The number of failures since the last success.
    failures: u32,
    /// The cause of the last failure; `None` after a success.
    failure: Option<String>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    /// A fetch is due at once.
    #[default]
    Wanted,
    Fetching,
    /// A fetch is due at this instant.
    Waiting(Instant),
}

/// State of an issuer's fetched keys, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemoteStatus {
    /// The URL of the key set, or of the issuer whose OpenID configuration names it.
    pub location: String,
    /// Seconds since the keys in use were fetched; absent if they never were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// The cause of the last failed fetch; absent after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Outcome of a request to an issuer for a missing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The issuer answered after the request: a key that the answer does not list is not the
    /// issuer's key.
    Answered,
    /// The issuer's last answer is older than the request, and the issuer is not asked again yet. A
    /// key may be newer than that answer.
    AnsweredBefore,
    /// The issuer did not answer in time, or its answer was unusable.
    Unanswered,
}

impl RemoteKeys {
    pub(crate) fn new(config: &AuthConfig, issuer: &Issuer) -> Option<Self> {
        let location = match (&issuer.jwks_url, &issuer.issuer) {
            (Some(url), _) => KeyLocation::Url(url.clone()),
            (None, Some(iss)) if issuer.discovery => KeyLocation::Discovery(iss.clone()),
            _ => return None,
        };
        Some(Self {
            issuer: issuer.name.as_str().into(),
            location,
            trust: issuer.trust(),
            lifetime: config.jwks_lifetime,
            max_stale: config.jwks_max_stale,
            state: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when a fetch is due, and marks the fetch as begun. The caller then reports the
    /// outcome by [`Authenticator::install`](crate::Authenticator::install) or
    /// [`RemoteKeys::failed`].
    pub async fn due(&self) {
        loop {
            let phase = self.state().phase;
            match phase {
                Phase::Waiting(until) if until > Instant::now() => tokio::select! {
                    () = time::sleep_until(until) => {}
                    () = self.wanted.notified() => {}
                },
                _ => break,
            }
        }
        self.state().phase = Phase::Fetching;
    }

    /// Copies the keys that `other` fetched from the same location under another configuration.
    pub(crate) fn take_over(&self, other: &Self) {
        // The copies are made before `self` is locked, because two locks of this type are never
        // held together.
        let (fetched_at, set) = {
            let known = other.state();
            (known.fetched_at, known.set.clone())
        };
        let mut state = self.state();
        state.fetched_at = fetched_at;
        state.set = set;
    }

    /// Returns true if `other` has the same schedule and the same rules of fetching.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let times = |it: &Self| (it.lifetime, it.max_stale);
        times(self) == times(other) && self.trust == other.trust
    }

    /// Returns true if `set` is the set fetched last.
    pub(crate) fn is_known(&self, set: &[u8]) -> bool {
        self.state().set.as_deref() == Some(set)
    }

    /// The set fetched last.
    pub(crate) fn set(&self) -> Option<Arc<[u8]>> {
        self.state().set.clone()
    }

    /// Drops the set fetched last, because it has no usable key.
    pub(crate) fn forget(&self) {
        self.state().set = None;
    }

    /// Returns true if the last fetch succeeded, so that the keys in force are the issuer's current
    /// keys.
    pub(crate) fn is_sure(&self) -> bool {
        let state = self.state();
        state.fetched_at.is_some() && state.failure.is_none()
    }

    /// Records a successful fetch of `set`, which is now in force.
    pub(crate) fn fetched(&self, set: &[u8]) {
        let now = Instant::now();
        let pause = self
            .lifetime
            .mul_f64(REFRESH_AT * (1.0 - JITTER * fastrand::f64()));
        let mut state = self.state();
        state.phase = Phase::Waiting(now + pause);
        state.fetched_at = Some(now);
        state.set = Some(set.into());
        state.failures = 0;
        state.failure = None;
        // The fetch is counted under the lock, so a later question cannot mistake this fetch for
        // its own answer.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Records a failed fetch; the keys in use stay. `why` is for operators.
    pub fn failed(&self, why: String) {
        let mut state = self.state();
        let pause = FIRST_RETRY.saturating_mul(1 << state.failures.min(10)).min(
            if state.fetched_at.is_none() {
                LAST_FIRST_RETRY
            } else {
                LAST_RETRY
            },
        );
        let pause = pause.mul_f64(1.0 - JITTER * fastrand::f64());
        state.phase = Phase::Waiting(Instant::now() + pause);
        state.failures = state.failures.saturating_add(1);
        state.failure = Some(why);
        // The fetch is counted under the lock, so a later question cannot mistake this fetch for
        // its own answer.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Returns true if the keys were fetched, and recently enough to be used
    /// (`auth.jwks_max_stale`).
    pub(crate) fn usable(&self) -> bool {
        let fetched_at = self.state().fetched_at;
        fetched_at.is_some_and(|at| at.elapsed() < self.max_stale)
    }

    /// Returns true once a fetch has succeeded.
    pub(crate) fn was_fetched(&self) -> bool {
        self.state().fetched_at.is_some()
    }

    /// The time since the issuer's last answer.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.state().fetched_at.map(|at| at.elapsed())
    }

    /// The age of the keys and the cause of the last failed fetch.
    pub fn status(&self) -> RemoteStatus {
        let state = self.state();
        let (KeyLocation::Url(location) | KeyLocation::Discovery(location)) = &self.location;
        RemoteStatus {
            location: location.clone(),
            age_s: state.fetched_at.map(|at| at.elapsed().as_secs()),
            failure: state.failure.clone(),
        }
    }

    /// Asks the issuer for a token's missing key. Waits for the fetch that is under way, and for
    /// one more fetch, because the first fetch began before this call. Starts a fetch only if
    /// `may_draw` is set and the rate of on-demand fetches allows it. Before it starts a fetch, it
    /// calls `is_unknown` to look for the key again, because an earlier fetch may have brought the
    /// key.
    pub(crate) async fn ask(&self, may_draw: bool, is_unknown: impl Fn() -> bool) -> Asked {
        let until = Instant::now() + KEY_WAIT;
        let mut ended = self.ended.subscribe();
        let mut looked_again = false;
        loop {
            let begins = {
                let mut state = self.state();
                // The count is marked as seen under the lock, so `changed` below reports only
                // fetches that end after the state was read.
                ended.borrow_and_update();
                let phase = state.phase;
                match phase {
                    Phase::Fetching => false,
                    Phase::Wanted => true,
                    // The schedule retries a failing provider soon, so this question starts no
                    // fetch.
                    Phase::Waiting(_) if state.failure.is_some() => return Asked::Unanswered,
                    Phase::Waiting(_) if !looked_again => {
                        // The lock is released first, because `is_unknown` verifies the token
                        // again, which locks this state.
                        drop(state);
                        if !is_unknown() {
                            return Asked::Answered;
                        }
                        looked_again = true;
                        continue;
                    }
                    Phase::Waiting(_) if may_draw && state.draw() => {
                        state.phase = Phase::Wanted;
                        self.wanted.notify_one();
                        true
                    }
                    Phase::Waiting(_) => return Asked::AnsweredBefore,
                }
            };
            match time::timeout_at(until, ended.changed()).await {
                Ok(Ok(())) if begins => return self.state().outcome(),
                Ok(Ok(())) => looked_again = false,
                _ => return Asked::Unanswered,
            }
        }
    }
}

impl FetchState {
    /// The earliest time at which an on-demand fetch is available.
    fn in_hand_at(&self, now: Instant) -> Instant {
        let spent = ON_DEMAND_PAUSE * (ON_DEMAND_BURST - 1);
        let at = self.full_at.and_then(|full_at| full_at.checked_sub(spent));
        at.unwrap_or(now).max(now)
    }

    /// Takes one on-demand fetch; returns false if none is available.
    fn draw(&mut self) -> bool {
        let now = Instant::now();
        let in_hand = self.in_hand_at(now) <= now;
        if in_hand {
            let full_at = self.full_at.unwrap_or(now).max(now);
            self.full_at = Some(full_at + ON_DEMAND_PAUSE);
        }
        in_hand
    }

    fn outcome(&self) -> Asked {
        match (&self.failure, self.fetched_at) {
            (None, Some(_)) => Asked::Answered,
            _ => Asked::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn remote() -> RemoteKeys {
        let config = AuthConfig::default();
        let issuer = Issuer {
            jwks_url: Some("https://id.example/keys".to_owned()),
            ..Issuer::default()
        };
        RemoteKeys::new(&config, &issuer).unwrap()
    }

    /// Waits until the next fetch is due, which marks it as begun, and returns the time waited.
    async fn until_due(remote: &RemoteKeys) -> Duration {
        let began = Instant::now();
        remote.due().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_due_at_once_and_then_before_their_lifetime_ends() {
        let remote = remote();
        assert_eq!(until_due(&remote).await, Duration::ZERO);
        for _ in 0..20 {
            remote.fetched(b"{}");
            let pause = until_due(&remote).await;
            assert!(
                (LIFETIME.mul_f64(0.71)..=LIFETIME.mul_f64(0.801)).contains(&pause),
                "{pause:?}"
            );
        }
    }

    /// Reports repeated failures. Each retry must be due after the given number of seconds, or a
    /// little sooner.
    async fn assert_tried_after(remote: &RemoteKeys, pauses: &[u32]) {
        for expected in pauses.iter().copied().map(f64::from) {
            remote.failed("no".to_owned());
            let pause = until_due(remote).await.as_secs_f64();
            assert!(
                pause <= expected + 0.01 && pause >= expected * 0.89,
                "{pause} {expected}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_ever_more_slowly() {
        let remote = remote();
        remote.due().await;
        // Until the first success the pauses stay short.
        assert_tried_after(&remote, &[1, 2, 4, 4, 4]).await;
        remote.fetched(b"{}");
        assert_tried_after(&remote, &[1, 2, 4, 8, 16, 30, 30]).await;
        assert_eq!(remote.ask(true, || true).await, Asked::Unanswered);
        remote.fetched(b"{}");
        assert_eq!(remote.status().failure, None);
    }

    /// Asks for a key, and answers the fetch that the question starts.
    async fn asked(remote: &RemoteKeys) -> Asked {
        let (asked, ()) = tokio::join!(remote.ask(true, || true), async {
            assert_eq!(until_due(remote).await, Duration::ZERO);
            remote.fetched(b"{}");
        });
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_two_fetches_at_once_and_then_one_in_thirty_seconds() {
        let remote = remote();
        remote.due().await;
        // The first scheduled fetch does not count as an on-demand fetch.
        remote.fetched(b"{}");
        for _ in 0..1000 {
            assert_eq!(remote.ask(false, || true).await, Asked::AnsweredBefore);
        }
        assert_eq!(asked(&remote).await, Asked::Answered);
        assert_eq!(asked(&remote).await, Asked::Answered);
        for _ in 0..2 {
            for _ in 0..1000 {
                assert_eq!(remote.ask(true, || true).await, Asked::AnsweredBefore);
            }
            time::advance(ON_DEMAND_PAUSE).await;
            assert_eq!(asked(&remote).await, Asked::Answered);
        }
        time::advance(ON_DEMAND_PAUSE).await;
        let (asked, pause) = tokio::join!(remote.ask(true, || true), async {
            let pause = until_due(&remote).await;
            remote.failed("no".to_owned());
            pause
        });
        assert_eq!((asked, pause), (Asked::Unanswered, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_had_begun_does_not_say_what_is_unknown_after_it() {
        let remote = remote();
        remote.due().await;
        let (asked, ()) = tokio::join!(remote.ask(true, || true), async {
            time::sleep(Duration::from_millis(1)).await;
            remote.fetched(b"{}");
            // The question starts another fetch.
            assert_eq!(until_due(&remote).await, Duration::ZERO);
            remote.fetched(b"{}");
        });
        assert_eq!(asked, Asked::Answered);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_fetch_that_hangs_is_told_in_time() {
        let remote = remote();
        remote.due().await;
        let began = Instant::now();
        assert_eq!(remote.ask(true, || true).await, Asked::Unanswered);
        assert_eq!(began.elapsed(), KEY_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_may_be_used_for_a_day_without_their_issuer() {
        let remote = remote();
        assert!(!remote.usable());
        remote.due().await;
        remote.fetched(b"{}");
        time::advance(AuthConfig::default().jwks_max_stale - Duration::from_secs(1)).await;
        assert!(remote.usable());
        time::advance(Duration::from_secs(1)).await;
        assert!(!remote.usable());
    }
}
