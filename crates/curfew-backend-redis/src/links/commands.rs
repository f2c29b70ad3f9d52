//! The connection for commands, and publications among them.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use redis::{PushInfo, PushKind};
use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, warn};

use super::{Commands, Link, Links, PROBE_INTERVAL};
use crate::backoff::Backoff;
use crate::connect::Login;
use crate::fault::Fault;
use crate::fence::Fence;
use crate::funnel::funnel;

/// Keeps a connection for commands for as long as the server is a primary.
pub(super) async fn keep(links: Arc<Links>, link: Arc<Link>, cluster: bool) {
    let mut backoff = Backoff::default();
    let keeping = async {
        loop {
            let fault = match serve(&links, &link, cluster, &mut backoff).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            link.commands.store(None);
            links.note_connected();
            if fault.is_misrouted() {
                links.stale.notify_one();
            }
            let news = links.core.status.set_no_commands(fault.to_string());
            // Nothing else says that this user may not do what a node must.
            if news && fault.code() == Some("NOPERM") {
                warn!(redis = %link.address, error = %fault, "no connection for commands");
            } else {
                debug!(redis = %link.address, error = %fault, "connection for commands lost");
            }
            time::sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = link.stopped() => {}
    }
    link.commands.store(None);
}

async fn serve(
    links: &Links,
    link: &Link,
    cluster: bool,
    backoff: &mut Backoff,
) -> Result<Infallible, Fault> {
    let connector = &links.core.connector;
    // Nothing is pushed here, but that the connection is gone is told at once in this way.
    let gone = Arc::new(Notify::new());
    let pushes = {
        let gone = Arc::clone(&gone);
        move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                gone.notify_one();
            }
            Ok::<(), ()>(())
        }
    };
    let mut connection = connector
        .connect(&link.address, Login::Server, Some(pushes))
        .await?;
    // Whatever broke before was another connection.
    let mut broken = pin!(link.broken.notified());
    if broken.as_mut().enable() {
        broken.set(link.broken.notified());
        broken.as_mut().enable();
    }
    // Until then nothing can be published.
    let fence = Arc::new(Fence::raise(&links.core, &mut connection, cluster).await?);
    let (funnel, spout) = funnel(connection.clone(), Arc::clone(&fence));
    let commands = Commands {
        connection: connection.clone(),
        funnel,
    };
    link.commands.store(Some(Arc::new(commands)));
    links.note_connected();
    backoff.reset();
    let mut probes = time::interval(PROBE_INTERVAL);
    probes.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut spout = pin!(spout.run());
    let mut probing = pin!(async {
        loop {
            probes.tick().await;
            if let Err(fault) = fence.probe(&mut connection).await {
                return fault;
            }
        }
    });
    tokio::select! {
        () = broken => Err(Fault::NotConnected),
        () = gone.notified() => Err(Fault::NotConnected),
        () = spout.as_mut() => Err(Fault::NotConnected),
        fault = probing.as_mut() => Err(fault),
    }
}
