//! Presence under attack. Sessions come and go while nodes are stopped and killed and Redis is
//! restarted. Afterwards the lists show exactly the sessions that are subscribed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use curfew_testkit::{Connect, OutFrame};
use curfew_tests::{Cluster, Dice, Redis, RedisCluster, eventually_within};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::{GONE_WITHIN, Key, enter, listed, with_presence};

const ROOMS: usize = 4;

/// Number of sessions on each node that come and go at the same time.
const CHURN: usize = 8;

/// Repeats until `stop` is set: connects, subscribes and unsubscribes at random, and disconnects in
/// one of three ways.
async fn churn(connect: Connect, mut dice: Dice, stop: Arc<AtomicBool>) {
    const SOON: Duration = Duration::from_millis(60);
    while !stop.load(Ordering::Relaxed) {
        let opening = connect.clone().try_attempt();
        let opened = timeout(Duration::from_secs(2), opening).await;
        let Ok(Ok(Ok(mut client))) = opened else {
            sleep_until(Instant::now() + SOON).await;
            continue;
        };
        for kind in ["subscribe", "subscribe", "unsubscribe", "subscribe"] {
            let channel = format!("room:{}", dice.below(ROOMS));
            client
                .send(json!({"type":kind,"id":1,"channel":channel}))
                .await;
            if dice.below(2) == 0 {
                client.incoming(dice.time_below(SOON)).await;
            }
        }
        match dice.below(3) {
            0 => client.reset(),
            1 => client.send_frame(OutFrame::close(1000, b"")).await,
            _ => drop(client),
        }
    }
}

/// Runs `strike` while sessions come and go on every node. Then opens sessions that stay, and
/// checks that the lists show exactly these sessions.
async fn attack(mut cluster: Cluster, strike: impl AsyncFnOnce(&mut Cluster)) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut dice = Dice::new();
    let mut churning = JoinSet::new();
    for node in cluster.nodes() {
        for n in 0..CHURN {
            let token = Key::default_secret().user(&format!("user-{n}"));
            let seed = dice.below(usize::MAX) as u64 | 1;
            let connect = node.ws().bearer(&token);
            churning.spawn(churn(connect, Dice::of(seed), Arc::clone(&stop)));
        }
    }
    strike(&mut cluster).await;
    stop.store(true, Ordering::Relaxed);
    let ended = async { while churning.join_next().await.is_some() {} };
    timeout(Duration::from_secs(30), ended)
        .await
        .expect("every client stops in time");
    cluster.synced().await;
    let mut staying = Vec::new();
    for (at, node) in cluster.nodes().iter().enumerate() {
        for room in 0..ROOMS {
            let channel = format!("room:{room}");
            staying.push((room, enter(node, &format!("user-{at}"), &channel).await));
        }
    }
    for room in 0..ROOMS {
        let there: BTreeSet<&str> = staying
            .iter()
            .filter(|(at, _)| *at == room)
            .map(|(_, (_, session))| session.as_str())
            .collect();
        let what = format!("the list of room {room} to be exact");
        eventually_within(GONE_WITHIN, &what, async || {
            let seen = listed(&cluster[0], &format!("room:{room}")).await;
            let sessions = seen["sessions"].as_array()?.iter();
            let sessions: BTreeSet<&str> =
                sessions.filter_map(|one| one["session"].as_str()).collect();
            let exact = sessions == there && seen["count"] == there.len();
            (exact && seen["users"] == cluster.nodes().len()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "the long form: a minute and a half"]
async fn lists_are_exact_after_stops_kills_and_a_restart() {
    let mut redis = Redis::start_with(&["appendonly yes"]).await;
    let cluster = Cluster::start(4, &redis.url(), &with_presence()).await;
    attack(cluster, async |cluster| {
        let began = Instant::now();
        let at = |second: u64| sleep_until(began + Duration::from_secs(second));
        at(2).await;
        cluster[1].freeze().await;
        at(4).await;
        redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        at(6).await;
        drop(cluster.remove(3));
        at(9).await;
        redis.restart().await;
        at(14).await;
        redis.run(&["FLUSHALL"]).await;
        at(15).await;
        redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        at(18).await;
        cluster[2].signal("KILL");
        drop(cluster.remove(2));
        at(22).await;
        cluster[1].thaw();
        at(25).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "the long form: a minute and a half"]
async fn lists_are_exact_after_stops_and_kills_in_a_cluster() {
    let servers = RedisCluster::start().await;
    let cluster = Cluster::start(4, &servers.url(), &with_presence()).await;
    attack(cluster, async |cluster| {
        let began = Instant::now();
        let at = |second: u64| sleep_until(began + Duration::from_secs(second));
        at(2).await;
        cluster[1].freeze().await;
        for second in [4, 8, 12] {
            at(second).await;
            for server in servers.servers() {
                server.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            }
        }
        cluster[3].signal("KILL");
        drop(cluster.remove(3));
        at(14).await;
        // The first server loses all its data, also its entries of presence lists.
        servers.servers()[0].run(&["FLUSHALL"]).await;
        at(18).await;
        cluster[2].signal("KILL");
        drop(cluster.remove(2));
        at(22).await;
        cluster[1].thaw();
        at(25).await;
    })
    .await;
}
