use super::rig::{Call, unavailable};
use super::*;

#[tokio::test(start_paused = true)]
async fn records_are_removed_once_the_backend_is_back() {
    let harness = Harness::new();
    let sessions = [harness.open("t1").await, harness.open("t2").await];
    harness.rig.fail(Call::Close, unavailable);
    drop(sessions);
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.records().await.len(), 2);
    let asked = harness.rig.asked(Call::Close, "");
    assert!(
        (30..=62).contains(&asked),
        "the removal was tried {asked} times in 60 s instead of once a second"
    );
    drop(harness.open("t3").await);
    harness.rig.heal(Call::Close);
    time::sleep(Duration::from_secs(3)).await;
    harness.assert_nothing_left("healed").await;
}

#[tokio::test(start_paused = true)]
async fn many_records_are_removed_in_few_calls() {
    let harness = Harness::new();
    let mut sessions = Vec::new();
    for _ in 0..1_500 {
        sessions.push(harness.open("t").await);
    }
    drop(sessions);
    harness.assert_nothing_left("storm").await;
    assert_eq!(harness.rig.asked(Call::Close, ""), 3);
}
