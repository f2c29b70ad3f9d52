//! Authentication: from the credentials of a request to a [`curfew_model::Principal`].
//!
//! Owns: the sources and the form of tokens, the issuers and their keys, the refusals of tokens,
//! and tickets. The only crate that names the JWT library and a cipher.
//! Knows nothing of: sockets, sessions, revocations, policy. Reading key files blocks. Verification
//! awaits only keys, which another crate fetches.
//! Start at [`Authenticator::authenticate`].

mod algorithm;
mod ask;
mod authenticate;
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
mod ticket;
mod token;
mod verified;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use authenticate::{
    Authenticator, FileReload, MissingKeys, PreparedIssuers, Unverified, VerifyError,
};
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
    Effect, EventType, LastReport, RevocationError, Revoker, SecurityEvent, StreamStatus, Subject,
};
pub use ticket::{NewTicket, NotATicket, Ticket, Ticketed};
