//! Exit codes, and a stdout that is closed.

use std::process::Stdio;

use crate::support::{Folder, SECRET, command, curfew};

#[test]
fn exit_codes_tell_usage_from_failure() {
    let folder = Folder::new();
    let config = folder.config("");
    let secret = folder.file("secret", SECRET);
    let short = folder.file("short", "tooshort");
    let cases: &[(&[&str], i32)] = &[
        (&[], 2),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["serve", "--help"], 0),
        (&["frobnicate"], 2),
        (&["serve", "--frobnicate"], 2),
        (&["serve", "--config", "/nonexistent/curfew.toml"], 2),
        (&["serve", "--set", "server.listne=x"], 2),
        (&["check-config", "--config", &config], 0),
        (&["check-config"], 2),
        (&["dev", "--listen", "0.0.0.0:0"], 2),
        (&["dev", "--admin", "192.0.2.1:0"], 2),
        (&["token", "--user", "a", "--key-file", &secret], 0),
        (&["token", "--user", "a", "--key-file", &short], 1),
        (&["token", "--user", "a", "--key-file", "/nonexistent"], 1),
        (
            &[
                "token",
                "--user",
                "a",
                "--key-file",
                &secret,
                "--alg",
                "none",
            ],
            2,
        ),
        (
            &[
                "token",
                "--user",
                "a",
                "--key-file",
                &secret,
                "--claim",
                "x=y",
            ],
            2,
        ),
        (
            &["token", "--user", "a", "--key-file", &secret, "--ttl", "60"],
            2,
        ),
        (&["nodes", "--url", "https://127.0.0.1:9090"], 2),
        (&["nodes", "--url", "http://127.0.0.1:1"], 1),
        (&["nodes", "--key-file", "/nonexistent"], 1),
        (&["revoke", "user"], 2),
        (&["revoke", "all", "alice"], 2),
        (&["revoke", "user", "alice", "--before", "yesterday"], 2),
        (&["publish", "room:1", "hello"], 2),
        (&["explain", "--action", "publish", "--channel", "a"], 2),
        (&["connect", "http://127.0.0.1:1/ws"], 2),
        (&["connect", "ws://127.0.0.1:1/ws"], 1),
        (&["history", "room:1", "--url", "http://127.0.0.1:1"], 1),
        (&["presence", "room:1", "--url", "http://127.0.0.1:1"], 1),
        (&["history", "room:1", "--since", "41"], 2),
        (&["history", "room:1", "--limit", "301"], 2),
        (
            &[
                "history",
                "room:1",
                "--since",
                "kdWqZx3a:1",
                "--before",
                "2",
            ],
            2,
        ),
    ];
    for (arguments, expect) in cases {
        let output = curfew(arguments);
        assert_eq!(
            output.code, *expect,
            "{arguments:?}: {}{}",
            output.stdout, output.stderr
        );
        if *expect != 0 {
            assert!(!output.stderr.is_empty(), "{arguments:?} failed silently");
        }
    }
}

#[test]
fn a_position_is_of_one_channel() {
    let url = "ws://127.0.0.1:1/ws";
    for channels in [&[][..], &["a", "b"]] {
        let mut arguments = vec!["connect", url, "--since", "kdWqZx3a:42"];
        for channel in channels {
            arguments.extend(["--subscribe", channel]);
        }
        let output = curfew(&arguments);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(
            output.stderr.contains("exactly one --subscribe"),
            "{}",
            output.stderr
        );
    }
    let output = curfew(&["connect", url, "--subscribe", "a", "--since", "kd:42"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("kdWqZx3a:42"), "{}", output.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = command(&["print-config", "--reference"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
