//! One attempt to verify a token with the keys that this node has.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{Claims, Principal, PrincipalParts};

use super::Authenticator;
use crate::ask::NoKey;
use crate::claims::{verify_claims, verify_kind};
use crate::subscription::SubscriptionWish;
use crate::token::{Date, Header, Parts, TokenClaims, TokenType};
use crate::verified::Digest;

impl Authenticator {
    /// Verifies a token: a connection token or, with a `wish`, a subscription token. The two types
    /// differ in a few claims. Only connection tokens are remembered.
    pub(crate) fn attempt(
        &self,
        token: &str,
        wish: Option<&SubscriptionWish<'_>>,
    ) -> Result<Arc<Principal>, NoKey> {
        let issuers = self.snapshot();
        let now = self.clock().now();
        let parts = Parts::of(token, issuers.max_token_bytes)?;
        let header = parts.header()?;
        let header = Header::parse(&header, TokenType::Access)?;
        // HMAC tokens are not remembered: their verification costs no more than a look-up.
        let remembered =
            wish.is_none() && !header.algorithm.is_hmac() && !issuers.verified.is_off();
        let digest = remembered.then(|| Digest::of(token));
        // The claims of a remembered token are not checked again. `find` checks the token's end,
        // and each new snapshot of issuers starts without remembered tokens.
        let known = digest.and_then(|digest| issuers.verified.find(&digest, now));
        if let Some(principal) = known {
            return Ok(principal);
        }
        let of_subscriptions = wish.map(|_| issuers.rules.of_subscriptions());
        let rules = of_subscriptions.as_ref().unwrap_or(&issuers.rules);
        let payload = parts.payload()?;
        let (claims, scanned) = TokenClaims::parse(&payload, rules)?;
        let issuer = issuers.find(&claims, header.kid.as_deref())?;
        // `iat` is rounded down, because a revocation covers the whole second of its cutoff.
        let issued_at = claims.issued_at.map(Date::down);
        let judge = || {
            let verified = verify_claims(&claims, issuer, &issuers, rules, now)?;
            verify_kind(&claims, issuer, header.says_access)?;
            issuer.needs.check(&claims, &payload, &scanned)?;
            if let Some(wish) = wish {
                wish.check(&claims, issuer)?;
            }
            Ok(verified)
        };
        let key = issuer.signer(&parts, &header).map_err(|no_key| {
            let no_key = no_key.judged(judge().map(drop));
            no_key.issued(issued_at.map(Duration::from_secs), now)
        })?;
        let verified = judge()?;
        let principal = Arc::new(Principal::new(PrincipalParts {
            user: verified.user.into(),
            issuer: Arc::clone(&issuer.name),
            key_id: Some(Arc::clone(key.fingerprint())),
            token_id: claims.token_id.as_deref().map(Box::from),
            issued_at,
            expires_at: verified.expires_at,
            leeway: issuers.leeway,
            claims: Claims::from_json(match scanned.is_plain() {
                true => payload,
                false => scanned.plain(&payload).into_owned(),
            }),
        }));
        if let Some(digest) = digest {
            issuers.verified.remember(digest, &principal, issuer);
        }
        Ok(principal)
    }
}
