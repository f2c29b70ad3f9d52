//! Authentication: from the credentials of a request to a [`curfew_model::Principal`].
//!
//! Owns: where a token may come from, what a token must look like, the issuers and their keys, and
//! why a token is refused. The only crate that names the JWT library.
//! Knows nothing of: sockets, sessions, revocations, policy. Never awaits; reading key files blocks.
//! Start at [`Authenticator::authenticate`].

mod algorithm;
mod authenticate;
mod config;
mod credentials;
mod error;
mod issuers;
mod jwks;
mod keys;
pub mod mint;
mod pem;
mod token;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use authenticate::{Authenticator, FileReload};
pub use config::{Config, Issuer, Reject, Source};
pub use credentials::{Credential, extract};
pub use error::AuthError;
pub use issuers::{IssuerSummary, KeySummary, LoadError, check_files};
pub use keys::KeyError;
pub use mint::{MintError, MintKey, mint};
