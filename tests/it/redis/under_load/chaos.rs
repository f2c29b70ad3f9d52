//! All faults of [`crate::redis::chaos`] at random, while the send queues are full.

use std::time::Duration;

use curfew_tests::{
    Audience, Cluster, Dice, Flood, Kind, LEASE, Link, Mark, Moment, Redis, WITNESS, Witness,
    eventually_within,
};
use serde_json::json;
use tokio::time::{sleep, sleep_until};

use super::{MOST, PATIENCE, Verdict, patient_redis, revoke, rounds, settings, user};

/// Number of nodes. The last node has no faults and has the publisher.
const NODES: usize = 4;

/// Number of turns. In each turn, two faults begin or end, and users are revoked.
const TURNS: usize = 16;

/// Number of users who are revoked in a turn.
const EACH: usize = 2;

/// Number of subscribers who are revoked.
const REVOKED: usize = TURNS * EACH;

/// Number of subscribers who are not revoked.
const SPARED: usize = 8;

/// Interval between two turns.
const TURN: Duration = Duration::from_millis(900);

/// Longest time for which a node is stopped. It is shorter than [`MOST`].
const STOPPED: Duration = Duration::from_millis(800);

/// Number of clients that stop reading in a turn. They read again one or two turns later.
const PAUSED: usize = 6;

/// Size of the data in a frame, in bytes. With it, the queue of a client that does not read is full
/// within a second.
const DATA: usize = 2_000;

/// Publications a second to all subscribers: the rate at which 40 clients can read on a small
/// machine.
const PACE: u64 = 1_500;

/// Publications a second of all users who publish until they are revoked.
const FLOODERS_PACE: u64 = 3_000;

/// Makes something fail, or makes it recover.
async fn fail(dice: &mut Dice, redis: &Redis, cluster: &Cluster) {
    let node = dice.below(NODES - 1);
    let link = dice.link();
    match dice.below(8) {
        0 | 1 => cluster.proxy(node).set(link),
        2 => cluster.proxy(node).set_only(Kind::Tracking, link),
        3 => cluster.proxy(node).set_only(Kind::Subscriber, link),
        4 => cluster.proxy(node).set_only(Kind::Other, link),
        5 => cluster.proxy(node).set(Link::PASS),
        6 => {
            let kind = ["normal", "pubsub"][dice.below(2)];
            kill_connections(redis, kind).await;
        }
        _ => {
            cluster[node].freeze().await;
            sleep(dice.time_below(STOPPED)).await;
            cluster[node].thaw();
        }
    }
}

/// Kills the connections that `CLIENT KILL TYPE` would kill, except those of the witness.
async fn kill_connections(redis: &Redis, kind: &str) {
    let mut connection = redis.connect().await;
    let list = connection.call(&["CLIENT", "LIST", "TYPE", kind]).await;
    let list = list.unwrap().text();
    let witness = format!(" name={WITNESS} ");
    for client in list.lines().filter(|client| !client.contains(&witness)) {
        let id = client
            .split(' ')
            .next()
            .and_then(|id| id.strip_prefix("id="));
        let kill = ["CLIENT", "KILL", "SKIPME", "yes", "ID", id.unwrap()];
        connection.call(&kill).await.unwrap().accepted();
    }
}

/// A user who publishes until the user is revoked in turn `turn`.
fn flooder(turn: usize) -> String {
    format!("flooder-{turn}")
}

async fn round(dice: &mut Dice) -> Verdict {
    let redis = patient_redis().await;
    let settings = settings(true).with("backend.grace = \"5m\"");
    let cluster = Cluster::behind_proxies(NODES, &redis, &settings).await;
    let mut clients = Vec::new();
    for n in 0..REVOKED + SPARED {
        clients.push(cluster[n % NODES].subscriber(&user(n), "room:1").await);
    }
    let audience = Audience::of(clients);
    let publisher = cluster[NODES - 1].user("publisher").await;
    let flood = Flood::start(vec![publisher], "room:1", DATA);
    flood.pace(PACE);
    // Each turn has one of these users, on a node with faults.
    let witness = Witness::start(redis.address(), &["room:2"]);
    let mut flooders = Vec::new();
    for turn in 0..TURNS {
        flooders.push(cluster[turn % (NODES - 1)].user(&flooder(turn)).await);
    }
    let flooding = Flood::start(flooders, "room:2", DATA / 10);
    flooding.pace(FLOODERS_PACE);

    let began = Moment::now();
    let mut keys: Vec<(Moment, Vec<String>)> = Vec::new();
    let mut marks: Vec<Mark> = Vec::new();
    let mut paused: Vec<usize> = Vec::new();
    for turn in 0..TURNS {
        let next = Moment::now() + TURN;
        fail(dice, &redis, &cluster).await;
        fail(dice, &redis, &cluster).await;
        let mut users: Vec<String> = (turn * EACH..(turn + 1) * EACH).map(user).collect();
        users.push(flooder(turn));
        let acknowledged = revoke(&mut redis.connect().await, &users).await;
        keys.push((acknowledged, users));
        // A signal may stop a node for up to [`STOPPED`] between its check and its write, so the
        // mark is made later than the lease.
        while keys
            .get(marks.len())
            .is_some_and(|(at, _)| Moment::now() > *at + LEASE + MOST)
        {
            marks.push(audience.mark().await);
        }
        let (node, revoked) = (dice.below(NODES), user(dice.below((turn + 1) * EACH)));
        let attempt = cluster[node].attempt(&revoked).await;
        assert!(
            attempt.is_revoked() || attempt.is_unavailable(),
            "{revoked}: {attempt:?}"
        );
        let read_again = paused.len().saturating_sub(PAUSED);
        for client in paused.drain(..read_again) {
            audience.resume(client);
        }
        for _ in 0..PAUSED {
            let client = dice.below(audience.count());
            audience.pause(client);
            paused.push(client);
        }
        sleep_until(next.instant()).await;
    }
    (0..audience.count()).for_each(|client| audience.resume(client));
    for (acknowledged, _) in keys.iter().skip(marks.len()) {
        sleep_until((*acknowledged + LEASE + MOST).instant()).await;
        marks.push(audience.mark().await);
    }
    let healed = Moment::now();
    (0..NODES).for_each(|node| cluster.proxy(node).set(Link::PASS));
    eventually_within(PATIENCE, "the end of every revoked session", async || {
        (0..REVOKED)
            .all(|client| audience.is_ended(client))
            .then_some(())
    })
    .await;
    for client in 0..REVOKED {
        let code = audience.closed(client);
        assert!(matches!(code, None | Some(4403)), "{client}: {code:?}");
    }
    for client in REVOKED..REVOKED + SPARED {
        eventually_within(PATIENCE, "a session that is served again", async || {
            audience.has_newer(client, healed).then_some(())
        })
        .await;
        assert!(audience.found(client, &json!({"type":"closing"})).is_none());
    }
    drop((flood, flooding));
    cluster.synced().await;
    for turn in 0..TURNS {
        cluster[turn % NODES].assert_refused(&user(turn)).await;
    }
    cluster.assert_well().await;
    verdict(&audience, &witness, began, keys.iter().zip(&marks))
}

/// Judges the frames that reached revoked users after the lease, and the publications of revoked
/// users that were executed after the lease.
fn verdict<'a>(
    audience: &Audience,
    witness: &Witness,
    began: Moment,
    keys: impl Iterator<Item = (&'a (Moment, Vec<String>), &'a Mark)>,
) -> Verdict {
    let gap = audience.longest_gap(began, Moment::now());
    if gap > MOST {
        return Verdict::Blind(gap);
    }
    let mut told = Vec::new();
    let users = keys.flat_map(|((acknowledged, users), mark)| {
        users.iter().map(move |user| (*acknowledged, user, mark))
    });
    for (acknowledged, user, mark) in users {
        if let Some(client) = user.strip_prefix("user-") {
            let late = audience.late(client.parse().unwrap(), mark);
            if late.bytes > 0 {
                told.push(format!(
                    "{user}: {} frames, {} bytes later than {:?} after the key, read at {:?}",
                    late.frames,
                    late.bytes,
                    mark.at().since(acknowledged),
                    late.read
                        .map(|read| read.map(|read| read.since(acknowledged)))
                ));
            }
        }
        let bound = acknowledged + LEASE + MOST;
        let late = witness.late(bound, |from| from == user);
        if let Some(last) = late.last() {
            told.push(format!(
                "{user}: {} publications executed late, the last {:?} after the key",
                late.len(),
                last.after.since(acknowledged)
            ));
        }
    }
    if told.is_empty() {
        let frames: usize = (0..audience.count())
            .map(|client| audience.publications(client))
            .sum();
        return Verdict::Held(format!(
            "{frames} frames and {} publications of the revoked, none late; longest gap {gap:?}",
            witness.count()
        ));
    }
    Verdict::Broken(told.join("; "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_load_nothing_passes_after_the_lease() {
    rounds("chaos at load", round).await;
}
