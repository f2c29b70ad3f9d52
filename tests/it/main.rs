//! Tests of every promise of the public contract, from outside the node. Each feature has a module.
#![expect(
    clippy::unwrap_used,
    reason = "in a test an unexpected None or Err is a failure, and unwrap is how it is reported"
)]

mod admin;
mod admin_keys;
mod advisories;
mod anonymous;
mod architecture;
mod bad_tokens;
mod centrifuge;
mod client_js;
mod clients;
mod clocks;
mod demo;
mod dev;
mod drain;
mod expiry;
mod frames;
mod handshake;
mod health;
mod http;
mod identity;
mod limits;
mod long_tokens;
mod message_auth;
mod metrics;
mod odd_json;
mod operations;
mod origins;
mod ping;
mod policy;
mod presence;
mod protocol;
mod redis;
mod refresh;
mod reload;
mod repeats;
mod revocation;
mod secrets;
mod slow_clients;
mod slow_consumer;
mod start_up;
mod streams;
mod tls;
mod token_sources;
mod tracing;
mod transcripts;
