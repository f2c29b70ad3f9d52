//! Nodes that drain, under load and after a second signal (CONTRACT §4 1012, §7).

use std::io;
use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE};
use curfew_tests::{Cluster, Redis, Settings, eventually};
use tokio::task::JoinSet;

/// Number of clients that connect at the same time.
const STORM: usize = 500;

/// Number of sessions that are open when the node starts to drain.
const EARLY: f64 = 50.0;

/// Deadline for a node to end after a second signal. With this signal, an operator skips the drain
/// window.
const QUICK: Duration = Duration::from_secs(3);

/// Requests one session after another until the node no longer listens. Asserts that the node
/// closes each session as draining. Returns the number of sessions, the number of refusals, and the
/// number of attempts without an answer.
async fn storm(connect: Connect) -> [usize; 3] {
    let (mut sessions, mut refused, mut cut) = (Vec::new(), 0, 0);
    loop {
        match connect.clone().try_attempt().await {
            Ok(Ok(session)) => sessions.push(session),
            Ok(Err(answer)) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
            // The listener has closed before it accepted the connection, so the kernel resets it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => cut += 1,
            Err(error) => panic!("the connection failed: {error}"),
        }
    }
    for session in &mut sessions {
        let closing = session.expect_close(1012, "draining").await;
        assert_eq!(closing["reconnect"], true);
    }
    [sessions.len(), refused, cut]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_while_a_node_leaves_has_an_answer() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .with("limits.unauthenticated_per_address = 16384")
        .with("drain.window = \"1s\"");
    let mut cluster = Cluster::start(2, &redis.url(), &settings).await;
    let mut leaving = cluster.remove(1);
    let id = leaving.id().await;
    let mut storms = JoinSet::new();
    for n in 0..STORM {
        let token = Key::default_secret().user(&format!("user-{n}"));
        storms.spawn(storm(leaving.ws().bearer(&token)));
    }
    leaving
        .until_metric("curfew_sessions", |sessions| sessions >= EARLY)
        .await;
    leaving.terminate();
    let ends = storms.join_all().await;
    let [sessions, refused, cut] = [0, 1, 2].map(|n| ends.iter().map(|end| end[n]).sum::<usize>());
    assert!(
        sessions as f64 >= EARLY && refused > 0 && cut < STORM / 50,
        "{sessions} sessions, {refused} refusals, {cut} cut"
    );
    assert_eq!(leaving.exited(PATIENCE).await, 0);
    let log = leaving.log().text();
    assert!(!log.contains("left after the drain"), "{log}");
    let keys = redis.keys().await;
    let of_it =
        |key: &String| key.contains(&id) || key.contains("user-") || key.contains(":session:");
    assert!(!keys.iter().any(of_it), "{keys:?}");
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_second_signal_is_obeyed_at_once_and_leaves_nothing_either() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("drain.window = \"300s\"");
    let mut cluster = Cluster::start(2, &redis.url(), &settings).await;
    let mut leaving = cluster.remove(1);
    let id = leaving.id().await;
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(leaving.user(&format!("user-{n}")).await);
    }
    leaving.terminate();
    eventually("draining", async || (!leaving.ready().await).then_some(())).await;
    let again = Instant::now();
    leaving.terminate();
    for client in &mut clients {
        client.expect_close(1012, "draining").await;
    }
    assert_eq!(leaving.exited(PATIENCE).await, 0);
    assert!(again.elapsed() < QUICK, "{:?}", again.elapsed());
    let keys = redis.keys().await;
    let of_it = |key: &String| key.contains(&id) || key.contains("user-");
    assert!(!keys.iter().any(of_it), "{keys:?}");
    cluster.assert_well().await;
}
