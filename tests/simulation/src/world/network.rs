//! Connections: bytes in flight, bytes in sockets, and links that hold bytes back.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use curfew_ws::{Pipe, PipeWriter, WriteBatch};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Event, Shared, World};
use crate::client::Client;
use crate::machine::{self, Point, elapsed};

/// The number of a connection.
pub type ConnectionId = usize;

/// Maximum number of bytes that a node's socket holds for a client that does not read.
const SOCKET_ROOM: usize = 16 * 1024;

/// The peer at the other end of a node's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Redis.
    Redis,
    /// A client, by its number.
    Client(usize),
}

/// The direction in which bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the node.
    In,
    /// From the node.
    Out,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Lane {
    /// The pieces in flight, each with its time of arrival on a link without faults. An empty piece
    /// is the end of the stream.
    under_way: VecDeque<(Duration, Bytes)>,
    bytes: usize,
    /// True if the link holds everything back.
    stalled: bool,
    /// The waker of the task that waits for bytes to read or for space to write.
    waker: Option<Waker>,
}

/// A connection of a node.
#[derive(Debug)]
pub struct Connection {
    /// The process at one end.
    pub node: usize,
    /// The peer at the other end.
    pub end: End,
    inwards: Lane,
    outwards: Lane,
    /// The bytes that have arrived and the node has not read yet.
    arrived: VecDeque<u8>,
    arrived_end: bool,
    /// True after a reset.
    pub reset: bool,
    /// True once the node has closed its end.
    pub closed: bool,
    /// True once the peer has closed its end.
    pub left: bool,
    /// True while the peer does not read. The node's socket then holds the bytes.
    pub unread: bool,
}

/// Every connection of the run, including closed ones, and the links to Redis.
#[derive(Debug, Default)]
pub struct Network {
    connections: Vec<Connection>,
    /// For each process and direction, true while the process's links to Redis hold everything
    /// back.
    cut: Vec<[bool; 2]>,
}

impl Network {
    /// Returns a connection.
    pub fn get(&self, connection: ConnectionId) -> &Connection {
        &self.connections[connection]
    }

    /// Returns a connection, to change it.
    pub fn get_mut(&mut self, connection: ConnectionId) -> &mut Connection {
        &mut self.connections[connection]
    }

    /// The open connections of a process.
    pub fn of(&self, node: usize) -> Vec<ConnectionId> {
        let there = |(_, connection): &(usize, &Connection)| {
            connection.node == node && !connection.reset && !connection.closed
        };
        let all = self.connections.iter().enumerate().filter(there);
        all.map(|(id, _)| id).collect()
    }

    /// The process's connections to Redis.
    pub fn to_redis(&self, node: usize) -> Vec<ConnectionId> {
        let mut all = self.of(node);
        all.retain(|id| self.connections[*id].end == End::Redis);
        all
    }

    /// The process's connections to Redis, including connections that the process has closed: what
    /// the process had written is still on its way.
    pub fn under_way_to_redis(&self, node: usize) -> Vec<ConnectionId> {
        let there = |(_, connection): &(usize, &Connection)| {
            connection.node == node && connection.end == End::Redis && !connection.reset
        };
        let all = self.connections.iter().enumerate().filter(there);
        all.map(|(id, _)| id).collect()
    }

    /// True while the process's link to Redis is cut in at least one direction.
    pub fn is_cut(&self, node: usize) -> bool {
        self.cut.get(node).is_some_and(|cut| cut[0] || cut[1])
    }
}

impl Connection {
    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::In => &mut self.inwards,
            Direction::Out => &mut self.outwards,
        }
    }
}

impl World {
    /// Makes a new connection of a process.
    pub fn connect(&mut self, node: usize, end: End) -> ConnectionId {
        let cut = self.network.cut.get(node).copied().unwrap_or_default();
        let lane = |by: usize| Lane {
            stalled: end == End::Redis && cut[by],
            ..Lane::default()
        };
        self.network.connections.push(Connection {
            node,
            end,
            inwards: lane(0),
            outwards: lane(1),
            arrived: VecDeque::new(),
            arrived_end: false,
            reset: false,
            closed: false,
            left: false,
            unread: false,
        });
        self.network.connections.len() - 1
    }

    /// Sets the directions in which a process is cut off from Redis. Bytes are held back, not lost.
    pub fn cut(&mut self, node: usize, cut: [bool; 2]) {
        while self.network.cut.len() <= node {
            self.network.cut.push([false; 2]);
        }
        self.network.cut[node] = cut;
        for connection in self.network.under_way_to_redis(node) {
            self.stall(connection, cut);
        }
    }

    /// Sets the directions in which one connection holds bytes back.
    pub fn stall(&mut self, connection: ConnectionId, stalled: [bool; 2]) {
        for (direction, stalled) in [Direction::In, Direction::Out].into_iter().zip(stalled) {
            let lane = self.network.connections[connection].lane(direction);
            if lane.stalled && !stalled {
                self.after(Duration::ZERO, Event::Arrive(connection, direction));
            }
            self.network.connections[connection].lane(direction).stalled = stalled;
        }
    }

    /// Sends `bytes`. Empty `bytes` mean the end of the stream.
    pub fn send(&mut self, connection: ConnectionId, direction: Direction, bytes: Bytes) {
        self.send_late(connection, direction, bytes, Duration::ZERO);
    }

    /// Like [`Self::send`], but the bytes leave only after the delay `late`.
    pub fn send_late(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        bytes: Bytes,
        late: Duration,
    ) {
        let wait = self.latency() + late;
        let lane = self.network.connections[connection].lane(direction);
        let last = lane.under_way.back().map_or(Duration::ZERO, |last| last.0);
        let time = (elapsed() + wait).max(last);
        lane.bytes += bytes.len();
        lane.under_way.push_back((time, bytes));
        self.at(time, Event::Arrive(connection, direction));
    }

    /// A random latency.
    fn latency(&mut self) -> Duration {
        let millis = match self.random.u8(..) {
            0..=229 => 1,
            230..=250 => self.random.u64(1..6),
            _ => self.random.u64(5..40),
        };
        Duration::from_millis(millis)
    }

    /// Delivers the due bytes to the receiving end, unless something holds them back.
    pub fn arrive(&mut self, id: ConnectionId, direction: Direction) {
        let now = elapsed();
        loop {
            let held = self.host.is_held();
            let connection = &mut self.network.connections[id];
            let end = connection.end;
            let unread = connection.unread || (end == End::Redis && held);
            if connection.reset || (direction == Direction::Out && unread) {
                return;
            }
            let lane = connection.lane(direction);
            let due = lane.under_way.front().is_some_and(|first| first.0 <= now);
            if lane.stalled || !due {
                return;
            }
            let Some((_, bytes)) = lane.under_way.pop_front() else {
                return;
            };
            lane.bytes -= bytes.len();
            if let Some(waker) = lane.waker.take() {
                waker.wake();
            }
            match (direction, end) {
                (Direction::In, _) => {
                    connection.arrived_end |= bytes.is_empty();
                    connection.arrived.extend(&bytes);
                }
                (Direction::Out, End::Redis) => self.redis_hears(id, &bytes),
                (Direction::Out, End::Client(client)) => Client::hear(self, client, id, &bytes),
            }
        }
    }

    /// Closes a connection on the side of its process. What the process had written is still on its
    /// way.
    pub fn close(&mut self, id: ConnectionId) {
        let connection = &mut self.network.connections[id];
        if !connection.closed && !connection.reset {
            connection.closed = true;
            self.record.wire_ended(id, elapsed());
            self.send(id, Direction::Out, Bytes::new());
        }
    }

    /// Resets a connection at both ends.
    pub fn reset(&mut self, id: ConnectionId) {
        let connection = &mut self.network.connections[id];
        if connection.reset {
            return;
        }
        connection.reset = true;
        self.record.wire_ended(id, elapsed());
        let connection = &mut self.network.connections[id];
        for lane in [&mut connection.inwards, &mut connection.outwards] {
            lane.under_way.clear();
            if let Some(waker) = lane.waker.take() {
                waker.wake();
            }
        }
        match connection.end {
            End::Redis => self.redis_lost(id),
            End::Client(client) => Client::lost(self, client, id),
        }
    }

    /// Closes the peer's end of a connection.
    pub fn leave(&mut self, id: ConnectionId) {
        let connection = &mut self.network.connections[id];
        if !connection.left && !connection.reset {
            connection.left = true;
            self.record.wire_ended(id, elapsed());
            self.send(id, Direction::In, Bytes::new());
        }
    }

    /// Makes the peer of a connection read, or stop reading.
    pub fn read(&mut self, id: ConnectionId, reads: bool) {
        self.network.connections[id].unread = !reads;
        if reads {
            self.after(Duration::ZERO, Event::Arrive(id, Direction::Out));
        }
    }

    /// Executes a node's system call that writes. Returns the number of bytes that the socket
    /// accepts.
    fn write(&mut self, id: ConnectionId, bytes: &[u8], began: Duration) -> io::Result<usize> {
        let connection = &mut self.network.connections[id];
        if connection.reset || connection.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = match connection.end {
            End::Client(_) => SOCKET_ROOM.saturating_sub(connection.outwards.bytes),
            End::Redis => bytes.len(),
        };
        let taken = bytes.len().min(room);
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let End::Client(_) = connection.end {
            self.record.wrote(id, &bytes[..taken], began);
        }
        self.send(id, Direction::Out, Bytes::copy_from_slice(&bytes[..taken]));
        Ok(taken)
    }
}

/// A node's end of a connection.
#[derive(Debug)]
pub struct Socket(pub ConnectionId);

impl Socket {
    fn try_write(&self, batch: WriteBatch<'_>) -> io::Result<usize> {
        // The system call begins here. A node may be stopped within the call, after the node's own
        // check.
        let began = elapsed();
        machine::at(Point::Write);
        let shared = Shared::get();
        let mut world = shared.world();
        match batch {
            WriteBatch::Bytes(bytes) => world.write(self.0, bytes, began),
            WriteBatch::Slices(slices) => {
                let parts: Vec<&[u8]> = slices.iter().map(|part| &**part).collect();
                world.write(self.0, &parts.concat(), began)
            }
        }
    }

    fn poll_batch(&self, cx: &Context<'_>, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        match self.try_write(batch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let shared = Shared::get();
                let mut world = shared.world();
                let connection = world.network.get_mut(self.0);
                connection.outwards.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            done => Poll::Ready(done),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = Shared::get();
        let mut world = shared.world();
        let connection = world.network.get_mut(self.0);
        if connection.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if connection.arrived.is_empty() {
            if connection.arrived_end {
                return Poll::Ready(Ok(()));
            }
            connection.inwards.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = connection.arrived.as_slices();
        let taken = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..taken]);
        connection.arrived.drain(..taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_batch(cx, WriteBatch::Bytes(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_batch(cx, WriteBatch::Slices(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = Shared::get();
        let mut world = shared.world();
        if !world.network.get(self.0).reset {
            world.send(self.0, Direction::Out, Bytes::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        Shared::get().world().close(self.0);
    }
}

impl Pipe for Socket {
    fn direct_writer(&self) -> Option<Box<dyn PipeWriter>> {
        Some(Box::new(DirectWriter(self.0)))
    }

    fn abort(self: Box<Self>) {
        Shared::get().world().reset(self.0);
    }
}

/// A writer to a [`Socket`] from outside the task that owns the socket.
#[derive(Debug)]
struct DirectWriter(ConnectionId);

impl PipeWriter for DirectWriter {
    fn try_write(&self, batch: WriteBatch<'_>) -> io::Result<usize> {
        // The wrapper must not be dropped, because that would close the socket's connection.
        ManuallyDrop::new(Socket(self.0)).try_write(batch)
    }
}
