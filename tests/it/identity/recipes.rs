//! The configurations of `deploy/identity-providers.md`, tested with stand-ins that have the paths,
//! keys and tokens of each provider.

mod providers;

use std::path::Path;

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Attempt, Gateway, Settings};
use serde_json::{Value, json};

use crate::clients::installed;

pub(super) const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/identity-providers.md"
);

/// The first block of code in `language` in the section `heading`.
pub(super) fn block(heading: &str, language: &str) -> String {
    let blocks = blocks(heading, language);
    blocks
        .into_iter()
        .next()
        .expect("the section has a block in this language")
}

/// Every block of code in `language` in the section `heading`.
pub(super) fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let section = format!("\n## {heading}\n");
    let (_, section) = page.split_once(&section).expect("the page has the heading");
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    let content = |block: &str| block.split("\n```").next().unwrap().to_owned() + "\n";
    blocks.map(content).collect()
}

/// A node that runs the recipe of the section `heading`, in which the first text of each pair in
/// `replaced` is replaced by the second text.
async fn node(heading: &str, replaced: &[(&str, &str)]) -> Gateway {
    let mut recipe = block(heading, "toml");
    for (from, to) in replaced {
        assert!(recipe.contains(from), "{heading} has no {from}");
        recipe = recipe.replace(from, to);
    }
    assert!(
        !recipe.contains("https://id.") && !recipe.contains("/run/"),
        "{recipe}"
    );
    Gateway::start_with(&Settings::default().issuers(&recipe).rules("")).await
}

/// A key of the kind that providers use.
fn key() -> Key {
    Key::rsa().with_kid("4c7f1d2e")
}

/// A token. `header` overrides members of the key's own header. `claims` override claims, among
/// them the times of a token that was issued ten seconds ago for ten minutes. A `null` removes a
/// member.
fn token(key: &Key, header: Value, claims: Value) -> String {
    let merged = |mut into: Value, from: Value| {
        for (name, value) in from.as_object().unwrap() {
            match value {
                Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
                value => into[name] = value.clone(),
            }
        }
        into.to_string()
    };
    let now = unix_now();
    let times = json!({"iat":now - 10,"exp":now + 590});
    key.sign(&merged(key.header(), header), &merged(times, claims))
}

/// The claims `claims`, overridden by `changes`.
fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Opens a session whose token the policy allows to publish in `room:1`.
async fn talking(node: &Gateway, token: &str) -> WsClient {
    let mut client = node.session(token).await;
    assert_subscribes(&mut client, "room:1", "ok").await;
    client
}

async fn assert_subscribes(client: &mut WsClient, channel: &str, answer: &str) {
    client
        .send(json!({"type":"subscribe","id":1,"channel":channel}))
        .await;
    let told = client.next_json().await;
    let told = told["code"].as_str().or_else(|| told["type"].as_str());
    assert_eq!(told, Some(answer));
}

/// Asserts that the token opens a session that may not publish in `room:1`.
async fn assert_silent(node: &Gateway, token: &str) {
    let mut client = node.session(token).await;
    assert_subscribes(&mut client, "room:1", "forbidden").await;
}

async fn assert_refused(node: &Gateway, token: &str, reason: &str) {
    match node.attempt_with(token).await {
        Attempt::Refused(told, 4401) => assert_eq!(told, reason),
        other => panic!("{reason} expected, not {other:?}"),
    }
}

async fn post(node: &Gateway, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    http::request(node.address(), "POST", path, headers, body.as_bytes()).await
}

async fn log_out(node: &Gateway, token: &str) {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("logout_token={token}");
    let answer = post(node, "/logout/backchannel", &form, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_secret_of_ones_own() {
    const HEADING: &str = "Your own HS256 secret";
    let directory = tempfile::tempdir().unwrap();
    let secret = "a secret of one's own, of 32 bytes or more";
    let file = directory.path().join("token-secret");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let replaced = [("/run/secrets/token-secret", file.to_str().unwrap())];
    let node = node(HEADING, &replaced).await;
    let python = block(HEADING, "python")
        + &format!("\nprint(token({secret:?}.encode(), 'alice', 'red'), end='')\n");
    let javascript = block(HEADING, "js")
        + &format!("\nprocess.stdout.write(token({secret:?}, 'alice', 'red'));\n");
    for token in [
        run("python3", "token.py", &python, directory.path()),
        run("node", "token.js", &javascript, directory.path()),
    ] {
        let mut client = node.session(&token).await;
        assert_subscribes(&mut client, "room:red:1", "ok").await;
        assert_subscribes(&mut client, "room:blue:1", "forbidden").await;
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let given = post(&node, "/revoke", &form, &format!("token={token}")).await;
        assert_eq!(given.status, 200, "{}", given.text());
        client.expect_close(4403, "revoked").await;
        assert!(node.attempt_with(&token).await.is_revoked());
    }
    let other = Key::hmac("HS256", &[7; 32]).user_with("alice", json!({"aud":"curfew"}));
    assert_refused(&node, &other, "bad_signature").await;
}

/// Runs a program, and returns its output. The program's libraries are installed with the tests'
/// clients.
fn run(command: &str, name: &str, program: &str, directory: &Path) -> String {
    let file = directory.join(name);
    std::fs::write(&file, program).unwrap();
    let output = std::process::Command::new(command)
        .arg(&file)
        .env("NODE_PATH", installed("node_modules"))
        .output()
        .unwrap_or_else(|error| panic!("{command} is needed: {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_recipe_is_tried() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let headings: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let tried = [
        "Keycloak",
        "Auth0",
        "Okta",
        "Microsoft Entra ID",
        "Amazon Cognito",
        "Your own HS256 secret",
    ];
    assert_eq!(headings, tried);
}
