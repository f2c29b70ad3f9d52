//! Every node is replaced, one by one, while clients follow the advice to reconnect (CONTRACT §4,
//! 1012).

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_testkit::{Connect, Incoming, PATIENCE, WsClient, opcode};
use curfew_tests::{Attempt, Gateway, Redis, Settings, eventually, eventually_within};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::haproxy::{LoadBalancer, Server};

const CLIENTS: usize = 2000;

/// One of this many clients subscribes to [`CHANNEL`].
const LISTENS: usize = 20;

const CHANNEL: &str = "room:1";

/// Interval between two publications.
const BEAT: Duration = Duration::from_millis(50);

/// `drain.window`. It is several times as long as the clients wait, so that an uneven spread of
/// closes is noticed.
const WINDOW: Duration = Duration::from_secs(8);

/// `drain.accept_grace`. It is longer than the second in which the load balancer notices that a
/// node drains.
const ACCEPT_GRACE: Duration = Duration::from_secs(2);

/// Silence after which a client considers its session dead. Pings come more often.
const SILENCE: Duration = Duration::from_secs(60);

/// The observations of all clients.
#[derive(Debug, Default)]
struct Ledger {
    /// Times at which sessions were opened.
    opened: Vec<Instant>,
    /// Number of sessions that each client has opened.
    times: Vec<usize>,
    /// Number of clients that have a session.
    present: usize,
    /// Number of publications that the subscribers have received.
    heard: usize,
    /// Faults that clients observed, such as a refusal.
    wrong: Vec<String>,
}

type Shared = Arc<Mutex<Ledger>>;

/// The end of a client's session.
struct Left {
    reconnect_after: Duration,
}

/// Opens a session. Every other result counts as a fault, also a 503.
async fn come(connect: &Connect, ledger: &Shared, client: usize) -> Option<WsClient> {
    match Attempt::make(connect.clone()).await {
        Attempt::Open(session) => {
            let mut ledger = ledger.lock();
            ledger.opened.push(Instant::now());
            ledger.times[client] += 1;
            ledger.present += 1;
            Some(*session)
        }
        other => {
            ledger.lock().wrong.push(format!("{client}: {other:?}"));
            None
        }
    }
}

/// Reads a text frame. If the server announces a close, returns its advice as an error.
async fn read(session: &mut WsClient, ledger: &Shared) -> Result<Value, Left> {
    let wrong = |what: String| {
        let mut ledger = ledger.lock();
        ledger.present -= 1;
        ledger.wrong.push(what);
        Err(Left {
            reconnect_after: Duration::from_secs(1),
        })
    };
    loop {
        let frame = match session.incoming(SILENCE).await {
            Incoming::Frame(frame) => frame,
            other => return wrong(format!("{other:?}")),
        };
        match frame.opcode {
            opcode::TEXT => {}
            opcode::CLOSE => {
                return wrong(format!(
                    "closed without an announcement: {:?}",
                    frame.close()
                ));
            }
            _ => continue,
        }
        let frame: Value = serde_json::from_str(frame.text()).expect("frames are JSON");
        if frame["type"] != "closing" {
            return Ok(frame);
        }
        if frame["code"] != 1012 || frame["reconnect"] != true {
            return wrong(frame.to_string());
        }
        let wait = frame["retry_after_ms"]
            .as_u64()
            .expect("the close says when to reconnect");
        session.closed().await;
        ledger.lock().present -= 1;
        return Err(Left {
            reconnect_after: Duration::from_millis(wait),
        });
    }
}

/// Runs a client that reconnects as advised, until the test ends.
async fn stay(connect: Connect, client: usize, ledger: Shared) {
    loop {
        let Some(mut session) = come(&connect, &ledger, client).await else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let left = if client.is_multiple_of(LISTENS) {
            listen(&mut session, &ledger).await
        } else {
            loop {
                if let Err(left) = read(&mut session, &ledger).await {
                    break left;
                }
            }
        };
        sleep(left.reconnect_after).await;
    }
}

/// Subscribes, and checks until the session ends that no publication is missing.
async fn listen(session: &mut WsClient, ledger: &Shared) -> Left {
    session
        .send(json!({"type":"subscribe","id":"s","channel":CHANNEL}))
        .await;
    let mut last: Option<u64> = None;
    loop {
        let frame = match read(session, ledger).await {
            Ok(frame) => frame,
            Err(left) => return left,
        };
        if frame["type"] != "message" {
            if frame["type"] != "ok" {
                ledger.lock().wrong.push(frame.to_string());
            }
            continue;
        }
        let number = frame["data"].as_u64().expect("a number");
        // The publisher sends a number again if its connection ends before the answer.
        let follows = last.is_none_or(|last| number == last || number == last + 1);
        let mut ledger = ledger.lock();
        ledger.heard += 1;
        if !follows {
            ledger.wrong.push(format!("{number} after {last:?}"));
        }
        last = Some(number);
    }
}

/// Publishes numbers in order, and reconnects as advised. A number is sent until it is accepted.
async fn publish(connect: Connect, client: usize, ledger: Shared) {
    let mut number = 0_u64;
    let mut beat = interval(BEAT);
    loop {
        let Some(mut session) = come(&connect, &ledger, client).await else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let left = loop {
            beat.tick().await;
            session
                .send(json!({"type":"publish","id":number,"channel":CHANNEL,"data":number}))
                .await;
            match read(&mut session, &ledger).await {
                Ok(answer) if answer["type"] == "ok" => number += 1,
                Ok(other) => ledger.lock().wrong.push(other.to_string()),
                Err(left) => break left,
            }
        };
        sleep(left.reconnect_after).await;
    }
}

/// Maximum number of sessions that were opened within one second after `since`.
fn busiest_second(opened: &[Instant], since: Instant) -> usize {
    let mut opened: Vec<Instant> = opened.iter().copied().filter(|at| *at > since).collect();
    opened.sort_unstable();
    let ends = opened.iter().enumerate().map(|(first, start)| {
        let within = |at: &Instant| at.duration_since(*start) < Duration::from_secs(1);
        opened[first..].iter().take_while(|at| within(at)).count()
    });
    ends.max().unwrap_or_default()
}

/// Starts every client and a publisher. They need not have a session yet when this returns.
async fn crowd(balancer: &LoadBalancer, ledger: &Shared) -> JoinSet<()> {
    ledger.lock().times = vec![0; CLIENTS + 1];
    let mut clients = JoinSet::new();
    // Clients start no faster than the nodes accept connections.
    let mut pace = interval(Duration::from_millis(1));
    for client in 0..CLIENTS {
        pace.tick().await;
        let connect = balancer.user(&format!("user-{client}"));
        clients.spawn(stay(connect, client, Arc::clone(ledger)));
    }
    let connect = balancer.user("publisher");
    clients.spawn(publish(connect, CLIENTS, Arc::clone(ledger)));
    clients
}

/// Asserts that the clients' sessions have records, that no other session has one, and that no key
/// names a node that has ended.
async fn assert_nothing_left_of(gone: &[String], redis: &Redis) {
    let keys = redis.keys().await;
    let records = keys.iter().filter(|key| key.starts_with("curfew:session:"));
    assert_eq!(records.count(), CLIENTS + 1);
    let of_the_gone = |key: &&String| gone.iter().any(|id| key.contains(id));
    let left: Vec<_> = keys.iter().filter(of_the_gone).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Starts a node at the addresses that the load balancer expects.
async fn start_at(server: Server, settings: &Settings) -> Gateway {
    let settings = settings
        .clone()
        .with(&format!("server.listen = \"{}\"", server.public))
        .with(&format!("admin.listen = \"{}\"", server.admin));
    Gateway::start_with(&settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_refused_and_none_is_lost_while_every_node_is_replaced() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .on_redis(&redis.url())
        .with("telemetry.log_level = \"info\"")
        // This is the value of the shipped configuration.
        .with("limits.unauthenticated_per_address = 16384")
        .with("limits.handshakes_per_second = 500")
        .with(&format!("drain.window = \"{}s\"", WINDOW.as_secs()))
        .with(&format!(
            "drain.accept_grace = \"{}s\"",
            ACCEPT_GRACE.as_secs()
        ));
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(Gateway::start_with(&settings).await);
    }
    let new: Vec<Server> = old.iter().map(|_| Server::reserve()).collect();
    let servers: Vec<Server> = old.iter().map(Server::from).chain(new.clone()).collect();
    let balancer = LoadBalancer::start(&servers).await;
    for (at, node) in old.iter().enumerate() {
        node.until_in_touch(PATIENCE).await;
        balancer.until_in_service(at, true).await;
        balancer.until_in_service(old.len() + at, false).await;
    }

    let ledger = Shared::default();
    let mut clients = crowd(&balancer, &ledger).await;
    let all_present = async || (ledger.lock().present == CLIENTS + 1).then_some(());
    eventually_within(PATIENCE * 3, "every client to come", all_present).await;

    let began = Instant::now();
    let (mut nodes, mut gone, mut most) = (Vec::new(), Vec::new(), 0.0_f64);
    for (at, mut leaving) in old.into_iter().enumerate() {
        let came = start_at(new[at], &settings).await;
        came.until_in_touch(PATIENCE).await;
        balancer.until_in_service(3 + at, true).await;
        nodes.push(came);
        most = most.max(leaving.metric("curfew_sessions").await);
        gone.push(leaving.id().await);
        leaving.terminate();
        assert_eq!(leaving.exited(ACCEPT_GRACE + WINDOW + PATIENCE).await, 0);
        let log = leaving.log().text();
        assert!(!log.contains("left after the drain"), "{log}");
    }
    eventually("every client to be back", all_present).await;
    let heard = ledger.lock().heard;
    eventually(
        "publications after the last node was replaced",
        async || (ledger.lock().heard > heard + CLIENTS / LISTENS * 2).then_some(()),
    )
    .await;

    let mut sessions = 0.0;
    for node in &nodes {
        sessions += node.metric("curfew_sessions").await;
    }
    assert_eq!(sessions, (CLIENTS + 1) as f64);
    assert_nothing_left_of(&gone, &redis).await;
    clients.shutdown().await;
    let ledger = ledger.lock();
    assert!(ledger.wrong.is_empty(), "{:#?}", ledger.wrong);
    // The closes are spread evenly over the window. Clients return up to three seconds later, so
    // they return at the rate of the closes. The bound is twice that rate, for a busy machine. If
    // all clients were closed at once, the rate would be higher still.
    let busiest = busiest_second(&ledger.opened, began);
    let even = most / WINDOW.as_secs_f64();
    let back = ledger.opened.len() - CLIENTS - 1;
    println!(
        "{back} sessions opened again in {:?}, {busiest} in the busiest second; {even:.0} a second \
         left a node; at most {} of one client",
        began.elapsed(),
        ledger.times.iter().max().unwrap() - 1,
    );
    assert!(
        (busiest as f64) < 2.0 * even + 20.0,
        "{busiest} sessions were opened in one second, but {even} a second were closed"
    );
}
