//! Redis on its own machine, with one address.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use curfew_backend_redis::{Dial, Dialing, RedisAddress, Stream};
use tokio::time;

use super::{ConnectionId, Direction, End, Event, Shared, Socket, World};
use crate::machine::{EPOCH, elapsed};
use crate::redis::{Executed, Reply, Server, Snapshot};

/// Interval between two copies of the data, for a later restart.
const COPY_INTERVAL: Duration = Duration::from_millis(700);

/// Maximum number of stored copies. The oldest copy is behind by more than the lease, so nodes have
/// learned of the earliest writes that the copy lacks.
const MOST_COPIES: usize = 6;

/// The data of a restarted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comeback {
    /// The server has all data from before the restart.
    Whole,
    /// The server has no data.
    Empty,
    /// The server has the data of an earlier time, like a replica that was behind.
    Behind,
}

/// Redis and its machine.
#[derive(Debug)]
pub struct Host {
    server: Server,
    /// The time by which the machine's clock is ahead. The clock is never set back (an assumption
    /// of the protocol).
    pub ahead: Duration,
    /// True while the process is stopped.
    frozen: bool,
    /// True while there is no process. Connections are then refused.
    down: bool,
    /// Delay between the execution of a command and its answer.
    pub slow: Duration,
    /// True if the current turn has executed a command.
    in_turn: bool,
    copies: VecDeque<(Duration, Snapshot)>,
    expiry: Option<Duration>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            server: Server::new(1),
            ahead: Duration::ZERO,
            frozen: false,
            down: false,
            slow: Duration::ZERO,
            in_turn: false,
            copies: VecDeque::new(),
            expiry: None,
        }
    }

    /// True while Redis reads nothing.
    pub(super) fn is_held(&self) -> bool {
        self.frozen || self.down
    }

    /// The time by Redis' clock.
    pub fn now(&self) -> Duration {
        EPOCH + elapsed() + self.ahead
    }

    /// The server, for inspection.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Sets the state of the memory: `out` is true if no memory is left.
    pub fn set_out_of_memory(&mut self, out: bool) {
        self.server.set_out_of_memory(out);
    }
}

impl World {
    pub(super) fn redis_hears(&mut self, id: ConnectionId, bytes: &[u8]) {
        if bytes.is_empty() {
            self.host.server.disconnect(id as u64);
            return;
        }
        let now = self.host.now();
        self.host.server.receive(id as u64, bytes, now);
        self.redis_done();
    }

    pub(super) fn redis_lost(&mut self, id: ConnectionId) {
        self.host.server.disconnect(id as u64);
    }

    /// Records the effects of the executed commands. The end of the turn sends the answers and then
    /// the pushes, because Redis answers a heartbeat before it pushes a revocation of the same turn
    /// (K5 of REVOCATION.md).
    fn redis_done(&mut self) {
        let at = elapsed();
        for executed in self.host.server.take_log() {
            let Executed { by, what, .. } = executed;
            let node = by.map(|by| self.network.get(by as ConnectionId).node);
            self.record.executed(at, node, what);
        }
        if self.record.presence.is_on {
            self.record.presence.settled(at);
        }
        if !self.host.in_turn {
            self.host.in_turn = true;
            self.after(Duration::ZERO, Event::Turn);
        }
    }

    /// Sends the answers and pushes of the turn.
    pub(super) fn end_turn(&mut self) {
        self.host.in_turn = false;
        for (id, bytes) in self.host.server.take_output() {
            let late = self.host.slow;
            self.send_late(id as ConnectionId, Direction::In, bytes.into(), late);
        }
        for id in self.host.server.take_closed() {
            self.reset(id as ConnectionId);
        }
        self.note_expiry();
    }

    fn note_expiry(&mut self) {
        let next = self.host.server.next_expiry();
        if next != self.host.expiry {
            self.host.expiry = next;
            if let Some(next) = next {
                let time = next.saturating_sub(EPOCH + self.host.ahead);
                // Redis checks for expired keys several times a second.
                self.at(time + Duration::from_millis(50), Event::Expire);
            }
        }
    }

    pub(super) fn expire(&mut self) {
        if self.host.is_held() {
            return;
        }
        self.host.expiry = None;
        let now = self.host.now();
        self.host.server.expire(now);
        self.redis_done();
    }

    /// Copies the data for a later restart. Returns the time after which the caller must copy
    /// again.
    pub fn copy_data(&mut self) -> Duration {
        if !self.host.is_held() {
            let copy = self.host.server.snapshot();
            self.host.copies.push_back((elapsed(), copy));
            while self.host.copies.len() > MOST_COPIES {
                self.host.copies.pop_front();
            }
        }
        COPY_INTERVAL
    }

    /// Runs a command as an operator on Redis' machine. Returns `None` if the command is refused,
    /// or while the server does not run.
    pub fn operate(&mut self, command: &[&[u8]]) -> Option<Reply> {
        if self.host.is_held() {
            return None;
        }
        let now = self.host.now();
        let reply = self.host.server.run(now, command);
        self.redis_done();
        Some(reply).filter(|reply| !matches!(reply, Reply::Error(_)))
    }

    /// Stops the process of Redis, or lets it continue.
    pub fn freeze_redis(&mut self, frozen: bool) {
        self.host.frozen = frozen;
        if !frozen {
            self.redis_goes_on();
        }
    }

    fn redis_goes_on(&mut self) {
        for node in 0..self.machines.len() {
            for id in self.network.under_way_to_redis(node) {
                self.after(Duration::ZERO, Event::Arrive(id, Direction::Out));
            }
        }
        self.after(Duration::ZERO, Event::Expire);
    }

    /// Ends the process of Redis.
    pub fn stop_redis(&mut self) {
        self.host.down = true;
        for node in 0..self.machines.len() {
            for id in self.network.under_way_to_redis(node) {
                self.reset(id);
            }
        }
    }

    /// Starts another process of Redis.
    pub fn start_redis(&mut self, comeback: Comeback) {
        let copy = match comeback {
            Comeback::Whole => Some((elapsed(), self.host.server.snapshot())),
            Comeback::Empty => None,
            Comeback::Behind => self.host.copies.front().cloned(),
        };
        let (copied_at, data) = copy.unzip();
        let copied_at = copied_at.unwrap_or(Duration::ZERO);
        let now = self.host.now();
        self.host.server.restart(data, now);
        self.host.copies.clear();
        self.record.lost_data(elapsed(), copied_at);
        let server = &self.host.server;
        let hashes = server.keys(now).into_iter();
        let hashes = hashes.filter(|key| key.starts_with(b"curfew:presence"));
        let hashes = hashes.map(|key| (key.clone(), server.hash(&key, now)));
        self.record.presence.replaced(elapsed(), hashes);
        self.host.down = false;
        self.redis_done();
        self.redis_goes_on();
    }
}

/// The dialer that connects nodes to the simulated Redis.
#[derive(Debug)]
pub struct RedisDial;

impl Dial for RedisDial {
    fn dial<'a>(&'a self, _: &'a RedisAddress) -> Dialing<'a> {
        Box::pin(async {
            let node = Shared::get().node().expect("only nodes dial");
            loop {
                // The delay stands for a round trip.
                time::sleep(Duration::from_millis(2)).await;
                let shared = Shared::get();
                let mut world = shared.world();
                if world.host.down {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                if world.network.is_cut(node) {
                    continue;
                }
                let id = world.connect(node, End::Redis);
                world.host.server.connect(id as u64);
                return Ok(Box::new(Socket(id)) as Box<dyn Stream>);
            }
        })
    }
}
