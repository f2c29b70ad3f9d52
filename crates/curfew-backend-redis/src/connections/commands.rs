//! The connection for commands and publications.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use redis::{PushInfo, PushKind};
use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, warn};

use super::{Commands, Connections, PROBE_INTERVAL, ServerConnections};
use crate::backoff::Backoff;
use crate::batcher::batcher;
use crate::connect::Login;
use crate::fault::Fault;
use crate::fence::Fence;
use crate::streams::missing_rights;

/// Keeps a connection for commands for as long as the server is a primary.
pub(super) async fn keep(
    connections: Arc<Connections>,
    server: Arc<ServerConnections>,
    cluster: bool,
) {
    let mut backoff = Backoff::default();
    let keeping = async {
        loop {
            let fault = match serve(&connections, &server, cluster, &mut backoff).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            server.commands.store(None);
            connections.note_connected();
            if fault.is_misrouted() {
                connections.stale.notify_one();
            }
            let news = connections.core.status.set_no_commands(fault.to_string());
            // A missing permission of the Redis user is logged as a warning, because nothing else
            // shows it to the operator.
            if news && fault.code() == Some("NOPERM") {
                warn!(redis = %server.address, error = %fault, "no connection for commands");
            } else {
                debug!(redis = %server.address, error = %fault, "connection for commands lost");
            }
            time::sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = server.stopped() => {}
    }
    server.commands.store(None);
}

/// Runs one connection until a fault ends it.
async fn serve(
    connections: &Connections,
    server: &ServerConnections,
    cluster: bool,
    backoff: &mut Backoff,
) -> Result<Infallible, Fault> {
    let connector = &connections.core.connector;
    // Redis sends no pushes here, but the client library reports a lost connection at once, as a
    // push.
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
        .connect(&server.address, Login::Server, Some(pushes))
        .await?;
    // A notification that was sent before this point is about an earlier connection, so it is
    // consumed here.
    let mut broken = pin!(server.broken.notified());
    if broken.as_mut().enable() {
        broken.set(server.broken.notified());
        broken.as_mut().enable();
    }
    // The fence is created before `commands` is stored below, because publications can be sent from
    // then on.
    let fence = Arc::new(Fence::raise(&connections.core, &mut connection, cluster).await?);
    let (batches, batcher) = batcher(connection.clone(), Arc::clone(&fence));
    let commands = Commands {
        connection: connection.clone(),
        batches,
        fence: Arc::clone(&fence),
    };
    server.commands.store(Some(Arc::new(commands)));
    connections.note_connected();
    backoff.reset();
    let mut probes = time::interval(PROBE_INTERVAL);
    probes.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut batcher = pin!(batcher.run());
    let mut probing = pin!(async {
        let core = &connections.core;
        match missing_rights(&core.keys, &mut connection, cluster).await {
            Ok(commands) => core.channels.set_missing(&server.address, commands),
            // The connection works without this check, which only logs missing rights.
            Err(fault) => {
                debug!(redis = %server.address, error = %fault, "the permissions of the redis user could not be checked")
            }
        }
        loop {
            probes.tick().await;
            if let Err(fault) = fence.probe(&mut connection).await {
                // A failed probe shows that the connection is broken.
                return fault;
            }
        }
    });
    tokio::select! {
        () = broken => Err(Fault::NotConnected),
        () = gone.notified() => Err(Fault::NotConnected),
        () = batcher.as_mut() => Err(Fault::NotConnected),
        fault = probing.as_mut() => Err(fault),
    }
}
