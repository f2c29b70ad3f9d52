//! `connect` and `dev`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Dev, Folder, Node, SECRET, answering, command, curfew, curfew_with};

#[test]
fn connect_shows_why_an_upgrade_is_refused_and_no_token() {
    let body = json!({"type":"auth_failed","reason":"expired","message":"the token has expired"});
    let (address, served) = answering(vec![("401 Unauthorized", body.to_string())]);
    let url = format!("ws://{address}/ws?token=canary");
    let output = curfew_with(&["connect", &url], &[("CURFEW_TOKEN", "a.b.c")]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("401") && output.stderr.contains("expired: the token"),
        "{}",
        output.stderr
    );
    assert!(
        !output.stderr.contains("canary") && !output.stderr.contains("a.b.c"),
        "{}",
        output.stderr
    );
    assert_eq!(
        served.join().unwrap()[0].header("authorization"),
        Some("Bearer a.b.c")
    );
}

#[test]
fn the_commands_that_dev_prints_work() {
    let dev = Dev::start();
    let (url, token) = (dev.word("connect "), dev.word("--token "));
    let env = [
        ("CURFEW_ADMIN_URL", dev.word("CURFEW_ADMIN_URL=")),
        ("CURFEW_ADMIN_KEY", dev.word("CURFEW_ADMIN_KEY=")),
    ];
    let mut client = command(
        &["connect", url, "--token", token, "--subscribe", "room:1"],
        &[],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut frames = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&frames.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["type"], "connected");
    let answer = next();
    assert_eq!(
        (&answer["type"], &answer["id"], &answer["offset"]),
        (&json!("ok"), &json!(1), &json!(0))
    );

    let output = curfew_with(&["publish", "room:1", "{\"text\":\"hello\"}"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let message = next();
    assert_eq!(message["data"], json!({"text":"hello"}));
    assert_eq!(message["offset"], 1);
    let output = curfew_with(&["history", "room:1"], &env);
    let line = output.stdout.lines().nth(1).unwrap_or_default();
    assert!(
        line.starts_with("1 ") && line.ends_with(r#"-     {"text":"hello"}"#),
        "{}{}",
        output.stdout,
        output.stderr
    );
    let output = curfew_with(&["sessions"], &env);
    assert!(
        output.stdout.contains(" alice "),
        "{}{}",
        output.stdout,
        output.stderr
    );
    let output = curfew_with(&["nodes", "--json"], &env);
    assert_eq!(
        output.json()["nodes"][0]["sessions"],
        1,
        "{}",
        output.stdout
    );

    let output = curfew_with(&["revoke", "user", "alice"], &env);
    let receipt = "revoked user:alice: 1 session closed, confirmed by 1 of 1 node in ";
    assert!(
        output
            .stdout
            .contains(" 1 session closed, confirmed by 1 of 1 node in "),
        "{receipt}{}",
        output.stdout
    );
    assert_eq!(next()["type"], "closing");
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(
        told.contains("closed: 4403 revoked: access was revoked"),
        "{told}"
    );
    assert_eq!(ended.status.code(), Some(1));

    let output = curfew_with(&["revocations"], &env);
    assert!(
        output.stdout.contains("user") && output.stdout.contains("alice"),
        "{}",
        output.stdout
    );
    for (code, says) in [(0, "lifted"), (1, "no such revocation")] {
        let output = curfew_with(&["restore", "user", "alice"], &env);
        assert_eq!(output.code, code, "{}", output.stderr);
        assert!(
            format!("{}{}", output.stdout, output.stderr).contains(says),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn what_is_piped_into_connect_is_sent_and_the_end_closes_normally() {
    let dev = Dev::start();
    let (url, token) = (dev.word("connect "), dev.word("--token "));
    for source in ["header", "subprotocol", "query", "message"] {
        let arguments = [
            "connect",
            url,
            "--token",
            token,
            "--token-in",
            source,
            "--subscribe",
            "a",
            "--json",
        ];
        let mut client = command(&arguments, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = "/pub a {\"z\":1.0}\n/nothing\n{\"type\":\"ping\"}\n";
        client
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        let output = client.wait_with_output().unwrap();
        let frames = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{source}: {frames}{told}");
        for expect in [
            "\"connected\"",
            "{\"type\":\"ok\"",
            "\"data\":{\"z\":1.0}",
            "{\"type\":\"pong\"}",
        ] {
            assert!(
                frames.contains(expect),
                "{source}: no {expect} in {frames}{told}"
            );
        }
        assert!(
            told.contains("no short form /nothing") && told.contains("closed: 1000"),
            "{told}"
        );
        assert!(!told.contains(token), "{told}");
    }
}

#[test]
fn tls_is_spoken_with_servers_whose_certificate_is_trusted() {
    let folder = Folder::new();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let trusted = folder.file("cert.pem", &made.cert.pem());
    let key = folder.file("key.pem", &made.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = folder.file("other.pem", &other.cert.pem());
    let secret = folder.file("secret", SECRET);
    let config = folder.config(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ntls_cert_file = {trusted:?}\ntls_key_file = {key:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n"
    ));
    let node = Node::start(&config);
    let minted = curfew(&["token", "--user", "alice", "--key-file", &secret]);
    let token = folder.file("token", &minted.stdout);
    for (ca, code, says) in [(&trusted, 0, "closed: 1000"), (&other, 1, "--ca-file")] {
        let url = format!("wss://{}", node.address);
        let arguments = ["connect", &url, "--token-file", &token, "--ca-file", ca];
        let mut client = command(&arguments, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A client that does not trust the certificate ends before it reads this line, so a failed
        // write is ignored.
        client.stdin.take().unwrap().write_all(b"/quit\n").ok();
        let output = client.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(says), "{told}");
    }
}

/// The test runs the commands of a user whose client is disconnected for a while.
#[test]
fn a_position_leads_connect_back_to_what_was_missed() {
    let dev = Dev::start();
    let (url, token) = (dev.word("connect "), dev.word("--token "));
    let env = [
        ("CURFEW_ADMIN_URL", dev.word("CURFEW_ADMIN_URL=")),
        ("CURFEW_ADMIN_KEY", dev.word("CURFEW_ADMIN_KEY=")),
    ];
    let publish = |data: &str, more: &[&str]| {
        let arguments = [&["publish", "room:1", data], more].concat();
        let output = curfew_with(&arguments, &env);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout
    };
    assert!(publish("1", &[]).starts_with("offset: 1\n"));

    let talk = |more: &[&str], lines: &str| {
        let arguments = ["connect", url, "--token", token, "--subscribe", "room:1"];
        let arguments = [&arguments, more].concat();
        let mut client = command(&arguments, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        drop(input);
        let output = client.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let frames = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        (frames.collect::<Vec<Value>>(), told)
    };
    let position = |told: &str| {
        let (_, rest) = told.split_once("position in room:1: ").expect(told);
        rest.lines().next().unwrap().to_owned()
    };
    let (_, told) = talk(&[], "/ping\n");
    let place = position(&told);
    assert!(place.ends_with(":1"), "{place}");

    // The client is disconnected now. The last publication is sent twice, as by a program that has
    // received no answer.
    publish("2", &[]);
    let first = publish("3", &["--key", "three"]);
    let again = publish("3", &["--key", "three"]);
    assert!(first.starts_with("offset: 3\n") && again.starts_with("offset: 3\n"));

    let (frames, told) = talk(&["--since", &place], "/ping\n");
    let offsets: Vec<u64> = frames
        .iter()
        .filter(|frame| frame["type"] == "message")
        .map(|frame| frame["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [2, 3], "{frames:?}");
    assert!(frames.iter().any(|frame| frame["recovered"] == true));
    assert!(
        told.contains("recovered in room:1: offsets 2 to 3 follow"),
        "{told}"
    );
    assert!(position(&told).ends_with(":3"), "{told}");

    let elsewhere = "AAAAAAAA:1";
    let (frames, told) = talk(&["--since", elsewhere], "/ping\n");
    assert!(frames.iter().all(|frame| frame["type"] != "message"));
    assert!(
        told.contains("not recovered in room:1") && told.contains(elsewhere),
        "{told}"
    );

    let history = |more: &[&str]| {
        let output = curfew_with(&[&["history", "room:1"], more].concat(), &env);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout
    };
    let offsets = |shown: &str| {
        let lines = shown.lines();
        let offsets = lines.filter_map(|line| line.split(' ').next()?.parse().ok());
        offsets.collect::<Vec<u64>>()
    };
    assert_eq!(offsets(&history(&[])), [3, 2, 1]);
    assert_eq!(offsets(&history(&["--since", &place])), [2, 3]);
    assert_eq!(offsets(&history(&["--before", "3", "--limit", "1"])), [2]);
    let top = history(&["--limit", "0"]);
    assert_eq!(top, format!("position: {}3\n", place.trim_end_matches('1')));
    assert!(history(&["--since", elsewhere]).contains("another epoch"));
    assert_eq!(
        serde_json::from_str::<Value>(&history(&["--json", "--limit", "1"])).unwrap()["publications"]
            [0]["data"],
        3
    );
}
