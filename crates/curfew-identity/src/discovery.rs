//! Discovery of the URL of an issuer's keys: OpenID Connect Discovery 1.0.

use bytes::Bytes;
use curfew_auth::{KeyError, KeyLocation, RemoteKeys, Trust, check_url, found_at};
use http::Uri;
use serde::Deserialize;

use crate::{FetchError, Fetcher};

/// Path of the OpenID configuration, which follows the issuer's URL (OpenID Connect Discovery 1.0
/// §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Maximum number of characters that an error shows of the `issuer` in a fetched document.
const SHOWN_CHARS: usize = 200;

/// Reason why a provider gave no keys.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A document could not be fetched.
    #[error("{url}: {error}")]
    Fetch {
        /// The document's URL.
        url: String,
        /// The reason.
        error: FetchError,
    },
    /// A URL, configured or named by the provider, is not acceptable for fetching keys.
    #[error("{url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// The rule that the URL breaks.
        problem: &'static str,
    },
    /// The document is not an OpenID configuration.
    #[error("{url}: not an OpenID configuration with issuer and jwks_uri")]
    NotConfiguration {
        /// The document's URL.
        url: String,
    },
    /// The OpenID configuration belongs to another issuer (§4.3).
    #[error(
        "{url}: names {theirs:?} as its issuer, but auth.issuers has {ours:?}: the two must be equal byte for byte, slash and case included"
    )]
    OtherIssuer {
        /// The document's URL.
        url: String,
        /// The issuer that the document names, cut to fit a log line.
        theirs: String,
        /// The configured issuer.
        ours: String,
    },
    /// The fetched document is not a usable key set.
    #[error("the key set: {0}")]
    Keys(KeyError),
    /// The fetched set has no usable key, which withdraws all previous keys.
    #[error("the key set: {0}; all previous keys are withdrawn")]
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
    /// The name of the fault, from a fixed list. The name contains no text that the provider sent.
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

/// The members of an OpenID configuration that are used. All other members are ignored (§3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// Fetches the issuer's key set, without parsing it.
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

    /// Fetches the OpenID configuration, and returns the URL of the key set. The URL is not stored,
    /// because the issuer may move its keys.
    async fn key_set_url(&self, issuer: &str, trust: &Trust) -> Result<String, ProviderError> {
        // §4.1 demands that a trailing slash is removed.
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
