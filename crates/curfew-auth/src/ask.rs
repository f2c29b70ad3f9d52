//! Waiting for a key that this node does not have, but that the token's issuer may have published.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{AuthFailure, Clock};
use tokio::time;

use crate::remote::Asked;
use crate::{AuthError, MissingKeys, RemoteKeys, Unverified, VerifyError};

/// Assumed maximum time from the first token that a new key signs until the issuer's key set lists
/// the key. If a token was issued more than this time before the last successful fetch, and the
/// fetched set lacks the token's key, the key counts as withdrawn. The token is then refused even
/// if the rate of on-demand fetches allows no new fetch, and the client needs a new token.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// Longest wait for a fetch in [`with_next_keys`] before the verification starts again with the
/// configuration that is then in force.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The time to wait for the issuer's keys if the key of a report is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWait {
    /// The wait takes at most two seconds, because the report's sender waits for the response.
    Brief,
    /// If the report is good except for its missing key, the wait ends when the issuer's keys have
    /// been fetched again, without a time limit. Otherwise there is no wait. The report's times are
    /// compared with the time at which the wait began.
    NextAnswer,
}

impl KeyWait {
    /// Runs `attempt`. If a key is missing, waits for the issuer's keys and runs `attempt` again.
    /// `attempt` receives the time with which it compares the times of the report.
    pub(crate) async fn run<T>(
        self,
        clock: &dyn Clock,
        attempt: impl Fn(Duration) -> Result<T, NoKey>,
    ) -> Result<T, VerifyError> {
        let called_at = clock.now();
        match self {
            Self::Brief => with_keys(|| attempt(clock.now())).await,
            Self::NextAnswer => with_next_keys(|| attempt(called_at)).await,
        }
    }
}

/// Reason why an attempt to verify a token failed.
pub(crate) enum NoKey {
    /// The token is refused, and a newer key of the issuer would not change that.
    Refused(AuthError),
    /// The issuer may have published the key since its set was fetched.
    Ask(Ask),
}

/// A failed attempt that may succeed with a key that this node does not have. The issuer is asked
/// for the key before the token is refused.
pub(crate) struct Ask {
    remote: Arc<RemoteKeys>,
    /// The refusal to return if the issuer has no key for the token.
    error: AuthError,
    token: Suspect,
    /// True if this node has the key that the token names by `kid`, and that key did not sign the
    /// token. It is false for a token without `kid`, because the issuer may have replaced its only
    /// key.
    has_named_key: bool,
}

/// Verdict on everything in a token that can be checked without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    /// No key could make the token good.
    Bad,
    /// Everything that can be checked without the key is right.
    Good,
    /// Like `Good`, but the token is so old that the set fetched last should have its key
    /// ([`LISTED_WITHIN`]).
    Old,
}

impl From<AuthError> for NoKey {
    fn from(error: AuthError) -> Self {
        Self::Refused(error)
    }
}

impl NoKey {
    /// Makes a [`NoKey::Ask`] for a key of `remote`. `error` is the refusal if the issuer has no
    /// key for the token.
    pub(crate) fn ask(remote: &Arc<RemoteKeys>, error: AuthError) -> Self {
        Self::Ask(Ask {
            remote: Arc::clone(remote),
            error,
            token: Suspect::Bad,
            has_named_key: false,
        })
    }

    /// Records that this node has the key that the token names, and that this key did not sign the
    /// token.
    pub(crate) fn by_another_key(self) -> Self {
        match self {
            Self::Ask(ask) => Self::Ask(Ask {
                has_named_key: true,
                ..ask
            }),
            refused => refused,
        }
    }

    /// Adds `judged`, the verdict on the claims, because only a token that could be good justifies
    /// a fetch. The refusal does not contain the text of `judged`, because the token may be forged.
    pub(crate) fn judged(self, judged: Result<(), AuthError>) -> Self {
        let Self::Ask(mut ask) = self else {
            return self;
        };
        match judged {
            Ok(()) => ask.token = Suspect::Good,
            Err(why) if why.is_by_clock() && ask.error.failure() == AuthFailure::UnknownKey => {
                let message = ask.error.message().to_owned();
                ask.error = AuthError::by_clock(AuthFailure::UnknownKey, message);
            }
            Err(_) => {}
        }
        Self::Ask(ask)
    }

    /// Adds `at`, the time at which the token was issued. This time decides if a missing key counts
    /// as withdrawn or may be new.
    pub(crate) fn issued(self, at: Option<Duration>, now: Duration) -> Self {
        let Self::Ask(mut ask) = self else {
            return self;
        };
        let answered = ask.remote.age().map(|age| now.saturating_sub(age));
        if let (Suspect::Good, Some(at), Some(answered)) = (ask.token, at, answered)
            && at + LISTED_WITHIN < answered
        {
            ask.token = Suspect::Old;
        }
        Self::Ask(ask)
    }

    /// The refusal to return when the issuer is not asked.
    pub(crate) fn into_error(self) -> AuthError {
        match self {
            Self::Refused(error) | Self::Ask(Ask { error, .. }) => error,
        }
    }
}

/// Runs `attempt`. If a key is missing, asks the issuer for it, and runs `attempt` again.
pub(crate) async fn with_keys<T>(attempt: impl Fn() -> Result<T, NoKey>) -> Result<T, VerifyError> {
    let Ask { remote, token, .. } = match attempt() {
        Ok(done) => return Ok(done),
        Err(NoKey::Refused(error)) => return Err(error.into()),
        Err(NoKey::Ask(ask)) => ask,
    };
    let is_unknown = || matches!(attempt(), Err(NoKey::Ask(_)));
    let asked = remote.ask(token != Suspect::Bad, is_unknown).await;
    let Ask {
        remote,
        error,
        has_named_key,
        ..
    } = match attempt() {
        Ok(done) => return Ok(done),
        Err(NoKey::Refused(error)) => return Err(error.into()),
        Err(NoKey::Ask(ask)) => ask,
    };
    match (asked, token) {
        _ if has_named_key => Err(error.into()),
        (Asked::Answered, _) => Err(error.into()),
        (Asked::AnsweredBefore, Suspect::Bad | Suspect::Old) => Err(error.into()),
        (Asked::AnsweredBefore, Suspect::Good) | (Asked::Unanswered, _) => {
            Err(Unverified::Keys(MissingKeys {
                issuer: Arc::clone(&remote.issuer),
                retry_after: remote.next_fetch(),
                may_be_good: token == Suspect::Good,
            })
            .into())
        }
    }
}

/// Like [`with_keys`], but waits until the issuer's keys have been fetched again, without a time
/// limit. Waits only if the token is good except for its missing key. It is meant for reports that
/// their sender does not repeat.
async fn with_next_keys<T>(attempt: impl Fn() -> Result<T, NoKey>) -> Result<T, VerifyError> {
    loop {
        let Ask { remote, .. } = match attempt() {
            Ok(done) => return Ok(done),
            Err(NoKey::Ask(ask)) if ask.token == Suspect::Good => ask,
            Err(no_key) => return Err(no_key.into_error().into()),
        };
        // A reload may replace this `RemoteKeys`. Nothing fetches a replaced `RemoteKeys` again, so
        // each wait has a time limit, after which `attempt` uses the current one.
        let answer = time::timeout(LOOK_AGAIN, remote.answers_anew());
        if answer.await.is_ok() {
            return attempt().map_err(|no_key| no_key.into_error().into());
        }
    }
}
