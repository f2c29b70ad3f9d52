//! Log lines that could be repeated during an outage. Each appears once for each cause.

use std::time::Duration;

use curfew_tests::{Cluster, Redis, Settings, eventually};

const GENERATIONS: &str = "curfew_backend_generations_total";

/// The node must not repeat its warnings about the settings of Redis at each new connection.
#[tokio::test]
async fn what_a_redis_may_lose_is_told_once_however_often_connections_break() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let node = &cluster[0];
    for _ in 0..4 {
        let before = node.metric(GENERATIONS).await;
        eventually("another control connection", async || {
            redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            (node.metric(GENERATIONS).await > before).then_some(())
        })
        .await;
        node.until_in_touch(Duration::from_secs(10)).await;
    }
    let lines = node.log().lines();
    let told = lines.iter().filter(|line| line.contains("appendonly off"));
    assert_eq!(told.count(), 1, "{lines:?}");
}
