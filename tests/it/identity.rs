//! Identity providers: fetched keys, logouts, security events, tokens that clients give back, and
//! tickets for tokens.

mod doctor;
mod events;
mod explained;
mod faults;
mod global_revocation;
mod kept;
mod keycloak;
mod keys;
mod kinds;
mod logout;
mod openid;
mod recipes;
mod revoke;
mod rotation;
mod strangers;
mod tickets;
mod told;
mod within;

use curfew_testkit::mint::Key;
use curfew_tests::{Attempt, Gateway, Provider, Settings, eventually};

/// Settings of a node with `provider` as its only issuer.
fn trusting(provider: &Provider) -> Settings {
    Settings::default().issuers(&provider.by_url("main"))
}

/// Waits until a token that `key` signed is accepted.
async fn until_accepted(node: &Gateway, provider: &Provider, key: &Key) {
    until_accepted_as(node, &provider.token(key, "alice")).await;
}

/// Waits until this token is accepted.
async fn until_accepted_as(node: &Gateway, token: &str) {
    eventually("a token to be accepted", async || {
        let attempt = node.attempt_with(token).await;
        attempt.is_open().then_some(())
    })
    .await;
}

/// Waits until a token that `key` signed is refused. The reason must be `unknown_key`.
async fn until_unknown(node: &Gateway, provider: &Provider, key: &Key) {
    eventually("a key to be unknown", async || {
        match node.attempt_with(&provider.token(key, "alice")).await {
            Attempt::Open(_) => None,
            Attempt::Refused(reason, 4401) if reason == "unknown_key" => Some(()),
            other => panic!("{other:?}"),
        }
    })
    .await;
}
