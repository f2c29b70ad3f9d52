//! The Redis of a run, and its faults.

use std::time::Duration;

use curfew_tests::{Cluster, Dice, Link, Pair, Redis, RedisCluster, Settings, eventually_within};
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::{RECOVERY, Stage};

/// Minimum number of publications that the replica lacks when it takes over.
const LACKS: usize = 8;

/// The kind of Redis in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    One,
    /// A primary and a replica. Several times, the replica falls behind and takes over.
    Pair,
    /// A cluster in which the slot of the channel moves several times.
    Sharded,
}

/// The servers of a run. The two servers of a pair exchange their roles.
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

    /// Starts gateways on these servers. The gateways connect through proxies, except to a cluster,
    /// which announces its own addresses.
    pub(super) async fn gateways(&self, count: usize, settings: &Settings) -> Cluster {
        match self {
            Self::One(redis) => Cluster::behind_proxies(count, redis, settings).await,
            Self::Pair(pair) => {
                Cluster::behind_proxies(count, pair.read().await.primary(), settings).await
            }
            Self::Sharded(redis) => Cluster::start(count, &redis.url(), settings).await,
        }
    }

    /// Runs a command on the primary, or on one of the primaries of a cluster. Does nothing while a
    /// pair exchanges its roles.
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

    /// Causes the faults of this kind of Redis, one after the other. Returns their number. Each
    /// fault may lose data or begin an epoch.
    pub(super) async fn fail(&self, dice: &mut Dice, stage: &Stage) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Pair(pair) => fail_over(pair, dice, stage).await,
            Self::Sharded(redis) => move_slots(redis, dice, stage).await,
        }
    }
}

/// Promotes the replica, which lacks publications that were answered. Either the primary is killed,
/// or it stays alive while the gateways move to the new primary one after the other.
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
    assert!(
        lagged > 0,
        "no replica lacked a publication when it was promoted"
    );
    TIMES
}

/// Holds the replica back, until it lacks at least [`LACKS`] publications that were answered.
async fn hold_back(pair: &RwLock<Pair>, stage: &Stage) {
    pair.read().await.hold_back();
    let before = stage.book.lock().len();
    eventually_within(RECOVERY, "answered publications", async || {
        (stage.book.lock().len() >= before + LACKS).then_some(())
    })
    .await;
}

/// The epoch and the highest offset of the only stream on a server.
async fn position(server: &Redis) -> Option<(String, i64)> {
    let keys = server.keys().await;
    let meta = keys.iter().find(|key| key.ends_with(":meta"))?;
    let told = server.run(&["HMGET", meta, "epoch", "top"]).await.texts();
    Some((told[0].clone(), told[1].parse().ok()?))
}

/// Moves the slot of the channel between primaries several times, a few keys at a time.
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
            // The slot has hundreds of keys, because each idempotency key is a key of its own. The
            // pauses therefore become shorter.
            pause = pause.mul_f64(0.9);
        }
        moving.end().await;
        sleep(dice.time_below(Duration::from_millis(500))).await;
        moving.tell().await;
    }
    TIMES
}
