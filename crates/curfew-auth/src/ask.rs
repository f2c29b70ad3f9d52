//! Waiting for a key: what becomes of a token that names one its issuer may have by now.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::AuthFailure;
use tokio::time;

use crate::remote::Asked;
use crate::{AuthError, MissingKeys, RemoteKeys, Unverified, VerifyError};

/// An issuer lists a key within this time of the first token by it. A token that is older than the
/// issuer's last answer by more is by none of its keys, so that clients of a key that was withdrawn
/// learn that they need another token.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// The time after which what waits for an issuer's answer looks at its configuration again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The reason that an issuer gives no key for a token.
pub(crate) enum NoKey {
    /// It has none, or not one.
    Refused(AuthError),
    /// It may have another by now.
    Ask(Ask),
}

/// A question to an issuer.
pub(crate) struct Ask {
    remote: Arc<RemoteKeys>,
    /// The refusal if it has no other key.
    error: AuthError,
    token: Suspect,
    /// The key that the token names was there. One that names none may be by a key that has taken the
    /// place of the one that is there.
    has_named_key: bool,
}

/// A token, as far as it is known without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    /// It is good by no key.
    Bad,
    /// All that can be checked without the key is right.
    Good,
    /// The same, and its key is older than the issuer's last answer.
    Old,
}

impl From<AuthError> for NoKey {
    fn from(error: AuthError) -> Self {
        Self::Refused(error)
    }
}

impl NoKey {
    /// `remote` is to be asked; `error` is what to say if that finds no key.
    pub(crate) fn ask(remote: &Arc<RemoteKeys>, error: AuthError) -> Self {
        Self::Ask(Ask {
            remote: Arc::clone(remote),
            error,
            token: Suspect::Bad,
            has_named_key: false,
        })
    }

    /// The key that the token names was there, and is not the one that signed.
    pub(crate) fn by_another_key(self) -> Self {
        match self {
            Self::Ask(ask) => Self::Ask(Ask {
                has_named_key: true,
                ..ask
            }),
            refused => refused,
        }
    }

    /// The same, when it is known what else there is to say of the token: only one that could be good
    /// is worth a fetch. Nothing of `judged` is told, since any stranger could have written the token.
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

    /// The same for a token that was issued then: its holder can get another.
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

    /// The refusal when no issuer is asked.
    pub(crate) fn into_error(self) -> AuthError {
        match self {
            Self::Refused(error) | Self::Ask(Ask { error, .. }) => error,
        }
    }
}

/// Attempts something that takes an issuer's keys; once more when those may be newer.
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

/// As [`with_keys`], of what was found to be good but for its key and is sent once only: waits for the
/// issuer's next answer, however long that takes.
pub(crate) async fn with_next_keys<T>(
    attempt: impl Fn() -> Result<T, NoKey>,
) -> Result<T, VerifyError> {
    loop {
        let Ask { remote, .. } = match attempt() {
            Ok(done) => return Ok(done),
            Err(NoKey::Ask(ask)) if ask.token == Suspect::Good => ask,
            Err(no_key) => return Err(no_key.into_error().into()),
        };
        // A reload may put others in its place, of which nothing is fetched here any more.
        let answer = time::timeout(LOOK_AGAIN, remote.answers_anew());
        if answer.await.is_ok() {
            return attempt().map_err(|no_key| no_key.into_error().into());
        }
    }
}
