//! The issuers and their keys: an immutable snapshot, and how it is loaded.

mod find;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{AuthFailure, Problems};

pub use summary::{IssuerSummary, KeySummary};

use crate::ask::NoKey;
use crate::claims::Needs;
use crate::jwks::{self, SkippedKey};
use crate::keys::{self, Key};
use crate::token::{ClaimRules, Header, Parts};
use crate::verified::VerifiedTokens;
use crate::{
    Algorithm, AuthConfig, AuthError, EventStream, Issuer, KeyError, LogoutScope, RemoteKeys,
    ReportedSubjects, pem,
};

/// Message for a token that is signed with the client's secret instead of the issuer's key.
const BY_SECRET: &str = "the token is signed with a shared secret (HS256, HS384 or HS512), but all keys of the issuer are public keys: let the provider sign with its private key, for example with RS256 (id_token_signed_response_alg)";

/// Error that prevents the loading of an issuer's key.
#[derive(Debug, thiserror::Error)]
#[error("auth.issuers[{index}].{key}{}: {reason}", shown(.path))]
pub struct LoadError {
    index: usize,
    key: &'static str,
    path: Option<PathBuf>,
    reason: KeyError,
}

fn shown(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map(|path| format!(" ({})", path.display()))
        .unwrap_or_default()
}

/// A snapshot of everything that one verification needs. The issuers and rules in it never change:
/// a reload or a fetch replaces the whole snapshot.
#[derive(Debug)]
pub(crate) struct Issuers {
    pub(crate) all: Vec<Arc<LoadedIssuer>>,
    /// The issuers in `all` whose access tokens open sessions.
    opening: Vec<Arc<LoadedIssuer>>,
    /// `auth.max_token_bytes`, which also limits the tokens of reports.
    pub(crate) max_token_bytes: usize,
    /// The rules by which claims are read.
    pub(crate) rules: ClaimRules,
    pub(crate) leeway: Duration,
    /// `auth.max_token_lifetime`; zero means no limit.
    pub(crate) max_token_lifetime: Duration,
    pub(crate) close_on_key_withdrawal: bool,
    /// True if tokens may have no `exp`.
    pub(crate) allows_undated: bool,
    /// Tokens verified under this snapshot.
    pub(crate) verified: VerifiedTokens,
}

/// One issuer, with its keys and its rules.
#[derive(Debug)]
pub(crate) struct LoadedIssuer {
    pub(crate) name: Arc<str>,
    pub(crate) issuer: Option<String>,
    /// Accepted values of `iss`: the value of `issuer`, or one value per tenant if `issuer`
    /// contains `{tenantid}`. Empty if `issuer` is `None`, which accepts every `iss`.
    accepted: Vec<String>,
    pub(crate) audience: Option<Vec<String>>,
    /// True if access tokens of this issuer open sessions.
    pub(crate) opens_sessions: bool,
    /// True if ID tokens of this issuer are accepted as access tokens.
    pub(crate) accepts_id_tokens: bool,
    /// True if access tokens must state their type by `typ` (`at+jwt`).
    pub(crate) requires_at_jwt: bool,
    /// The known clients of this issuer, which are the audience of its ID tokens.
    pub(crate) client_ids: Vec<String>,
    /// The configured names of the other issuers with the same `iss`.
    pub(crate) namesakes: Vec<Arc<str>>,
    /// Claims that access tokens must have in addition to the claims that every token must have.
    pub(crate) needs: Needs,
    /// The rules for this issuer's logout tokens; `None` if its logout tokens are not accepted.
    pub(crate) logout: Option<LogoutRules>,
    /// The rules for this issuer's security events and Global Token Revocations; `None` if it may
    /// send neither.
    pub(crate) reports: Option<ReportRules>,
    /// True if the keys come in a set, in which a token's `kid` selects the key.
    is_key_set: bool,
    /// The algorithms that this issuer's keys may use; `None` allows every algorithm that fits the
    /// key.
    algorithms: Option<Vec<Algorithm>>,
    keys: Vec<Key>,
    /// The state of fetched keys; `None` if the keys are not fetched. Until a fetch succeeds,
    /// `keys` is empty.
    pub(crate) remote: Option<Arc<RemoteKeys>>,
}

/// Requirements on an issuer's logout tokens, and the scope of a logout.
#[derive(Debug, Clone)]
pub(crate) struct LogoutRules {
    /// The accepted audiences.
    pub(crate) audience: Vec<String>,
    /// The sessions that a logout token with `sid` ends.
    pub(crate) scope: LogoutScope,
    /// `auth.numeric_subjects`.
    pub(crate) numeric_subjects: bool,
}

/// Requirements on an issuer's security events and Global Token Revocations, and the users that
/// they can name.
#[derive(Debug, Clone)]
pub(crate) struct ReportRules {
    /// The stream of the issuer's events; `None` if the issuer may send no events.
    pub(crate) stream: Option<EventStream>,
    /// Accepted audiences of the token that authenticates a Global Token Revocation; `None` if the
    /// issuer may send no such revocation.
    pub(crate) revocation_audience: Option<Vec<String>>,
    /// The configured name of the issuer whose users are reported.
    pub(crate) about: Arc<str>,
    /// The configured names of the other issuers with the same `iss` as `about`.
    pub(crate) namesakes: Vec<Arc<str>>,
    /// The values of `iss` by which a report may name these users: those of the sender and those of
    /// `about`.
    pub(crate) namespaces: Vec<String>,
    /// The claims by which reports name users and logins.
    pub(crate) subjects: ReportedSubjects,
    /// The claim of access tokens that names the user.
    pub(crate) subject_claim: Box<str>,
    /// `auth.numeric_subjects`.
    pub(crate) numeric_subjects: bool,
}

/// An issuer's source of keys, as the configuration names it.
pub(crate) enum KeySource<'a> {
    Secret(&'a str),
    File(&'static str, &'a Path),
    /// A URL to fetch keys from.
    Remote,
}

impl Issuer {
    pub(crate) fn key_source(&self) -> Option<KeySource<'_>> {
        if let Some(secret) = &self.secret {
            return Some(KeySource::Secret(secret.expose()));
        }
        if self.jwks_url.is_some() || self.discovery {
            return Some(KeySource::Remote);
        }
        [
            ("secret_file", &self.secret_file),
            ("public_key_file", &self.public_key_file),
            ("jwks_file", &self.jwks_file),
        ]
        .into_iter()
        .find_map(|(key, path)| Some(KeySource::File(key, path.as_deref()?)))
    }

    /// Builds the issuer with the keys in `content`. `content` is the issuer's key file, its
    /// `secret`, or the set fetched through `remote`.
    pub(crate) fn with_keys(
        &self,
        config: &AuthConfig,
        content: &[u8],
        remote: Option<Arc<RemoteKeys>>,
    ) -> Result<(LoadedIssuer, Vec<SkippedKey>), KeyError> {
        let allowed = self.algorithms.as_deref();
        let one = |key: Key| Ok((vec![key.only(allowed)?], Vec::new()));
        let from_secret = |secret: &[u8]| Key::from_secret(secret, config.least_secret_bytes());
        let (keys, skipped) = match self.key_source().ok_or(KeyError::NoSource)? {
            KeySource::Secret(_) => one(from_secret(content)?),
            KeySource::File("secret_file", _) => one(from_secret(keys::secret_in_file(content))?),
            KeySource::File("public_key_file", _) => one(pem::public_key(content)?),
            KeySource::File(..) | KeySource::Remote => {
                jwks::key_set(content, allowed).map(|set| (set.keys, set.skipped))
            }
        }?;
        Ok((self.loaded(config, keys, remote), skipped))
    }

    fn loaded(
        &self,
        config: &AuthConfig,
        keys: Vec<Key>,
        remote: Option<Arc<RemoteKeys>>,
    ) -> LoadedIssuer {
        LoadedIssuer {
            name: self.name.as_str().into(),
            issuer: self.issuer.clone(),
            accepted: self.accepted_issuers(),
            requires_at_jwt: self.require_at_jwt,
            client_ids: self.logout_audience.clone().unwrap_or_default(),
            namesakes: self.namesakes(config),
            audience: self.audience.clone(),
            opens_sessions: self.opens_sessions(),
            accepts_id_tokens: self.accept_id_tokens,
            needs: Needs::of(config, self),
            logout: self.logout_rules(config),
            reports: self.report_rules(config),
            is_key_set: self.has_key_set(),
            algorithms: self.algorithms.clone(),
            keys,
            remote,
        }
    }

    /// Builds the issuer without keys. The fetches of `remote` bring the keys later.
    pub(crate) fn without_keys(
        &self,
        config: &AuthConfig,
        remote: &Arc<RemoteKeys>,
    ) -> LoadedIssuer {
        self.loaded(config, Vec::new(), Some(Arc::clone(remote)))
    }

    /// The names of the other issuers that share an `iss` with this one.
    fn namesakes(&self, config: &AuthConfig) -> Vec<Arc<str>> {
        let accepted = self.accepted_issuers();
        let others = config.issuers.iter().filter(|other| {
            let theirs = other.accepted_issuers();
            other.name != self.name && theirs.iter().any(|iss| accepted.contains(iss))
        });
        others.map(|other| other.name.as_str().into()).collect()
    }

    fn report_rules(&self, config: &AuthConfig) -> Option<ReportRules> {
        if !self.reports() {
            return None;
        }
        let about = self.reported_issuer();
        let reported = config.issuers.iter().find(|other| other.name == about);
        let namespaces = [Some(self), reported].into_iter().flatten();
        Some(ReportRules {
            stream: self.event_stream.clone(),
            revocation_audience: self.global_token_revocation.clone(),
            about: about.into(),
            namesakes: reported.map_or_else(Vec::new, |one| one.namesakes(config)),
            namespaces: namespaces.flat_map(Self::accepted_issuers).collect(),
            subjects: self.subjects.clone(),
            subject_claim: config.subject_claim.as_str().into(),
            numeric_subjects: config.numeric_subjects,
        })
    }

    fn load(&self, config: &AuthConfig) -> Result<Load, KeyError> {
        if let Some(remote) = RemoteKeys::new(config, self) {
            return Ok(Load {
                content: Vec::new(),
                issuer: self.without_keys(config, &Arc::new(remote)),
                skipped: Vec::new(),
            });
        }
        let content = self.read()?;
        let (issuer, skipped) = self.with_keys(config, &content, None)?;
        Ok(Load {
            content,
            issuer,
            skipped,
        })
    }

    /// Reads the content that [`Self::with_keys`] expects.
    pub(crate) fn read(&self) -> Result<Vec<u8>, KeyError> {
        match self.key_source().ok_or(KeyError::NoSource)? {
            KeySource::Secret(secret) => Ok(secret.as_bytes().to_vec()),
            KeySource::File(_, path) => keys::read_file(path),
            KeySource::Remote => Err(KeyError::NoSource),
        }
    }

    fn load_error(&self, index: usize, reason: KeyError) -> LoadError {
        let (key, path) = match self.key_source() {
            Some(KeySource::File(key, path)) => (key, Some(path.to_owned())),
            Some(KeySource::Remote) => ("jwks_url", None),
            Some(KeySource::Secret(_)) | None => ("secret", None),
        };
        LoadError {
            index,
            key,
            path,
            reason,
        }
    }
}

/// One loaded issuer. `content` is the issuer's secret, or the content of its key file, by which a
/// later change of the file is detected. It is empty for fetched keys.
pub(crate) struct Load {
    pub(crate) content: Vec<u8>,
    pub(crate) issuer: LoadedIssuer,
    pub(crate) skipped: Vec<SkippedKey>,
}

/// Loads every issuer. If some issuers cannot be loaded, returns the errors of all of them.
pub(crate) fn load_all(config: &AuthConfig) -> Result<Vec<Load>, Vec<LoadError>> {
    let mut loads = Vec::new();
    let mut errors = Vec::new();
    for (index, issuer) in config.issuers.iter().enumerate() {
        match issuer.load(config) {
            Ok(load) => loads.push(load),
            Err(reason) => errors.push(issuer.load_error(index, reason)),
        }
    }
    if errors.is_empty() {
        let all: Vec<&LoadedIssuer> = loads.iter().map(|load| &load.issuer).collect();
        for (index, issuer) in config.issuers.iter().enumerate() {
            if let Err(reason) = told_apart(&all, index) {
                errors.push(issuer.load_error(index, reason));
            }
        }
    }
    if errors.is_empty() {
        Ok(loads)
    } else {
        Err(errors)
    }
}

/// Reads the files of keys, of trusted certificates and of `Authorization` values, and reports each
/// file that cannot be used.
pub fn check_files(config: &AuthConfig, problems: &mut Problems) {
    for error in load_all(config).err().unwrap_or_default() {
        // `AuthConfig::check` has reported missing key sources and short values of `secret`.
        if error.path.is_some() {
            let shown = shown(&error.path);
            let message = format!("{}{}", error.reason, shown);
            problems.within(format!("issuers[{}]", error.index), |problems| {
                problems.report(error.key, message);
            });
        }
    }
    for (index, issuer) in config.issuers.iter().enumerate() {
        if let Some(path) = &issuer.ca_file
            && let Err(reason) = check_certificates(path)
        {
            let message = format!("{reason} ({})", path.display());
            problems.within(format!("issuers[{index}]"), |problems| {
                problems.report("ca_file", message);
            });
        }
        if let Some(stream) = &issuer.event_stream {
            problems.within(format!("issuers[{index}]"), |problems| {
                problems.within("event_stream", |problems| stream.check_file(problems));
            });
        }
    }
}

/// Refuses a file that cannot be read or contains no PEM certificate. A bad certificate is found
/// only by the fetch that uses it.
fn check_certificates(path: &Path) -> Result<(), String> {
    let content = keys::read_file(path).map_err(|error| error.to_string())?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    match content.windows(begin.len()).any(|bytes| bytes == begin) {
        true => Ok(()),
        false => Err("holds no certificate in PEM".to_owned()),
    }
}

/// Refuses an issuer if neither `iss` nor `kid` distinguishes its tokens from the tokens of the
/// other issuers.
pub(crate) fn told_apart(all: &[&LoadedIssuer], index: usize) -> Result<(), KeyError> {
    let one = all[index];
    if all.len() == 1 || one.issuer.is_some() {
        return Ok(());
    }
    for key in &one.keys {
        let kid = key.kid().ok_or(KeyError::KidRequired)?;
        let other = all[..index]
            .iter()
            .find(|other| other.issuer.is_none() && other.has_kid(kid));
        if let Some(other) = other {
            return Err(KeyError::KidShared(other.name.to_string()));
        }
    }
    Ok(())
}

impl Issuers {
    pub(crate) fn new(config: &AuthConfig, all: Vec<Arc<LoadedIssuer>>) -> Self {
        let opening = all.iter().filter(|issuer| issuer.opens_sessions);
        Self {
            opening: opening.cloned().collect(),
            all,
            max_token_bytes: config.max_token_bytes,
            rules: ClaimRules::of(config),
            leeway: config.leeway,
            max_token_lifetime: config.max_token_lifetime,
            close_on_key_withdrawal: config.close_on_key_withdrawal,
            allows_undated: config.development,
            verified: VerifiedTokens::new(config.verified_tokens),
        }
    }
}

impl LoadedIssuer {
    /// The outcome for a token whose key is missing, or whose signature does not verify with the
    /// key. An issuer whose keys are fetched may have published a newer key, so the issuer is asked
    /// before the token is refused with `error`.
    fn no_key(&self, error: AuthError) -> NoKey {
        match &self.remote {
            Some(remote) => NoKey::ask(remote, error),
            None => NoKey::Refused(error),
        }
    }

    /// The key that signed the token with these `parts` and this `header`.
    pub(crate) fn signer(&self, parts: &Parts<'_>, header: &Header<'_>) -> Result<&Key, NoKey> {
        let signature = parts.signature()?;
        // A signature whose length the algorithm cannot produce justifies no fetch.
        let has_form = header.algorithm.has_size(signature.len());
        let no_key = match self.key(header) {
            Ok(key) if key.verify(header.algorithm, parts.signed(), signature) => return Ok(key),
            Ok(_) => {
                let no_key = self.no_key(AuthError::bad_signature());
                match header.kid {
                    Some(_) => no_key.by_another_key(),
                    None => no_key,
                }
            }
            Err(no_key) => no_key,
        };
        match has_form && self.allows(header.algorithm) {
            true => Err(no_key),
            false => Err(no_key.into_error().into()),
        }
    }

    /// Returns true if the issuer's configuration allows this algorithm for a public key.
    fn allows(&self, algorithm: Algorithm) -> bool {
        let allowed = self.algorithms.as_ref();
        !algorithm.is_hmac() && allowed.is_none_or(|allowed| allowed.contains(&algorithm))
    }

    /// Returns true if the issuer's keys may verify tokens. Keys at a URL may not before a fetch
    /// has succeeded, and not once they are older than `auth.jwks_max_stale`. Keys from other
    /// sources always may.
    pub(crate) fn is_usable(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.usable())
    }

    pub(crate) fn has_key(&self, fingerprint: &str) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| **key.fingerprint() == *fingerprint)
    }

    pub(crate) fn has_kid(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// The key that `header` selects. In a key set, `kid` selects the key. If the header has no
    /// `kid`, exactly one key of the set must fit the algorithm. A secret or a key from a PEM file
    /// has no `kid` of its own, so every `kid` selects it.
    fn key(&self, header: &Header<'_>) -> Result<&Key, NoKey> {
        let unknown = || {
            self.no_key(AuthError::new(
                AuthFailure::UnknownKey,
                "no configured key fits the token's kid and alg",
            ))
        };
        if !self.is_usable() {
            return Err(unknown());
        }
        // A fetch cannot bring a shared secret, because a key set holds public keys only.
        if self.is_foreign_secret(header.algorithm) {
            return Err(AuthError::new(AuthFailure::UnknownKey, BY_SECRET).into());
        }
        let kid = header.kid.as_deref().filter(|_| self.is_key_set);
        let mut fitting = self.keys.iter().filter(|key| {
            key.algorithms().contains(&header.algorithm) && (kid.is_none() || key.kid() == kid)
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(unknown()),
            (Some(_), Some(_)) => Err(NoKey::Refused(AuthError::new(
                AuthFailure::UnknownKey,
                "the token has no kid, and more than one key fits its alg",
            ))),
        }
    }

    /// Returns true if the algorithm needs a secret, but the issuer has keys and all of them are
    /// public.
    fn is_foreign_secret(&self, algorithm: Algorithm) -> bool {
        let mut known = self.keys.iter().flat_map(|key| key.algorithms());
        algorithm.is_hmac() && !self.keys.is_empty() && !known.any(|known| known.is_hmac())
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }
}
