use std::ffi::OsString;
use std::path::Path;

use super::*;

/// A valid file, without the settings that a test adds.
const VALID: &str = r#"
[auth]
[[auth.issuers]]
name = "main"
secret = "0123456789abcdef0123456789abcdef"
[backend]
kind = "memory"
"#;

fn load_text(
    text: &str,
    env: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded, Vec<ConfigProblem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curfew.toml");
    std::fs::write(&path, text).unwrap();
    load_path(Some(&path), env, sets)
}

fn load_path(
    path: Option<&Path>,
    env: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded, Vec<ConfigProblem>> {
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    load_from(path, env, &sets, Check::Everything)
}

/// The problems as lines, with the file's folder left out.
fn problems(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Vec<String> {
    let problems = load_text(text, env, sets).err().unwrap_or_default();
    let mut lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let line = problem.to_string();
            line.rfind("/curfew.toml")
                .map_or_else(|| line.clone(), |at| line[at + 1..].to_owned())
        })
        .collect();
    lines.sort();
    lines
}

fn valid_with(text: &str) -> String {
    format!("{text}\n{VALID}")
}

#[test]
fn every_kind_of_problem_names_its_source_line_and_key() {
    for (text, expect) in [
        ("[server]\nlisten = \"x\"", "curfew.toml:2: server.listen: "),
        (
            "[server]\nlistne = \"127.0.0.1:1\"",
            "curfew.toml:2: server.listne: unknown key, did you mean listen?",
        ),
        (
            "[sevrer]",
            "curfew.toml:1: sevrer: unknown key, did you mean server?",
        ),
        (
            "[limits]\nmessage_bytes = \"many\"",
            "curfew.toml:2: limits.message_bytes: expected a whole number of at least 0, found a string",
        ),
        (
            "[limits]\nmessage_bytes = -1",
            "curfew.toml:2: limits.message_bytes: out of range, expected a whole number of at least 0",
        ),
        (
            "[limits]\nmessage_bytes = 1.5",
            "curfew.toml:2: limits.message_bytes: expected a whole number of at least 0, found a number with a fraction",
        ),
        (
            "[session]\nexpiring_notice = 60",
            "curfew.toml:2: session.expiring_notice: expected a string, found a number: write \"60s\" for seconds",
        ),
        (
            "[session]\nexpiring_notice = \"60\"",
            "curfew.toml:2: session.expiring_notice: \"60\" is not a duration: it has no unit, write \"60s\" for seconds",
        ),
        (
            "[telemetry]\nlog_format = \"jsn\"",
            "curfew.toml:2: telemetry.log_format: unknown value, did you mean \"json\"?",
        ),
        (
            "[telemetry]\nlog_format = 1",
            "curfew.toml:2: telemetry.log_format: expected a string, found a number: put it in quotes",
        ),
        (
            "[policy]\nrules = 1",
            "curfew.toml:2: policy.rules: expected a list, found a whole number",
        ),
        (
            "[[policy.rules]]\nname = \"r\"\nchannels = [\"*\"]\nactions = [\"publish\", \"subscrbe\"]",
            "curfew.toml:4: policy.rules[0].actions[1]: unknown value, did you mean \"subscribe\"?",
        ),
        (
            "limits = 5",
            "curfew.toml:1: limits: expected a table, found a whole number",
        ),
        ("[admin]\nkey = \"short\"", "curfew.toml:2: admin.key: "),
    ] {
        let found = problems(&valid_with(text), &[], &[]);
        // Each text causes exactly one problem.
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(
            found[0].starts_with(expect),
            "{text}\n  got  {}\n  want {expect}",
            found[0]
        );
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"
[server]
listne = "0.0.0.0:1"
allowed_origins = "https://a.example"
[auth]
leeway = "2m"
tokens = ["header"]
token_sources = ["header", "cookies", "query", "mesage"]
[[auth.issuers]]
name = "a"
secret = 1234567890123456789
[[auth.issuers]]
name = "b"
issuer = "https://b.example"
secret_file = "/nonexistent/secret"
discovry = true
[session]
expiring_notice = "soon"
[limits]
message_bytes = "64k"
subscriptions = -1
outbound_bytes = 1
[backend]
kind = "memory"
"#;
    let found = problems(
        text,
        &[("CURFEW__DRAIN__WINDOW", "long")],
        &["telemetry.log_level=loud"],
    );
    let expect = [
        "--set: telemetry.log_level: ",
        "CURFEW__DRAIN__WINDOW: drain.window: \"long\" is not a duration",
        "curfew.toml:9: auth.issuers[0].issuer: ",
        "curfew.toml:11: auth.issuers[0].secret: expected a string, found a number",
        "curfew.toml:15: auth.issuers[1].secret_file: ",
        "curfew.toml:16: auth.issuers[1].discovry: unknown key, did you mean discovery?",
        "curfew.toml:18: session.expiring_notice: ",
        "curfew.toml:20: limits.message_bytes: ",
        "curfew.toml:21: limits.subscriptions: out of range",
        "curfew.toml:22: limits.outbound_bytes: ",
        "curfew.toml:3: server.listne: unknown key, did you mean listen?",
        "curfew.toml:4: server.allowed_origins: expected a list, found a string",
        "curfew.toml:6: auth.leeway: must be at most 60s",
        "curfew.toml:7: auth.tokens: unknown key",
        "curfew.toml:8: auth.token_sources[1]: unknown value, did you mean \"cookie\"?",
        "curfew.toml:8: auth.token_sources[3]: unknown value, did you mean \"message\"?",
    ];
    assert_eq!(found.len(), expect.len(), "{found:#?}");
    for expect in expect {
        assert!(
            found.iter().any(|line| line.starts_with(expect)),
            "no problem begins with {expect:?}: {found:#?}"
        );
    }
    assert!(
        !found.concat().contains("1234567890123456789"),
        "a problem shows the value of a secret: {found:#?}"
    );
}

#[test]
fn bad_files_are_reported() {
    for (text, expect) in [
        (
            "[server\nlisten = 1",
            "curfew.toml:1: is not valid TOML (column 8): ",
        ),
        ("[a]\n[a]\n", "curfew.toml:2: is not valid TOML (column "),
        (
            "[server]\nlisten = \"a\"\nlisten = \"b\"",
            "curfew.toml:3: is not valid TOML (column 1): ",
        ),
    ] {
        let found = problems(text, &[], &[]);
        assert!(
            found.len() == 1 && found[0].starts_with(expect),
            "{text}: {found:#?}"
        );
    }
    let missing = load_path(Some(Path::new("/nonexistent/curfew.toml")), &[], &[]).unwrap_err();
    assert_eq!(missing.len(), 1, "{missing:#?}");
    assert!(
        missing[0]
            .to_string()
            .starts_with("/nonexistent/curfew.toml: cannot be read")
    );
    // A broken file does not hide problems elsewhere.
    let found = problems("[", &[("CURFEW__SERVER__LISTNE", "x")], &["limits"]);
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn what_is_missing_is_reported_with_its_key() {
    let missing = load_path(None, &[], &["backend.kind=memory"]).unwrap_err();
    assert_eq!(missing.len(), 1, "{missing:#?}");
    assert!(
        missing[0]
            .to_string()
            .starts_with("defaults: auth.issuers: "),
        "{missing:#?}"
    );
}

#[test]
fn what_is_often_mistaken_is_told_with_what_is_right() {
    for (text, env, fix) in [
        ("[session]\nping_interval = 25", None, "write \"25s\""),
        ("[session]\nping_interval = \"25\"", None, "write \"25s\""),
        ("[admin]\nlisten = \"8080\"", None, "\"0.0.0.0:8080\""),
        (
            "[admin]\nkey_file = \"/nonexistent/key\"",
            None,
            "openssl rand -hex 32 > /nonexistent/key",
        ),
        ("[backend.redis]\nurl = \"redis://u:p#w@a\"", None, "%23"),
        (
            "[[policy.rules]]\nname = \"r\"\nchannels = [\"*\"]\nactions = [\"publish\"]\nwhen = \"claims.a = 1\"",
            None,
            "==",
        ),
        (
            "",
            Some(("CURFEW_ADMIN__LISTEN", "127.0.0.1:1")),
            "CURFEW__ADMIN__LISTEN",
        ),
    ] {
        let env: Vec<(&str, &str)> = env.into_iter().collect();
        let found = problems(&valid_with(text), &env, &[]);
        assert!(
            found.len() == 1 && found[0].contains(fix),
            "{text}: {found:#?}"
        );
    }
    // Variables that are not settings are ignored, such as those that Kubernetes sets for a
    // Service.
    let others = [("CURFEW_PORT", "1"), ("CURFEW_A__B", "1")];
    assert!(problems(VALID, &others, &[]).is_empty());
}

#[test]
fn later_layers_win() {
    let text = valid_with("[session]\nmax_per_user = 1\n[limits]\nsubscriptions = 1");
    let env = [
        ("CURFEW__SESSION__MAX_PER_USER", "2"),
        ("CURFEW__LIMITS__SUBSCRIPTIONS", "2"),
    ];
    let loaded = load_text(&text, &env, &["session.max_per_user=3"]).unwrap();
    assert_eq!(loaded.config.session.max_per_user, 3);
    assert_eq!(loaded.config.limits.subscriptions, 2);
    assert_eq!(loaded.config.limits.bad_frames, 3);
    assert_eq!(
        loaded.source("session.max_per_user").as_deref(),
        Some("--set")
    );
    assert_eq!(
        loaded.source("limits.subscriptions").as_deref(),
        Some("CURFEW__LIMITS__SUBSCRIPTIONS")
    );
    assert!(
        loaded
            .source("auth.issuers[0].name")
            .is_some_and(|source| source.ends_with(".toml:8"))
    );
    assert_eq!(loaded.source("limits.bad_frames"), None);
}

#[test]
fn values_from_the_environment_are_taken_as_their_key_takes_them() {
    let secret = "0123456789012345678901234567890123456789";
    let odd = "{not=toml} [at,all] = true  \"quoted\"  and 12 of them";
    for key in [secret, odd] {
        let env = [("CURFEW__ADMIN__KEY", key)];
        let loaded = load_text(VALID, &env, &[]).unwrap();
        assert_eq!(loaded.config.admin.key.unwrap().expose(), key);
    }
    for list in [
        "header, message",
        "[\"header\", \"message\"]",
        "header,message,",
    ] {
        let env = [("CURFEW__AUTH__TOKEN_SOURCES", list)];
        let sources = load_text(VALID, &env, &[])
            .unwrap()
            .config
            .auth
            .token_sources;
        assert_eq!(
            sources,
            [curfew_auth::Source::Header, curfew_auth::Source::Message],
            "{list}"
        );
    }
    let issuers = r#"[{ name = "x", secret = "0123456789abcdef0123456789abcdef" }]"#;
    let env = [
        ("CURFEW__AUTH__ISSUERS", issuers),
        ("CURFEW__BACKEND__KIND", "memory"),
    ];
    let loaded = load_path(None, &env, &[]).unwrap();
    assert_eq!(loaded.config.auth.issuers[0].name, "x");
    let empty = load_text(VALID, &[("CURFEW__SESSION__REVOCABLE_CLAIMS", "")], &[]).unwrap();
    assert!(empty.config.session.revocable_claims.is_empty());
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    // These are the variables that Kubernetes sets in every pod if there is a Service named curfew.
    let env = [
        ("CURFEW_PORT", "tcp://10.0.0.1:8080"),
        ("CURFEW_SERVICE_HOST", "10.0.0.1"),
        ("CURFEW_URL", "x"),
        ("PATH", "/bin"),
    ];
    assert!(load_text(VALID, &env, &[]).is_ok());
    for name in [
        "CURFEW__",
        "CURFEW__SERVER",
        "CURFEW__SERVER__",
        "CURFEW__SERVER_LISTEN",
        "CURFEW__SERVER__PORT",
    ] {
        let found = problems(VALID, &[(name, "x")], &[]);
        assert!(
            found.len() == 1 && found[0].starts_with(name),
            "{name}: {found:#?}"
        );
    }
}

#[test]
fn sections_are_checked_against_each_other() {
    let cookie = [("CURFEW__AUTH__TOKEN_SOURCES", "cookie")];
    let found = problems(VALID, &cookie, &[]);
    assert!(
        found.len() == 1 && found[0].contains("server.allowed_origins: "),
        "{found:#?}"
    );
    assert!(found[0].contains("auth.token_sources"), "{found:#?}");
    let sets = ["server.listen=127.0.0.1:9090"];
    let found = problems(VALID, &[], &sets);
    assert!(
        found.len() == 1 && found[0].contains("admin.listen: "),
        "{found:#?}"
    );
}

/// Detects this fault: a token is short enough to open a session but too long for a refresh, and no
/// warning says so.
#[test]
fn tokens_that_can_open_a_session_and_not_refresh_it_are_told() {
    let warned = |sets: &[&str]| {
        let loaded = load_text(VALID, &[], sets).unwrap();
        let warnings = loaded.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<String>>()
    };
    assert!(warned(&[]).is_empty());
    let told = warned(&["auth.max_token_bytes=65536", "limits.head_bytes=90000"]);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("limits.message_bytes") && told[0].contains("66560"),
        "{told:?}"
    );
}

#[test]
fn a_secret_and_its_file_are_never_both_given_whatever_the_layers() {
    let text = valid_with("[admin]\nkey_file = \"/nonexistent/key\"");
    let env = [("CURFEW__ADMIN__KEY", "0123456789abcdef0123456789abcdef")];
    let found = problems(&text, &env, &[]);
    assert!(
        found.iter().any(|line| line.contains("not both")),
        "{found:#?}"
    );
}

#[test]
fn the_form_alone_can_be_checked() {
    let sets = ["auth.leeway=2m".to_owned()];
    assert!(load_from(None, [], &sets, Check::Form).is_ok());
    assert!(load_from(None, [], &sets, Check::Everything).is_err());
}
