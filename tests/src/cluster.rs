//! Several gateways that share one Redis.

use std::ops::Index;
use std::time::Duration;

use curfew_testkit::http;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::{Gateway, Proxy, Redis, Settings, Tape, eventually_within};

/// Deadline for a cluster to be ready, on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Interval between two publications of a [`Publisher`].
const BEAT: Duration = Duration::from_millis(20);

/// Gateways on one Redis. Each is behind its own proxy if [`Cluster::behind_proxies`] started them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Gateway>,
    proxies: Vec<Proxy>,
}

impl Cluster {
    /// Starts `count` gateways on the Redis at `url` and waits until each gateway lists all of
    /// them.
    pub async fn start(count: usize, url: &str, settings: &Settings) -> Self {
        Self::start_each(vec![settings.clone().on_redis(url); count], Vec::new()).await
    }

    /// Like [`Cluster::start`], with each gateway behind its own proxy.
    pub async fn behind_proxies(count: usize, redis: &Redis, settings: &Settings) -> Self {
        let (mut each, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let proxy = Proxy::start(redis.address()).await;
            let url = format!("redis://{}", proxy.address());
            each.push(settings.clone().on_redis(&url));
            proxies.push(proxy);
        }
        Self::start_each(each, proxies).await
    }

    async fn start_each(each: Vec<Settings>, proxies: Vec<Proxy>) -> Self {
        let mut starting = JoinSet::new();
        for (at, settings) in each.into_iter().enumerate() {
            starting.spawn(async move { (at, Gateway::start_with(&settings).await) });
        }
        let mut nodes = starting.join_all().await;
        nodes.sort_by_key(|(at, _)| *at);
        let nodes = nodes.into_iter().map(|(_, node)| node).collect();
        let cluster = Self { nodes, proxies };
        cluster.synced().await;
        cluster
    }

    /// Waits until every node is connected to Redis and lists all nodes.
    pub async fn synced(&self) {
        for node in &self.nodes {
            node.until_in_touch(START).await;
        }
        for node in &self.nodes {
            eventually_within(START, "every node to see all nodes", async || {
                (node.nodes().await.len() == self.nodes.len()).then_some(())
            })
            .await;
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Gateway] {
        &self.nodes
    }

    /// The proxy between a node and Redis.
    pub fn proxy(&self, at: usize) -> &Proxy {
        &self.proxies[at]
    }

    /// All proxies. Empty if the gateways were started without proxies.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Removes a node from this value and returns the node. The caller kills the node or waits for
    /// its end.
    pub fn remove(&mut self, at: usize) -> Gateway {
        self.nodes.remove(at)
    }

    /// A metric summed over the nodes.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric(name).await;
        }
        sum
    }

    /// Fails unless every node runs, and every revocation arrived by a push. A revocation that only
    /// a sweep finds counts as missed.
    pub async fn assert_well(&self) {
        for node in &self.nodes {
            node.assert_alive().await;
        }
        assert_eq!(
            self.metric("curfew_revocation_missed_push_total").await,
            0.0
        );
    }
}

impl Index<usize> for Cluster {
    type Output = Gateway;

    fn index(&self, at: usize) -> &Gateway {
        &self.nodes[at]
    }
}

impl Gateway {
    /// A session of `user` that is subscribed to `channel` and recorded.
    pub async fn tape(&self, user: &str, channel: &str) -> Tape {
        Tape::of(self.subscriber(user, channel).await)
    }

    /// A session of `user` that publishes numbers to `channel` until the returned value is dropped.
    pub async fn publisher(&self, user: &str, channel: &str) -> Publisher {
        let tape = Tape::of(self.user(user).await);
        let channel = channel.to_owned();
        let mut publishing = JoinSet::new();
        publishing.spawn(async move {
            let mut beat = interval(BEAT);
            for n in 0_u64.. {
                beat.tick().await;
                tape.send(json!({"type":"publish","channel":channel,"data":n}));
            }
        });
        Publisher {
            _publishing: publishing,
        }
    }

    /// The live nodes, as this node lists them.
    pub async fn nodes(&self) -> Vec<Value> {
        let (status, answer) = self.admin("GET", "/v1/nodes", None).await;
        match answer["nodes"].as_array() {
            Some(nodes) if status == 200 => nodes.clone(),
            // The node is possibly not able to list the nodes yet.
            _ => Vec::new(),
        }
    }

    /// The sessions of the whole cluster, as this node lists them.
    pub async fn sessions(&self) -> Vec<Value> {
        let answer = self.admin_ok("GET", "/v1/sessions?limit=1000", None).await;
        answer["sessions"]
            .as_array()
            .expect("the answer has a list of sessions")
            .clone()
    }

    /// The node's id.
    pub async fn id(&self) -> String {
        let started = self.log().line(START, |line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            Some(entry["node"].as_str()?.to_owned())
        });
        started.await.expect("a node logs its id")
    }

    /// Status and body of `/readyz`.
    pub async fn readiness(&self) -> (u16, Value) {
        let answer = http::request(self.admin_address(), "GET", "/readyz", &[], b"").await;
        (answer.status, answer.json())
    }

    /// Waits until the node is ready and admits sessions.
    pub async fn until_in_touch(&self, patience: Duration) {
        eventually_within(
            patience,
            "a node that is ready and connected to its backend",
            async || {
                let (status, body) = self.readiness().await;
                (status == 200 && body["backend"] == "available").then_some(())
            },
        )
        .await;
    }

    /// Waits until the node, which has never been ready, is unready for a reason with one of these
    /// words. Returns the reason.
    pub async fn until_unready(&self, patience: Duration, words: &[&str]) -> String {
        self.until_apart(patience, 503, words).await
    }

    /// Waits until the node, which stays ready, admits no sessions for a reason with one of these
    /// words. Returns the reason.
    pub async fn until_out_of_touch(&self, patience: Duration, words: &[&str]) -> String {
        self.until_apart(patience, 200, words).await
    }

    async fn until_apart(&self, patience: Duration, expected: u16, words: &[&str]) -> String {
        let what = format!("status {expected}, no backend, and a reason with one of {words:?}");
        eventually_within(patience, &what, async || {
            let (status, body) = self.readiness().await;
            if body["backend"] != "unavailable" {
                return None;
            }
            assert_eq!(status, expected, "{body}");
            let reason = body["reason"]
                .as_str()
                .expect("the answer has a reason")
                .to_owned();
            // A busy machine may pause a node for a moment. The node then suspends its lease but
            // keeps its connection. Such a pause does not count here.
            if reason.contains("being compared") && self.metric("curfew_backend_synced").await > 0.0
            {
                return None;
            }
            let lower = reason.to_lowercase();
            let said = words.is_empty() || words.iter().any(|word| lower.contains(word));
            said.then_some(reason)
        })
        .await
    }
}

/// The Redis key of a revocation.
pub fn revocation_key(kind: &str, value: &str) -> String {
    format!("curfew:{{revoked}}:{kind}:{value}")
}

/// A session that publishes; see [`Gateway::publisher`].
#[derive(Debug)]
pub struct Publisher {
    _publishing: JoinSet<()>,
}
