use curfew_backend::conformance::{ManualClock, Recorder};
use curfew_model::{Channel, DeliveryLease, NodeId};
use curfew_telemetry::Registry;
use tokio::sync::mpsc;

use crate::config::RedisAddress;
use crate::connect::Connector;
use crate::core::Core;
use crate::inbox::Inbox;
use crate::slots::Slot;
use crate::{RedisBackendConfig, RedisMetrics, RedisUrl};

use super::*;

/// Connections of a node that cannot reach Redis.
fn connections() -> Arc<Connections> {
    let config = RedisBackendConfig::default();
    let url = RedisUrl::new("redis+cluster://127.0.0.1:1".to_owned());
    let server = url.parse().unwrap();
    let recorder = Arc::new(Recorder::default());
    let core = Core::new(
        NodeId::new(),
        config.clone(),
        Connector::new(config.redis, server, None),
        Arc::clone(&recorder) as _,
        recorder,
        Arc::new(DeliveryLease::not_held()),
        Arc::new(ManualClock::default()),
        RedisMetrics::register(&Registry::default()),
    );
    let (requests, _) = mpsc::channel(1);
    let inbox = Inbox::new(Arc::clone(&core), requests);
    Connections::new(core, inbox)
}

/// A layout of two servers. `slots` holds the slot ranges of each server.
fn layout(slots: [&[(Slot, Slot)]; 2]) -> Layout {
    let shards = slots.iter().zip(1..).map(|(slots, port)| Shard {
        address: RedisAddress {
            host: "127.0.0.1".to_owned(),
            port,
        },
        slots: slots.to_vec(),
    });
    Layout {
        cluster: true,
        shards: shards.collect(),
    }
}

/// Regression: the node subscribed to the channel on the new primary before it noted the
/// interruption on the old primary. The listeners were then not notified of the gap.
#[tokio::test]
async fn a_slot_that_leaves_a_server_is_an_interruption_before_another_can_carry_it() {
    let connections = connections();
    let channel = Channel::parse("room:1").unwrap();
    connections.update(&layout([&[Slot::ALL], &[]]));
    connections.wanted.lock().insert(channel.clone());
    let first = connections.of(Slot::ALL.0).unwrap();
    first.carry();
    // No other task runs before `update` returns, so `update` itself must note the interruption.
    connections.update(&layout([&[], &[Slot::ALL]]));
    assert!(connections.missed.lock().remove(&channel));
    // The old connection is given up now. Its loss is no interruption of the channel, which another
    // server carries.
    connections.note_missed(&first);
    assert!(connections.missed.lock().is_empty());
}

#[tokio::test]
async fn a_slot_that_stays_is_no_interruption() {
    let connections = connections();
    let channel = Channel::parse("room:1").unwrap();
    let slot = slot_of(connections.core.keys.channel(&channel).as_bytes());
    let others = |slot: Slot| (Slot(slot.0 + 1), Slot::ALL.1);
    connections.update(&layout([&[(Slot::ALL.0, slot), others(slot)], &[]]));
    connections.wanted.lock().insert(channel.clone());
    let first = connections.of(slot).unwrap();
    first.carry();
    connections.update(&layout([&[(Slot::ALL.0, slot)], &[others(slot)]]));
    assert!(connections.missed.lock().is_empty());
    // The loss of the connection is still an interruption of the channel.
    connections.note_missed(&first);
    assert!(connections.missed.lock().remove(&channel));
}
