//! Reports of issuers about users: security events and Global Token Revocation. Logout tokens are
//! in `logout.rs`.

mod assertion;
mod event;
mod journal;
mod set;
mod signed;
mod subject;

pub use assertion::{RevocationError, Revoker};
pub use event::EventType;
pub use journal::{LastReport, StreamStatus};
pub use set::{Effect, SecurityEvent};
pub use subject::ReportSubject;

pub(crate) use journal::Journal;
pub(crate) use signed::{MAX_ID_BYTES, ReportClaims, SignedClaims};
