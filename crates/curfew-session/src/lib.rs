//! One connection's life after its upgrade: open, read, dispatch, write, close.
//!
//! Owns: a connection's socket, its deadlines and rates, its subscriptions with their cached
//! permissions, and the order of the steps that end it.
//! Knows nothing of: HTTP, listeners, other sessions.
//! Start at [`run`]; the files in order: `admission`, `open`, `run`, `read`, `dispatch`,
//! `commands/*`, `pipeline`, `write`, `timers`, `close`.

mod admission;
mod close;
mod commands;
mod config;
mod context;
mod credentials;
mod dispatch;
mod metrics;
mod open;
mod pipeline;
mod rate;
mod read;
mod run;
mod timers;
mod write;

pub use admission::{AdmissionError, Failure, VerifiedToken};
pub use config::{LimitsConfig, SessionConfig};
pub use curfew_hub::{Carrier, WireId, Wires};

pub use context::{Context, SessionSettings};
pub use credentials::Credentials;
pub use metrics::{
    CommandOutcome, Decision, Initiator, PublishOutcome, PublishSource, SessionMetrics,
};
pub use open::{Guards, Opening, Refusal, Session, revoked};
pub use run::run;

#[cfg(test)]
mod tests;
