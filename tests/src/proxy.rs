//! A TCP proxy that causes faults on a link while the link is in use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Maximum size of one read, in bytes.
const CHUNK: usize = 64 * 1024;

/// Maximum number of chunks in flight in one direction. Further chunks wait at the sender.
const CHUNKS: usize = 4096;

/// A delay longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Treatment of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The bytes pass.
    Pass,
    /// The bytes pass after this delay.
    Delay(Duration),
    /// The bytes wait, and pass when the link recovers. TCP has the same effect if packets are
    /// lost.
    Stall,
    /// The bytes are dropped. When the link recovers, a connection that has lost bytes is cut.
    Swallow,
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The flow from the clients to the server.
    pub up: Flow,
    /// The flow from the server to the clients.
    pub down: Flow,
    /// True if connections are reset. New connections are reset as soon as they are made.
    pub cut: bool,
}

impl Link {
    /// A link without faults.
    pub const PASS: Self = Self::both(Flow::Pass);
    /// Connections are made, but no bytes pass.
    pub const BLACK_HOLE: Self = Self::both(Flow::Swallow);
    /// Nothing passes until the link recovers. Then everything passes, late.
    pub const STALLED: Self = Self::both(Flow::Stall);
    /// The server receives nothing more, but its own bytes still pass.
    pub const DEAF: Self = Self::only_up(Flow::Swallow);
    /// Bytes of the server no longer pass, but the server still receives bytes.
    pub const MUTE: Self = Self::only_down(Flow::Swallow);
    /// Every connection is reset.
    pub const CUT: Self = Self {
        cut: true,
        ..Self::PASS
    };

    /// A link with this flow from the clients to the server. Bytes from the server pass.
    pub const fn only_up(flow: Flow) -> Self {
        Self {
            up: flow,
            down: Flow::Pass,
            cut: false,
        }
    }

    /// A link with this flow from the server to the clients. Bytes from the clients pass.
    pub const fn only_down(flow: Flow) -> Self {
        Self {
            up: Flow::Pass,
            down: flow,
            cut: false,
        }
    }

    /// A link with the same flow in both directions.
    pub const fn both(flow: Flow) -> Self {
        Self {
            up: flow,
            down: flow,
            cut: false,
        }
    }
}

/// Kind of a connection, recognised by its first commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client sent `CLIENT TRACKING`: the connection receives revocations.
    Tracking,
    /// The client sent `SUBSCRIBE`: the connection receives publications.
    Subscriber,
    /// The client has sent neither of these commands so far.
    Other,
}

impl Kind {
    /// The kind that a client's bytes show; `None` if they contain neither command.
    fn shown_by(bytes: &[u8]) -> Option<Self> {
        let say = |word: &[u8]| {
            let mut windows = bytes.windows(word.len());
            windows.any(|window| window.eq_ignore_ascii_case(word))
        };
        if say(b"TRACKING") {
            Some(Self::Tracking)
        } else if say(b"SUBSCRIBE") {
            Some(Self::Subscriber)
        } else {
            None
        }
    }
}

/// The state of the links that the test has requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    tracking: Link,
    subscriber: Link,
    other: Link,
    /// Number of cuts so far. Each connection compares this number, so that even the shortest cut
    /// ends the connection.
    cuts: u64,
}

impl Wanted {
    fn of(&mut self, kind: Kind) -> &mut Link {
        match kind {
            Kind::Tracking => &mut self.tracking,
            Kind::Subscriber => &mut self.subscriber,
            Kind::Other => &mut self.other,
        }
    }
}

/// A proxy in front of one server. It runs on a separate thread, so that a busy test does not slow
/// the proxy down. All connections are cut when this value is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    server: watch::Sender<SocketAddr>,
    wanted: watch::Sender<Wanted>,
    clock: Arc<AtomicI64>,
    sent: Arc<AtomicUsize>,
    // Dropping this sender ends the thread.
    _running: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy in front of `server`, on a free port.
    pub async fn start(server: SocketAddr) -> Self {
        let (wanted, watched) = watch::channel(Wanted {
            tracking: Link::PASS,
            subscriber: Link::PASS,
            other: Link::PASS,
            cuts: 0,
        });
        let (server, target) = watch::channel(server);
        let (running, ended) = oneshot::channel();
        let (listening, address) = oneshot::channel();
        let clock = Arc::new(AtomicI64::new(0));
        let shift = Arc::clone(&clock);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a free port can be bound");
                let address = listener
                    .local_addr()
                    .expect("a bound listener has an address");
                listening
                    .send(address)
                    .expect("the test waits for the address");
                let accepting = accept(listener, target, watched, shift, count);
                tokio::select! {
                    () = accepting => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address: address.await.expect("the proxy listens"),
            server,
            wanted,
            clock,
            sent,
            _running: running,
        }
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends new connections to another server, as if a host name now resolved to another address.
    /// Existing connections stay.
    pub fn point_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Changes the link of all connections, of every kind.
    pub fn set(&self, link: Link) {
        self.wanted.send_modify(|wanted| {
            *wanted = Wanted {
                tracking: link,
                subscriber: link,
                other: link,
                cuts: wanted.cuts + u64::from(link.cut),
            };
        });
    }

    /// Changes the link of all existing and future connections of one kind.
    pub fn set_only(&self, kind: Kind, link: Link) {
        self.wanted.send_modify(|wanted| *wanted.of(kind) = link);
    }

    /// The number of bytes that clients have sent, including the bytes that this proxy holds back.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Adds `seconds` to the time in each later answer of the server to `TIME`.
    pub fn shift_time(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::Relaxed);
    }
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<SocketAddr>,
    wanted: watch::Receiver<Wanted>,
    clock: Arc<AtomicI64>,
    sent: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    // An accept fails only if descriptors run out. The test has then failed anyway.
    while let Ok((client, _)) = listener.accept().await {
        let server = *server.borrow();
        let (clock, sent) = (Arc::clone(&clock), Arc::clone(&sent));
        connections.spawn(carry(client, server, wanted.clone(), clock, sent));
        // This loop removes the tasks of ended connections.
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards one connection until either side ends it or the link is cut.
async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut wanted: watch::Receiver<Wanted>,
    clock: Arc<AtomicI64>,
    sent: Arc<AtomicUsize>,
) -> io::Result<()> {
    let cuts = wanted.borrow().cuts;
    if wanted.borrow().other.cut {
        return client.set_zero_linger();
    }
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (kind, known) = watch::channel(Kind::Other);
    let lost = AtomicBool::new(false);
    let side = |flow: fn(Link) -> Flow| Side {
        wanted: wanted.clone(),
        kind: known.clone(),
        flow,
        lost: &lost,
    };
    let up = side(|link| link.up);
    let down = side(|link| link.down);
    let shift = |bytes: &mut Vec<u8>| shift_time(bytes, clock.load(Ordering::Relaxed));
    let classify = |bytes: &mut Vec<u8>| {
        sent.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(shown) = Kind::shown_by(bytes) {
            kind.send_replace(shown);
        }
    };
    let mut watched = known.clone();
    let cut = async {
        loop {
            let mut now = *wanted.borrow_and_update();
            let link = *now.of(*watched.borrow_and_update());
            let whole = link.up != Flow::Swallow && link.down != Flow::Swallow;
            if link.cut || now.cuts != cuts || whole && lost.load(Ordering::Relaxed) {
                return;
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                changed = watched.changed() => if changed.is_err() { return },
            }
        }
    };
    let carrying = async {
        tokio::join!(
            up.pump(&mut from_client, &mut to_server, classify),
            down.pump(&mut from_server, &mut to_client, shift),
        )
    };
    tokio::select! {
        (up, down) = carrying => return up.and(down),
        () = cut => {}
    }
    for stream in [from_client.as_ref(), from_server.as_ref()] {
        stream.set_zero_linger()?;
    }
    Ok(())
}

/// One direction of a connection.
struct Side<'a> {
    wanted: watch::Receiver<Wanted>,
    kind: watch::Receiver<Kind>,
    flow: fn(Link) -> Flow,
    /// True if the connection has lost bytes.
    lost: &'a AtomicBool,
}

impl Side<'_> {
    async fn pump(
        self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        look: impl Fn(&mut Vec<u8>),
    ) -> io::Result<()> {
        let (queue, mut queued) = mpsc::channel(CHUNKS);
        let reading = async move {
            loop {
                let mut bytes = Vec::with_capacity(CHUNK);
                // An empty chunk stands for the end of the stream. The link may delay or stall this
                // chunk like any other chunk.
                let read = from.read_buf(&mut bytes).await;
                look(&mut bytes);
                let ended = !matches!(read, Ok(1..));
                // The send fails only if the connection has ended.
                drop(queue.send((Instant::now(), bytes)).await);
                if ended {
                    return read.map(drop);
                }
            }
        };
        let writing = async move {
            let mut side = self;
            while let Some((came, bytes)) = queued.recv().await {
                let passes = side.wait(came, bytes.is_empty()).await;
                if bytes.is_empty() {
                    return to.shutdown().await;
                }
                if passes {
                    to.write_all(&bytes).await?;
                }
            }
            Ok(())
        };
        let (read, written) = tokio::join!(reading, writing);
        read.and(written)
    }

    /// Waits until the link lets a chunk pass that arrived at `came`. Returns false if the chunk is
    /// lost.
    async fn wait(&mut self, came: Instant, is_end: bool) -> bool {
        loop {
            let mut wanted = *self.wanted.borrow_and_update();
            let link = *wanted.of(*self.kind.borrow_and_update());
            let due = match (self.flow)(link) {
                Flow::Pass => return true,
                Flow::Swallow if !is_end => {
                    self.lost.store(true, Ordering::Relaxed);
                    return false;
                }
                Flow::Delay(by) => came + by,
                Flow::Stall | Flow::Swallow => came + FOR_EVER,
            };
            if due <= Instant::now() {
                return true;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                // `changed` fails only when the proxy ends, and the connection then ends too.
                _ = self.wanted.changed() => {}
                _ = self.kind.changed() => {}
            }
        }
    }
}

/// Rewrites an answer to `TIME`. The answer is two bulk strings: the seconds, which have ten
/// digits, and the microseconds.
fn shift_time(bytes: &mut [u8], by: i64) {
    const HEAD: &[u8] = b"*2\r\n$10\r\n";
    if by == 0 {
        return;
    }
    let heads = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(HEAD));
    for at in heads.collect::<Vec<usize>>() {
        let digits = at + HEAD.len()..at + HEAD.len() + 10;
        let Some(seconds) = bytes
            .get(digits.clone())
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<i64>().ok())
        else {
            continue;
        };
        bytes[digits].copy_from_slice((seconds + by).to_string().as_bytes());
    }
}
