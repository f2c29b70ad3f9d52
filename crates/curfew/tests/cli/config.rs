//! `check-config` and `print-config`.

use serde_json::json;

use crate::support::{Folder, SECRET, curfew, curfew_with};

#[test]
fn check_config_reports_every_problem_with_file_and_key() {
    let folder = Folder::new();
    let config = folder.config(
        "[limits]\nmessage_bytes = \"x\"\nsubscription = 1\n[session]\nmax_per_user = -1\n",
    );
    let env = [("CURFEW__TELEMETRY__LOG_FORMAT", "xml")];
    let output = curfew_with(
        &[
            "check-config",
            "--config",
            &config,
            "--set",
            "drain.window=1",
        ],
        &env,
    );
    assert_eq!(output.code, 2);
    for expect in [
        &format!("{config}:7: limits.message_bytes: "),
        &format!("{config}:8: limits.subscription: unknown key, did you mean subscriptions?"),
        &format!("{config}:10: session.max_per_user: "),
        "CURFEW__TELEMETRY__LOG_FORMAT: telemetry.log_format: ",
        "--set: drain.window: ",
        "5 problems",
    ] {
        assert!(
            output.stderr.contains(expect),
            "{expect} is missing in {}",
            output.stderr
        );
    }
    let output = curfew_with(&["check-config", "--config", &config, "--json"], &env);
    assert_eq!(output.code, 2);
    assert_eq!(output.json()["valid"], false);
    assert_eq!(output.json()["problems"].as_array().unwrap().len(), 4);
    assert_eq!(output.json()["problems"][0]["source"], config.as_str());
    let config = folder.config("");
    let output = curfew(&["check-config", "--config", &config, "--json"]);
    assert_eq!(output.json(), json!({ "valid": true, "problems": [] }));
}

#[test]
fn a_key_file_that_is_missing_is_invalid_configuration() {
    let folder = Folder::new();
    let config = folder.config(
        "secret_file = \"/nonexistent/secret\"\n[admin]\nkey_file = \"/nonexistent/key\"\n",
    );
    for command in ["serve", "check-config"] {
        let output = curfew(&[command, "--config", &config]);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(
            output.stderr.contains("admin.key_file: "),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn check_config_reads_the_files_that_redis_is_reached_with() {
    let folder = Folder::new();
    let keys = [
        "password_file",
        "sentinel_password_file",
        "ca_file",
        "cert_file",
        "key_file",
    ];
    let named = |path: &dyn Fn(&str) -> String| {
        let lines = keys.map(|key| format!("{key} = {:?}\n", path(key)));
        format!("[backend.redis]\n{}", lines.concat())
    };
    let check = |config: &str, more: &[&str]| {
        let redis = [
            "check-config",
            "--config",
            config,
            "--set",
            "backend.kind=redis",
        ];
        curfew(&[&redis[..], more].concat())
    };
    let config = folder.config(&named(&|key| format!("/absent/{key}")));
    let checked = check(&config, &[]);
    assert_eq!(checked.code, 2, "{}", checked.stderr);
    for key in keys {
        let told = [format!("backend.redis.{key}"), format!("/absent/{key}")];
        let mut lines = checked.stderr.lines();
        let is_told = lines.any(|line| told.iter().all(|part| line.contains(part)));
        assert!(is_told, "{key}: {}", checked.stderr);
    }
    // The files are missing. With `--offline` they are not read, and the backend `memory` of the
    // configuration needs none of them.
    assert_eq!(check(&config, &["--offline"]).code, 0);
    assert_eq!(curfew(&["check-config", "--config", &config]).code, 0);
    for key in keys {
        folder.file(key, "canary");
    }
    let config = folder.config(&named(&|key| folder.path(key)));
    let checked = check(&config, &[]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    // Now the password file is not UTF-8, and the path of the CA file is a folder.
    std::fs::write(folder.path("password_file"), b"\xffcanary").unwrap();
    std::fs::remove_file(folder.path("ca_file")).unwrap();
    std::fs::create_dir(folder.path("ca_file")).unwrap();
    let checked = check(&config, &[]);
    assert_eq!(checked.code, 2, "{}", checked.stderr);
    for told in [
        "password_file: the file is not UTF-8",
        "backend.redis.ca_file",
    ] {
        assert!(checked.stderr.contains(told), "{told}: {}", checked.stderr);
    }
    assert!(!checked.stderr.contains("canary"), "{}", checked.stderr);
}

#[test]
fn print_config_shows_effective_values_and_no_secret() {
    let folder = Folder::new();
    let config = folder.config(
        "[backend.redis]\nurl = \"redis://me:canary1@127.0.0.1:6379\"\n[session]\nmax_per_user = 4\n",
    );
    let env = [(
        "CURFEW__ADMIN__KEY",
        "canary2-canary2-canary2-canary2-canary2",
    )];
    let arguments = [
        "print-config",
        "--config",
        &config,
        "--set",
        "limits.subscriptions=7",
    ];
    let output = curfew_with(&arguments, &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    for expect in [
        "max_per_user = 4  # ",
        "subscriptions = 7  # --set\n",
        "key = \"[redacted]\"  # CURFEW__ADMIN__KEY\n",
        "secret = \"[redacted]\"  # ",
        "leeway = \"5s\"\n",
        "[[auth.issuers]]\n",
    ] {
        assert!(
            output.stdout.contains(expect),
            "{expect} is missing in {}",
            output.stdout
        );
    }
    for json in [false, true] {
        let mut arguments = arguments.to_vec();
        arguments.extend(json.then_some("--json"));
        let output = curfew_with(&arguments, &env);
        for secret in [SECRET, "canary1", "canary2"] {
            assert!(
                !output.stdout.contains(secret),
                "the secret {secret} is in {}",
                output.stdout
            );
        }
    }
    let reference = curfew(&["print-config", "--reference"]);
    assert!(
        reference.stdout.starts_with("# Configuration reference"),
        "{}",
        reference.stdout
    );
}

#[test]
fn print_config_shows_what_is_invalid_and_says_so() {
    let folder = Folder::new();
    let config = folder.config("[limits]\noutbound_bytes = 1\n");
    let output = curfew(&["print-config", "--config", &config]);
    assert_eq!(output.code, 2);
    assert!(
        output.stdout.contains("outbound_bytes = 1 "),
        "{}",
        output.stdout
    );
    assert!(
        output.stderr.contains("limits.outbound_bytes: "),
        "{}",
        output.stderr
    );
}

/// The fault that this test prevents: a variable that nothing reads is ignored silently.
#[test]
fn a_variable_by_another_name_is_told_with_the_right_one() {
    let folder = Folder::new();
    let config = folder.config("");
    for (name, right) in [
        ("CURFEW_SERVER_LISTEN", "CURFEW__SERVER__LISTEN"),
        ("CURFEW_SERVER__LISTEN", "CURFEW__SERVER__LISTEN"),
        ("curfew__server__listen", "CURFEW__SERVER__LISTEN"),
        ("CURFEW_BACKEND_REDIS_URL", "CURFEW__BACKEND__REDIS__URL"),
        (
            "CURFEW_AUTH_MAX_TOKEN_BYTES",
            "CURFEW__AUTH__MAX_TOKEN_BYTES",
        ),
    ] {
        let output = curfew_with(&["check-config", "--config", &config], &[(name, "1")]);
        assert_eq!(output.code, 2, "{name}: {}", output.stderr);
        let told = format!("is not the name of a setting: write {right},");
        assert!(output.stderr.contains(&told), "{name}: {}", output.stderr);
    }
    // These are variables that the command line reads, and variables that Kubernetes sets for a
    // Service named curfew.
    let others = [
        ("CURFEW_ADMIN_KEY", "x"),
        ("CURFEW_ADMIN_URL", "http://127.0.0.1:9090"),
        ("CURFEW_PORT", "tcp://10.0.0.1:80"),
        ("CURFEW_SERVICE_HOST", "10.0.0.1"),
    ];
    let output = curfew_with(&["check-config", "--config", &config], &others);
    assert_eq!(output.code, 0, "{}", output.stderr);
}

/// The fault that this test prevents: a value of a wrong form is reported in the words of a parser.
#[test]
fn what_is_written_in_another_way_is_told_with_the_right_one() {
    let rule = |when: &str| {
        format!(
            "[[policy.rules]]\nname = \"r\"\nchannels = [\"a\"]\nactions = [\"publish\"]\nwhen = \"{when}\"\n"
        )
    };
    for (more, told) in [
        (
            "audience = \"curfew\"\n".to_owned(),
            "put it in brackets, as in [\"…\"]",
        ),
        ("[server]\npath = \"/x\"\n".to_owned(), "put it in brackets"),
        (
            "[server]\nlisten = \"localhost:8080\"\n".to_owned(),
            "an IP address with a port",
        ),
        (
            format!("[admin]\nkey = \"{}\"\n", " ".repeat(41)),
            "must not begin or end with a space",
        ),
        (rule("claims.a == 1 and claims.b == 2"), "write &&"),
        (rule("claims.a == 1 or claims.b == 2"), "write ||"),
        (rule("'x' not in claims.roles"), "write !("),
        (rule("not claims.a"), "write !("),
        (
            rule("claims.roles contains 'x'"),
            "in claims.roles for a list",
        ),
    ] {
        let folder = Folder::new();
        let config = folder.config(&more);
        let output = curfew(&["check-config", "--config", &config]);
        assert_eq!(output.code, 2, "{more}: {}", output.stderr);
        assert!(output.stderr.contains(told), "{more}: {}", output.stderr);
    }
    let folder = Folder::new();
    let config = folder.file("table.toml", "[auth.issuers]\nname = \"m\"\n");
    let output = curfew(&["check-config", "--config", &config]);
    assert!(
        output
            .stderr
            .contains("begin each element with [[auth.issuers]]"),
        "{}",
        output.stderr
    );
    let help = curfew(&["check-config", "--help"]);
    assert!(!help.stdout.contains('\\'), "{}", help.stdout);
}
