//! The kinds of revocation by which the hub finds sessions.

use curfew_model::{Principal, RevocationKey, SessionId};

/// The kinds of revocation in force: the built-in kinds (`user`, `session`, `token`, `anonymous`
/// and `all`) and the claims named in the settings.
#[derive(Debug)]
pub struct Kinds {
    /// Later settings have a higher generation.
    generation: u64,
    /// The claims, each once.
    claims: Vec<String>,
}

impl Kinds {
    /// Creates the kinds of one generation. A repeated claim counts once.
    pub(crate) fn new(generation: u64, claims: &[String]) -> Self {
        let mut once: Vec<String> = Vec::with_capacity(claims.len());
        for claim in claims {
            if !once.contains(claim) {
                once.push(claim.clone());
            }
        }
        Self {
            generation,
            claims: once,
        }
    }

    /// The generation. Later settings have a higher generation.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The claims, as [`Principal::revocation_keys`] takes them.
    pub fn claims(&self) -> &[String] {
        &self.claims
    }

    /// True if sessions are found by revocations of this kind.
    pub fn has(&self, kind: &str) -> bool {
        let built_in = matches!(kind, "user" | "session" | "token" | "anonymous" | "all");
        built_in || self.claims.iter().any(|claim| claim == kind)
    }

    /// The claims in these kinds that `others` lack.
    pub(crate) fn beyond(&self, others: &Self) -> Vec<String> {
        let lacking = |claim: &&String| !others.claims.contains(claim);
        self.claims.iter().filter(lacking).cloned().collect()
    }
}

/// The token's revocation keys for these claims only, without the keys of built-in kinds.
pub(crate) fn keys_by_claims(
    principal: &Principal,
    session: SessionId,
    claims: &[String],
) -> Vec<RevocationKey> {
    if claims.is_empty() {
        return Vec::new();
    }
    let mut keys = principal.revocation_keys(session, claims);
    keys.retain(|key| claims.iter().any(|claim| claim == key.kind()));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(claims: &[&str]) -> Kinds {
        let claims: Vec<String> = claims.iter().map(|claim| (*claim).to_owned()).collect();
        Kinds::new(0, &claims)
    }

    #[test]
    fn built_in_kinds_are_always_there_and_claims_where_they_are_named() {
        let some = kinds(&["tenant", "sid", "tenant"]);
        assert_eq!(some.claims(), ["tenant", "sid"]);
        for kind in [
            "user",
            "session",
            "token",
            "anonymous",
            "all",
            "tenant",
            "sid",
        ] {
            assert!(some.has(kind), "{kind}");
        }
        assert!(!some.has("device") && !kinds(&[]).has("tenant"));
        assert_eq!(some.beyond(&kinds(&["sid", "device"])), ["tenant"]);
        assert!(kinds(&["sid"]).beyond(&some).is_empty());
    }
}
