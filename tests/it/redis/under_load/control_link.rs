//! Only the node's control connection stalls. All other connections work, under load.

use curfew_tests::{Cluster, Dice, Flood, Flow, Kind, LEASE, Link, Settings};

use super::{
    DATA, FULL, LEAST, Load, MEANWHILE, PAUSED, REVOKED, SUBSCRIBERS, VERY_FULL, Verdict, bound,
    patient_redis, revoke, rounds, settings, user,
};

/// One of this many paused clients reads again before the lease ends.
const EARLIER: usize = 3;

/// Number of users who publish at the node while it has no lease.
const BUSY: usize = 16;

async fn round(settings: &Settings, full: f64, dice: &mut Dice) -> Verdict {
    let redis = patient_redis().await;
    let cluster = Cluster::behind_proxies(2, &redis, settings).await;
    let mut connection = redis.connect().await;
    let load = Load::start(&cluster).await;
    let mut busy = Vec::new();
    for n in 0..BUSY {
        busy.push(cluster[0].user(&format!("busy-{n}")).await);
    }
    load.fill(&cluster, full, dice).await;
    // The node does not receive the revocation, or it receives the revocation and cannot read the
    // key, or neither direction works.
    let links = [
        Link::STALLED,
        Link::only_down(Flow::Stall),
        Link::only_up(Flow::Stall),
    ];
    let link = links[dice.below(links.len())];
    cluster.proxy(0).set_only(Kind::Tracking, link);
    // These users' commands keep the node busy. It soon has to refuse them.
    let busy = Flood::start(busy, "room:2", DATA);
    let users: Vec<String> = (0..REVOKED).map(user).collect();
    let acknowledged = revoke(&mut connection, &users).await;
    load.flood.pace(MEANWHILE);
    // Some clients read again while the node holds its lease, and the others after it has lost its
    // lease.
    let paused = (0..SUBSCRIBERS).step_by(PAUSED);
    let (first, then) = paused.partition(|client| (client / PAUSED).is_multiple_of(EARLIER));
    load.resume(dice, first, LEASE).await;
    let mark = bound(&load.audience, acknowledged).await;
    load.resume(dice, then, LEAST).await;
    cluster.proxy(0).set(Link::PASS);
    load.until_well(&cluster).await;
    let verdict = load.verdict(acknowledged, &mark, 0);
    drop((load, busy));
    cluster.synced().await;
    cluster.assert_well().await;
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_control_connection_stalls_delivers_nothing_to_the_revoked() {
    rounds("control link", async |dice| {
        let large = [false, true][dice.below(2)];
        round(&settings(large), if large { VERY_FULL } else { FULL }, dice).await
    })
    .await;
}
