//! Changes that Keycloak does not report, and the recipe's commands for them.

use super::*;

/// Runs the command that the recipe has for the action `done`, as an operator of the second node.
async fn follow(site: &Site, done: &str, user: &str) {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let row = format!("| {done}");
    let row = page.lines().find(|line| line.starts_with(&row));
    let row = row.unwrap_or_else(|| panic!("the recipe has no row {done:?}"));
    let command = row.split('`').nth(1).unwrap().replace("ID", user);
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, ADMIN_KEY).unwrap();
    let admin = format!("http://{}", site.cluster[1].admin_address());
    let access = ["--key-file", key.to_str().unwrap(), "--url", &admin];
    let told = curfew(&[&arguments[..], &access].concat()).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(
        !told.stdout.contains("No session of this user is open"),
        "{told:?}"
    );
}

/// Performs the action `what` on one user, or on all users. Asserts that Keycloak reports nothing,
/// and that the recipe's command ends the sessions.
async fn assert_silent(
    site: &Site,
    what: &str,
    login: &Login,
    user: &str,
    others: &mut [WsClient],
) {
    let mut sessions = site.sessions(login).await;
    let before = logouts(&site.cluster[0]).await;
    match what {
        "a user is deleted" => {
            site.realm
                .admin("DELETE", &format!("/users/{user}"), Value::Null)
                .await;
        }
        "a user is disabled" => {
            let disabled = json!({"enabled":false});
            site.realm
                .admin("PUT", &format!("/users/{user}"), disabled)
                .await;
        }
        "a user's password is reset" => {
            let reset = json!({"type":"password","value":"another one","temporary":false});
            let path = format!("/users/{user}/reset-password");
            site.realm.admin("PUT", &path, reset).await;
        }
        "a role is taken from a user" => {
            let role = site.realm.admin("GET", "/roles/member", Value::Null).await;
            let path = format!("/users/{user}/role-mappings/realm");
            site.realm.admin("DELETE", &path, json!([role])).await;
        }
        "a token is revoked at Keycloak" => site.realm.revoke_token(&login.access).await,
        "all sessions of the realm are signed out" => {
            site.realm.admin("POST", "/logout-all", Value::Null).await;
        }
        "a not-before policy is set and pushed" => {
            let policy = json!({"notBefore":unix_now()});
            site.realm.admin("PUT", "", policy).await;
            site.realm
                .admin("POST", "/push-revocation", Value::Null)
                .await;
        }
        other => panic!("{other}"),
    }
    assert_open(&mut sessions).await;
    assert_eq!(logouts(&site.cluster[0]).await, before, "{what}");
    follow(site, what, user).await;
    assert_revoked(&mut sessions).await;
    assert_stays_out(&site.cluster, login).await;
    assert_open(others).await;
}

/// Regression: a user who lost access by one of these actions kept the sessions, and the recipe had
/// no command to end them.
#[tokio::test]
async fn what_is_done_to_a_user_is_not_reported_and_the_recipes_command_ends_it() {
    let site = Site::start().await;
    site.realm.user("otto").await;
    let mut beside = site.sessions(&site.realm.login("otto").await).await;
    for (n, what) in [
        "a user is deleted",
        "a user is disabled",
        "a user's password is reset",
        "a role is taken from a user",
        "a token is revoked at Keycloak",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("nina-{n}");
        let user = site.realm.user(&name).await;
        let login = site.realm.login(&name).await;
        assert_silent(&site, what, &login, &user, &mut beside).await;
    }
}

/// Asserts that Keycloak does not report an action on all users, and that the recipe's command ends
/// the sessions.
#[tokio::test]
async fn what_is_done_to_everybody_is_not_reported_and_the_recipes_command_ends_it() {
    let site = Site::start().await;
    let user = site.realm.user("nina").await;
    for what in [
        "all sessions of the realm are signed out",
        "a not-before policy is set and pushed",
    ] {
        // The new sign-in must be later than the last revocation.
        next_second().await;
        let login = site.realm.login("nina").await;
        assert_silent(&site, what, &login, &user, &mut []).await;
    }
}

/// Regression: Keycloak did not report the logouts of a client with front-channel logout, which is
/// the console's default.
#[tokio::test]
async fn front_channel_logout_is_switched_off_by_the_recipes_first_step() {
    let site = Site::start().await;
    let nina = site.realm.user("nina").await;
    let client = format!("/clients/{}", site.realm.client(CLIENT).await);
    // An update without `frontchannelLogout` switches front-channel logout on.
    let front = json!({"clientId":CLIENT});
    site.realm.admin("PUT", &client, front).await;
    let login = site.realm.login("nina").await;
    let mut sessions = site.sessions(&login).await;
    let path = format!("/users/{nina}/logout");
    site.realm.admin("POST", &path, Value::Null).await;
    assert_open(&mut sessions).await;
    assert_eq!(logouts(&site.cluster[0]).await, 0.0);
    // These are the recipe's commands for an existing client.
    site.configure(2).await;
    site.realm.login("nina").await;
    site.realm.admin("POST", &path, Value::Null).await;
    assert_revoked(&mut sessions).await;
}

/// Regression: a logout that reached no node was lost, and nothing said that it was lost.
#[tokio::test]
async fn a_logout_while_the_gateway_is_away_is_lost_and_the_command_ends_it() {
    let site = Site::start().await;
    let nina = site.realm.user("nina").await;
    let nowhere = format!("http://127.0.0.1:{}/logout/backchannel", free_port());
    change(&site.realm, json!({"backchannel.logout.url":nowhere})).await;
    let login = site.realm.login("nina").await;
    let mut sessions = site.sessions(&login).await;
    let path = format!("/users/{nina}/logout");
    site.realm.admin("POST", &path, Value::Null).await;
    assert_open(&mut sessions).await;
    follow(&site, "a user is disabled", &nina).await;
    assert_revoked(&mut sessions).await;
}
