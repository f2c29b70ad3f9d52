//! Keys without a `kid` that replace each other in a key set.

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Attempt, Gateway, Provider};
use serde_json::json;

use super::trusting;

/// Regression: after a rotation of keys without a `kid`, tokens were refused as `bad_signature`
/// while the node was not allowed to fetch keys.
#[tokio::test]
async fn keys_without_a_name_that_rotate_are_no_fault_of_their_tokens() {
    let keys: Vec<Key> = (0..4).map(|_| Key::generate("ES256")).collect();
    let provider = Provider::start(&[&keys[0]]).await;
    let node = Gateway::start_with(&trusting(&provider)).await;
    let mut attempts = Vec::new();
    for key in &keys {
        provider.rotate(&[key]);
        attempts.push(node.attempt_with(&provider.token(key, "alice")).await);
    }
    // Two fetches are available. The token with the third new key has to wait.
    assert!(attempts[..3].iter().all(Attempt::is_open), "{attempts:?}");
    assert!(attempts[3].is_unavailable(), "{attempts:?}");
    // This token is much older than the last list of keys. Its holder can get a new token.
    let (iat, exp) = (unix_now() - 300, unix_now() + 300);
    let old = json!({"iss":provider.issuer(),"iat":iat,"exp":exp});
    let attempt = node.attempt_with(&keys[0].user_with("alice", old)).await;
    assert!(
        matches!(&attempt, Attempt::Refused(why, 4401) if why == "bad_signature"),
        "{attempt:?}"
    );
}
