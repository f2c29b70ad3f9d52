//! Log lines that clients can cause repeatedly. The log has one line for each cause and minute, and
//! the lines count every event.

use std::time::Duration;

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings};
use serde_json::Value;

/// A time longer than the interval between two lines of one cause.
const A_MINUTE: Duration = Duration::from_secs(75);

/// Number of events of each cause.
const EVENTS: u64 = 20;

/// The lines with this message in which `field` has this value.
fn lines(node: &Gateway, message: &str, field: &str, value: &Value) -> Vec<Value> {
    let entries = node.log().entries().into_iter();
    entries
        .filter(|entry| entry["message"] == message && entry[field] == *value)
        .collect()
}

/// Waits for a second line of one cause. Returns the counts in the first and in the second line.
async fn counts(node: &Gateway, message: &str, field: &str, value: Value, count: &str) -> [u64; 2] {
    let mut seen = 0;
    node.log()
        .line(A_MINUTE, |line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let is_one = entry["message"] == message && entry[field] == value;
            seen += usize::from(is_one);
            (seen == 2).then_some(())
        })
        .await
        .expect("a second line of this cause comes in time");
    let told = lines(node, message, field, &value);
    [0, 1].map(|index| told[index][count].as_u64().unwrap())
}

/// Regression: events within a minute after a log line were never logged if no other event
/// followed. Regression: a log line did not name the user.
#[tokio::test]
async fn the_rest_of_a_cause_is_told_when_its_minute_is_over() {
    let settings = Settings::default().with("session.max_per_user = 1");
    let node = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    // The client answers the node's probes, so the user's new sessions do not replace it.
    let alice = node.tape("alice", "room:1").await;
    for _ in 0..EVENTS {
        let answer = http::request(node.address(), "GET", "/nothing", &[], b"").await;
        assert_eq!(answer.status, 404);
        let mut client = node.ws().bearer(&token).open().await;
        client.expect_close(4409, "session_limit").await;
    }
    let (refusals, closes) = tokio::join!(
        counts(
            &node,
            "requests refused",
            "reason",
            "not_found".into(),
            "count"
        ),
        counts(
            &node,
            "connections closed",
            "code",
            4409.into(),
            "connections"
        ),
    );
    assert_eq!((refusals, closes), ([1, EVENTS - 1], [1, EVENTS - 1]));
    let told = lines(&node, "connections closed", "code", &4409.into());
    for line in told {
        assert!(line["session"].is_string(), "{line}");
        let key = line["user_key"].as_str().unwrap();
        assert!(key.starts_with("user:") && !key.contains("alice"), "{line}");
        assert!(line["user"].is_null(), "{line}");
    }
    alice.assert_open("asked").await;
}
