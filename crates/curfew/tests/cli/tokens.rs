//! `token` and `explain`.

use crate::support::{Folder, POLICY, SECRET, curfew};

#[test]
fn a_minted_token_is_verified_and_its_decision_explained() {
    let folder = Folder::new();
    let config = folder.config(POLICY);
    let secret = folder.file("secret", &format!("{SECRET}\n"));
    let other = folder.file("other", "another secret of 32 bytes or so");
    let mint = |key: &str, more: &[&str]| {
        let mut arguments = vec![
            "token",
            "--user",
            "alice",
            "--role",
            "member",
            "--claim",
            "tenant=\"acme\"",
            "--key-file",
            key,
        ];
        arguments.extend(more);
        let output = curfew(&arguments);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout.trim().to_owned()
    };
    let explain = |token: &str, channel: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain",
            "--config",
            &config,
            "--token",
            token,
            "--action",
            "publish",
            "--channel",
            channel,
        ];
        arguments.extend(more);
        curfew(&arguments)
    };
    let token = mint(&secret, &[]);
    assert_ne!(token, mint(&secret, &[]), "each token has its own id");

    let output = explain(&token, "room:acme:1", &["--json"]);
    assert_eq!(
        (output.code, output.json()["allowed"].as_bool()),
        (0, Some(true)),
        "{}",
        output.stderr
    );
    assert_eq!(
        output.json()["rule"],
        "members talk in their tenant's rooms"
    );
    let output = explain(&token, "room:other:1", &[]);
    assert_eq!(output.code, 0);
    assert!(
        output
            .stdout
            .starts_with("denied: no rule allows publish on room:other:1\n"),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("members talk"), "{}", output.stdout);

    let forged = mint(&other, &[]);
    let output = explain(&forged, "room:acme:1", &[]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("bad_signature"), "{}", output.stdout);
    let output = explain(&forged, "room:acme:1", &["--unverified", "--json"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.json()["allowed"], true);
    assert_eq!(output.json()["refused"]["reason"], "bad_signature");
    let early = mint(&secret, &["--not-before", "+10m"]);
    assert_eq!(
        explain(&early, "room:acme:1", &["--json"]).json()["refused"]["reason"],
        "not_yet_valid"
    );

    let claims = r#"{"sub":"bob","tenant":"acme","roles":["member"]}"#;
    let explained = |action: &str| {
        let arguments = ["--claims", claims, "--action", action];
        let asked = ["explain", "--config", &config, "--channel", "room:acme:1"];
        curfew(&[&asked[..], &arguments].concat())
    };
    for (action, expect) in [
        ("subscribe", "allowed: "),
        ("history", "denied: no rule allows history on room:acme:1"),
        ("presence", "denied: no rule allows presence on room:acme:1"),
    ] {
        let output = explained(action);
        assert!(output.stdout.starts_with(expect), "{}", output.stdout);
    }
    let output = explained("dance");
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("history"), "{}", output.stderr);
}
