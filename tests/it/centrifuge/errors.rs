//! Errors that applications cause through an SDK.

use curfew_tests::Gateway;
use serde_json::json;

use super::raw::{BOTH, Raw};
use super::with_channels;

/// These errors must not count towards `limits.bad_frames`: an SDK does not reconnect after the
/// close for too many errors.
#[tokio::test]
async fn errors_of_form_end_no_session() {
    let settings = with_channels("").with("limits.bad_frames = 1");
    let gateway = Gateway::start_with(&settings).await;
    for encoding in BOTH {
        let mut client = Raw::open(&gateway, encoding, "alice").await;
        for _ in 0..5 {
            let answer = client.ask(json!({"publish":{"channel":"room:1"}})).await;
            assert_eq!(answer["error"]["code"], 107, "{answer}");
        }
        client.subscribe("room:1", json!({})).await;
    }
}
