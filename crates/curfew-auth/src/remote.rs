//! Keys that are fetched: when they are due, how long they may be used, and who waits for them.
//!
//! Knows nothing of HTTP: whoever fetches asks [`RemoteKeys::due`], and says what came of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use crate::{AuthConfig, Issuer, Trust};

mod anew;

/// Unknown keys cause at most one fetch in this time on average, however often they are asked for: a
/// stranger who knows what an issuer's tokens say can write a new `kid` into one.
const ON_DEMAND_PAUSE: Duration = Duration::from_secs(30);

/// As many fetches may follow each other at once: an issuer may rotate its keys twice in a row.
const ON_DEMAND_BURST: u32 = 2;

/// Longest time a token waits for its key.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// Pauses after failures, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The longest pause while there was never a key: no user can come in, and the provider may just have
/// been set up.
const LAST_FIRST_RETRY: Duration = Duration::from_secs(4);

/// The share of their lifetime after which keys are fetched again.
const REFRESH_AT: f64 = 0.8;

/// How much earlier than that it may be, as a share: nodes that started together must not ask
/// together for ever.
const JITTER: f64 = 0.1;

/// Where an issuer's keys are fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// A key set at this URL.
    Url(String),
    /// The key set that this issuer's OpenID configuration names (OpenID Connect Discovery 1.0 §4).
    Discovery(String),
}

/// What is known of an issuer's fetched keys. Shared by those who verify and the one who fetches.
#[derive(Debug)]
pub struct RemoteKeys {
    /// The issuer's configured name.
    pub issuer: Arc<str>,
    /// Where its keys are.
    pub location: KeyLocation,
    /// The way they are fetched.
    pub trust: Trust,
    lifetime: Duration,
    max_stale: Duration,
    state: Mutex<FetchState>,
    /// Asks for a fetch before it is due.
    wanted: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
}

/// When what happened.
#[derive(Debug, Default)]
struct FetchState {
    phase: Phase,
    fetched_at: Option<Instant>,
    /// What was fetched then; `None` when it has no key that can be used.
    set: Option<Arc<[u8]>>,
    /// The time at which as many fetches are in hand again as may be; `None`: they are.
    full_at: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
    /// Why the last fetch failed; `None` after a success.
    failure: Option<String>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    /// To be fetched at once.
    #[default]
    Wanted,
    Fetching,
    /// To be fetched then.
    Waiting(Instant),
}

/// What is known of an issuer's fetched keys, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemoteStatus {
    /// The URL of the key set, or of the issuer whose OpenID configuration names it.
    pub location: String,
    /// Seconds since the keys in use were fetched; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Why the last fetch failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What an issuer has said when it was asked for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The issuer has answered: what it does not list is none of its keys.
    Answered,
    /// It was asked before and is not asked again: a key may be newer than its answer.
    AnsweredBefore,
    /// It has not answered in time, or not usefully.
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

    /// Resolves when the keys are to be fetched; then say how it went, by
    /// [`Authenticator::install`](crate::Authenticator::install) or [`RemoteKeys::failed`].
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

    /// Where `other` fetches the keys of the same issuer by other times, what it knows is known here.
    pub(crate) fn take_over(&self, other: &Self) {
        let (fetched_at, set) = {
            let known = other.state();
            (known.fetched_at, known.set.clone())
        };
        let mut state = self.state();
        state.fetched_at = fetched_at;
        state.set = set;
    }

    /// Tells if `other` fetches them at the same times and in the same way.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let times = |it: &Self| (it.lifetime, it.max_stale);
        times(self) == times(other) && self.trust == other.trust
    }

    /// Whether this is what was fetched last.
    pub(crate) fn is_known(&self, set: &[u8]) -> bool {
        self.state().set.as_deref() == Some(set)
    }

    /// What was fetched last.
    pub(crate) fn set(&self) -> Option<Arc<[u8]>> {
        self.state().set.clone()
    }

    /// What was fetched last is withdrawn, and nothing has taken its place.
    pub(crate) fn forget(&self) {
        self.state().set = None;
    }

    /// Whether the issuer has said, the last time it was asked, which keys are its.
    pub(crate) fn is_sure(&self) -> bool {
        let state = self.state();
        state.fetched_at.is_some() && state.failure.is_none()
    }

    /// The fetch ended well: the keys of `set` are in force.
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
        // Under the lock: a question that comes later must not take this end for its answer's.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// The fetch failed; the keys in use stay. `why` is for operators.
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
        // Under the lock: a question that comes later must not take this end for its answer's.
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Whether the keys may be used: they were fetched, and not too long ago.
    pub(crate) fn usable(&self) -> bool {
        let fetched_at = self.state().fetched_at;
        fetched_at.is_some_and(|at| at.elapsed() < self.max_stale)
    }

    /// Whether the keys were ever had.
    pub(crate) fn was_fetched(&self) -> bool {
        self.state().fetched_at.is_some()
    }

    /// The age of the issuer's last answer.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.state().fetched_at.map(|at| at.elapsed())
    }

    /// How old the keys are, and what keeps them from being newer.
    pub fn status(&self) -> RemoteStatus {
        let state = self.state();
        let (KeyLocation::Url(location) | KeyLocation::Discovery(location)) = &self.location;
        RemoteStatus {
            location: location.clone(),
            age_s: state.fetched_at.map(|at| at.elapsed().as_secs()),
            failure: state.failure.clone(),
        }
    }

    /// A token's key is not there: waits for the fetch that is under way, and for another when it has
    /// begun before the key can have been there. One is made for it if it `may_draw` and one is in hand.
    /// `is_unknown` looks for the key once more before that.
    pub(crate) async fn ask(&self, may_draw: bool, is_unknown: impl Fn() -> bool) -> Asked {
        let until = Instant::now() + KEY_WAIT;
        let mut ended = self.ended.subscribe();
        let mut looked_again = false;
        loop {
            let begins = {
                let mut state = self.state();
                ended.borrow_and_update();
                let phase = state.phase;
                match phase {
                    Phase::Fetching => false,
                    Phase::Wanted => true,
                    // A provider that fails is tried again soon in any case.
                    Phase::Waiting(_) if state.failure.is_some() => return Asked::Unanswered,
                    Phase::Waiting(_) if !looked_again => {
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
    /// The time at which a fetch is in hand.
    fn in_hand_at(&self, now: Instant) -> Instant {
        let spent = ON_DEMAND_PAUSE * (ON_DEMAND_BURST - 1);
        let at = self.full_at.and_then(|full_at| full_at.checked_sub(spent));
        at.unwrap_or(now).max(now)
    }

    /// Takes one of the fetches in hand.
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

    /// How long until the next fetch is due; it has begun then.
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

    /// Fails again and again, and is due after so many seconds each time, or a little sooner.
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
        // Keys that were never had are asked for more often.
        assert_tried_after(&remote, &[1, 2, 4, 4, 4]).await;
        remote.fetched(b"{}");
        assert_tried_after(&remote, &[1, 2, 4, 8, 16, 30, 30]).await;
        assert_eq!(remote.ask(true, || true).await, Asked::Unanswered);
        remote.fetched(b"{}");
        assert_eq!(remote.status().failure, None);
    }

    /// Asks, and answers the fetch that is made for it.
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
        // The fetch that was due keeps no question from being asked.
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
            // The question leads to another.
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
