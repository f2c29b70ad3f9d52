//! Setups of more than one Redis server: a cluster, a primary with a replica, and such a pair with
//! a sentinel.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use curfew_testkit::PATIENCE;

use crate::redis::{free_port, redis_program};
use crate::{Link, Proxy, Redis, Reply, eventually_within};

/// Sentinel's name for the primary.
const MASTER_NAME: &str = "main";

/// Deadline for the servers of a cluster to agree.
const AGREEMENT: Duration = Duration::from_secs(30);

/// A Redis Cluster of three primaries.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<Redis>,
}

impl RedisCluster {
    /// Starts three servers and joins them into a cluster.
    pub async fn start() -> Self {
        Self::start_with(|_| Vec::new()).await
    }

    /// Like [`RedisCluster::start`], with additional lines of `redis.conf` for each server. The
    /// lines may name files that `more` puts into the server's directory.
    pub async fn start_with(more: impl Fn(&Path) -> Vec<String>) -> Self {
        let mut servers = Vec::new();
        for _ in 0..3 {
            let directory = tempfile::tempdir().expect("a directory");
            let mut settings = more(directory.path());
            settings
                .extend(["cluster-enabled yes", "cluster-node-timeout 2000"].map(str::to_owned));
            settings.push(format!("cluster-port {}", free_port()));
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            servers.push(Redis::start_in(directory, &settings).await);
        }
        let cluster = Self { servers };
        cluster.create();
        cluster.agreed().await;
        cluster
    }

    /// Waits until every server reports that the cluster is healthy. After an outage of one server,
    /// the other servers refuse commands for a while.
    pub async fn agreed(&self) {
        for server in &self.servers {
            eventually_within(AGREEMENT, "the cluster to be healthy", async || {
                let info = server.run(&["CLUSTER", "INFO"]).await.text();
                info.contains("cluster_state:ok").then_some(())
            })
            .await;
        }
    }

    fn create(&self) {
        let secure = self.servers[0].tls_address().is_some();
        let addresses = self.servers.iter().map(|server| {
            let address = server.tls_address().unwrap_or(server.address());
            address.to_string()
        });
        let tls: &[&str] = if secure {
            &["--tls", "--insecure"]
        } else {
            &[]
        };
        // The timeout is needed, because the command waits without end for servers that cannot
        // connect to each other.
        let output = Command::new("timeout")
            .arg(AGREEMENT.as_secs().to_string())
            .arg(redis_program("redis-cli"))
            .args(tls)
            .args(["--cluster", "create", "--cluster-yes"])
            .args(addresses)
            .stdin(Stdio::null())
            .output()
            .expect("timeout and redis-cli are installed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "redis-cli creates no cluster: {text}"
        );
    }

    /// The cluster's URL, `redis+cluster://…`, with all three servers.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self
            .servers
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// The servers.
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// Sends one command to the server that has the slot of the command's key, as `redis-cli -c`
    /// does.
    pub async fn run(&self, command: &[&str]) -> Reply {
        self.owner(command).await.run(command).await
    }

    /// The server that has the slot of a command's key.
    pub async fn owner(&self, command: &[&str]) -> &Redis {
        let any = &self.servers[0];
        let slot = any.run(&["CLUSTER", "KEYSLOT", command[1]]).await.integer();
        let slots = any.run(&["CLUSTER", "SLOTS"]).await;
        let Reply::List(ranges) = slots else {
            panic!("the reply is no list of slots: {slots:?}");
        };
        let port = ranges.iter().find_map(|range| match range {
            // Redis lists a range's start and end, and the primary with its address, port and id.
            Reply::List(range) => match &range[..] {
                [
                    Reply::Integer(from),
                    Reply::Integer(to),
                    Reply::List(primary),
                    ..,
                ] => (*from..=*to).contains(&slot).then(|| primary[1].integer()),
                _ => None,
            },
            _ => None,
        });
        let mut servers = self.servers.iter();
        servers
            .find(|server| Some(i64::from(server.port())) == port)
            .expect("every slot has a primary")
    }

    /// Kills the server that has the slot of the command's key, and starts the server again without
    /// its data.
    pub async fn restart_owner_empty(&mut self, command: &[&str]) {
        let port = self.owner(command).await.port();
        let mut servers = self.servers.iter_mut();
        let owner = servers.find(|server| server.port() == port);
        owner
            .expect("the server belongs to the cluster")
            .restart_empty()
            .await;
    }

    /// Begins to move the slot of a key to the server `to`.
    pub async fn begin_move(&self, key: &str, to: &Redis) -> SlotMove<'_> {
        let slot = self.servers[0].run(&["CLUSTER", "KEYSLOT", key]).await;
        let from = self.owner(&["GET", key]).await;
        assert_ne!(
            from.port(),
            to.port(),
            "the slot is already on the server `to`"
        );
        let moving = SlotMove {
            slot: slot.integer().to_string(),
            from,
            to_port: to.port(),
            to_id: to.run(&["CLUSTER", "MYID"]).await.text(),
            cluster: self,
        };
        let from_id = from.run(&["CLUSTER", "MYID"]).await.text();
        moving.set(to, &["IMPORTING", &from_id]).await;
        moving.set(from, &["MIGRATING", &moving.to_id]).await;
        moving
    }

    /// Every key of every server.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for server in &self.servers {
            keys.extend(server.keys().await);
        }
        keys
    }
}

/// A slot that is being moved to another primary, in the steps of `redis-cli --cluster reshard`.
#[derive(Debug)]
pub struct SlotMove<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    /// The primary from which the slot is moved.
    pub from: &'a Redis,
    to_port: u16,
    to_id: String,
}

impl SlotMove<'_> {
    async fn set(&self, server: &Redis, state: &[&str]) {
        let mut command = vec!["CLUSTER", "SETSLOT", &self.slot];
        command.extend(state);
        server.run(&command).await;
    }

    /// Moves at most `count` keys. Returns false if no key was left.
    pub async fn carry(&self, count: usize) -> bool {
        let count = count.to_string();
        let list = ["CLUSTER", "GETKEYSINSLOT", &self.slot, &count];
        let keys = self.from.run(&list).await.texts();
        if keys.is_empty() {
            return false;
        }
        let port = self.to_port.to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        command.extend(keys.iter().map(String::as_str));
        self.from.run(&command).await;
        true
    }

    /// Assigns the slot to the new primary, after the keys have been moved. The other servers learn
    /// of the assignment over the cluster bus.
    pub async fn end(&self) {
        let mut servers = self.cluster.servers.iter();
        let to = servers.find(|server| server.port() == self.to_port);
        let to = to.expect("the server belongs to the cluster");
        self.set(to, &["NODE", &self.to_id]).await;
    }

    /// Assigns the slot to the new primary on every server. The new primary gets the slot for the
    /// second time, and therefore drops the subscriptions in the slot.
    pub async fn tell(&self) {
        for server in &self.cluster.servers {
            self.set(server, &["NODE", &self.to_id]).await;
        }
    }
}

/// A primary and a replica. Replication can be held back before the replica takes over. Only the
/// test promotes the replica and moves gateways to it.
#[derive(Debug)]
pub struct Pair {
    primary: Redis,
    replica: Redis,
    replication: Proxy,
}

impl Pair {
    /// Starts the primary and the replica, and waits until they are in sync.
    pub async fn start() -> Self {
        let primary = Redis::start_with(&["repl-diskless-sync-delay 0"]).await;
        let replication = Proxy::start(primary.address()).await;
        let source = replication.address();
        let replicaof = format!("replicaof 127.0.0.1 {}", source.port());
        let replica = Redis::start_with(&[&replicaof, "repl-diskless-sync-delay 0"]).await;
        let pair = Self {
            primary,
            replica,
            replication,
        };
        pair.in_sync().await;
        pair
    }

    /// The current primary.
    pub fn primary(&self) -> &Redis {
        &self.primary
    }

    /// The replica of the current primary. Right after a promotion, the returned server is the
    /// former primary.
    pub fn replica(&self) -> &Redis {
        &self.replica
    }

    async fn in_sync(&self) {
        eventually_within(AGREEMENT, "the replica to be in sync", async || {
            let info = self.primary.run(&["INFO", "replication"]).await.text();
            info.contains("state=online").then_some(())
        })
        .await;
    }

    /// Holds replication back from now on: a failover loses everything that is written later.
    pub fn hold_back(&self) {
        self.replication.set(Link::STALLED);
    }

    /// Promotes the replica. The former primary keeps running, and is not notified.
    pub async fn promote(&mut self) {
        self.replica.run(&["REPLICAOF", "NO", "ONE"]).await;
        std::mem::swap(&mut self.primary, &mut self.replica);
    }

    /// Kills the process of the primary.
    pub fn kill_primary(&mut self) {
        self.primary.kill();
    }

    /// Restarts the former primary, without its data, as the replica of the new primary.
    pub async fn replace(&mut self) {
        self.replication.point_to(self.primary.address());
        self.replication.set(Link::CUT);
        self.replication.set(Link::PASS);
        self.replica.restart_empty().await;
        let port = self.replication.address().port().to_string();
        self.replica.run(&["REPLICAOF", "127.0.0.1", &port]).await;
        self.in_sync().await;
    }
}

/// A primary with a replica, and a sentinel that promotes the replica a second after the primary
/// has failed.
#[derive(Debug)]
pub struct Sentinel {
    /// The primary, until the failover.
    pub primary: Redis,
    /// The primary's replica.
    pub replica: Redis,
    replication: Proxy,
    sentinel: Redis,
}

impl Sentinel {
    /// Starts the primary, the replica and the sentinel. Waits until the sentinel knows the
    /// replica.
    pub async fn start() -> Self {
        let Pair {
            primary,
            replica,
            replication,
        } = Pair::start().await;
        let monitor = format!(
            "sentinel monitor {MASTER_NAME} 127.0.0.1 {} 1",
            primary.port()
        );
        let sentinel = Redis::start_sentinel(&[
            &monitor,
            &format!("sentinel down-after-milliseconds {MASTER_NAME} 1000"),
        ])
        .await;
        eventually_within(AGREEMENT, "the sentinel to know the replica", async || {
            let known = sentinel.run(&["SENTINEL", "REPLICAS", MASTER_NAME]).await;
            matches!(known, Reply::List(replicas) if replicas.len() == 1).then_some(())
        })
        .await;
        Self {
            primary,
            replica,
            replication,
            sentinel,
        }
    }

    /// The URL `redis+sentinel://…`, which also names a second sentinel that is down.
    pub fn url(&self) -> String {
        let (down, up) = (free_port(), self.sentinel.port());
        format!("redis+sentinel://127.0.0.1:{down},127.0.0.1:{up}/{MASTER_NAME}")
    }

    /// Ends the replication. A failover then loses every later write.
    pub fn cut_replication(&self) {
        self.replication.set(Link::CUT);
    }

    /// Waits until the server itself and the sentinel report that the replica has become the
    /// primary.
    pub async fn promoted(&self) {
        eventually_within(PATIENCE * 2, "the replica's promotion", async || {
            let role = self.replica.run(&["ROLE"]).await;
            let master = self
                .sentinel
                .run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])
                .await
                .texts();
            let Reply::List(role) = role else { return None };
            let promoted =
                role[0].text() == "master" && master[1] == self.replica.port().to_string();
            promoted.then_some(())
        })
        .await;
    }
}
