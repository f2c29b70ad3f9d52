//! Subscription tokens of the Centrifuge protocol: each lets one user subscribe to one channel.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_model::{Principal, SessionId};

use crate::ask::with_keys;
use crate::authenticate::Authenticator;
use crate::centrifuge::SubscriptionClaims;
use crate::issuers::LoadedIssuer;
use crate::token::TokenClaims;
use crate::{AuthError, VerifyError};

/// The subscription for which a client presents a token.
#[derive(Debug, Clone, Copy)]
pub struct SubscriptionWish<'a> {
    /// The channel, as the client names it.
    pub channel: &'a str,
    /// The principal of the session that subscribes.
    pub principal: &'a Principal,
    /// The session that subscribes.
    pub session: SessionId,
}

/// The content of a good subscription token.
#[derive(Debug, Clone)]
pub struct SubscriptionGrant {
    /// The principal made from the token. It has the token's subject and `jti`, by which
    /// revocations find it, and the token's `iat`. It ends at the earlier of the token's `exp` and
    /// `expire_at`.
    pub principal: Arc<Principal>,
    /// The claims that describe the subscription.
    pub claims: SubscriptionClaims,
}

impl Authenticator {
    /// Verifies a subscription token for one subscription. The check is as strict as for a
    /// connection token, and uses the same issuers and keys. Waits like [`Authenticator::verify`]
    /// if a key is missing.
    ///
    /// # Errors
    ///
    /// Like [`Authenticator::verify`]. [`AuthError::is_of_time`] is true for a token that is too
    /// old or too new. It is false for every other refusal, for example if the token is for another
    /// channel, user or session.
    pub async fn verify_subscription(
        &self,
        token: &str,
        wish: SubscriptionWish<'_>,
    ) -> Result<SubscriptionGrant, VerifyError> {
        let principal = with_keys(|| self.attempt(token, Some(&wish))).await?;
        Ok(SubscriptionGrant {
            claims: SubscriptionClaims::of(principal.claims()),
            principal,
        })
    }
}

impl SubscriptionWish<'_> {
    /// Compares the claims of a token with the wish.
    pub(crate) fn check(
        &self,
        claims: &TokenClaims<'_>,
        issuer: &LoadedIssuer,
    ) -> Result<(), AuthError> {
        let bound = &claims.subscription;
        let channel = bound.channel.as_deref();
        let channel = channel.ok_or_else(|| AuthError::missing_claim("channel"))?;
        if channel != self.channel {
            return Err(AuthError::of_another("channel"));
        }
        let user = claims.subject.as_deref().unwrap_or_default();
        if user != self.principal.user() || !self.is_of_issuer(issuer) {
            return Err(AuthError::of_another("user"));
        }
        let client = bound.client.as_deref().unwrap_or_default();
        if !client.is_empty() && client.parse() != Ok(self.session) {
            return Err(AuthError::of_another("session"));
        }
        Ok(())
    }

    /// Returns true if the issuer has the same users as the session's issuer. An anonymous user
    /// belongs to no issuer, so a token of any issuer may let it subscribe.
    fn is_of_issuer(&self, issuer: &LoadedIssuer) -> bool {
        let own = self.principal.issuer();
        let mut namesakes = issuer.namesakes.iter();
        self.principal.user().is_empty()
            || *issuer.name == *own
            || namesakes.any(|namesake| **namesake == *own)
    }
}

/// The channel that a subscription token names. The name is unverified;
/// [`Authenticator::verify_subscription`] verifies it. `None` if the token is not a JWT, or names
/// no channel.
pub fn subscription_channel(token: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        channel: String,
    }
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let named: Named = serde_json::from_slice(&claims).ok()?;
    Some(named.channel)
}
