//! The commands, error codes and close codes of the code, compared with the protocol's reference.

use curfew_model::{AuthFailure, Command, DISCONNECTS, Disconnect, ErrorCode};
use serde_json::Value;

use super::markdown::{Page, quoted};

fn reference() -> Page {
    Page::read("crates/curfew-protocol/PROTOCOL.md")
}

/// The quoted names in the first column of a table. Also checks that every row has a description.
fn names<'a>(page: &'a Page, columns: &[&str]) -> Vec<&'a str> {
    let named = |row: Vec<&'a str>| {
        assert!(!row[row.len() - 1].is_empty(), "{row:?}");
        quoted(row[0])[0]
    };
    page.table(columns).into_iter().map(named).collect()
}

#[test]
fn the_reference_has_every_command() {
    let page = reference();
    assert_eq!(
        names(&page, &["command", "members", "answer"]),
        Command::NAMES
    );
}

#[test]
fn the_reference_has_every_error_code() {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let page = reference();
    assert_eq!(names(&page, &["code", "meaning"]), codes);
}

#[test]
fn the_reference_has_every_reason_of_auth_failed() {
    let reasons: Vec<&str> = AuthFailure::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    let page = reference();
    assert_eq!(names(&page, &["reason", "meaning"]), reasons);
}

#[test]
fn the_reference_has_every_close() {
    let page = reference();
    let written = page.table(&["code", "reason", "message", "come back"]);
    let row = |disconnect: &Disconnect| {
        [
            disconnect.code.to_string(),
            format!("`{}`", disconnect.reason),
            disconnect.message.to_owned(),
            disconnect.advice.as_str().to_owned(),
        ]
    };
    let closes: Vec<[String; 4]> = DISCONNECTS.iter().map(row).collect();
    assert_eq!(written, closes);
}

#[test]
fn every_example_of_the_reference_is_a_frame() {
    let page = reference();
    let examples = page.examples("json");
    let mut types = Vec::new();
    for example in examples {
        let frame: Value =
            serde_json::from_str(example).unwrap_or_else(|error| panic!("{example}: {error}"));
        types.push(
            frame["type"]
                .as_str()
                .expect("a frame has a type")
                .to_owned(),
        );
        if frame["type"] == "closing" {
            let close = DISCONNECTS
                .iter()
                .find(|close| frame["code"] == close.code)
                .unwrap();
            assert_eq!(frame["reason"], close.reason);
            assert_eq!(frame["message"], close.message);
            assert_eq!(frame["reconnect"], close.advice.reconnect());
        }
    }
    for kind in [
        "connected",
        "auth_failed",
        "ok",
        "error",
        "message",
        "expiring",
        "refreshed",
        "unsubscribed",
        "closing",
        "pong",
    ] {
        assert!(
            types.iter().any(|name| name == kind),
            "PROTOCOL.md has no example of {kind}"
        );
    }
    for command in Command::NAMES {
        assert!(
            types.iter().any(|name| name == command),
            "PROTOCOL.md has no example of {command}"
        );
    }
}
