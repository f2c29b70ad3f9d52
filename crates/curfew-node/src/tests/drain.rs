use std::future::poll_fn;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::rig::Call;
use super::*;

/// The endings of the sessions of a draining node. Each has the time at which the session was told
/// to end.
type Departures = Arc<Mutex<Vec<(Duration, Ending)>>>;

/// Opens sessions that leave when they are told to end.
async fn leaving(harness: &Harness, count: usize) -> Departures {
    let told = Departures::default();
    let start = Instant::now();
    for _ in 0..count {
        let attachment = harness.open("t").await;
        let told = Arc::clone(&told);
        harness.node.spawn(async move {
            let outbox = attachment.member().outbox();
            poll_fn(|cx| outbox.poll_wake(cx, true)).await;
            told.lock()
                .push((start.elapsed(), outbox.ending().unwrap()));
        });
    }
    told
}

#[tokio::test(start_paused = true)]
async fn sessions_are_told_to_go_evenly_over_the_window_with_different_hints() {
    for count in [1, 7, 40, 1_001] {
        let harness = Harness::new();
        let told = leaving(&harness, count).await;
        harness.node.drain(Duration::from_secs(20)).await;
        let told = told.lock().clone();
        assert_eq!(told.len(), count);
        for second in 1..=20 {
            let by_now = told.iter().filter(|(at, _)| at.as_secs() < second).count();
            let due = count as f64 * second as f64 / 20.0;
            assert!(
                (by_now as f64 - due).abs() <= 1.0 + count as f64 / 100.0,
                "{by_now} of {count} sessions were told to end within {second} s"
            );
        }
        let hints: Vec<u64> = told
            .iter()
            .map(|(_, ending)| ending.retry_after_ms.unwrap())
            .collect();
        assert!(
            told.iter()
                .all(|(_, ending)| ending.disconnect == Disconnect::DRAINING)
        );
        assert!(hints.iter().all(|hint| *hint <= 3_000));
        if count > 1_000 {
            let early = hints.iter().filter(|hint| **hint < 1_500).count();
            assert!(
                (400..600).contains(&early),
                "{early} of {count} hints are below 1500 ms"
            );
        }
        harness.assert_nothing_left("drained").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_sessions_drains_at_once() {
    let harness = Harness::new();
    let start = Instant::now();
    harness.node.drain(Duration::from_secs(20)).await;
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_left_by_themselves_are_not_waited_for() {
    let harness = Harness::new();
    let sessions = [
        harness.open("t").await,
        harness.open("t").await,
        harness.open("t").await,
    ];
    let start = Instant::now();
    let leaving = async move {
        time::sleep(Duration::from_secs(1)).await;
        drop(sessions);
    };
    tokio::join!(harness.node.drain(Duration::from_secs(60)), leaving);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "the drain ended after {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_when_the_records_are_removed_and_not_before() {
    let harness = Harness::new();
    leaving(&harness, 3).await;
    harness.rig.hold(Call::Close);
    let start = Instant::now();
    let releasing = async {
        time::sleep(Duration::from_secs(3)).await;
        harness.rig.release(Call::Close);
    };
    tokio::join!(harness.node.drain(Duration::ZERO), releasing);
    assert!(
        (3..4).contains(&start.elapsed().as_secs()),
        "the drain ended after {:?}",
        start.elapsed()
    );
    assert!(harness.records().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever() {
    let harness = Harness::new();
    let stuck = harness.open("t").await;
    let start = Instant::now();
    harness.node.drain(Duration::ZERO).await;
    assert!(
        (5..6).contains(&start.elapsed().as_secs()),
        "the drain ended after {:?}",
        start.elapsed()
    );
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn draining_shows_before_sessions_are_refused() {
    let harness = Harness::new();
    harness.node.begin_drain();
    assert!(harness.node.is_draining() && !harness.node.is_refusing());
    assert_eq!(harness.metrics.draining.get(), 1);
    harness.node.refuse_sessions();
    assert!(harness.node.is_refusing());
}
