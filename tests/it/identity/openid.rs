//! The OpenID standards, tested with the provider `oidc-provider` on two nodes over one Redis:
//! access tokens for a resource (RFC 8707, RFC 9068), RP-initiated and back-channel logout, and
//! rotated keys.

use curfew_testkit::mint::part;
use curfew_testkit::{PATIENCE, WsClient};
use curfew_tests::{
    Attempt, Cluster, Finished, Gateway, OpenIdProvider, Redis, Settings, SignedIn, curfew,
    eventually,
};
use serde_json::{Value, json};

use super::keycloak::{assert_open, assert_revoked, next_second};
use super::until_accepted_as;

/// The client that users sign in with.
const CLIENT: &str = "web-app";

/// Lines of an issuer that accepts access tokens for the gateway, and logouts of the client
/// [`CLIENT`].
const ACCEPTING: &str =
    "audience = [\"https://rt.example.com\"]\nlogout_audience = [\"web-app\"]\n";

/// A provider and two nodes that trust it.
struct Site {
    provider: OpenIdProvider,
    cluster: Cluster,
    _redis: Redis,
}

impl Site {
    /// Starts a site. `clients` are the provider's clients with their metadata, which send logouts
    /// to the first node. `lines` are further lines of the issuer.
    async fn start(algorithms: &[&str], lines: &str, clients: &[(&str, Value)]) -> Self {
        let (redis, provider) = (
            Redis::start().await,
            OpenIdProvider::start("", algorithms, clients).await,
        );
        let settings = settings(provider.issuer(), lines);
        let cluster = Cluster::start(2, &redis.url(), &settings).await;
        for node in cluster.nodes() {
            eventually("the provider's keys", async || {
                let known = node.admin_ok("GET", "/v1/issuers", None).await;
                let keys = known["issuers"][0]["keys"].as_array()?.len();
                (keys > 0).then_some(())
            })
            .await;
        }
        let logouts = format!("http://{}/logout/backchannel", cluster[0].address());
        let told = |(name, metadata): &(_, Value)| {
            let mut metadata = metadata.clone();
            metadata["backchannel_logout_uri"] = json!(logouts);
            (*name, metadata)
        };
        let told: Vec<(&str, Value)> = clients.iter().map(told).collect();
        provider.register(&told).await;
        Self {
            provider,
            cluster,
            _redis: redis,
        }
    }

    /// A site whose provider puts `sid` into logouts.
    async fn usual() -> Self {
        Self::start(&["ES256"], ACCEPTING, &[(CLIENT, required(true))]).await
    }

    /// Opens a session on each node with the token of `login`. Then waits, so that later events are
    /// not in the token's second.
    async fn sessions(&self, login: &SignedIn) -> [WsClient; 2] {
        let first = self.cluster[0].session(&login.access).await;
        let sessions = [first, self.cluster[1].session(&login.access).await];
        next_second().await;
        sessions
    }

    async fn assert_stays_out(&self, login: &SignedIn) {
        for node in self.cluster.nodes() {
            assert!(node.attempt_with(&login.access).await.is_revoked());
        }
    }
}

/// A client's metadata with `backchannel_logout_session_required`.
fn required(required: bool) -> Value {
    json!({"backchannel_logout_session_required":required})
}

fn settings(issuer: &str, lines: &str) -> Settings {
    let issuer = format!(
        "[[auth.issuers]]\nname = \"op\"\nissuer = {issuer:?}\ndiscovery = true\n\
         backchannel_logout = true\n{lines}"
    );
    Settings::default().issuers(&issuer)
}

async fn probe(settings: &Settings) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    std::fs::write(&config, settings.to_toml()).unwrap();
    let config = config.to_str().unwrap();
    curfew(&["check-config", "--config", config, "--probe"]).await
}

/// Asserts that a token opens no session, and that the client gets the reason.
async fn assert_refused(node: &Gateway, token: &str, reason: &str, words: &str) {
    let mut refused = node.ws().bearer(token).open().await;
    let told = refused.expect_auth_failed(reason, 4401).await;
    assert!(told.to_string().contains(words), "{told}");
}

/// Regression: a logout of one provider session ended the sessions of another provider session, or
/// left its own sessions open on the other node.
#[tokio::test]
async fn a_logout_with_sid_ends_its_login_on_both_nodes_and_no_other() {
    let site = Site::usual().await;
    let login = site.provider.login(CLIENT, "nina").await;
    let other = site.provider.login(CLIENT, "nina").await;
    let beside = site.provider.login(CLIENT, "otto").await;
    assert_eq!(part(&login.access, 0)["typ"], "at+jwt");
    let mut sessions = site.sessions(&login).await;
    let mut others = site.sessions(&other).await;
    let mut besides = site.sessions(&beside).await;
    site.provider.log_out(&login).await;
    assert_revoked(&mut sessions).await;
    site.assert_stays_out(&login).await;
    assert_open(&mut others).await;
    assert_open(&mut besides).await;
    let again = site.provider.login(CLIENT, "nina").await;
    for node in site.cluster.nodes() {
        assert!(node.attempt_with(&again.access).await.is_open());
    }
}

/// Regression: a logout that names only the user ended no session, or only one of several sessions.
#[tokio::test]
async fn a_logout_without_sid_ends_all_of_the_subjects_logins() {
    for lines in ["", "logout_scope = \"user\"\n"] {
        let lines = format!("{ACCEPTING}{lines}");
        let site = Site::start(&["ES256"], &lines, &[(CLIENT, required(false))]).await;
        // By default access tokens must have `sid`, even if logouts have no `sid`.
        let sign_in = async |user: &str| match lines == ACCEPTING {
            true => site.provider.login_with_sid(CLIENT, user).await,
            false => site.provider.login(CLIENT, user).await,
        };
        let (login, other) = (sign_in("nina").await, sign_in("nina").await);
        let beside = sign_in("otto").await;
        let has_sid = part(&login.access, 1)["sid"].is_string();
        assert_eq!(has_sid, lines == ACCEPTING);
        let mut sessions = site.sessions(&login).await;
        let mut others = site.sessions(&other).await;
        let mut besides = site.sessions(&beside).await;
        site.provider.log_out(&login).await;
        assert_revoked(&mut sessions).await;
        assert_revoked(&mut others).await;
        site.assert_stays_out(&login).await;
        site.assert_stays_out(&other).await;
        assert_open(&mut besides).await;
    }
}

/// Regression: a token without `sid` opened a session that no logout of its provider session could
/// end.
#[tokio::test]
async fn a_client_whose_tokens_name_no_login_is_told_to_by_the_claims_name() {
    let site = Site::start(&["ES256"], ACCEPTING, &[(CLIENT, required(false))]).await;
    let login = site.provider.login(CLIENT, "nina").await;
    assert_refused(&site.cluster[0], &login.access, "missing_claim", "sid").await;
}

/// Regression: the logout token of a second client ended sessions although the client was not
/// configured, or ended no session although the client was configured.
#[tokio::test]
async fn a_second_clients_logout_token_counts_where_that_client_is_named() {
    let clients = [(CLIENT, required(true)), ("tv-app", required(true))];
    let site = Site::start(&["ES256"], ACCEPTING, &clients).await;
    let login = site.provider.login(CLIENT, "nina").await;
    let beside = site.provider.login_beside("tv-app", &login).await;
    assert_ne!(
        part(&login.access, 1)["sid"],
        part(&beside.access, 1)["sid"]
    );
    let mut sessions = site.sessions(&login).await;
    let mut besides = site.sessions(&beside).await;
    site.provider.log_out(&login).await;
    assert_revoked(&mut sessions).await;
    let refused = "curfew_reports_refused_total{reason=\"wrong_audience\"}";
    assert_eq!(site.cluster[0].metric(refused).await, 1.0);
    assert_open(&mut besides).await;

    let both = ACCEPTING.replace("[\"web-app\"]", "[\"web-app\", \"tv-app\"]");
    let site = Site::start(&["ES256"], &both, &clients).await;
    let login = site.provider.login(CLIENT, "nina").await;
    let beside = site.provider.login_beside("tv-app", &login).await;
    let mut sessions = site.sessions(&login).await;
    let mut besides = site.sessions(&beside).await;
    site.provider.log_out(&login).await;
    assert_revoked(&mut sessions).await;
    assert_revoked(&mut besides).await;
    assert_eq!(site.cluster[0].metric(refused).await, 0.0);
}

/// Regression: tokens or logouts by a freshly rotated key were refused, or the removed key stayed
/// valid.
#[tokio::test]
async fn keys_that_are_rotated_are_followed_for_logins_and_logouts() {
    let site = Site::usual().await;
    let before = site.provider.login(CLIENT, "nina").await;
    for node in site.cluster.nodes() {
        assert!(node.attempt_with(&before.access).await.is_open());
    }
    site.provider.rotate().await;
    let login = site.provider.login(CLIENT, "nina").await;
    for node in site.cluster.nodes() {
        eventually("a token by the new key", async || {
            match node.attempt_with(&login.access).await {
                Attempt::Open(_) => Some(()),
                // A token may be refused as unavailable for a short time, but never as bad.
                Attempt::Unavailable => None,
                other => panic!("{other:?}"),
            }
        })
        .await;
    }
    // The first token with the next key is a logout token.
    let mut sessions = site.sessions(&login).await;
    site.provider.rotate().await;
    let again = site.provider.login_beside(CLIENT, &login).await;
    site.provider.log_out(&again).await;
    assert_revoked(&mut sessions).await;
    for node in site.cluster.nodes() {
        assert!(!node.attempt_with(&before.access).await.is_open());
    }
}

/// Regression: an issuer that differed by a slash was noticed only when users were refused.
#[tokio::test]
async fn a_trailing_slash_is_told_by_the_probe_and_the_right_one_is_accepted() {
    for (path, wrong) in [("/", ""), ("", "/")] {
        let provider = OpenIdProvider::start(path, &["ES256"], &[(CLIENT, required(true))]).await;
        let theirs = provider.issuer();
        let ours = format!("{}{wrong}", theirs.trim_end_matches('/'));
        let told = probe(&settings(&ours, ACCEPTING)).await;
        assert_eq!(told.code, 1, "{told:?}");
        for issuer in [theirs, &ours] {
            assert!(told.stdout.contains(&format!("{issuer:?}")), "{told:?}");
        }
        let right = settings(theirs, ACCEPTING);
        let told = probe(&right).await;
        assert_eq!(told.code, 0, "{told:?}");
        let login = provider.login_with_sid(CLIENT, "nina").await;
        let node = Gateway::start_with(&right).await;
        until_accepted_as(&node, &login.access).await;
    }
}

/// Regression: an unsupported algorithm was reported as another fault, or made other keys of the
/// set unusable.
#[tokio::test]
async fn es512_is_told_to_be_unsupported_and_the_others_are_accepted() {
    let signed = |algorithm: &str| json!({"id_token_signed_response_alg":algorithm,"backchannel_logout_session_required":true});
    let clients = [
        (CLIENT, signed("ES256")),
        ("ed", signed("EdDSA")),
        ("p384", signed("ES384")),
        ("p521", signed("ES512")),
    ];
    let all = ACCEPTING.replace("[\"web-app\"]", "[\"web-app\", \"ed\", \"p384\", \"p521\"]");
    let keys = ["ES512", "ES256", "EdDSA", "ES384"];
    let site = Site::start(&keys, &all, &clients).await;
    for client in [CLIENT, "ed", "p384"] {
        let login = site.provider.login(client, "nina").await;
        let mut sessions = site.sessions(&login).await;
        site.provider.log_out(&login).await;
        assert_revoked(&mut sessions).await;
    }
    let login = site.provider.login("p521", "nina").await;
    assert_eq!(part(&login.access, 0)["alg"], "ES512");
    for node in site.cluster.nodes() {
        let words = "algorithm not supported";
        assert_refused(node, &login.access, "malformed", words).await;
    }
    site.provider.log_out(&login).await;
    let refused = site.cluster[0].log().line(PATIENCE, |line| {
        let told = line.contains("logout not done") && line.contains("algorithm not supported");
        told.then_some(())
    });
    refused.await.expect("the log names the reason");
}

/// Regression: an ID token, which is for the page that signed the user in, opened a session.
#[tokio::test]
async fn an_id_token_opens_no_session_however_the_issuer_is_configured() {
    let provider = OpenIdProvider::start("", &["ES256"], &[(CLIENT, required(true))]).await;
    let login = provider.login_with_sid(CLIENT, "nina").await;
    for (lines, reason, words) in [
        (ACCEPTING, "wrong_audience", ""),
        (
            "logout_audience = [\"web-app\"]\n",
            "malformed",
            "ID token: send the access token",
        ),
        (
            "audience = [\"https://rt.example.com\", \"web-app\"]\nrequire_at_jwt = true\n",
            "malformed",
            "at+jwt",
        ),
    ] {
        let node = Gateway::start_with(&settings(provider.issuer(), lines)).await;
        until_accepted_as(&node, &login.access).await;
        assert_refused(&node, &login.id, reason, words).await;
    }
}
