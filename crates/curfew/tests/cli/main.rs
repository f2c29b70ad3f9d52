//! The commands as a shell runs them: arguments in, text and an exit code out.

#![expect(
    clippy::unwrap_used,
    reason = "these are tests, their helpers included"
)]

mod admin;
mod config;
mod connect;
mod exit_codes;
mod packaging;
mod support;
mod tokens;
