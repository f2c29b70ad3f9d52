//! Authentication: from the credentials of a request to a [`curfew_model::Principal`].
//!
//! Owns: the sources and the form of tokens, the issuers and their keys, the refusals of tokens,
//! and tickets. No other crate uses a cipher, and outside tests no other crate uses the JWT
//! library.
//! Knows nothing of: sockets, sessions, revocations, policy. A read of a key file blocks the
//! thread. Verification awaits nothing except missing keys, which the crate `curfew-identity`
//! fetches.
//! Start at [`Authenticator::authenticate`].
//!
//! ```
//! use curfew_auth::{AuthConfig, Credential, Source, extract};
//! use http::HeaderMap;
//!
//! let config = AuthConfig {
//!     token_sources: vec![Source::Query],
//!     ..AuthConfig::default()
//! };
//! let found = extract(&HeaderMap::new(), Some("token=a%2Eb.c"), &[], &config)?;
//! let Some(Credential::Bearer(bearer)) = found else {
//!     panic!("no token was found");
//! };
//! assert_eq!((bearer.token(), bearer.sources()), ("a.b.c", &[Source::Query][..]));
//!
//! // Two different tokens are refused.
//! let two = extract(&HeaderMap::new(), Some("token=a.b.c&token=d.e.f"), &[], &config);
//! assert!(two.is_err());
//! # Ok::<(), curfew_auth::AuthError>(())
//! ```

mod algorithm;
mod ask;
mod authenticate;
mod centrifuge;
mod claims;
mod config;
mod credentials;
mod error;
mod issuers;
mod jwks;
mod keys;
mod logout;
pub mod mint;
mod pem;
mod remote;
mod reports;
mod sealed;
mod session_key;
mod subscription;
mod ticket;
mod token;
mod verified;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use ask::KeyWait;
pub use authenticate::{
    Authenticator, FileReload, MissingKeys, PreparedIssuers, Unverified, VerifyError,
};
pub use centrifuge::{ConnectionClaims, Overrides, SubscriptionClaims, TokenData, WishedChannel};
pub use config::{
    AuthConfig, EventStream, Issuer, LogoutScope, Reject, ReportedSubjects, Signal, Source, Trust,
    check_url, found_at,
};
pub use credentials::{Bearer, Credential, bearer, extract, extract_beside_cookies};
pub use error::AuthError;
pub use issuers::{IssuerSummary, KeySummary, LoadError, check_files};
pub use keys::KeyError;
pub use logout::Logout;
pub use mint::{MintError, MintKey, mint};
pub use remote::{KeyLocation, RemoteKeys, RemoteStatus};
pub use reports::{
    Effect, EventType, LastReport, ReportSubject, RevocationError, Revoker, SecurityEvent,
    StreamStatus,
};
pub use sealed::Sealed;
pub use session_key::{SessionKey, SessionKeyId};
pub use subscription::{SubscriptionGrant, SubscriptionWish, subscription_channel};
pub use ticket::{NewTicket, NotATicket, Ticket, Ticketed};
