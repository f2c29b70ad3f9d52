//! Nodes of the backend, for the suite that every backend must pass.

use std::sync::Arc;
use std::time::Duration;

use curfew_backend::conformance::{self, DEADLINE, Member};
use curfew_backend::{NodeInfo, Standing};
use curfew_backend_redis::{Parts, Redis, RedisBackendConfig, RedisConfig, RedisMetrics, RedisUrl};
use curfew_model::{Clock, DeliveryLease, NodeId, SystemClock};
use curfew_telemetry::Registry;

/// Starts nodes on the Redis at `url`. Each call uses a prefix of its own, so its nodes form a
/// cluster of their own.
pub(crate) async fn nodes(
    url: String,
    clock: Arc<conformance::ManualClock>,
    recorders: Vec<Arc<conformance::Recorder>>,
) -> Vec<Member> {
    let prefix = format!("t{:x}:", fastrand::u64(..));
    let mut members = Vec::new();
    for recorder in recorders {
        let node = NodeId::new();
        let lease = Arc::new(DeliveryLease::not_held());
        let parts = Parts {
            config: RedisBackendConfig {
                redis: RedisConfig {
                    url: RedisUrl::new(url.clone()),
                    prefix: prefix.clone(),
                    ..RedisConfig::default()
                },
                ..RedisBackendConfig::default()
            },
            info: NodeInfo {
                node,
                name: "one".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                version: "0".to_owned(),
                started_at: SystemClock.unix(),
                sessions: 0,
                channels: None,
            },
            events: Arc::clone(&recorder) as _,
            local: recorder,
            lease: Arc::clone(&lease),
            clock: Arc::clone(&clock) as _,
            metrics: RedisMetrics::register(&Registry::default()),
        };
        let redis = Redis::start(parts).expect("the URL is valid");
        members.push(Member {
            node,
            backends: redis.backends(),
        });
    }
    // This waits until each node is ready and lists all nodes.
    for member in &members {
        let ready = async {
            loop {
                let all = member.backends.nodes.list().await;
                let count = all.map(|nodes| nodes.len()).unwrap_or_default();
                if member.backends.nodes.standing() == Standing::InTouch && count == members.len() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            tokio::time::timeout(DEADLINE, ready).await.is_ok(),
            "the node is not ready, or does not list every node: {:?}",
            member.backends.nodes.standing()
        );
    }
    members
}
