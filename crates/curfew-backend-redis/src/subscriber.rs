//! The connection that receives publications, one for each primary.
//!
//! Redis does not report missed publications to a subscriber. An open connection may receive
//! nothing, because its server is no longer the primary or the network has lost the connection. A
//! probe is therefore published to each connection every second. After a connection was lost, the
//! listeners of each channel that it carried are notified of a gap as soon as the channel is
//! subscribed again.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use curfew_model::{Channel, GapReason};
use redis::{PushInfo, PushKind, Value, cmd, from_redis_value, pipe};
use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::connect::{Connection, Login};
use crate::connections::{Connections, PROBE_INTERVAL, ServerConnections};
use crate::fault::Fault;
use crate::layout::check_primary;
use crate::slots::slot_of;

/// Maximum number of channels subscribed to in one pipeline.
const BATCH: usize = 1000;

/// Maximum number of names tried to find a probe channel in the server's slots.
const PROBE_NUMBERS: u32 = 1 << 20;

/// The commands that publish and subscribe. A cluster uses other commands, which deliver a
/// publication only within the shard of its channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verbs {
    pub(crate) publish: &'static str,
    pub(crate) subscribe: &'static str,
    pub(crate) unsubscribe: &'static str,
}

impl Verbs {
    /// The commands for a cluster or a single primary.
    pub(crate) fn new(cluster: bool) -> Self {
        if cluster {
            Self {
                publish: "SPUBLISH",
                subscribe: "SSUBSCRIBE",
                unsubscribe: "SUNSUBSCRIBE",
            }
        } else {
            Self {
                publish: "PUBLISH",
                subscribe: "SUBSCRIBE",
                unsubscribe: "UNSUBSCRIBE",
            }
        }
    }
}

/// The state that the connection's own task shares with the task that watches the connection.
#[derive(Debug, Default)]
struct Heard {
    /// The number of the last probe that was received.
    probe: AtomicU64,
    /// Notified when a probe is received.
    news: Notify,
    /// Notified when the connection is lost.
    gone: Notify,
    /// The number of channels whose listeners were notified of a gap.
    gaps: AtomicUsize,
    /// True once the connection was given up. Pushes may still be in its buffer.
    has_ended: AtomicBool,
    /// True once the server has ended subscriptions that this node had not ended.
    dropped: AtomicBool,
}

/// Marks a connection as given up when this value is dropped.
struct EndOnDrop(Arc<Heard>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
    }
}

/// Keeps a connection for publications for as long as the server is a primary.
pub(crate) async fn keep(
    connections: Arc<Connections>,
    server: Arc<ServerConnections>,
    cluster: bool,
) {
    let verbs = Verbs::new(cluster);
    let mut backoff = Backoff::default();
    let mut was_connected = false;
    let keeping = async {
        loop {
            let fault = match serve(&connections, &server, verbs, &mut backoff).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            let connected = server.subscriber.swap(None).is_some();
            // The interruption is recorded after `subscriber` is cleared, so that no channel counts
            // as carried any more.
            connections.note_missed(&server);
            connections.note_connected();
            if fault.is_misrouted() {
                connections.stale.notify_one();
            }
            if connected {
                was_connected = true;
                let errors = &connections.core.metrics.broker_errors;
                errors.inc(fault.as_broker_error());
                warn!(redis = %server.address, error = %fault, "connection for publications lost; some publications may be missed");
            } else {
                debug!(redis = %server.address, error = %fault, "no connection for publications");
            }
            if was_connected {
                connections.core.metrics.broker_reconnects.inc();
            }
            time::sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = server.stopped() => {}
    }
    server.subscriber.store(None);
    connections.note_missed(&server);
    connections.note_connected();
}

/// Runs one connection until a fault ends it.
async fn serve(
    connections: &Arc<Connections>,
    server: &ServerConnections,
    verbs: Verbs,
    backoff: &mut Backoff,
) -> Result<Infallible, Fault> {
    let probe = probe_channel(connections, server).ok_or(Fault::NotConnected)?;
    let heard = Arc::new(Heard::default());
    let _ended = EndOnDrop(Arc::clone(&heard));
    let pushes = {
        let (connections, heard, probe) =
            (Arc::clone(connections), Arc::clone(&heard), probe.clone());
        move |push: PushInfo| {
            take(&connections, &heard, &probe, push);
            Ok::<(), ()>(())
        }
    };
    let connector = &connections.core.connector;
    let mut connection = connector
        .connect(&server.address, Login::Server, Some(pushes))
        .await?;
    // The role is checked before any subscription, because a replica would deliver publications and
    // then fall behind unnoticed.
    ask_role(connections, &mut connection).await?;
    subscribe_all(connections, server, verbs, &probe, &mut connection).await?;
    server.subscriber.store(Some(Arc::new(connection.clone())));
    connections.note_connected();
    let gaps = heard.gaps.load(Ordering::Relaxed);
    info!(redis = %server.address, gaps, "subscribed to publications");
    let mut number = 0;
    loop {
        number += 1;
        tokio::select! {
            result = hear(server, verbs, &probe, number, &heard, connector.timeout()) => result?,
            () = heard.gone.notified() => return Err(Fault::NotConnected),
        }
        backoff.reset();
        tokio::select! {
            () = time::sleep(PROBE_INTERVAL) => {}
            () = heard.gone.notified() => return Err(Fault::NotConnected),
            () = server.moved.notified() => {
                // A new connection subscribes to the channels of the new slots.
                return Err(Fault::NoPrimary("slots were moved to or from this server".to_owned()));
            }
        }
        if heard.dropped.load(Ordering::Relaxed) {
            // The server may still be the slot's primary. A new connection subscribes to the
            // channels again. On this connection, the client library takes Redis' unrequested
            // notice for the answer to a command.
            return Err(Fault::NoPrimary(
                "the server dropped subscriptions".to_owned(),
            ));
        }
        // A probe alone is not enough, because the server may refuse to publish and still deliver
        // publications. The role is therefore asked over this connection.
        ask_role(connections, &mut connection).await?;
    }
}

/// Fails if the server is no longer a primary. A demoted server follows the new primary and keeps
/// delivering the new primary's publications, so nothing else shows the change.
async fn ask_role(connections: &Connections, connection: &mut Connection) -> Result<(), Fault> {
    let role: Vec<Value> = cmd("ROLE").query_async(connection).await?;
    check_primary(&role).inspect_err(|_| connections.stale.notify_one())
}

/// Publishes a probe with a number and waits until this connection receives it. A failure to
/// publish is not a fault of this connection.
async fn hear(
    server: &ServerConnections,
    verbs: Verbs,
    probe: &str,
    number: u64,
    heard: &Heard,
    patience: std::time::Duration,
) -> Result<(), Fault> {
    let Ok(mut commands) = server.commands() else {
        // Without a connection for commands, no probe can be published.
        return Ok(());
    };
    // The wait is enabled before the probe is published, so that a probe that arrives early is not
    // missed.
    let news = heard.news.notified();
    tokio::pin!(news);
    news.as_mut().enable();
    let published = cmd(verbs.publish)
        .arg(probe)
        .arg(number)
        .query_async::<i64>(&mut commands)
        .await;
    if let Err(error) = published {
        debug!(redis = %server.address, error = %error, "the test publication could not be published");
        return Ok(());
    }
    let back = async {
        while heard.probe.load(Ordering::Acquire) < number {
            news.as_mut().await;
            news.set(heard.news.notified());
        }
    };
    time::timeout(patience, back).await.map_err(|_| {
        Fault::NoPrimary("a test publication did not come back over this connection".to_owned())
    })
}

/// Subscribes to every channel that this connection is to carry.
async fn subscribe_all(
    connections: &Connections,
    server: &ServerConnections,
    verbs: Verbs,
    probe: &str,
    connection: &mut Connection,
) -> Result<(), Fault> {
    let keys = &connections.core.keys;
    let mut names = vec![probe.to_owned()];
    let of_nodes = [keys.control(), keys.relay(connections.core.node)];
    // `carry` is called before `wanted` is read. A task that adds a channel in between then
    // subscribes to the channel itself.
    let carried = server.carry();
    let of_nodes = of_nodes.into_iter();
    names.extend(of_nodes.filter(|name| carried.has(slot_of(name.as_bytes()))));
    {
        let wanted = connections.wanted.lock();
        let here = wanted
            .iter()
            .map(|channel| keys.channel(channel))
            .filter(|name| carried.has(slot_of(name.as_bytes())));
        names.extend(here);
    }
    for batch in names.chunks(BATCH) {
        let mut pipeline = pipe();
        for name in batch {
            pipeline.cmd(verbs.subscribe).arg(name);
        }
        let _: Vec<Value> = pipeline.query_async(connection).await?;
    }
    Ok(())
}

/// A probe channel of this node in one of the server's slots; `None` if none is found.
fn probe_channel(connections: &Connections, server: &ServerConnections) -> Option<String> {
    let core = &connections.core;
    (0..PROBE_NUMBERS)
        .map(|number| core.keys.probe(core.node, number))
        .find(|name| server.has(slot_of(name.as_bytes())))
}

/// Handles a push. The connection's task calls this function for each push, so it never waits.
fn take(connections: &Arc<Connections>, heard: &Heard, probe: &str, push: PushInfo) {
    if heard.has_ended.load(Ordering::Acquire) {
        // A command in flight keeps the abandoned connection reading. A publication that is still
        // read here also arrives on the next connection, or counts as missed.
        return;
    }
    match push.kind {
        PushKind::Message | PushKind::SMessage => {
            let mut data = push.data.into_iter();
            let (Some(Value::BulkString(name)), Some(Value::BulkString(payload))) =
                (data.next(), data.next())
            else {
                return;
            };
            if name == probe.as_bytes() {
                let number = str::from_utf8(&payload).ok().and_then(|n| n.parse().ok());
                heard.probe.fetch_max(number.unwrap_or(0), Ordering::AcqRel);
                heard.news.notify_one();
                return;
            }
            connections.inbox.take(connections, &name, payload);
        }
        PushKind::Disconnection => heard.gone.notify_one(),
        // The answer to a subscription arrives before every publication of the channel on this
        // connection. The gap is therefore reported here, and no publication is missing after it.
        PushKind::Subscribe | PushKind::SSubscribe => {
            let Some(channel) = channel_of(connections, push) else {
                return;
            };
            let mut missed = connections.missed.lock();
            // An answer from the buffer of a lost connection does not end the interruption.
            if !heard.has_ended.load(Ordering::Acquire) && missed.remove(&channel) {
                heard.gaps.fetch_add(1, Ordering::Relaxed);
                connections.core.events.gap(&channel, GapReason::LinkLost);
            }
        }
        // Redis sends this push without a request when the slot moves to another server, or when a
        // server becomes the slot's primary again.
        PushKind::SUnsubscribe => {
            let channel = channel_of(connections, push);
            let wanted = connections.wanted.lock();
            if let Some(channel) = channel {
                if !wanted.contains(&channel) {
                    // This node itself has unsubscribed from the channel.
                    return;
                }
                connections.interrupt(&mut connections.missed.lock(), &channel);
            }
            heard.dropped.store(true, Ordering::Relaxed);
            connections.stale.notify_one();
        }
        _ => {}
    }
}

/// The channel that a push about a subscription names; `None` for a pub/sub channel between nodes.
fn channel_of(connections: &Connections, push: PushInfo) -> Option<Channel> {
    let name: String = from_redis_value(push.data.into_iter().next()?).ok()?;
    connections.core.keys.parse_channel(&name)
}
