//! The Redis of a trial, and its faults.

use std::time::Duration;

use curfew_tests::{Cluster, Dice, Link, Pair, Redis, RedisCluster, Settings, eventually_within};
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::{RECOVERY, Stage};

/// Minimum number of publications that a replica lacks when it takes over.
const LACKS: usize = 8;

/// The kind of a trial's Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    One,
    /// A primary, whose replica lags and takes over several times.
    Pair,
    /// A cluster, in which the channel's slot is moved several times.
    Sharded,
}

/// The servers. The two servers of a pair exchange their roles.
#[derive(Debug)]
pub(super) enum Servers {
    One(Redis),
    Pair(Box<RwLock<Pair>>),
    Sharded(RedisCluster),
}

impl Servers {
    pub(super) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::One => Self::One(Redis::start().await),
            Kind::Pair => Self::Pair(Box::new(RwLock::new(Pair::start().await))),
            Kind::Sharded => Self::Sharded(RedisCluster::start().await),
        }
    }

    /// Starts gateways on these servers. The gateways are behind proxies, except for a cluster,
    /// because a cluster announces its own addresses.
    pub(super) async fn gateways(&self, count: usize, settings: &Settings) -> Cluster {
        match self {
            Self::One(redis) => Cluster::behind_proxies(count, redis, settings).await,
            Self::Pair(pair) => {
                Cluster::behind_proxies(count, pair.read().await.primary(), settings).await
            }
            Self::Sharded(redis) => Cluster::start(count, &redis.url(), settings).await,
        }
    }

    /// Runs a command on the primary, or on a random primary of a cluster. Does nothing while the
    /// servers of a pair exchange their roles.
    pub(super) async fn run(&self, dice: &mut Dice, command: &[&str]) {
        match self {
            Self::One(redis) => drop(redis.run(command).await),
            Self::Pair(pair) => {
                let Ok(pair) = pair.try_read() else { return };
                drop(pair.primary().run(command).await);
            }
            Self::Sharded(redis) => {
                let server = &redis.servers()[dice.below(redis.servers().len())];
                drop(server.run(command).await);
            }
        }
    }

    /// Causes the faults of this kind of Redis, one after the other. Returns the number of faults
    /// that lost data or began an epoch.
    pub(super) async fn fail(&self, dice: &mut Dice, stage: &Stage) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Pair(pair) => fail_over(pair, dice, stage).await,
            Self::Sharded(redis) => move_slots(redis, dice, stage).await,
        }
    }
}

/// Promotes the replica, which lacks publications that were answered. The old primary is killed, or
/// it keeps running while gateways change to the new primary one after the other.
async fn fail_over(pair: &RwLock<Pair>, dice: &mut Dice, stage: &Stage) -> usize {
    const TIMES: usize = 3;
    let mut lagged = 0;
    for _ in 0..TIMES {
        sleep(dice.time_below(Duration::from_secs(2))).await;
        hold_back(pair, stage).await;
        let mut changing = pair.write().await;
        if let Some((epoch, top)) = position(changing.replica()).await {
            lagged += usize::from(top < stage.book.lock().top(&epoch));
        }
        let lives_on = dice.below(2) == 0;
        if !lives_on {
            changing.kill_primary();
        }
        changing.promote().await;
        let address = changing.primary().address();
        drop(changing);
        for proxy in stage.cluster.proxies() {
            proxy.point_to(address);
            if lives_on {
                sleep(dice.time_below(Duration::from_millis(500))).await;
                proxy.set(Link::CUT);
                proxy.set(Link::PASS);
            }
        }
        pair.write().await.replace().await;
    }
    assert!(lagged > 0, "no replica lacked anything");
    TIMES
}

/// Holds the replica back until it lacks publications that were answered.
async fn hold_back(pair: &RwLock<Pair>, stage: &Stage) {
    pair.read().await.hold_back();
    let before = stage.book.lock().len();
    eventually_within(RECOVERY, "answered publications", async || {
        (stage.book.lock().len() >= before + LACKS).then_some(())
    })
    .await;
}

/// The epoch and the top of the server's only stream.
async fn position(server: &Redis) -> Option<(String, i64)> {
    let keys = server.keys().await;
    let meta = keys.iter().find(|key| key.ends_with(":meta"))?;
    let told = server.run(&["HMGET", meta, "epoch", "top"]).await.texts();
    Some((told[0].clone(), told[1].parse().ok()?))
}

/// Moves the channel's slot from one primary to another, several times, a few keys at a time.
async fn move_slots(redis: &RedisCluster, dice: &mut Dice, stage: &Stage) -> usize {
    const TIMES: usize = 6;
    let name = format!("curfew:channel:{}", stage.trial.channel);
    for _ in 0..TIMES {
        sleep(dice.time_below(Duration::from_millis(1500))).await;
        let has = redis.owner(&["GET", &name]).await.port();
        let others: Vec<_> = redis
            .servers()
            .iter()
            .filter(|server| server.port() != has)
            .collect();
        let to = others[dice.below(others.len())];
        let moving = redis.begin_move(&name, to).await;
        let mut pause = Duration::from_millis(40);
        while moving.carry(1 + dice.below(20)).await {
            sleep(dice.time_below(pause)).await;
            // The pauses become shorter, because the slot has hundreds of keys: each idempotency
            // key is a key in Redis.
            pause = pause.mul_f64(0.9);
        }
        moving.end().await;
        sleep(dice.time_below(Duration::from_millis(500))).await;
        moving.tell().await;
    }
    TIMES
}
