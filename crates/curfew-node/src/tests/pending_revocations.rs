use curfew_model::Revocation;
use tokio::task::JoinSet;

use super::rig::Call;
use super::*;
use crate::ReportError;

/// Detects these faults: reports are lost while the backend is slow, or are accepted without limit.
#[tokio::test(start_paused = true)]
async fn reports_wait_to_be_written_and_those_beyond_are_turned_away() {
    const ROOM: usize = 10_000;
    let harness = Harness::new();
    harness.rig.hold(Call::Revoke);
    let mut waiting = JoinSet::new();
    for n in 0..ROOM {
        let node = Arc::clone(&harness.node);
        waiting.spawn(async move {
            let key = RevocationKey::user(&format!("user-{n}"));
            node.revoke_reported(key, Revocation::default()).await
        });
    }
    eventually(async || harness.rig.asked(Call::Revoke, "") >= ROOM).await;
    let report = |user: &str| {
        let key = RevocationKey::user(user);
        harness.node.revoke_reported(key, Revocation::default())
    };
    let refused = report("one-more").await;
    assert!(matches!(refused, Err(ReportError::Full)), "{refused:?}");
    assert!(
        waiting.try_join_next().is_none(),
        "a report was answered before its revocation was written"
    );
    harness.rig.release(Call::Revoke);
    for written in waiting.join_all().await {
        written.unwrap();
    }
    let listed = harness.rig.inner().revocations.list().await.unwrap();
    assert_eq!(listed.len(), ROOM);
    report("one-more").await.unwrap();
}
