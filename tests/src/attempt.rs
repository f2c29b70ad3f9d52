//! A client's request for a session that may be refused.

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, WsClient};

use crate::{Gateway, eventually};

/// Outcome of a client's request for a session.
#[derive(Debug)]
pub enum Attempt {
    /// The client has a session, and has read the `connected` message.
    Open(Box<WsClient>),
    /// The token was refused, for this reason and with this close code.
    Refused(String, u16),
    /// The node could not decide about the session: 503 with `Retry-After` before the upgrade, or
    /// 4503 after it.
    Unavailable,
    /// The connection could not be made, was cut, or got no answer.
    Lost(String),
}

impl Attempt {
    /// Makes the request and waits for the outcome.
    pub async fn make(connect: Connect) -> Self {
        let mut client = match connect.try_attempt().await {
            Err(error) => return Self::Lost(error.to_string()),
            Ok(Err(refused)) => {
                assert_eq!(refused.status, 503, "{}", refused.text());
                let seconds = refused.header("retry-after").map(str::parse::<u32>);
                assert!(matches!(seconds, Some(Ok(_))), "{:?}", refused.headers);
                return Self::Unavailable;
            }
            Ok(Ok(client)) => client,
        };
        let first = client.next_json().await;
        match first["type"].as_str() {
            Some("connected") => Self::Open(Box::new(client)),
            Some("auth_failed") => {
                let reason = first["reason"].as_str().unwrap_or_default().to_owned();
                Self::Refused(reason, client.closed().await.0)
            }
            Some("closing") => match client.closed().await.0 {
                4503 => Self::Unavailable,
                4403 => Self::Refused("revoked".to_owned(), 4403),
                code => panic!("the session was closed with {code}: {first}"),
            },
            _ => panic!("the first frame has an unexpected type: {first}"),
        }
    }

    /// True if the session was refused because of a revocation.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Refused(reason, 4403) if reason == "revoked")
    }

    /// True if the client has a session.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// True if the node could not decide about the session.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

impl Gateway {
    /// Asks for a session of `user`, with a new token.
    pub async fn attempt(&self, user: &str) -> Attempt {
        self.attempt_with(&Key::default_secret().user(user)).await
    }

    /// Asks for a session with `token`.
    pub async fn attempt_with(&self, token: &str) -> Attempt {
        Attempt::make(self.ws().bearer(token)).await
    }

    /// Asks for a session of `user` again and again until the node can decide about it.
    pub async fn answer(&self, user: &str) -> Attempt {
        eventually(&format!("an answer to {user}"), async || {
            let attempt = self.attempt(user).await;
            (!attempt.is_unavailable()).then_some(attempt)
        })
        .await
    }

    /// Fails unless `user` is refused because of a revocation, as soon as the node can decide.
    pub async fn assert_refused(&self, user: &str) {
        let attempt = self.answer(user).await;
        assert!(attempt.is_revoked(), "{user}: {attempt:?}");
    }

    /// Fails unless `user` is admitted, as soon as the node can decide.
    pub async fn assert_admits(&self, user: &str) {
        let attempt = self.answer(user).await;
        assert!(attempt.is_open(), "{user}: {attempt:?}");
    }

    /// Waits until `user`, who was revoked, is admitted again.
    pub async fn until_admitted(&self, user: &str) {
        eventually(&format!("a session of {user}"), async || {
            let attempt = self.answer(user).await;
            assert!(attempt.is_open() || attempt.is_revoked(), "{attempt:?}");
            attempt.is_open().then_some(())
        })
        .await;
    }
}
