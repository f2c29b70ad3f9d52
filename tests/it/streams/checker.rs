//! Every frame of many clients is accounted for, while links, connections, nodes and data fail at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_tests::{Attempt, Cluster, Dice, Gateway, Kind, Link, Redis, Tape, eventually_within};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::with_streams;

/// Number of clients.
const CLIENTS: usize = 10;

/// Number of times that something happens.
const STEPS: usize = 60;

/// Time between two of them.
const STEP: Duration = Duration::from_millis(150);

/// Time for a cluster to be well again, and for a quiet channel to be compared.
const RECOVERY: Duration = Duration::from_secs(45);

/// Publications kept: few enough that clients come too late for some.
const SIZE: u32 = 40;

/// A place in the stream: its epoch and offset.
type Place = (String, i64);

/// The data at each place, as publishers were answered and clients were sent.
#[derive(Debug, Default)]
struct Book(BTreeMap<Place, Value>);

impl Book {
    fn note(&mut self, place: Place, data: &Value) {
        let known = self.0.entry(place.clone()).or_insert_with(|| data.clone());
        assert_eq!(known, data, "two publications at {place:?}");
    }
}

/// A client that comes and goes and keeps its place.
#[derive(Debug)]
struct Client {
    user: String,
    place: Option<Place>,
    tape: Option<Tape>,
}

impl Client {
    /// Subscribes at a node with the place that was reached. A node that is not well refuses, and the client stays
    /// away.
    async fn join(&mut self, node: &Gateway) {
        let Attempt::Open(client) = node.attempt(&self.user).await else {
            return;
        };
        let tape = Tape::of(*client);
        let mut command = json!({"type":"subscribe","id":"join","channel":"room:1"});
        if let Some((epoch, offset)) = &self.place {
            command["since"] = json!({"epoch":epoch,"offset":offset});
        }
        tape.send(command);
        self.tape = Some(tape);
    }

    /// Leaves, and checks all that came since it joined.
    fn leave(&mut self, book: &mut Book) {
        let Some(tape) = self.tape.take() else { return };
        let since = self.place.clone();
        let mut place: Option<Place> = None;
        let seen = tape.seen();
        for frame in seen.iter().map(|seen| &seen.frame) {
            let offset = frame["offset"].as_i64();
            match frame["type"].as_str() {
                Some("ok") => {
                    assert!(place.is_none(), "one answer: {seen:?}");
                    let told = (frame["epoch"].as_str().unwrap().to_owned(), offset.unwrap());
                    // With `recovered` what is missing follows.
                    place = match (&since, frame["recovered"].as_bool()) {
                        (Some(since), Some(true)) => {
                            assert_eq!(since.0, told.0, "recovered within an epoch");
                            assert!(since.1 <= told.1, "{since:?} {told:?}");
                            Some(since.clone())
                        }
                        (Some(_), Some(false)) | (None, None) => Some(told),
                        other => panic!("{other:?}: {seen:?}"),
                    };
                }
                Some("message") => {
                    let (epoch, at) = place
                        .clone()
                        .unwrap_or_else(|| panic!("before the answer: {seen:?}"));
                    assert_eq!(
                        offset,
                        Some(at + 1),
                        "a hole or a double of {}: {seen:?}",
                        self.user
                    );
                    place = Some((epoch, at + 1));
                    book.note(place.clone().unwrap(), &frame["data"]);
                }
                Some("gap") => {
                    let (epoch, at) = place
                        .clone()
                        .unwrap_or_else(|| panic!("before the answer: {seen:?}"));
                    let told = (frame["epoch"].as_str().unwrap().to_owned(), offset.unwrap());
                    assert!(epoch != told.0 || at < told.1, "a gap of nothing: {seen:?}");
                    place = Some(told);
                }
                _ => {}
            }
        }
        // Without an answer the place is as it was.
        self.place = place.or(since);
    }
}

impl Client {
    /// Waits until it has the last publication, or was told a place behind it. Where it was refused or its connection was
    /// lost it comes again.
    async fn until_current(&mut self, node: &Gateway, end: &Value, book: &Mutex<Book>) {
        let by = Instant::now() + RECOVERY;
        loop {
            let has = |expect: Value| {
                let tape = self.tape.as_ref();
                tape.is_some_and(|tape| !tape.matching(&expect).is_empty())
            };
            let is_at =
                |kind: &str| has(json!({"type":kind,"epoch":end["epoch"],"offset":end["offset"]}));
            // With `recovered` the last publication follows the answer.
            if has(json!({"data":"the end"})) || is_at("gap") || is_at("ok") {
                return;
            }
            let is_lost = self.tape.as_ref().is_none_or(Tape::is_closed);
            if is_lost || has(json!({"type":"error"})) {
                self.leave(&mut book.lock());
                self.join(node).await;
            }
            assert!(
                Instant::now() < by,
                "{} is not current: {:?}",
                self.user,
                self.tape.as_ref().map(Tape::seen)
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Publishes numbers at the last node, each with its key until it is answered.
async fn publish(
    address: Arc<Cluster>,
    name: &'static str,
    book: Arc<Mutex<Book>>,
    until: Arc<Mutex<bool>>,
) {
    let last = address.nodes().len() - 1;
    for n in 0.. {
        if *until.lock() {
            return;
        }
        let data = json!(format!("{name} {n}"));
        let body = json!({"channel":"room:1","data":data,"key":format!("{name} {n}")});
        // An epoch that is over keeps its answer: it is told where it was, and is sent no more.
        for _ in 0..100 {
            let asked = address[last].admin("POST", "/v1/publish", Some(body.clone()));
            let Ok((status, answer)) = timeout(Duration::from_secs(5), asked).await else {
                continue;
            };
            if status == 200 {
                let epoch = answer["epoch"].as_str().unwrap().to_owned();
                let offset = answer["offset"].as_i64().unwrap();
                book.lock().note((epoch, offset), &data);
                break;
            }
            assert!([503, 504].contains(&status), "{status} {answer}");
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn fail(dice: &mut Dice, redis: &Redis, cluster: &Cluster) {
    let node = dice.below(cluster.nodes().len() - 1);
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
        }
        _ => {
            cluster[node].signal("STOP");
            sleep(Duration::from_millis(dice.below(1200) as u64)).await;
            cluster[node].signal("CONT");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_accounted_for_whatever_fails() {
    let mut dice = Dice::new();
    let redis = Redis::start().await;
    let settings = with_streams(SIZE)
        .with("limits.window_bytes = 4096")
        .with("backend.grace = \"5m\"");
    let cluster = Arc::new(Cluster::behind_proxies(3, &redis, &settings).await);
    let book = Arc::new(Mutex::new(Book::default()));
    let is_over = Arc::new(Mutex::new(false));
    let mut publishers = JoinSet::new();
    for name in ["a", "b"] {
        publishers.spawn(publish(
            Arc::clone(&cluster),
            name,
            Arc::clone(&book),
            Arc::clone(&is_over),
        ));
    }
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|n| Client {
            user: format!("user-{n}"),
            place: None,
            tape: None,
        })
        .collect();
    for _ in 0..STEPS {
        if dice.below(3) == 0 {
            fail(&mut dice, &redis, &cluster).await;
        }
        for _ in 0..2 {
            let client = &mut clients[dice.below(CLIENTS)];
            client.leave(&mut book.lock());
            let node = &cluster[dice.below(3)];
            // A node that is stopped or cut off may not answer.
            drop(timeout(Duration::from_secs(2), client.join(node)).await);
        }
        sleep(STEP).await;
    }
    for node in 0..3 {
        cluster.proxy(node).set(Link::PASS);
    }
    *is_over.lock() = true;
    publishers.join_all().await;
    cluster.synced().await;
    let end = eventually_within(RECOVERY, "a last publication", async || {
        let body = json!({"channel":"room:1","data":"the end","key":"the end"});
        let (status, answer) = cluster[2].admin("POST", "/v1/publish", Some(body)).await;
        (status == 200).then_some(answer)
    })
    .await;
    for client in &mut clients {
        client.until_current(&cluster[0], &end, &book).await;
        client.leave(&mut book.lock());
    }
    let book = book.lock();
    let epochs: std::collections::BTreeSet<_> = book.0.keys().map(|(epoch, _)| epoch).collect();
    eprintln!("{} publications in {} epochs", book.0.len(), epochs.len());
    assert!(book.0.len() > 100, "too few to tell anything");
}
