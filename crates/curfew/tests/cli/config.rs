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
            "{expect} in {}",
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
            "{expect} in {}",
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
                "{secret} in {}",
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
