//! Waiting for a key that this node does not have, but that the token's issuer may have published.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{AuthFailure, Clock};
use tokio::time;

use crate::remote::Asked;
use crate::{AuthError, MissingKeys, RemoteKeys, Unverified, VerifyError};

/// Assumed maximum time from the first token that a new key signs until the issuer's key set lists
/// the key. If a token was older than this time at the issuer's last answer, and its key is
/// missing, then the key counts as withdrawn. The token is then refused, and the client needs a new
/// one.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// Longest wait for an issuer's answer before the verification starts again with the configuration
/// in force.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The time to wait for the issuer's keys if the key of a report is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWait {
    /// The wait ends after two seconds, because the report's sender waits for the answer.
    Brief,
    /// The wait ends at the issuer's next answer, without a time limit, if the report is good
    /// except for its missing key. The report's times are compared with the time of the call.
    NextAnswer,
}

impl KeyWait {
    /// Runs `attempt` until it finds the key or the wait ends. The argument of `attempt` is the
    /// time that counts as now.
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

/// The reason that an issuer gives no key for a token.
pub(crate) enum NoKey {
    /// The issuer has no key that fits the token, or has several such keys.
    Refused(AuthError),
    /// The issuer may have published the key since its set was fetched.
    Ask(Ask),
}

/// A request to an issuer for a key that this node does not have.
pub(crate) struct Ask {
    remote: Arc<RemoteKeys>,
    /// The refusal to return if the issuer has no such key.
    error: AuthError,
    token: Suspect,
    /// True if this node has the key that the token names by `kid`, and that key did not sign the
    /// token. It is false for a token without `kid`, because the issuer may have replaced its only
    /// key.
    has_named_key: bool,
}

/// Verdict on everything of a token but its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    /// No key could make the token good.
    Bad,
    /// Everything that can be checked without the key is right.
    Good,
    /// Like `Good`, but the token's key should have been in the issuer's last answer
    /// ([`LISTED_WITHIN`]).
    Old,
}

impl From<AuthError> for NoKey {
    fn from(error: AuthError) -> Self {
        Self::Refused(error)
    }
}

impl NoKey {
    /// A request to `remote` for the key. `error` is the refusal if the issuer has no such key.
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

    /// Adds the verdict on the claims, because only a token that could be good justifies a fetch.
    /// The refusal does not contain the text of `judged`, because a stranger can write any claims.
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

    /// Adds the time at which the token was issued, which distinguishes a withdrawn key from a new
    /// one.
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

/// Runs `attempt`. If a key is missing, asks the issuer for it, and runs `attempt` once more.
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

/// Like [`with_keys`], but waits for the issuer's next answer without a time limit. It is for a
/// report that is good except for its missing key and that its sender does not repeat.
async fn with_next_keys<T>(attempt: impl Fn() -> Result<T, NoKey>) -> Result<T, VerifyError> {
    loop {
        let Ask { remote, .. } = match attempt() {
            Ok(done) => return Ok(done),
            Err(NoKey::Ask(ask)) if ask.token == Suspect::Good => ask,
            Err(no_key) => return Err(no_key.into_error().into()),
        };
        // A reload may replace this `RemoteKeys`. Nothing fetches a replaced `RemoteKeys` again, so
        // the wait needs a bound.
        let answer = time::timeout(LOOK_AGAIN, remote.answers_anew());
        if answer.await.is_ok() {
            return attempt().map_err(|no_key| no_key.into_error().into());
        }
    }
}
