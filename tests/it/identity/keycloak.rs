//! Logouts of a real Keycloak, configured by the recipe of `deploy/identity-providers.md`, on two
//! nodes over one Redis.

mod keys;
mod logouts;
mod signatures;
mod silent;

use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{
    ADMIN_KEY, Attempt, CLIENT, Cluster, Finished, Gateway, Keycloak, Login, Realm, Redis,
    Settings, curfew, eventually, free_port,
};
use serde_json::{Value, json};

use super::recipes::{PAGE, block, blocks};

const HEADING: &str = "Keycloak";

/// A realm and two nodes that trust it.
struct Site {
    realm: Realm,
    cluster: Cluster,
    _redis: Redis,
}

impl Site {
    /// Starts with the recipe's configuration.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with the recipe's configuration, in which the first text of each pair in `replaced`
    /// is replaced by the second text.
    async fn start_with(replaced: &[(&str, &str)]) -> Self {
        let site = Self::without_client(replaced).await;
        site.configure(1).await;
        site
    }

    /// Starts as [`Self::start_with`] does, but configures no client at Keycloak.
    async fn without_client(replaced: &[(&str, &str)]) -> Self {
        let (redis, realm) = (Redis::start().await, Keycloak::shared().await.realm().await);
        let settings = settings(&realm, replaced);
        let cluster = Cluster::start(2, &redis.url(), &settings).await;
        Self {
            realm,
            cluster,
            _redis: redis,
        }
    }

    /// Runs the recipe's first commands, and then those of its block `nth`.
    async fn configure(&self, nth: usize) {
        let commands = blocks(HEADING, "sh");
        let commands = format!("{}{}", commands[0], commands[nth]);
        let gateway = format!("http://{}", self.cluster[0].address());
        self.realm.run(&commands, &gateway).await;
    }

    /// Opens a session on each node with the token of `login`. Then waits until the next second
    /// begins, so that later events are not in the second in which the token was issued.
    async fn sessions(&self, login: &Login) -> [WsClient; 2] {
        let first = self.cluster[0].session(&login.access).await;
        let sessions = [first, self.cluster[1].session(&login.access).await];
        next_second().await;
        sessions
    }
}

/// The recipe's configuration for a realm, in which the first text of each pair in `replaced` is
/// replaced by the second text.
fn settings(realm: &Realm, replaced: &[(&str, &str)]) -> Settings {
    let mut recipe = block(HEADING, "toml");
    let issuer = realm.issuer();
    let ours = [("https://id.example.com/realms/acme", issuer.as_str())];
    for (from, to) in ours.iter().chain(replaced) {
        assert!(
            recipe.contains(from),
            "the recipe does not contain {from}: {recipe}"
        );
        recipe = recipe.replace(from, to);
    }
    Settings::default().issuers(&recipe).rules("")
}

pub(super) async fn assert_open(sessions: &mut [WsClient]) {
    for session in sessions {
        session.assert_open().await;
    }
}

pub(super) async fn assert_revoked(sessions: &mut [WsClient]) {
    for session in sessions {
        session.expect_close(4403, "revoked").await;
    }
}

/// Asserts that the token of `login` opens no session on either node, because its access is
/// revoked.
async fn assert_stays_out(cluster: &Cluster, login: &Login) {
    for node in [&cluster[0], &cluster[1]] {
        assert!(node.attempt_with(&login.access).await.is_revoked());
    }
}

/// Waits for the next second, so that tokens issued before are older than later events.
pub(super) async fn next_second() {
    let now = unix_now();
    eventually("the next second", async || (unix_now() > now).then_some(())).await;
}

/// Number of logouts that a node has received.
async fn logouts(node: &Gateway) -> f64 {
    node.metric("curfew_logouts_total").await
}

/// Changes attributes of the recipe's client. Its other attributes stay unchanged.
async fn change(realm: &Realm, attributes: Value) {
    let client = format!("/clients/{}", realm.client(CLIENT).await);
    // An update without `frontchannelLogout` would switch front-channel logout on.
    let change = json!({"clientId":CLIENT,"frontchannelLogout":false,"attributes":attributes});
    realm.admin("PUT", &client, change).await;
}

/// Runs `curfew doctor` with these settings and these tokens.
async fn doctor(settings: &Settings, tokens: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    std::fs::write(&config, settings.to_toml()).unwrap();
    let config = config.to_str().unwrap();
    curfew(&[&["doctor", "--config", config], tokens].concat()).await
}
