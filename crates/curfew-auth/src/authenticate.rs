//! Verifying a token, and keeping the keys it is verified with up to date.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_model::{Claims, Clock, Principal, PrincipalParts};
use jsonwebtoken::jwk::ThumbprintHash;
use tracing::{info, warn};

use crate::ask::{NoKey, with_keys};
use crate::claims::{verify_claims, verify_kind};
use crate::issuers::{self, Issuers, KeySource, LoadError, LoadedIssuer};
use crate::jwks::SkippedKey;
use crate::keys::PROVIDER;
use crate::reports::Journal;
use crate::token::{Date, Header, Parts, TokenClaims, TokenType};
use crate::verified::Digest;
use crate::{AuthConfig, AuthError, Issuer, IssuerSummary, KeyError, RemoteKeys};

/// Turns tokens into principals. Shared by all connections: verifying takes no lock but that of the
/// tokens remembered, for moments, and each verification is judged by one configuration from start to
/// end.
#[derive(Debug)]
pub struct Authenticator {
    issuers: ArcSwap<Issuers>,
    clock: Arc<dyn Clock>,
    files: Mutex<Files>,
    journal: Journal,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is at fault.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// It cannot be known at the moment, which is no fault of the token's.
    #[error(transparent)]
    Unknown(#[from] Unverified),
}

/// What keeps a token from being verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Its issuer's keys cannot be had.
    #[error("the keys of the issuer {:?} are not available", .0.issuer)]
    Keys(MissingKeys),
    /// Nothing is wrong with it but its time, and this node's clock is not known to be right.
    #[error("the clock of this node is not known to be right")]
    Clock,
}

/// Keys that cannot be had at the moment, and the token that needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingKeys {
    /// The configured name of the issuer.
    pub issuer: Arc<str>,
    /// The time until they are fetched again, or may be for one who asks then.
    pub retry_after: Duration,
    /// All that can be checked of the token without them is right.
    pub may_be_good: bool,
}

impl Unverified {
    /// The time after which another attempt can have another outcome; `None` where that is not known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Keys(missing) => Some(missing.retry_after),
            Self::Clock => None,
        }
    }

    /// Its name in spans.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys_unavailable",
            Self::Clock => "clock_off",
        }
    }

    /// One sentence for whoever sent the token.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Keys(_) => "the issuer's keys are not available at the moment, try again",
            Self::Clock => "the token's times cannot be judged at the moment, try again",
        }
    }
}

impl VerifyError {
    /// The same, where it is not known that this node's clock is right: that a token is over, or not
    /// good yet, is not known then.
    #[must_use]
    pub fn without_clock(self) -> Self {
        match self {
            Self::Refused(error) if error.is_by_clock() => Unverified::Clock.into(),
            other => other,
        }
    }
}

/// A key file that changed, and what came of it.
#[derive(Debug)]
pub struct FileReload {
    /// The issuer's configured name.
    pub issuer: String,
    /// The file.
    pub path: PathBuf,
    /// How many keys are in force now; or why the previous ones stay.
    pub outcome: Result<usize, KeyError>,
}

/// What was last seen in the key files. The lock makes reloads take turns.
#[derive(Debug)]
struct Files {
    config: AuthConfig,
    /// By the issuers' order.
    seen: Vec<Seen>,
    /// Likewise: whether what was read last could not be used.
    bad: Vec<bool>,
}

/// Issuers of another configuration, with their keys: see [`Authenticator::prepare`].
#[derive(Debug)]
pub struct PreparedIssuers {
    all: Vec<Arc<LoadedIssuer>>,
    files: Files,
}

/// What reading a file gave.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The hash of its content.
    Content(Vec<u8>),
    Unreadable,
}

impl Authenticator {
    /// Loads the keys of every issuer. Blocks on reading files.
    ///
    /// # Errors
    ///
    /// The first key that cannot be loaded; [`crate::check_files`] reports all of them.
    pub fn new(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let (all, files) = load(config)?;
        Ok(Self {
            issuers: ArcSwap::from_pointee(Issuers::new(config, all)),
            clock,
            files: Mutex::new(files),
            journal: Journal::default(),
        })
    }

    /// Verifies a token with the keys at hand: one that an issuer may have made since its keys were
    /// fetched is unknown.
    ///
    /// # Errors
    ///
    /// Until the signature is known to be good only `malformed`, `wrong_issuer`, `unknown_key` and
    /// `bad_signature` are told; what a token that anybody could have written says stays untold.
    pub fn authenticate(&self, token: &str) -> Result<Arc<Principal>, AuthError> {
        self.attempt(token).map_err(NoKey::into_error)
    }

    /// Verifies a token; waits, up to two seconds, for its issuer's keys where it names one that is
    /// not there and keys are fetched.
    ///
    /// # Errors
    ///
    /// As [`Authenticator::authenticate`]. An issuer that cannot be asked is not the token's fault.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, VerifyError> {
        with_keys(|| self.attempt(token)).await
    }

    fn attempt(&self, token: &str) -> Result<Arc<Principal>, NoKey> {
        let issuers = self.issuers.load();
        let now = self.clock.now();
        let parts = Parts::of(token, issuers.max_token_bytes)?;
        let header = parts.header()?;
        let header = Header::parse(&header, TokenType::Access)?;
        // A shared secret's is verified as quickly as it is looked up.
        let remembered = !header.algorithm.is_hmac() && !issuers.verified.is_off();
        let digest = remembered.then(|| Digest::of(token));
        let known = digest.and_then(|digest| issuers.verified.find(&digest, now));
        if let Some(principal) = known {
            return Ok(principal);
        }
        let payload = parts.payload()?;
        let (claims, scanned) =
            TokenClaims::parse(&payload, &issuers.subject_claim, issuers.numeric_subjects)?;
        let issuer = issuers.find(&claims, header.kid.as_deref())?;
        // Down: a revocation's cutoff covers the second it is in.
        let issued_at = claims.issued_at.map(Date::down);
        let judge = || {
            let verified = verify_claims(&claims, issuer, &issuers, now)?;
            verify_kind(&claims, issuer, header.says_access)?;
            issuer.needs.check(&claims, &payload, &scanned)?;
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

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Issuers>> {
        self.issuers.load()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether `auth.close_on_key_withdrawal` is set and the key that verified this principal is none
    /// of its issuer's any more. An issuer that cannot be asked, or lists no key at all, withdraws
    /// none.
    pub fn is_withdrawn(&self, principal: &Principal) -> bool {
        let issuers = self.issuers.load();
        let Some(key) = principal
            .key_id()
            .filter(|_| issuers.close_on_key_withdrawal)
        else {
            return false;
        };
        let mut all = issuers.all.iter();
        match all.find(|issuer| *issuer.name == *principal.issuer()) {
            None => true,
            Some(issuer) => {
                let sure = issuer.remote.as_ref().is_none_or(|remote| remote.is_sure());
                sure && !issuer.has_key(key)
            }
        }
    }

    /// Whether sessions are to be closed whose key was withdrawn.
    pub fn closes_withdrawn(&self) -> bool {
        self.issuers.load().close_on_key_withdrawal
    }

    /// The issuers whose keys are fetched: somebody has to, see [`RemoteKeys::due`].
    pub fn remotes(&self) -> Vec<Arc<RemoteKeys>> {
        let issuers = self.issuers.load();
        let remotes = issuers
            .all
            .iter()
            .filter_map(|issuer| issuer.remote.clone());
        remotes.collect()
    }

    /// Whether a token of any issuer could ever be verified: false until the first keys are there,
    /// where all are fetched.
    pub fn had_keys(&self) -> bool {
        let issuers = self.issuers.load();
        let mut opening = issuers.all.iter().filter(|issuer| issuer.opens_sessions);
        opening.any(|issuer| match &issuer.remote {
            None => true,
            Some(remote) => remote.was_fetched(),
        })
    }

    /// Whether the keys of every issuer are those that it has now, as far as was seen.
    pub fn keys_are_current(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = self.remotes().iter().all(|remote| remote.is_sure());
        fetched && !files.bad.contains(&true)
    }

    /// Puts the key set that was fetched for `remote` in force; returns how many keys it has. A set
    /// for an issuer that is configured no longer is ignored.
    ///
    /// # Errors
    ///
    /// The set cannot be used; the previous keys stay in force, unless it is a set without a single
    /// key that can be used.
    pub fn install(&self, remote: &Arc<RemoteKeys>, set: &[u8]) -> Result<usize, KeyError> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.issuers.load();
        let is_its = |issuer: &Arc<LoadedIssuer>| {
            issuer
                .remote
                .as_ref()
                .is_some_and(|its| Arc::ptr_eq(its, remote))
        };
        let Some(index) = all.all.iter().position(is_its) else {
            return Ok(0);
        };
        if remote.is_known(set) {
            remote.fetched(set);
            return Ok(all.all[index].key_count());
        }
        let replaced = self.replace(&files.config, index, set);
        match &replaced {
            Ok(_) => remote.fetched(set),
            // A set without a usable key withdraws all there were, on purpose or not.
            Err(KeyError::NoUsableKey(_)) => {
                let mut all = all.all.clone();
                all[index] =
                    Arc::new(files.config.issuers[index].without_keys(&files.config, remote));
                self.issuers
                    .store(Arc::new(Issuers::new(&files.config, all)));
                remote.forget();
            }
            Err(_) => {}
        }
        replaced
    }

    /// Reads another configuration's keys: all that can fail of putting it in force. Blocks on
    /// reading files, and changes nothing.
    ///
    /// # Errors
    ///
    /// The first key that cannot be loaded.
    pub fn prepare(config: &AuthConfig) -> Result<PreparedIssuers, LoadError> {
        let (all, files) = load(config)?;
        Ok(PreparedIssuers { all, files })
    }

    /// Puts another configuration in force, with all its keys. Those that were fetched since it was
    /// prepared are kept. Connections that are open are not looked at.
    pub fn put_in_force(&self, prepared: PreparedIssuers) {
        let PreparedIssuers { mut all, files } = prepared;
        let mut current = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_fetched(&mut all, &files.config);
        self.issuers
            .store(Arc::new(Issuers::new(&files.config, all)));
        *current = files;
    }

    /// Re-reads the key files and takes over those whose content changed; to be called every few
    /// seconds. Blocks on reading files. A file that cannot be used leaves the previous keys in
    /// force. Each change is logged here and returned once, however long it stays bad.
    pub fn reload_changed_files(&self) -> Vec<FileReload> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Files { config, seen, bad } = &mut *files;
        let mut reloads = Vec::new();
        for (index, (issuer, seen)) in config.issuers.iter().zip(seen).enumerate() {
            let Some(KeySource::File(_, path)) = issuer.key_source() else {
                continue;
            };
            let content = issuer.read();
            let now = Seen::of(&content);
            if *seen == now {
                continue;
            }
            *seen = now;
            let outcome = content.and_then(|content| self.replace(config, index, &content));
            bad[index] = outcome.is_err();
            match &outcome {
                Ok(keys) => {
                    info!(issuer = %issuer.name, file = %path.display(), keys, "key file reloaded")
                }
                Err(error) => {
                    warn!(issuer = %issuer.name, file = %path.display(), %error, "key file not reloaded, the previous keys stay in force");
                }
            }
            reloads.push(FileReload {
                issuer: issuer.name.clone(),
                path: path.to_owned(),
                outcome,
            });
        }
        reloads
    }

    /// The issuers and keys in force.
    pub fn issuers(&self) -> Vec<IssuerSummary> {
        let issuers = self.issuers.load();
        let now = self.clock.now();
        let summaries = issuers.all.iter().map(|issuer| {
            let reported = self.journal.of(&issuer.name, now);
            IssuerSummary {
                last_report: reported.last,
                waiting_reports: reported.waiting,
                last_failure: reported.last_failure,
                stream: reported.stream,
                ..issuer.summary()
            }
        });
        summaries.collect()
    }

    /// What was fetched stays, for issuers whose keys are where they were: under the new rules.
    fn keep_fetched(&self, all: &mut [Arc<LoadedIssuer>], config: &AuthConfig) {
        let old = self.issuers.load();
        for (new, configured) in all.iter_mut().zip(&config.issuers) {
            let Some(remote) = &new.remote else { continue };
            let known = old.all.iter().find_map(|issuer| {
                let known = issuer.remote.as_ref()?;
                let same = issuer.name == new.name && known.location == remote.location;
                same.then_some(known)
            });
            let Some(known) = known else { continue };
            let remote = match known.is_like(remote) {
                true => Arc::clone(known),
                false => {
                    remote.take_over(known);
                    Arc::clone(remote)
                }
            };
            let kept = remote.set().and_then(|set| {
                configured
                    .with_keys(config, &set, Some(Arc::clone(&remote)))
                    .ok()
            });
            *new = Arc::new(match kept {
                Some((issuer, _)) => issuer,
                None => configured.without_keys(config, &remote),
            });
        }
    }

    /// Puts new keys of one issuer in force.
    fn replace(
        &self,
        config: &AuthConfig,
        index: usize,
        content: &[u8],
    ) -> Result<usize, KeyError> {
        let mut all = self.issuers.load().all.clone();
        let remote = all[index].remote.clone();
        let (issuer, skipped) = config.issuers[index].with_keys(config, content, remote)?;
        let issuer = Arc::new(issuer);
        all[index] = Arc::clone(&issuer);
        let borrowed: Vec<&LoadedIssuer> = all.iter().map(AsRef::as_ref).collect();
        for index in 0..borrowed.len() {
            issuers::told_apart(&borrowed, index)?;
        }
        self.issuers.store(Arc::new(Issuers::new(config, all)));
        warn_of_skipped(&config.issuers[index], &skipped);
        Ok(issuer.key_count())
    }
}

impl Seen {
    fn of(content: &Result<Vec<u8>, KeyError>) -> Self {
        match content {
            // Modification times miss a symbolic link that is swapped, as mounted secrets are.
            Ok(content) => (PROVIDER.key_utils.compute_digest)(content, ThumbprintHash::SHA256)
                .map_or(Self::Unreadable, Self::Content),
            Err(_) => Self::Unreadable,
        }
    }
}

fn load(config: &AuthConfig) -> Result<(Vec<Arc<LoadedIssuer>>, Files), LoadError> {
    let loads = issuers::load_all(config).map_err(|mut errors| errors.swap_remove(0))?;
    let mut all = Vec::with_capacity(loads.len());
    let mut seen = Vec::with_capacity(loads.len());
    for (load, issuer) in loads.into_iter().zip(&config.issuers) {
        warn_of_skipped(issuer, &load.skipped);
        seen.push(Seen::of(&Ok(load.content)));
        all.push(Arc::new(load.issuer));
    }
    let files = Files {
        config: config.clone(),
        bad: vec![false; seen.len()],
        seen,
    };
    Ok((all, files))
}

fn warn_of_skipped(issuer: &Issuer, skipped: &[SkippedKey]) {
    for key in skipped {
        warn!(issuer = %issuer.name, %key, "key of the set is not used");
    }
}

#[cfg(test)]
mod tests;
