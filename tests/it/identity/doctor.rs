//! `curfew doctor` shows the effect of a logout before a real logout is lost.

use curfew_testkit::mint::Key;
use curfew_tests::{
    Finished, Gateway, Manner, Redis, Settings, TestCertificate, curfew, eventually,
};
use serde_json::{Value, json};

use super::logout::Login;

/// Runs a command with a configuration whose issuer has the lines `issuer`. Asserts that the
/// command prints no access token.
async fn with_issuer(login: &Login, issuer: &str, arguments: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    let settings = curfew_tests::Settings::default().issuers(issuer);
    std::fs::write(&config, settings.to_toml()).unwrap();
    let mut all = vec![arguments[0], "--config", config.to_str().unwrap()];
    all.extend(&arguments[1..]);
    let told = curfew(&all).await;
    assert!(
        !told.stdout.contains(&login.access("alice", "x")[..40]),
        "an access token is printed"
    );
    told
}

async fn doctor(login: &Login, arguments: &[&str]) -> Finished {
    with_issuer(
        login,
        &login.issuer("main"),
        &[&["doctor"], arguments].concat(),
    )
    .await
}

/// An ID token for `client`, from the provider's session `sid`.
fn id_token(login: &Login, user: &str, sid: &str, client: &str) -> String {
    login.key.user_with(
        user,
        json!({"iss":login.provider.issuer(),"aud":client,"sid":sid,"nonce":"n"}),
    )
}

fn assert_fails(told: &Finished, words: &[&str]) {
    assert_eq!(told.code, 1, "{told:?}");
    for words in words {
        assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
    }
}

#[tokio::test]
async fn tokens_that_fit_are_told_to() {
    let login = Login::start().await;
    let access = login.access("alice", "one");
    let id = id_token(&login, "alice", "one", "curfew-client");
    let told = doctor(&login, &["--access-token", &access, "--id-token", &id]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(
        told.stdout
            .contains("ends the sessions of this login and no others"),
        "{told:?}"
    );
    let logout = login.token(json!({"sub":"alice","sid":"one"}));
    let tokens = [
        "--access-token",
        &access,
        "--logout-token",
        &logout,
        "--json",
    ];
    let told = doctor(&login, &tokens).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["well"], true, "{told}");
    assert_eq!(told["findings"].as_array().unwrap().len(), 3, "{told}");
}

#[tokio::test]
async fn a_client_that_is_not_configured_is_named_with_the_line_to_write() {
    let login = Login::start().await;
    let access = login.access("alice", "one");
    let id = id_token(&login, "alice", "one", "web-app");
    let told = doctor(&login, &["--access-token", &access, "--id-token", &id]).await;
    assert_fails(&told, &[r#"auth.issuers[0].logout_audience = ["web-app"]"#]);
    let logout = login.token(json!({"sub":"alice","sid":"one","aud":"web-app"}));
    let told = doctor(&login, &["--logout-token", &logout]).await;
    assert_fails(&told, &[r#"aud is ["web-app"]"#, "curfew-client"]);
}

#[tokio::test]
async fn a_logout_that_would_find_nobody_is_told() {
    let login = Login::start().await;
    let access = login.access("alice", "one");
    let id = id_token(&login, "alice", "uno", "curfew-client");
    let told = doctor(&login, &["--access-token", &access, "--id-token", &id]).await;
    assert_fails(&told, &["find no session", "sid", "logout_scope"]);
    let without = login
        .key
        .user_with("alice", json!({"iss":login.provider.issuer()}));
    let told = doctor(&login, &["--access-token", &without, "--id-token", &id]).await;
    assert_fails(&told, &["missing_claim", "opens no session"]);
    // Pairwise subjects: each client has its own `sub` for a user.
    let issuer = login.issuer("main") + "logout_scope = \"user\"\n";
    let other = id_token(&login, "4711", "one", "curfew-client");
    let tokens = ["doctor", "--access-token", &access, "--id-token", &other];
    let told = with_issuer(&login, &issuer, &tokens).await;
    assert_fails(&told, &["find no session", "pairwise"]);
}

#[tokio::test]
async fn an_issuer_that_differs_by_a_slash_is_told_with_both() {
    let login = Login::start().await;
    let iss = format!("{}/", login.provider.issuer());
    let access = login.key.user_with("alice", json!({"iss":iss,"sid":"one"}));
    let told = doctor(&login, &["--access-token", &access]).await;
    assert_fails(
        &told,
        &["wrong_issuer", &format!("{iss:?}"), "byte for byte"],
    );
}

#[tokio::test]
async fn logout_tokens_that_are_signed_with_the_clients_secret_are_told() {
    let login = Login::start().await;
    let secret = Key::hmac("HS256", &[7; 32]).with_kid("one");
    let claims = json!({"iss":login.provider.issuer(),"aud":"curfew-client","sub":"alice"});
    let logout = secret.sign(&secret.header().to_string(), &claims.to_string());
    let told = doctor(&login, &["--logout-token", &logout]).await;
    assert_fails(
        &told,
        &[
            "HS256",
            "signs with a secret",
            "id_token_signed_response_alg",
        ],
    );
}

/// Regression: the ID token showed that logouts would be refused, but doctor reported no problem.
#[tokio::test]
async fn logout_tokens_that_will_be_signed_with_a_secret_are_told_by_the_id_token() {
    let login = Login::start().await;
    let secret = Key::hmac("HS256", &[7; 32]).with_kid("one");
    let claims =
        json!({"iss":login.provider.issuer(),"aud":"curfew-client","sid":"one","nonce":"n"});
    let id = secret.user_with("alice", claims);
    let access = login.access("alice", "one");
    let tokens = ["--access-token", &access, "--id-token", &id];
    let told = doctor(&login, &tokens).await;
    assert_fails(&told, &["HS256", "id_token_signed_response_alg"]);
}

#[tokio::test]
async fn logouts_that_are_not_switched_on_are_told() {
    let login = Login::start().await;
    let access = login.access("alice", "one");
    let id = id_token(&login, "alice", "one", "curfew-client");
    let issuer = login.provider.by_url("main");
    let tokens = ["doctor", "--access-token", &access, "--id-token", &id];
    let told = with_issuer(&login, &issuer, &tokens).await;
    assert_fails(&told, &["backchannel_logout = true"]);
}

#[tokio::test]
async fn what_is_no_token_is_wrong_usage() {
    let login = Login::start().await;
    let told = doctor(&login, &["--access-token", "nonsense"]).await;
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.stderr.contains("not a JWT"), "{told:?}");
    assert_eq!(doctor(&login, &[]).await.code, 2);
}

#[tokio::test]
async fn an_audience_that_no_client_id_can_be_is_warned_of() {
    let login = Login::start().await;
    let by_url = login.provider.by_url("main");
    let issuer =
        format!("{by_url}backchannel_logout = true\naudience = [\"https://api.example.com\"]\n");
    let told = with_issuer(&login, &issuer, &["check-config"]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("warning: "), "{told:?}");
    assert!(
        told.stdout.contains("auth.issuers[0].logout_audience"),
        "{told:?}"
    );
    let told = with_issuer(&login, &issuer, &["check-config", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["valid"], true, "{told}");
    assert_eq!(
        told["warnings"][0]["key"], "auth.issuers[0].logout_audience",
        "{told}"
    );
    // With a further client id in `logout_audience`, logouts can match.
    let told = with_issuer(&login, &login.issuer("main"), &["check-config"]).await;
    assert_eq!(told.stdout, "the configuration is valid\n");
}

#[tokio::test]
async fn what_a_configuration_names_is_asked() {
    let (login, redis) = (Login::start().await, Redis::start().await);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    let (certificate, key) = TestCertificate::new().write(directory.path());
    let probed = async |url: &str| {
        let settings = login.settings().on_redis(url);
        let settings = settings
            .with(&format!("server.tls_cert_file = {certificate:?}"))
            .with(&format!("server.tls_key_file = {key:?}"));
        std::fs::write(&config, settings.to_toml()).unwrap();
        curfew(&[
            "check-config",
            "--config",
            config.to_str().unwrap(),
            "--probe",
            "--json",
        ])
        .await
    };
    let told = probed(&redis.url()).await;
    assert_eq!(told.code, 0, "{told:?}");
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    let probes = json["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 3, "{json}");
    assert!(probes.iter().all(|probe| probe["there"] == true), "{json}");
    // The result names an unavailable dependency by its configuration key.
    login.provider.behave(Manner::Status(500));
    let told = probed("redis://127.0.0.1:1").await;
    assert_eq!(told.code, 1, "{told:?}");
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    let away: Vec<&str> = json["probes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|probe| probe["there"] == false)
        .map(|probe| probe["key"].as_str().unwrap())
        .collect();
    assert_eq!(away, ["backend.redis.url", "auth.issuers[0]"], "{json}");
    assert_eq!(json["valid"], true, "{json}");
}

/// Regression: for an issuer that differs from the provider's by a slash, the text did not name the
/// difference. Regression: the advice on swapped tokens made operators accept ID tokens.
/// Regression: the advice on a refused logout token claimed that the token ends sessions.
#[tokio::test]
async fn tokens_that_are_swapped_or_refused_are_told_so_and_nothing_else() {
    let login = Login::start().await;
    let (access, id) = (
        login.access("alice", "one"),
        id_token(&login, "alice", "one", "curfew-client"),
    );
    let told = doctor(&login, &["--access-token", &id, "--id-token", &access]).await;
    assert_fails(&told, &["the tokens are swapped"]);
    assert!(!told.stdout.contains("audience"), "{told:?}");
    let logout = login.token(json!({"sub":"alice","sid":7}));
    let tokens = ["--access-token", &access, "--logout-token", &logout];
    let told = doctor(&login, &tokens).await;
    assert_fails(&told, &["the logout token is refused"]);
    assert!(!told.stdout.contains("a logout ends"), "{told:?}");
    // The output names each option that got a token of another kind.
    for (option, name) in [
        ("--access-token", "access token"),
        ("--id-token", "ID token"),
        ("--logout-token", "logout token"),
    ] {
        let told = doctor(&login, &[option, "opaque"]).await;
        let words = format!("the {name} is not a JWT");
        assert!(told.code == 2 && told.stderr.contains(&words), "{told:?}");
    }
    // The configuration does not say if the audience is also the client's id.
    let issuer =
        login.provider.by_url("main") + "audience = [\"curfew\"]\nbackchannel_logout = true\n";
    let told = with_issuer(&login, &issuer, &["check-config"]).await;
    let told = told.stdout + &told.stderr;
    assert!(told.contains("logout_audience: is not set"), "{told}");
}

#[tokio::test]
async fn a_probe_and_the_list_of_issuers_name_both_issuers() {
    let login = Login::start().await;
    let theirs = format!("{}/", login.provider.issuer());
    login.provider.configure("issuer", json!(theirs));
    let issuer = login.provider.by_discovery("main");
    let told = with_issuer(&login, &issuer, &["check-config", "--probe"]).await;
    let ours = format!("auth.issuers has {:?}", login.provider.issuer());
    assert_fails(&told, &[&format!("names {theirs:?}"), &ours]);
    let node = Gateway::start_with(&Settings::default().issuers(&issuer)).await;
    eventually("the reason for the missing keys", async || {
        let listed = node.admin_ok("GET", "/v1/issuers", None).await;
        let why = listed["issuers"][0]["keys_from"]["failure"]
            .as_str()
            .map(str::to_owned);
        let why = why.unwrap_or_else(|| listed.to_string());
        (why.contains(&theirs) && why.contains("byte for byte")).then_some(())
    })
    .await;
}
