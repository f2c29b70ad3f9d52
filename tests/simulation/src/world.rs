//! Everything outside the nodes' own code: the network, Redis, the clients, and the decision about
//! which code may run.
//!
//! Owns: the next event and its time, the bytes in flight, and the record of everything.
//! Knows nothing of: the planned faults (`plan.rs`), the promises (`check.rs`).
//!
//! The world has a queue of events, and a task that runs each event at its time. If a node is
//! stopped in the middle of its code, that code itself runs the events of the stop before it
//! continues.

mod network;
mod server;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use curfew_model::env::Env;
use fastrand::Rng;

use crate::client::{Client, VAULT};
use crate::machine::{self, Point, Watch, elapsed};
use crate::record::Record;

pub use network::{Connection, ConnectionId, Direction, End, Network, Socket};
pub use server::{Comeback, Host, RedisDial};

/// An event.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes may have arrived at one end of a connection.
    Arrive(ConnectionId, Direction),
    /// A turn of Redis' event loop ends. In this turn, Redis has executed every command that
    /// arrived at the same time.
    Turn,
    /// A key of Redis may have expired.
    Expire,
    /// A client acts.
    Client(usize),
    /// The next step of the plan is due.
    Plan,
    /// A stopped node continues.
    Resume(usize),
}

/// The machine of a node's process.
#[derive(Debug, Default)]
pub struct Machine {
    /// True if the process's code may run. A crashed process never runs again.
    pub alive: bool,
    /// The time until which the process's code does not run.
    pub stopped_until: Duration,
    /// The tasks that wait for `stopped_until`.
    wakers: Vec<Waker>,
    /// The time by which the machine's wall clock is ahead, in microseconds.
    pub wall_ahead: i64,
    /// A planned stop in the middle of the code: the number of points that the code still passes,
    /// and the duration of the stop.
    pub trap: Option<(u32, Duration)>,
}

impl Machine {
    /// A machine whose code runs.
    pub fn running() -> Self {
        Self {
            alive: true,
            ..Self::default()
        }
    }
}

/// Everything except the nodes' code.
#[derive(Debug)]
pub struct World {
    /// Source of the choices that the plan leaves open.
    pub random: Rng,
    queue: BTreeMap<(Duration, u64), Event>,
    count: u64,
    /// The world's task, which waits for the next event.
    waker: Option<Waker>,
    /// The machines by number of the process. A restarted process has a new number.
    pub machines: Vec<Machine>,
    /// Every connection of the run, including closed ones.
    pub network: Network,
    /// Redis.
    pub host: Host,
    /// The clients.
    pub clients: Vec<Client>,
    /// Connections of clients that a process has not accepted yet.
    pub arrivals: Vec<(usize, ConnectionId)>,
    /// The number of the last publication.
    pub published: u64,
    /// The process in each slot. A slot stands for one node of the cluster: after a crash, the next
    /// process starts in the same slot.
    pub slots: Vec<usize>,
    /// The record for the checker.
    pub record: Record,
}

/// The world, shared by everything that runs in it.
#[derive(Debug, Clone)]
pub struct Shared(Rc<Inner>);

/// A function that lets a process accept a connection.
type Door = Box<dyn FnMut(usize, ConnectionId)>;

/// A function that executes the due acts of a plan.
type Acts = Box<dyn FnMut(&Shared)>;

struct Inner {
    world: RefCell<World>,
    /// The process whose code runs.
    node: Cell<Option<usize>>,
    wall_ahead: Cell<i64>,
    /// True if a trap is set for the process whose code runs.
    trapped: Cell<bool>,
    /// The function that accepts connections.
    door: RefCell<Option<Door>>,
    /// The function that executes the plan.
    plan: RefCell<Option<Acts>>,
}

thread_local! {
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Shared {
    /// The world of this thread's run.
    pub fn get() -> Self {
        SHARED
            .with_borrow(Clone::clone)
            .expect("a run has been begun on this thread")
    }

    /// Begins a run on this thread. The caller must be in a runtime whose clock is paused.
    pub fn begin(random: Rng) -> Self {
        elapsed();
        let shared = Self(Rc::new(Inner {
            world: RefCell::new(World {
                random,
                queue: BTreeMap::new(),
                count: 0,
                waker: None,
                machines: Vec::new(),
                network: Network::default(),
                host: Host::new(),
                clients: Vec::new(),
                arrivals: Vec::new(),
                published: 0,
                slots: Vec::new(),
                record: Record::default(),
            }),
            node: Cell::new(None),
            wall_ahead: Cell::new(0),
            trapped: Cell::new(false),
            door: RefCell::new(None),
            plan: RefCell::new(None),
        }));
        SHARED.set(Some(shared.clone()));
        curfew_model::env::enter(Rc::clone(&shared.0) as _);
        machine::start(Rc::clone(&shared.0) as _);
        shared
    }

    /// Borrows the world. Code that runs during the borrow must not borrow the world again.
    pub fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    /// Sets the function that executes the plan.
    pub fn set_plan(&self, plan: impl FnMut(&Self) + 'static) {
        *self.0.plan.borrow_mut() = Some(Box::new(plan));
    }

    /// Sets the function that accepts connections.
    pub fn set_door(&self, door: impl FnMut(usize, ConnectionId) + 'static) {
        *self.0.door.borrow_mut() = Some(Box::new(door));
    }

    /// Runs `work` as the code of the process `node`. Tasks that `work` spawns belong to that
    /// process.
    pub fn as_node<T>(&self, node: usize, work: impl FnOnce() -> T) -> T {
        let before = self.0.node.replace(Some(node));
        self.0.look(Some(node));
        let done = work();
        self.0.node.set(before);
        self.0.look(before);
        done
    }

    /// The process whose code runs.
    pub fn node(&self) -> Option<usize> {
        self.0.node.get()
    }

    /// Runs the due events.
    pub fn run_due(&self) {
        loop {
            let event = {
                let mut world = self.world();
                let now = elapsed();
                match world.queue.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            self.happen(event);
            let arrivals = std::mem::take(&mut self.world().arrivals);
            for (node, connection) in arrivals {
                if let Some(door) = &mut *self.0.door.borrow_mut() {
                    door(node, connection);
                }
            }
        }
    }

    fn happen(&self, event: Event) {
        match event {
            Event::Arrive(connection, direction) => self.world().arrive(connection, direction),
            Event::Turn => self.world().end_turn(),
            Event::Expire => self.world().expire(),
            Event::Client(client) => Client::act(&mut self.world(), client),
            Event::Resume(node) => {
                let mut world = self.world();
                let machine = &mut world.machines[node];
                if machine.stopped_until <= elapsed() {
                    machine.wakers.drain(..).for_each(Waker::wake);
                }
            }
            Event::Plan => {
                let plan = self.0.plan.take();
                if let Some(mut plan) = plan {
                    // The plan's code belongs to no process.
                    let before = self.0.node.take();
                    plan(self);
                    self.0.node.set(before);
                    self.0.plan.replace(Some(plan));
                }
            }
        }
    }

    /// Runs each event at its time, until `end`.
    pub async fn run_until(&self, end: Duration) {
        use std::future::poll_fn;
        while elapsed() < end {
            self.run_due();
            let next = {
                let mut world = self.world();
                let next = world.queue.first_key_value().map(|(key, _)| key.0);
                world.waker = None;
                next.unwrap_or(end).min(end)
            };
            let now = elapsed();
            if next <= now {
                if now < end {
                    continue;
                }
                return;
            }
            let mut sleep = std::pin::pin!(tokio::time::sleep(next - now));
            poll_fn(|cx| {
                if sleep.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let mut world = self.world();
                let sooner = world.queue.first_key_value();
                if sooner.is_some_and(|(key, _)| key.0 < next) {
                    return Poll::Ready(());
                }
                world.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// Lets time pass, and runs the events of that time, while the running code is stopped.
    fn stand_still(&self, time: Duration) {
        let end = elapsed() + time;
        loop {
            self.run_due();
            let now = elapsed();
            let next = self.world().queue.first_key_value().map(|(key, _)| key.0);
            match next {
                Some(next) if next < end => machine::pass(next.saturating_sub(now)),
                _ => {
                    machine::pass(end.saturating_sub(now));
                    return;
                }
            }
        }
    }
}

impl World {
    /// Schedules an event after this time.
    pub fn after(&mut self, wait: Duration, event: Event) {
        self.at(elapsed() + wait, event);
    }

    /// Schedules an event at this time.
    pub fn at(&mut self, time: Duration, event: Event) {
        self.count += 1;
        self.queue.insert((time, self.count), event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The number of channels that clients publish to.
    pub fn channels(&self) -> usize {
        if self.record.vault { VAULT + 1 } else { VAULT }
    }

    /// The processes that accept connections.
    pub fn up(&self) -> Vec<usize> {
        let up = |process: &&usize| self.machines[**process].alive;
        self.slots.iter().filter(up).copied().collect()
    }

    /// Stops a process for this time.
    pub fn stop(&mut self, node: usize, time: Duration) {
        let until = elapsed() + time;
        let machine = &mut self.machines[node];
        machine.stopped_until = machine.stopped_until.max(until);
        self.record.stopped(node, elapsed(), until);
        self.at(until, Event::Resume(node));
    }

    /// Crashes a process. Its code never runs again, and its connections break.
    pub fn crash(&mut self, node: usize) {
        self.machines[node].alive = false;
        self.record.ended(node, elapsed());
        let machine = &mut self.machines[node];
        machine.wakers.drain(..).for_each(Waker::wake);
        for connection in self.network.of(node) {
            // The machine of every second process still sends to Redis the bytes that the process
            // had written.
            match self.network.get(connection).end {
                End::Redis if node.is_multiple_of(2) => self.close(connection),
                _ => self.reset(connection),
            }
        }
    }
}

impl Inner {
    /// Caches the state that is checked at every point in the running process's code.
    fn look(&self, node: Option<usize>) {
        // This borrow fails only while a node starts. The code of that node is not stopped at such
        // a point.
        let Ok(world) = self.world.try_borrow() else {
            return;
        };
        let machine = node.and_then(|node| world.machines.get(node));
        self.wall_ahead
            .set(machine.map_or(0, |machine| machine.wall_ahead));
        self.trapped
            .set(machine.is_some_and(|machine| machine.trap.is_some()));
    }
}

impl Env for Inner {
    fn node(&self) -> Option<usize> {
        self.node.get()
    }

    fn begin(&self, node: usize, cx: &mut Context<'_>) -> Poll<bool> {
        let mut world = self.world.borrow_mut();
        let machine = &mut world.machines[node];
        if !machine.alive {
            return Poll::Ready(false);
        }
        if machine.stopped_until > elapsed() {
            machine.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(world);
        self.node.set(Some(node));
        self.look(Some(node));
        Poll::Ready(true)
    }

    fn end(&self, before: Option<usize>) {
        self.node.set(before);
        self.look(before);
    }
}

impl Watch for Inner {
    fn wall_ahead(&self) -> i64 {
        self.wall_ahead.get()
    }

    fn at(&self, _point: Point) {
        if !self.trapped.get() {
            return;
        }
        let (Some(node), Ok(mut world)) = (self.node.get(), self.world.try_borrow_mut()) else {
            return;
        };
        let machine = &mut world.machines[node];
        match machine.trap.take() {
            Some((0, time)) => {
                self.trapped.set(false);
                let now = elapsed();
                world.record.held_up(now, now + time);
                drop(world);
                // Events run outside of any process, so that they read no node's clock.
                let node = self.node.take();
                Shared::get().stand_still(time);
                self.node.set(node);
                self.look(node);
            }
            Some((more, time)) => machine.trap = Some((more - 1, time)),
            None => {}
        }
    }
}
