//! Where an issuer's keys are: OpenID Connect Discovery 1.0.

use bytes::Bytes;
use curfew_auth::{KeyError, KeyLocation, RemoteKeys, Trust, check_url, found_at};
use http::Uri;
use serde::Deserialize;

use crate::{FetchError, Fetcher};

/// Below the issuer (OpenID Connect Discovery 1.0 §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Characters of another issuer's name that are shown.
const SHOWN_CHARS: usize = 200;

/// Why a provider gave no keys.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A document was not had.
    #[error("{url}: {error}")]
    Fetch {
        /// Which.
        url: String,
        /// Why not.
        error: FetchError,
    },
    /// A configured URL, or the one that the provider names, is none to fetch keys from.
    #[error("{url}: {problem}")]
    Url {
        /// Which.
        url: String,
        /// What it must be.
        problem: &'static str,
    },
    /// The OpenID configuration is none.
    #[error("{url}: not an OpenID configuration with issuer and jwks_uri")]
    NotConfiguration {
        /// Where it should be.
        url: String,
    },
    /// The OpenID configuration is another issuer's (§4.3).
    #[error(
        "{url}: names {theirs:?} as its issuer, and auth.issuers has {ours:?}: they are compared byte for byte, slash and case included"
    )]
    OtherIssuer {
        /// Where it is.
        url: String,
        /// Its issuer, cut to a length that a line can have.
        theirs: String,
        /// The configured one.
        ours: String,
    },
    /// What was fetched is no key set, or has no key that can be used.
    #[error("the key set: {0}")]
    Keys(KeyError),
    /// The same, and the keys that there were are withdrawn by it.
    #[error("the key set: {0}; all keys that there were are withdrawn")]
    Withdrawn(KeyError),
}

impl From<KeyError> for ProviderError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NoUsableKey(_) => Self::Withdrawn(error),
            other => Self::Keys(other),
        }
    }
}

impl ProviderError {
    /// A name for the fault, of few: nothing of the provider's is in it.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Fetch { error, .. } => error.error_type(),
            Self::Url { .. } => "url",
            Self::NotConfiguration { .. } => "not_configuration",
            Self::OtherIssuer { .. } => "other_issuer",
            Self::Keys(_) | Self::Withdrawn(_) => "no_keys",
        }
    }
}

/// The members that mean something here; others are passed over (§3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// The key set, unread.
    pub(crate) async fn key_set(&self, remote: &RemoteKeys) -> Result<Bytes, ProviderError> {
        let trust = &remote.trust;
        match &remote.location {
            KeyLocation::Url(url) => self.document(url, trust).await,
            KeyLocation::Discovery(issuer) => {
                let url = self.key_set_url(issuer, trust).await?;
                self.document(&url, trust).await
            }
        }
    }

    /// Asks the issuer, each time: it may move its keys.
    async fn key_set_url(&self, issuer: &str, trust: &Trust) -> Result<String, ProviderError> {
        // §4.1: a slash at the end is left out.
        let at = found_at(issuer);
        let url = format!("{}{WELL_KNOWN}", at.trim_end_matches('/'));
        let document = self.document(&url, trust).await?;
        let Ok(configuration) = serde_json::from_slice::<Configuration>(&document) else {
            return Err(ProviderError::NotConfiguration { url });
        };
        if configuration.issuer != issuer {
            let theirs = configuration.issuer.chars().take(SHOWN_CHARS).collect();
            let ours = issuer.to_owned();
            return Err(ProviderError::OtherIssuer { url, theirs, ours });
        }
        Ok(configuration.jwks_uri)
    }

    async fn document(&self, url: &str, trust: &Trust) -> Result<Bytes, ProviderError> {
        let uri: Uri = check_url(url, trust.allow_http).map_err(|problem| ProviderError::Url {
            url: url.to_owned(),
            problem,
        })?;
        self.get(&uri, trust.ca_file.as_deref())
            .await
            .map_err(|error| ProviderError::Fetch {
                url: url.to_owned(),
                error,
            })
    }
}
