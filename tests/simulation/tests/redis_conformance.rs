//! The conformance suite of backends. It runs with the Redis backend, which connects to the
//! simulated server. A small adapter puts the server behind a TCP port.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's own tasks end with it, Redis queues without bound, and its clock is the real one"
)]

#[path = "../../../crates/curfew-backend-redis/tests/conformance/nodes.rs"]
mod nodes;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use curfew_backend::conformance;
use curfew_simulation::redis::{ConnectionId, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time;

use nodes::nodes;

/// Interval between two checks for due keys. It is Redis' default.
const EXPIRY: Duration = Duration::from_millis(100);

/// The server, and for each connection the sender of its output.
#[derive(Debug)]
struct Behind {
    server: Server,
    senders: BTreeMap<ConnectionId, UnboundedSender<Vec<u8>>>,
    next: ConnectionId,
}

/// The adapter between a TCP port and the server.
#[derive(Debug)]
struct Adapter(Mutex<Behind>);

/// The time that Redis' clock shows.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock shows a time after 1970")
}

impl Adapter {
    /// Starts a server. Returns its port.
    async fn start() -> io::Result<(Arc<Self>, u16)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let adapter = Arc::new(Self(Mutex::new(Behind {
            server: Server::new(1),
            senders: BTreeMap::new(),
            next: 1,
        })));
        tokio::spawn(accept(Arc::clone(&adapter), listener));
        tokio::spawn(expire(Arc::downgrade(&adapter)));
        Ok((adapter, port))
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// Performs an action on the server, and forwards its output.
    fn turn(&self, act: impl FnOnce(&mut Server)) {
        let mut behind = self.behind();
        act(&mut behind.server);
        for (id, bytes) in behind.server.take_output() {
            if let Some(sender) = behind.senders.get(&id) {
                // The send fails if the connection is closed. The task that reads from it notices
                // that.
                drop(sender.send(bytes));
            }
        }
        for id in behind.server.take_closed() {
            behind.senders.remove(&id);
        }
    }

    fn connect(&self, stream: TcpStream, adapter: &Arc<Self>) {
        let (reader, writer) = stream.into_split();
        let (sender, receiver) = unbounded_channel();
        let mut behind = self.behind();
        let id = behind.next;
        behind.next += 1;
        behind.server.connect(id);
        behind.senders.insert(id, sender);
        tokio::spawn(read(Arc::clone(adapter), id, reader));
        tokio::spawn(write(receiver, writer));
    }
}

async fn accept(adapter: Arc<Adapter>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        adapter.connect(stream, &adapter);
    }
}

async fn read(adapter: Arc<Adapter>, id: ConnectionId, mut reader: OwnedReadHalf) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        adapter.turn(|server| server.receive(id, &buffer[..length], now()));
    }
    adapter.turn(|server| server.disconnect(id));
    adapter.behind().senders.remove(&id);
}

/// Writes the output until the server closes the connection.
async fn write(mut receiver: UnboundedReceiver<Vec<u8>>, mut writer: OwnedWriteHalf) {
    while let Some(bytes) = receiver.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn expire(adapter: Weak<Adapter>) {
    let mut looks = time::interval(EXPIRY);
    loop {
        looks.tick().await;
        let Some(adapter) = adapter.upgrade() else {
            return;
        };
        adapter.turn(|server| server.expire(now()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_over_the_simulated_redis_passes() {
    let (_adapter, port) = Adapter::start().await.expect("a port is free");
    let url = format!("redis://127.0.0.1:{port}");
    conformance::run(3, |clock, recorders| nodes(url.clone(), clock, recorders)).await;
}
