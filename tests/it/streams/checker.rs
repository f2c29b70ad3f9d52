//! Every frame of many clients is accounted for, under random faults of links, connections, nodes
//! and data.

mod book;
mod client;

use std::sync::Arc;
use std::time::Duration;

use curfew_tests::{Cluster, Dice, Gateway, Kind, Link, Redis, Settings, eventually_within};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use book::{Book, place};
use client::Client;

/// Number of clients.
const CLIENTS: usize = 10;

/// Number of random faults.
const STEPS: usize = 60;

/// Interval between two faults.
const STEP: Duration = Duration::from_millis(150);

/// Deadline for a cluster to recover, and for a quiet channel to be compared.
const RECOVERY: Duration = Duration::from_secs(45);

/// Longest wait for the answer to a publication.
const ANSWER: Duration = Duration::from_secs(5);

/// One publication in so many is sent to two nodes at once, with the same key.
const TWINS: usize = 4;

/// The faults of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    None,
    /// Faults of links, connections and data, and stops of nodes.
    Some,
    /// The same, and the first two of four nodes are killed.
    Kills,
}

/// A kind of run.
#[derive(Debug, Clone, Copy)]
struct Trial {
    channel: &'static str,
    /// Number of stored publications, so small that clients reconnect too late for some.
    size: u32,
    window_bytes: u32,
    faults: Faults,
}

const TRIAL: Trial = Trial {
    channel: "room:1",
    size: 40,
    window_bytes: 4096,
    faults: Faults::Some,
};

impl Trial {
    fn has_faults(&self) -> bool {
        self.faults != Faults::None
    }

    fn settings(&self) -> Settings {
        let rules = format!(
            "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
             actions = [\"subscribe\", \"publish\", \"history\"]\n\
             [[channels]]\npattern = \"*\"\nhistory = {{ size = {}, ttl = \"10m\" }}\n",
            self.size
        );
        Settings::default()
            .rules(&rules)
            .with(&format!("limits.window_bytes = {}", self.window_bytes))
            .with("backend.grace = \"5m\"")
    }

    /// The path of the history in the admin API.
    fn history_path(&self) -> String {
        let bytes = self.channel.bytes();
        let written: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
        format!("/v1/channels/{written}/history?limit=300")
    }
}

/// The state that publishers share.
#[derive(Debug, Clone)]
struct Stage {
    trial: Trial,
    cluster: Arc<Cluster>,
    book: Arc<Mutex<Book>>,
    is_over: Arc<Mutex<bool>>,
}

impl Stage {
    /// Publishes at a node, with the data as key. Returns false if it may not have been accepted.
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

    /// Publishes numbers at the last node, each with its key until it is answered. Some are also
    /// sent to the node before it, which has its own faults.
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
            // The key's answer belongs to its epoch: in a new epoch the publication is not sent
            // again.
            for _ in 0..100 {
                if self.publish(last, &data).await {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let taken = twins.join_all().await;
        // The other node's faults may last as long as the run.
        let is_all = taken.iter().all(|taken| *taken);
        assert!(self.trial.has_faults() || is_all, "{taken:?}");
    }
}

/// Makes something fail. Returns true if data are lost.
async fn fail(dice: &mut Dice, redis: &Redis, cluster: &Cluster, alive: &[usize]) -> bool {
    // The last node stays healthy.
    let node = alive[dice.below(alive.len() - 1)];
    let link = dice.link();
    match dice.below(10) {
        0 => cluster.proxy(node).set(link),
        1 => cluster.proxy(node).set_only(Kind::Subscriber, link),
        2 => cluster.proxy(node).set_only(Kind::Other, link),
        3 | 4 => cluster.proxy(node).set(Link::PASS),
        5 => {
            redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        6 => {
            redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        7 => {
            redis.run(&["SCRIPT", "FLUSH"]).await;
        }
        8 if dice.below(3) == 0 => {
            redis.run(&["FLUSHALL"]).await;
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

/// Waits until these nodes are connected to Redis.
async fn until_well(nodes: impl Iterator<Item = &Gateway>) {
    for node in nodes {
        node.until_in_touch(RECOVERY).await;
    }
}

async fn every_frame_is_accounted_for(trial: Trial) {
    let mut dice = Dice::new();
    let redis = Redis::start().await;
    let count = if trial.faults == Faults::Kills { 4 } else { 3 };
    let stage = Stage {
        trial,
        cluster: Arc::new(Cluster::behind_proxies(count, &redis, &trial.settings()).await),
        book: Arc::default(),
        is_over: Arc::default(),
    };
    let (cluster, book) = (&stage.cluster, &stage.book);
    let mut publishers = JoinSet::new();
    for name in ["a", "b"] {
        publishers.spawn(stage.clone().publish_numbers(name));
    }
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(trial, n)).collect();
    let mut alive: Vec<usize> = (0..count).collect();
    let mut losses = 0;
    for step in 0..STEPS {
        if trial.has_faults() && dice.below(3) == 0 {
            losses += usize::from(fail(&mut dice, &redis, cluster, &alive).await);
        }
        if trial.faults == Faults::Kills && [STEPS / 3, STEPS / 2].contains(&step) {
            let node = alive.remove(0);
            cluster[node].signal("KILL");
        }
        for _ in 0..2 {
            let client = &mut clients[dice.below(CLIENTS)];
            client.leave(&mut book.lock());
            let node = &cluster[alive[dice.below(alive.len())]];
            // A node that is stopped or cut off may not answer.
            drop(timeout(Duration::from_secs(2), client.join(node)).await);
        }
        sleep(STEP).await;
    }
    for node in &alive {
        cluster.proxy(*node).set(Link::PASS);
    }
    *stage.is_over.lock() = true;
    publishers.join_all().await;
    until_well(alive.iter().map(|node| &cluster[*node])).await;
    let last = &cluster[count - 1];
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
    eprintln!("{count} publications in {epochs} epochs, {recoveries} recoveries");
    assert!(count > 100 && recoveries > 5, "too few to tell anything");
    assert!(epochs <= losses + 1, "an epoch without a loss");
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
