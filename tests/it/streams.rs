//! Streams: a client that reconnects receives the publications that it missed, or learns that it
//! cannot receive them.

mod admin;
mod checker;
mod faults;
mod gates;
mod native;
mod nodes;
mod rights;

use curfew_tests::{Gateway, Settings, Tape};
use serde_json::{Value, json};

/// Settings with a stream of `size` publications for each channel `room:*`, and rules that allow
/// everything.
fn with_streams(size: u32) -> Settings {
    let rules = format!(
        "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
         actions = [\"subscribe\", \"publish\", \"history\"]\n\
         [[channels]]\npattern = \"room:*\"\nhistory = {{ size = {size}, ttl = \"10m\" }}\n"
    );
    Settings::default().rules(&rules)
}

/// A position in the form in which a client sends it back.
fn position(of: &Value) -> Value {
    json!({"epoch": of["epoch"], "offset": of["offset"]})
}

/// Opens a session that subscribes to `room:1`, from the position `since` if there is one. Returns
/// the session and the answer to the subscription.
async fn join(node: &Gateway, user: &str, since: Option<&Value>) -> (Tape, Value) {
    let tape = Tape::of(node.user(user).await);
    let mut command = json!({"type":"subscribe","channel":"room:1"});
    if let Some(since) = since {
        command["since"] = since.clone();
    }
    let answer = tape.ask("join", command).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    (tape, answer)
}

/// The offsets of the messages and gaps that the channel has sent so far. The offset of a gap is
/// negative.
fn offsets(tape: &Tape, channel: &str) -> Vec<i64> {
    tape.seen()
        .iter()
        .filter(|seen| seen.frame["channel"] == channel)
        .filter_map(|seen| {
            let offset = seen.frame["offset"].as_i64()?;
            match seen.frame["type"].as_str()? {
                "message" => Some(offset),
                "gap" => Some(-offset),
                _ => None,
            }
        })
        .collect()
}

/// The index of the first frame that has the members in `expect`.
fn place(tape: &Tape, expect: &Value) -> Option<usize> {
    let matches = |frame: &Value| curfew_testkit::json::contains(expect, frame);
    tape.seen().iter().position(|seen| matches(&seen.frame))
}
