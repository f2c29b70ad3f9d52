//! Reports that Keycloak sends on its own.

use super::*;

/// Regression: a user had several Keycloak sessions, but the logout token named only one of them.
/// The node then closed only the sessions of the one that was named.
#[tokio::test]
async fn an_admins_logout_ends_every_login_of_the_user() {
    let site = Site::start().await;
    let nina = site.realm.user("nina").await;
    site.realm.user("otto").await;
    let mut beside = site.sessions(&site.realm.login("otto").await).await;
    let mut logins = Vec::new();
    for _ in 0..3 {
        let login = site.realm.login("nina").await;
        let sessions = site.sessions(&login).await;
        logins.push((login, sessions));
    }
    let path = format!("/users/{nina}/logout");
    site.realm.admin("POST", &path, Value::Null).await;
    for (login, sessions) in &mut logins {
        assert_revoked(sessions).await;
        assert_stays_out(&site.cluster, login).await;
    }
    assert_open(&mut beside).await;
    // Keycloak has sent one logout token for its three sessions.
    assert_eq!(logouts(&site.cluster[0]).await, 1.0);
}

/// Regression: a logout of other devices in the account console closed only some of the sessions.
#[tokio::test]
async fn signing_out_other_devices_ends_them_and_the_one_at_hand_comes_back() {
    let site = Site::start().await;
    site.realm.user("nina").await;
    let (other, here) = (
        site.realm.login("nina").await,
        site.realm.login("nina").await,
    );
    let mut others = site.sessions(&other).await;
    let mut ours = site.sessions(&here).await;
    site.realm.sign_out_others(&here).await;
    assert_revoked(&mut others).await;
    assert_revoked(&mut ours).await;
    assert!(site.realm.refresh(&other).await.is_err());
    // With `logout_scope = "user"`, the device at hand is logged out too. A refreshed token brings
    // it back.
    until_back(&site, &here).await;
    assert_stays_out(&site.cluster, &other).await;
}

/// Waits until a refreshed token of `login` opens sessions on both nodes. The sign-in continues at
/// Keycloak, and the token must be from a later second than the logout.
async fn until_back(site: &Site, login: &Login) {
    for node in [&site.cluster[0], &site.cluster[1]] {
        eventually("a refreshed token to be accepted", async || {
            let refreshed = site.realm.refresh(login).await.unwrap();
            let attempt = node.attempt_with(&refreshed.access).await;
            attempt.is_open().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_users_own_logout_ends_the_sessions_on_both_nodes_and_nobody_elses() {
    let site = Site::start().await;
    for user in ["nina", "otto"] {
        site.realm.user(user).await;
    }
    let login = site.realm.login("nina").await;
    let mut sessions = site.sessions(&login).await;
    let mut beside = site.sessions(&site.realm.login("otto").await).await;
    site.realm.log_out(&login).await;
    assert_revoked(&mut sessions).await;
    assert_stays_out(&site.cluster, &login).await;
    assert_open(&mut beside).await;
}

/// Regression: a user who signed in within the second of a logout was told to sign in again, and
/// could not connect.
#[tokio::test]
async fn a_login_of_the_second_of_a_logout_is_told_to_renew_its_token() {
    let site = Site::start().await;
    let nina = site.realm.user("nina").await;
    let path = format!("/users/{nina}/logout");
    let login = eventually("a login in the second of a logout", async || {
        let gone = site.realm.login("nina").await;
        let mut sessions = site.sessions(&gone).await;
        site.realm.admin("POST", &path, Value::Null).await;
        let login = site.realm.login("nina").await;
        assert_revoked(&mut sessions).await;
        match site.cluster[0].attempt_with(&login.access).await {
            Attempt::Refused(why, 4401) if why == "reauth_required" => Some(login),
            Attempt::Open(_) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    until_back(&site, &login).await;
}

/// Regression: the node did not report the logout token of a client whose tokens it does not
/// accept. If it accepted the tokens of such a client, no logout ended their sessions.
#[tokio::test]
async fn a_second_client_is_kept_out_and_its_logout_is_told() {
    let site = Site::start().await;
    site.realm.user("nina").await;
    let other = json!({
        "clientId": "tv-app", "publicClient": true, "redirectUris": ["https://app.example.com/*"],
        "defaultClientScopes": ["acr", "basic", "email", "profile", "roles", "web-origins", "curfew"],
        "attributes": {
            "backchannel.logout.url": format!("http://{}/logout/backchannel", site.cluster[1].address()),
            "backchannel.logout.session.required": "true",
        },
    });
    site.realm.admin("POST", "/clients", other).await;
    let login = site.realm.login("nina").await;
    let mut sessions = site.sessions(&login).await;
    let beside = site.realm.login_beside("tv-app", &login).await;
    match site.cluster[1].attempt_with(&beside.access).await {
        Attempt::Refused(why, 4401) => assert_eq!(why, "wrong_audience"),
        other => panic!("{other:?}"),
    }
    site.realm.log_out(&login).await;
    assert_revoked(&mut sessions).await;
    let refused = "curfew_reports_refused_total{reason=\"wrong_audience\"}";
    site.cluster[1]
        .until_metric(refused, |refused| refused == 1.0)
        .await;
    let issuers = site.cluster[1].admin_ok("GET", "/v1/issuers", None).await;
    let told = issuers["issuers"][0]["last_report"].to_string();
    assert!(
        told.contains("tv-app") && told.contains("web-app"),
        "{issuers}"
    );
}

/// Regression: no warning said that with `logout_scope = "login"` a logout ends only one of several
/// sign-ins.
#[tokio::test]
async fn doctor_says_which_case_a_realm_is_in() {
    let site = Site::start().await;
    site.realm.user("nina").await;
    let login = site.realm.login("nina").await;
    for (scope, words) in [
        ("user", "right for every Keycloak"),
        ("login", "only the sessions of one login end"),
    ] {
        let scope = format!("logout_scope = {scope:?}");
        let settings = settings(&site.realm, &[("logout_scope = \"user\"", &scope)]);
        let tokens = ["--access-token", &login.access, "--id-token", &login.id];
        let told = doctor(&settings, &tokens).await;
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.stdout.contains(words), "{told:?}");
    }
}
