//! Checks every frame that many clients receive, while links, connections, nodes and data fail at
//! random.

mod book;
mod client;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_tests::{Cluster, Dice, Gateway, Kind, Link, Settings, eventually_within};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use book::{Book, place};
use client::Client;
use servers::Servers;

/// Number of clients.
const CLIENTS: usize = 10;

/// Number of steps of a run. Each step may begin or end a fault.
const STEPS: usize = 60;

/// Interval between two steps.
const STEP: Duration = Duration::from_millis(150);

/// Deadline for a cluster to recover, and for the clients to receive the last publication.
const RECOVERY: Duration = Duration::from_secs(45);

/// Time for which the stalled links deliver nothing.
const STALL: Duration = Duration::from_secs(20);

/// Longest time to wait for the answer to a publication.
const ANSWER: Duration = Duration::from_secs(5);

/// One of this many publications is sent to two nodes at the same time, with the same idempotency
/// key.
const TWINS: usize = 4;

/// The faults in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    None,
    /// Links and connections fail, data is lost, and nodes are stopped.
    Some,
    /// The same faults as in `Some`. In addition, the first two of four nodes are killed.
    Kills,
    /// The links of two nodes deliver nothing for twenty seconds.
    Stall,
    /// Nodes reload changed settings again and again. This must have no effect on clients.
    Reloads,
}

/// The settings of a run.
#[derive(Debug, Clone, Copy)]
struct Trial {
    channel: &'static str,
    /// Number of publications that the stream stores. It is so small that some clients reconnect
    /// too late to receive all that they missed.
    size: u32,
    window_bytes: u32,
    redis: servers::Kind,
    faults: Faults,
}

const TRIAL: Trial = Trial {
    channel: "room:1",
    size: 40,
    window_bytes: 4096,
    redis: servers::Kind::One,
    faults: Faults::Some,
};

impl Trial {
    fn has_faults(&self) -> bool {
        ![Faults::None, Faults::Reloads].contains(&self.faults)
    }

    fn fails_at_random(&self) -> bool {
        [Faults::Some, Faults::Kills].contains(&self.faults)
    }

    fn settings(&self) -> Settings {
        self.with_history(self.size, "10m")
    }

    fn with_history(&self, size: u32, ttl: &str) -> Settings {
        let rules = format!(
            "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
             actions = [\"subscribe\", \"publish\", \"history\"]\n\
             [[channels]]\npattern = \"*\"\nhistory = {{ size = {size}, ttl = \"{ttl}\" }}\n"
        );
        Settings::default()
            .rules(&rules)
            .with(&format!("limits.window_bytes = {}", self.window_bytes))
            .with("backend.grace = \"5m\"")
    }

    /// The path of the channel's history in the admin API.
    fn history_path(&self) -> String {
        let bytes = self.channel.bytes();
        let written: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
        format!("/v1/channels/{written}/history?limit=300")
    }
}

/// The state that the publishers share.
#[derive(Debug, Clone)]
struct Stage {
    trial: Trial,
    cluster: Arc<Cluster>,
    book: Arc<Mutex<Book>>,
    is_over: Arc<Mutex<bool>>,
}

impl Stage {
    /// Makes a random node reload its settings. The history and the window are unchanged or larger.
    fn reload(&self, dice: &mut Dice) {
        let (node, more) = (dice.below(self.cluster.nodes().len()), dice.below(3));
        let size = self.trial.size * [1, 1, 3][more];
        // The window is never smaller than at the start. With a smaller window, new publications
        // could overtake a read three times, and such a read recovers nothing.
        let window_bytes = self.trial.window_bytes << [0, 2, 8][dice.below(3)];
        let settings = self.trial.with_history(size, ["10m", "20m", "1h"][more]);
        let settings = settings.with(&format!("limits.window_bytes = {window_bytes}"));
        self.cluster[node].write_config(&self.at(node, settings));
        self.cluster[node].reload();
    }

    /// `settings` with the address of the node's own proxy to Redis.
    fn at(&self, node: usize, settings: Settings) -> Settings {
        settings.on_redis(&format!("redis://{}", self.cluster.proxy(node).address()))
    }

    /// Publishes `data` at a node, with the data as idempotency key. Returns false if the
    /// publication may not have been accepted.
    async fn publish(&self, node: usize, data: &str) -> bool {
        let body = json!({"channel":self.trial.channel,"data":data,"key":data});
        let asked = self.cluster[node].admin("POST", "/v1/publish", Some(body));
        let Ok((status, answer)) = timeout(ANSWER, asked).await else {
            return false;
        };
        if status == 200 {
            self.book.lock().note(place(&answer), &json!(data));
            return true;
        }
        assert!([503, 504].contains(&status), "{status} {answer}");
        false
    }

    /// Publishes numbers at the last node. Each number is sent with its idempotency key until it is
    /// accepted. Some numbers are also sent to the node before the last node, which may have
    /// faults.
    async fn publish_numbers(self, name: &'static str) {
        let last = self.cluster.nodes().len() - 1;
        let mut twins = JoinSet::new();
        for n in 0.. {
            if *self.is_over.lock() {
                break;
            }
            let data = format!("{name} {n}");
            if n % TWINS == 0 {
                let (stage, data) = (self.clone(), data.clone());
                twins.spawn(async move { stage.publish(last - 1, &data).await });
            }
            // A stored answer belongs to the epoch of its publication. In a new epoch, the
            // publication is not sent again.
            for _ in 0..100 {
                if self.publish(last, &data).await {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let taken = twins.join_all().await;
        // The faults of the node before the last node may last as long as the run.
        let is_all = taken.iter().all(|taken| *taken);
        assert!(self.trial.has_faults() || is_all, "{taken:?}");
    }
}

/// Makes something fail, or makes it recover. Returns true if data is lost.
async fn fail(dice: &mut Dice, servers: &Servers, cluster: &Cluster, alive: &[usize]) -> bool {
    // The last node never fails.
    let node = alive[dice.below(alive.len() - 1)];
    let link = dice.link();
    let proxy = cluster.proxies().get(node);
    match (dice.below(10), proxy) {
        (0, Some(proxy)) => proxy.set(link),
        (1, Some(proxy)) => proxy.set_only(Kind::Subscriber, link),
        (2, Some(proxy)) => proxy.set_only(Kind::Other, link),
        (3 | 4, Some(proxy)) => proxy.set(Link::PASS),
        (0 | 5, _) => {
            let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
            servers.run(dice, &kill).await;
        }
        (1 | 6, _) => {
            let kill = ["CLIENT", "KILL", "TYPE", "normal"];
            servers.run(dice, &kill).await;
        }
        (7, _) => servers.run(dice, &["SCRIPT", "FLUSH"]).await,
        (8, _) if dice.below(3) == 0 => {
            servers.run(dice, &["FLUSHALL"]).await;
            return true;
        }
        _ => {
            cluster[node].signal("STOP");
            sleep(Duration::from_millis(dice.below(1200) as u64)).await;
            cluster[node].signal("CONT");
        }
    }
    false
}

/// Stalls all links of the first node, and the link on which the second node receives publications.
/// After [`STALL`], the links deliver everything late.
async fn stall(cluster: &Cluster) {
    sleep(Duration::from_secs(2)).await;
    cluster.proxy(0).set(Link::STALLED);
    cluster.proxy(1).set_only(Kind::Subscriber, Link::STALLED);
    sleep(STALL).await;
    for proxy in cluster.proxies() {
        proxy.set(Link::PASS);
    }
}

/// Waits until `nodes` are connected to Redis.
async fn until_well(nodes: impl Iterator<Item = &Gateway>) {
    for node in nodes {
        node.until_in_touch(RECOVERY).await;
    }
}

/// Makes clients connect and disconnect while faults occur. Returns the nodes that were not killed,
/// and the number of times at which data was lost.
async fn come_and_go(
    dice: &mut Dice,
    servers: &Servers,
    stage: &Stage,
    clients: &mut [Client],
) -> (Vec<usize>, usize) {
    let Stage {
        trial,
        cluster,
        book,
        ..
    } = stage;
    let mut alive: Vec<usize> = (0..cluster.nodes().len()).collect();
    let mut losses = 0;
    for step in 0..STEPS {
        if trial.fails_at_random() && dice.below(3) == 0 {
            losses += usize::from(fail(dice, servers, cluster, &alive).await);
        }
        if trial.faults == Faults::Kills && [STEPS / 3, STEPS / 2].contains(&step) {
            let node = alive.remove(0);
            cluster[node].signal("KILL");
        }
        if trial.faults == Faults::Reloads {
            stage.reload(dice);
        }
        for _ in 0..2 {
            let client = &mut clients[dice.below(CLIENTS)];
            client.leave(&mut book.lock());
            let node = &cluster[alive[dice.below(alive.len())]];
            // A node that is stopped or cut off may not answer in time.
            drop(timeout(Duration::from_secs(2), client.join(node)).await);
        }
        sleep(STEP).await;
    }
    (alive, losses)
}

async fn every_frame_is_accounted_for(trial: Trial) {
    let began = Instant::now();
    let mut dice = Dice::new();
    let servers = Servers::start(trial.redis).await;
    let count = if trial.faults == Faults::Kills { 4 } else { 3 };
    let stage = Stage {
        trial,
        cluster: Arc::new(servers.gateways(count, &trial.settings()).await),
        book: Arc::default(),
        is_over: Arc::default(),
    };
    let (cluster, book) = (&stage.cluster, &stage.book);
    let mut publishers = JoinSet::new();
    for name in ["a", "b"] {
        publishers.spawn(stage.clone().publish_numbers(name));
    }
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(trial, n)).collect();
    let mut other_dice = dice.more();
    let stalling = async {
        if trial.faults == Faults::Stall {
            stall(cluster).await;
        }
    };
    let ((alive, losses), begun, ()) = tokio::join!(
        come_and_go(&mut dice, &servers, &stage, &mut clients),
        servers.fail(&mut other_dice, &stage),
        stalling,
    );
    for proxy in cluster.proxies() {
        proxy.set(Link::PASS);
    }
    *stage.is_over.lock() = true;
    publishers.join_all().await;
    until_well(alive.iter().map(|node| &cluster[*node])).await;
    let last = &cluster[count - 1];
    if trial.faults == Faults::Reloads {
        let settings = stage.at(count - 1, trial.settings());
        last.take_over(&settings, true).await;
    }
    let end = eventually_within(RECOVERY, "a last publication", async || {
        let body = json!({"channel":trial.channel,"data":"the end","key":"the end"});
        let (status, answer) = last.admin("POST", "/v1/publish", Some(body)).await;
        (status == 200).then_some(answer)
    })
    .await;
    book.lock().note(place(&end), &json!("the end"));
    let mut recoveries = 0;
    for client in &mut clients {
        client.until_current(&cluster[alive[0]], &end, book).await;
        client.leave(&mut book.lock());
        recoveries += client.recoveries;
    }
    let history = last.admin_ok("GET", &trial.history_path(), None).await;
    let mut book = book.lock();
    book.compare(&history, trial.size);
    let (count, epochs) = (book.len(), book.epochs());
    let took = began.elapsed();
    eprintln!("{count} publications in {epochs} epochs, {recoveries} recoveries, {took:?}");
    assert!(
        count > 100 && recoveries > 5,
        "the run had too few publications or recoveries"
    );
    assert!(
        epochs <= losses + begun + 1,
        "an epoch began without a loss of data"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_whatever_fails() {
    every_frame_is_accounted_for(TRIAL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_in_a_short_stream_with_a_small_window() {
    let trial = Trial {
        size: 5,
        window_bytes: 1024,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_when_nodes_are_killed() {
    let trial = Trial {
        channel: "räume:ä",
        faults: Faults::Kills,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_there_is_no_gap_and_all_that_is_kept_is_recovered() {
    let trial = Trial {
        channel: "}räume:{1}",
        faults: Faults::None,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_when_replicas_that_lag_take_over() {
    let trial = Trial {
        redis: servers::Kind::Pair,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_when_slots_move() {
    let trial = Trial {
        channel: "room:{ä}",
        redis: servers::Kind::Sharded,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_after_links_stood_still_for_long() {
    let trial = Trial {
        faults: Faults::Stall,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_make_no_gap_and_all_that_is_kept_is_recovered() {
    let trial = Trial {
        channel: "комната:👋",
        faults: Faults::Reloads,
        ..TRIAL
    };
    every_frame_is_accounted_for(trial).await;
}
