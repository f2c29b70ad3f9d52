//! Logout tokens that differ from the logout tokens under the console's default settings: signed
//! with a secret, or without `sid`.

use curfew_testkit::PATIENCE;
use curfew_testkit::mint::part;
use curfew_tests::Inbox;
use tokio::join;

use super::*;

/// Regression: if a client signed ID tokens with a secret, its logout tokens had no effect, and
/// nothing explained why.
#[tokio::test]
async fn logouts_that_are_signed_with_a_secret_are_refused_by_name_and_doctor_says_so_before() {
    let site = Site::start().await;
    site.realm.user("nina").await;
    change(&site.realm, json!({"id.token.signed.response.alg":"HS256"})).await;
    let login = site.realm.login("nina").await;
    let mut sessions = site.sessions(&login).await;
    site.realm.log_out(&login).await;
    let refused = "curfew_logouts_total{outcome=\"refused\"}";
    site.cluster[0]
        .until_metric(refused, |refused| refused == 1.0)
        .await;
    assert_open(&mut sessions).await;
    let line = site.cluster[0].log().line(PATIENCE, |line| {
        (line.contains("logout not done") && line.contains("id_token_signed_response_alg"))
            .then_some(())
    });
    line.await.expect("the log names the setting");

    // `curfew doctor` names the same setting. It finds the fault in an ID token before a logout,
    // and in a captured logout token.
    let inbox = Inbox::open().await;
    change(&site.realm, json!({"backchannel.logout.url":inbox.url()})).await;
    let login = site.realm.login("nina").await;
    assert_eq!(part(&login.id, 0)["alg"], "HS256");
    let (_, logout) = join!(site.realm.log_out(&login), inbox.logout_token());
    assert_eq!(part(&logout, 0)["alg"], "HS256");
    let settings = settings(&site.realm, &[]);
    for tokens in [["--id-token", &login.id], ["--logout-token", &logout]] {
        let told = doctor(&settings, &tokens).await;
        assert_eq!(told.code, 1, "{told:?}");
        assert!(
            told.stdout.contains("id_token_signed_response_alg"),
            "{told:?}"
        );
    }

    // These are the settings of the recipe's fix.
    let mended = json!({
        "id.token.signed.response.alg": "RS256",
        "backchannel.logout.url": format!("http://{}/logout/backchannel", site.cluster[0].address()),
    });
    change(&site.realm, mended).await;
    let login = site.realm.login("nina").await;
    let mut later = site.sessions(&login).await;
    site.realm.log_out(&login).await;
    assert_revoked(&mut later).await;
    assert_revoked(&mut sessions).await;
}

/// Regression: for a client that the API made without `backchannel.logout.session.required`, the
/// texts said that it has no logout, or that its logout ends a single session.
#[tokio::test]
async fn a_client_without_session_required_is_logged_out_by_user() {
    let login_scope = [("logout_scope = \"user\"", "logout_scope = \"login\"")];
    let site = Site::without_client(&login_scope).await;
    let commands = blocks(HEADING, "sh");
    let commands = format!("{}{}", commands[0], commands[1]);
    let required = ", \"backchannel.logout.session.required\": \"true\"";
    assert!(commands.contains(required), "{commands}");
    let commands = commands.replace(required, "");
    let gateway = format!("http://{}", site.cluster[0].address());
    site.realm.run(&commands, &gateway).await;
    for user in ["nina", "otto"] {
        site.realm.user(user).await;
    }
    let mut beside = site.sessions(&site.realm.login("otto").await).await;
    let (one, two) = (
        site.realm.login("nina").await,
        site.realm.login("nina").await,
    );
    let mut of_one = site.sessions(&one).await;
    let mut of_two = site.sessions(&two).await;
    site.realm.log_out(&one).await;
    assert_revoked(&mut of_one).await;
    assert_revoked(&mut of_two).await;
    assert_stays_out(&site.cluster, &one).await;
    assert_open(&mut beside).await;

    let inbox = Inbox::open().await;
    change(&site.realm, json!({"backchannel.logout.url":inbox.url()})).await;
    let login = site.realm.login("nina").await;
    let (_, logout) = join!(site.realm.log_out(&login), inbox.logout_token());
    let claims = part(&logout, 1);
    assert_eq!(claims["sid"], Value::Null, "{claims}");
    assert_eq!(claims["sub"], part(&login.access, 1)["sub"], "{claims}");
}
