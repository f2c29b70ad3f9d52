//! Keys that are fetched from a URL: the schedule of the fetches, the lifetime of the keys, and the
//! tokens that wait for a key.
//!
//! This module knows nothing of HTTP: its caller awaits [`RemoteKeys::due`], fetches the keys, and
//! reports the outcome.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use crate::{AuthConfig, Issuer, Trust};

mod anew;

/// Mean pause between on-demand fetches, which are the fetches that tokens with an unknown key
/// cause. A stranger who knows the form of an issuer's tokens can send tokens that each name a new
/// `kid`. These tokens must not load the issuer with fetches.
const ON_DEMAND_PAUSE: Duration = Duration::from_secs(30);

/// Number of on-demand fetches that may follow each other without a pause, because an issuer may
/// rotate its keys twice in a row.
const ON_DEMAND_BURST: u32 = 2;

/// Longest wait of a token for its key.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// Pause after the first failed fetch. Each further failure doubles the pause.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a failed fetch, once a fetch has succeeded.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Longest pause after a failed fetch while no fetch has succeeded. It is short, because the
/// issuer's users cannot connect before the first success, and the provider may be starting.
const LAST_FIRST_RETRY: Duration = Duration::from_secs(4);

/// Share of the keys' lifetime after which the keys are fetched again.
const REFRESH_AT: f64 = 0.8;

/// Maximum share by which a pause between fetches is shortened at random. Otherwise nodes that
/// start together would always fetch at the same times.
const JITTER: f64 = 0.1;

/// The source of an issuer's fetched keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// The URL of a key set.
    Url(String),
    /// The key set that this issuer's OpenID configuration names (OpenID Connect Discovery 1.0 §4).
    Discovery(String),
}

/// State of an issuer's fetched keys, shared by verification and the caller of [`RemoteKeys::due`].
#[derive(Debug)]
pub struct RemoteKeys {
    /// The issuer's configured name.
    pub issuer: Arc<str>,
    /// The source of the keys.
    pub location: KeyLocation,
    /// The rules for fetching the keys.
    pub trust: Trust,
    lifetime: Duration,
    max_stale: Duration,
    state: Mutex<FetchState>,
    /// Wakes [`RemoteKeys::due`] if a fetch becomes due earlier than scheduled.
    wanted: Notify,
    /// The number of fetches that have ended.
    ended: watch::Sender<u64>,
}

/// The phase of the fetches, and the results of the past fetches.
#[derive(Debug, Default)]
struct FetchState {
    phase: Phase,
    fetched_at: Option<Instant>,
    /// The set of the last successful fetch; `None` before that fetch, and once a later fetch has
    /// brought a set without a usable key.
    set: Option<Arc<[u8]>>,
    /// The time at which the full burst of [`ON_DEMAND_BURST`] on-demand fetches is available
    /// again; `None` before the first on-demand fetch.
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
    /// The URL of the key set, or the URL of the issuer whose OpenID configuration names the key
    /// set.
    pub location: String,
    /// Seconds since the last successful fetch; absent if no fetch has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// The cause of the last failed fetch; absent after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Outcome of [`RemoteKeys::ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A fetch that began after the call of `ask` has succeeded, or an earlier fetch has brought
    /// the key. If the key is still missing, it is not a key of the issuer.
    Answered,
    /// The last successful fetch began before the call of `ask`, and the call may not start another
    /// fetch now. The issuer may have published the key after that fetch.
    AnsweredBefore,
    /// The last fetch failed, or the fetch did not end within [`KEY_WAIT`].
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

    /// Returns true if `other` has the same lifetime, the same maximum staleness and the same
    /// [`Trust`].
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let times = |it: &Self| (it.lifetime, it.max_stale);
        times(self) == times(other) && self.trust == other.trust
    }

    /// Returns true if `set` equals the stored set of the last successful fetch.
    pub(crate) fn is_known(&self, set: &[u8]) -> bool {
        self.state().set.as_deref() == Some(set)
    }

    /// The stored set of the last successful fetch.
    pub(crate) fn set(&self) -> Option<Arc<[u8]>> {
        self.state().set.clone()
    }

    /// Drops the stored set. The caller has fetched a set without a usable key, which withdraws the
    /// keys of the stored set.
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
        // The fetch is counted under the lock. Otherwise a call of `ask` that sees the new phase
        // could be woken by this count, and take this fetch for the fetch that it started itself.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Records a failed fetch. Does not change the keys in use. `why` is for operators.
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
        // The fetch is counted under the lock, as in `fetched`.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Returns true if the last successful fetch was less than `auth.jwks_max_stale` ago.
    pub(crate) fn usable(&self) -> bool {
        let fetched_at = self.state().fetched_at;
        fetched_at.is_some_and(|at| at.elapsed() < self.max_stale)
    }

    /// Returns true once a fetch has succeeded.
    pub(crate) fn was_fetched(&self) -> bool {
        self.state().fetched_at.is_some()
    }

    /// The time since the last successful fetch; `None` if no fetch has succeeded.
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

    /// Asks the issuer for a token's missing key, and waits at most [`KEY_WAIT`]. If a fetch is
    /// under way, waits for its end first. That fetch began before this call, so one more fetch is
    /// needed if the key is still unknown. Starts a fetch only if `may_draw` is set and the rate of
    /// on-demand fetches allows it. Before it starts a fetch, it calls `is_unknown` to look for the
    /// key again, because an earlier fetch may have brought the key.
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
                    // The schedule retries a failing provider soon, so this call starts no fetch.
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
    /// The earliest time at which an on-demand fetch is allowed.
    fn in_hand_at(&self, now: Instant) -> Instant {
        let spent = ON_DEMAND_PAUSE * (ON_DEMAND_BURST - 1);
        let at = self.full_at.and_then(|full_at| full_at.checked_sub(spent));
        at.unwrap_or(now).max(now)
    }

    /// Takes one on-demand fetch from the burst; returns false if none is allowed now.
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

    /// Waits until the next fetch is due, and returns the time waited. [`RemoteKeys::due`] marks
    /// the fetch as begun.
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

    /// Reports one failed fetch for each element of `pauses`. The next fetch must be due after this
    /// number of seconds, or up to 11 % sooner.
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
        // Before the first success, the pauses stay short.
        assert_tried_after(&remote, &[1, 2, 4, 4, 4]).await;
        remote.fetched(b"{}");
        assert_tried_after(&remote, &[1, 2, 4, 8, 16, 30, 30]).await;
        assert_eq!(remote.ask(true, || true).await, Asked::Unanswered);
        remote.fetched(b"{}");
        assert_eq!(remote.status().failure, None);
    }

    /// Calls [`RemoteKeys::ask`], and reports success for the fetch that the call starts.
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
            // The call of `ask` starts another fetch.
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
