//! Tests through real sockets and hyper, as a server uses this crate.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod client;
mod peers;
mod transport;
mod upgrade;
