//! Verification of tokens, and upkeep of the keys that verify them.

mod attempt;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_model::{Clock, Principal};
use jsonwebtoken::jwk::ThumbprintHash;
use tracing::{info, warn};

use crate::ask::{NoKey, with_keys};
use crate::issuers::{self, Issuers, KeySource, LoadError, LoadedIssuer};
use crate::jwks::SkippedKey;
use crate::keys::PROVIDER;
use crate::reports::Journal;
use crate::{AuthConfig, AuthError, Issuer, IssuerSummary, KeyError, RemoteKeys};

/// Turns tokens into principals. All connections share one authenticator. Verification holds locks
/// only briefly: those of the remembered tokens and of the fetched keys. One verification uses one
/// configuration from start to end.
#[derive(Debug)]
pub struct Authenticator {
    issuers: ArcSwap<Issuers>,
    clock: Arc<dyn Clock>,
    files: Mutex<Files>,
    journal: Journal,
}

/// Reason why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is at fault.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// The token cannot be judged at the moment, which is not the token's fault.
    #[error(transparent)]
    Unknown(#[from] Unverified),
}

/// Obstacle that prevents the verification of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The issuer's keys are unavailable.
    #[error("the keys of the issuer {:?} are not available", .0.issuer)]
    Keys(MissingKeys),
    /// The token would be refused for its times, but this node's clock may be wrong.
    #[error("this node's clock may be wrong")]
    Clock,
}

/// Keys that are unavailable at the moment, and the verdict on the token that needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingKeys {
    /// The configured name of the issuer.
    pub issuer: Arc<str>,
    /// The time until the keys can next be fetched, on schedule or on demand.
    pub retry_after: Duration,
    /// True if the token passes every check that needs no key, and may be so new that the set
    /// fetched last lacks its key.
    pub may_be_good: bool,
}

impl Unverified {
    /// The time after which another attempt can succeed; `None` if unknown.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Keys(missing) => Some(missing.retry_after),
            Self::Clock => None,
        }
    }

    /// The name of the obstacle in spans.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys_unavailable",
            Self::Clock => "clock_off",
        }
    }

    /// One sentence for the client.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Keys(_) => "the issuer's keys are not available at the moment, try again",
            Self::Clock => "the token's times cannot be checked at the moment, try again",
        }
    }
}

impl VerifyError {
    /// Turns a refusal that this node's clock caused into [`Unverified::Clock`]. A node calls it
    /// while its clock may be wrong: such a clock cannot prove that a token is expired or not yet
    /// valid.
    #[must_use]
    pub fn without_clock(self) -> Self {
        match self {
            Self::Refused(error) if error.is_by_clock() => Unverified::Clock.into(),
            other => other,
        }
    }
}

/// A key file that changed, and the outcome of reading it.
#[derive(Debug)]
pub struct FileReload {
    /// The issuer's configured name.
    pub issuer: String,
    /// The file.
    pub path: PathBuf,
    /// The number of keys now in force, or the reason why the previous keys stay in force.
    pub outcome: Result<usize, KeyError>,
}

/// The last seen state of the key files. The lock around this value serialises reloads and key
/// installations.
#[derive(Debug)]
struct Files {
    config: AuthConfig,
    /// One entry per issuer, in the order of `config.issuers`.
    seen: Vec<FileContent>,
    /// One entry per issuer: true if the last content of the issuer's file could not be used.
    bad: Vec<bool>,
}

/// The issuers of another configuration with their keys; see [`Authenticator::prepare`].
#[derive(Debug)]
pub struct PreparedIssuers {
    all: Vec<Arc<LoadedIssuer>>,
    files: Files,
}

/// Result of reading a file.
#[derive(Debug, PartialEq, Eq)]
enum FileContent {
    /// The SHA-256 of the file's content.
    Content(Vec<u8>),
    Unreadable,
}

impl Authenticator {
    /// Loads the keys of every issuer. Blocks on reading files.
    ///
    /// # Errors
    ///
    /// The error of the first key that cannot be loaded; [`crate::check_files`] reports every such
    /// key.
    pub fn new(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let (all, files) = load(config)?;
        Ok(Self {
            issuers: ArcSwap::from_pointee(Issuers::new(config, all)),
            clock,
            files: Mutex::new(files),
            journal: Journal::default(),
        })
    }

    /// Verifies a token with the keys that this node has. If the issuer has published the token's
    /// key since the last fetch, the token is refused as `unknown_key`.
    ///
    /// # Errors
    ///
    /// A token whose signature does not verify gets only `malformed`, `wrong_issuer`, `unknown_key`
    /// or `bad_signature`. The author of a forged token thus does not learn how its other claims
    /// would be judged.
    pub fn authenticate(&self, token: &str) -> Result<Arc<Principal>, AuthError> {
        self.attempt(token, None).map_err(NoKey::into_error)
    }

    /// Verifies a token. If the token's key is missing and the issuer's keys come from a URL, waits
    /// up to two seconds for a fetch.
    ///
    /// # Errors
    ///
    /// Like [`Authenticator::authenticate`], plus [`VerifyError::Unknown`] if the keys cannot be
    /// fetched now.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, VerifyError> {
        with_keys(|| self.attempt(token, None)).await
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

    /// Returns true if `auth.close_on_key_withdrawal` is set and the principal's issuer no longer
    /// has the principal's key, or is no longer configured. Returns false while the issuer's last
    /// fetch counts as failed. The fetch of a set without a usable key counts as failed: the set
    /// stops verification, but closes no session.
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

    /// Returns `auth.close_on_key_withdrawal`: true if sessions whose key was withdrawn are closed.
    pub fn closes_withdrawn(&self) -> bool {
        self.issuers.load().close_on_key_withdrawal
    }

    /// One value for each issuer whose keys are fetched. The caller fetches the keys each time
    /// [`RemoteKeys::due`] resolves.
    pub fn remotes(&self) -> Vec<Arc<RemoteKeys>> {
        let issuers = self.issuers.load();
        let remotes = issuers
            .all
            .iter()
            .filter_map(|issuer| issuer.remote.clone());
        remotes.collect()
    }

    /// Returns true if tokens of some issuer can be verified, or could be verified earlier. The
    /// result is false only if every issuer that opens sessions has its keys at a URL and no fetch
    /// has succeeded yet.
    pub fn had_keys(&self) -> bool {
        let issuers = self.issuers.load();
        let mut opening = issuers.all.iter().filter(|issuer| issuer.opens_sessions);
        opening.any(|issuer| match &issuer.remote {
            None => true,
            Some(remote) => remote.was_fetched(),
        })
    }

    /// Returns true if the last fetch or file read of every issuer succeeded.
    pub fn keys_are_current(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = self.remotes().iter().all(|remote| remote.is_sure());
        fetched && !files.bad.contains(&true)
    }

    /// Puts the key set fetched for `remote` in force and returns its number of keys. Ignores the
    /// set if `remote` no longer belongs to a configured issuer.
    ///
    /// # Errors
    ///
    /// The set cannot be used. The previous keys stay in force, except after
    /// [`KeyError::NoUsableKey`], which withdraws them.
    pub fn install(&self, remote: &Arc<RemoteKeys>, set: &[u8]) -> Result<usize, KeyError> {
        // This lock excludes a reload. A reload and an installation each replace the whole
        // snapshot, and must not drop each other's keys.
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.issuers.load();
        let is_its = |issuer: &Arc<LoadedIssuer>| {
            issuer
                .remote
                .as_ref()
                .is_some_and(|its| Arc::ptr_eq(its, remote))
        };
        // No issuer has `remote` any more if a reload has dropped the issuer, or has changed the
        // fetching of its keys, since the fetch began.
        let Some(index) = all.all.iter().position(is_its) else {
            return Ok(0);
        };
        // An unchanged set keeps the snapshot, and with it the remembered tokens.
        if remote.is_known(set) {
            remote.fetched(set);
            return Ok(all.all[index].key_count());
        }
        let replaced = self.replace(&files.config, index, set);
        match &replaced {
            Ok(_) => remote.fetched(set),
            // A set without a usable key withdraws all previous keys, by intent or by mistake.
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

    /// Loads the keys of another configuration, and changes nothing yet. This is the only part of a
    /// reload that can fail. Blocks on reading files.
    ///
    /// # Errors
    ///
    /// The error of the first key that cannot be loaded.
    pub fn prepare(config: &AuthConfig) -> Result<PreparedIssuers, LoadError> {
        let (all, files) = load(config)?;
        Ok(PreparedIssuers { all, files })
    }

    /// Puts a prepared configuration in force with all its keys. Keys that the previous
    /// configuration has fetched from the same location stay in use. Open connections are not
    /// checked again.
    pub fn put_in_force(&self, prepared: PreparedIssuers) {
        let PreparedIssuers { mut all, files } = prepared;
        let mut current = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_fetched(&mut all, &files.config);
        self.issuers
            .store(Arc::new(Issuers::new(&files.config, all)));
        *current = files;
    }

    /// Reads the key files again and puts changed keys in force. The caller calls this every few
    /// seconds. Blocks on reading files. If a file cannot be used, the previous keys stay in force.
    /// Each change is logged and returned once, even if the file stays bad.
    pub fn reload_changed_files(&self) -> Vec<FileReload> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Files { config, seen, bad } = &mut *files;
        let mut reloads = Vec::new();
        for (index, (issuer, seen)) in config.issuers.iter().zip(seen).enumerate() {
            let Some(KeySource::File(_, path)) = issuer.key_source() else {
                continue;
            };
            let content = issuer.read();
            let now = FileContent::of(&content);
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

    /// Copies the fetched keys of each issuer whose key location is unchanged, so that the new
    /// configuration uses them without another fetch.
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

    /// Puts the keys in `content` in force for the issuer at `index`.
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

impl FileContent {
    fn of(content: &Result<Vec<u8>, KeyError>) -> Self {
        match content {
            // Files are compared by content. A mounted secret changes by the swap of a symbolic
            // link, and the time of modification can then stay the same.
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
        seen.push(FileContent::of(&Ok(load.content)));
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
        warn!(issuer = %issuer.name, %key, "a key of the key set is not used");
    }
}

#[cfg(test)]
mod tests;
