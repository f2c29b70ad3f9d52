//! The control connection: how a node knows every revocation in time, and what it does when it
//! cannot know.
//!
//! One task owns the connection and everything known through it, and does one thing at a time.
//! Its states: *down* (no connection, no lease), *setup* (tracking is on, but not every
//! session has been compared with Redis yet), *synced* (the node holds the delivery lease, renewed by
//! every heartbeat). A generation is the life of one connection. The rules, why each is there and
//! what breaks without it: `tests/model`.
//!
//! In order: [`setup`] makes a connection and everything up to the first lease, [`heartbeat`]
//! renews it, [`pushes`] takes what Redis tells, [`reconcile`] compares sessions with Redis,
//! [`compare`] does so by other settings while traffic goes on, [`operations`] are what the admin API
//! asks for.

mod compare;
mod heartbeat;
mod index;
mod ineffective;
mod known_revocations;
mod operations;
mod protocol_log;
mod pushes;
mod read;
mod reconcile;
mod setup;

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{Ended, Revoked};
use curfew_model::{SessionId, Stretch};
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::config::RedisAddress;
use crate::connect::Connection;
use crate::connections::Connections;
use crate::core::Core;
use crate::fault::Fault;
use crate::request::Request;
use crate::slots::Slot;
pub(crate) use ineffective::why as why_ineffective;
pub use pushes::Told;
pub(crate) use read::{SpelledKey, find_names, read};

use compare::Comparison;
pub(crate) use known_revocations::{Known, KnownRevocations};
use pushes::Pushes;
use setup::Primary;

/// Longest time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// For how long a node is known to live after its last heartbeat.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(10);

/// Between two looks at every session, give or take a fifth. It finds what no push had told:
/// `SWAPDB`, or whatever nobody has thought of.
const SWEEP: Duration = Duration::from_secs(30);

/// Shortest time between two setups on one connection: whoever empties another database again and
/// again does not keep the node busy with nothing else.
const RESETUP: Duration = Duration::from_secs(1);

/// Owns the control connection.
#[derive(Debug)]
pub(crate) struct Control {
    core: Arc<Core>,
    connections: Arc<Connections>,
    requests: mpsc::Receiver<Request>,
    generation: u64,
    /// The primary this node was last synced with: it has every revocation in `known_revocations`.
    known: Option<Primary>,
    /// The primary whose risks were last told of.
    told_of: Option<Primary>,
    /// Which life of the data this node was last synced with.
    epoch: Option<String>,
    /// Every revocation this node knows of.
    known_revocations: Arc<KnownRevocations>,
    /// The names of keys that were noticed and name nobody.
    nameless: HashSet<Vec<u8>>,
    /// Sessions ended by API revocations of late: for receipts.
    counted: VecDeque<Counted>,
    /// Sessions yet to be compared by other settings.
    comparison: Comparison,
    /// Whether this node's lease was there at the last heartbeat: without it, others may have
    /// removed its records.
    registered: bool,
    /// Sessions whose records are yet to be written again; kept until they are.
    rewrite: Vec<SessionId>,
    /// Not before this.
    rewrite_at: Instant,
    /// When a replica was last seen connected to a primary.
    replicas_seen_at: Option<Instant>,
    warned_of_skew: bool,
}

/// Sessions that a push of an API revocation has ended.
#[derive(Debug)]
struct Counted {
    /// The revocation's.
    id: String,
    ended: Ended,
    at: Instant,
}

/// What is under way on one connection.
#[derive(Debug)]
struct Generation {
    address: RedisAddress,
    connection: Connection,
    pushes: Arc<Pushes>,
    primary: Primary,
    next_heartbeat: Instant,
    next_sweep: Instant,
    /// Sessions yet to be looked at by the sweep under way.
    sweep: Vec<SessionId>,
    /// Keys that were read and are not there any more: forgotten once it is sure that they were
    /// lifted, and not lost with everything else.
    gone: Vec<SpelledKey>,
    /// Revocations that this node knows and has not found in Redis again yet: one may have been
    /// lifted while it was out of touch.
    recall: Vec<SpelledKey>,
    /// Where the reading of the index goes on; `None` when it is done.
    learn: Option<isize>,
    /// A heartbeat was the last thing done.
    others_turn: bool,
    set_up_at: Instant,
}

impl Generation {
    /// A heartbeat is the next thing to do.
    fn beat_next(&mut self) {
        self.next_heartbeat = Instant::now();
        self.others_turn = false;
    }
}

impl Control {
    pub(crate) fn new(
        core: Arc<Core>,
        connections: Arc<Connections>,
        known_revocations: Arc<KnownRevocations>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            core,
            connections,
            requests,
            generation: 0,
            known: None,
            told_of: None,
            epoch: None,
            known_revocations,
            nameless: HashSet::new(),
            counted: VecDeque::new(),
            comparison: Comparison::default(),
            registered: false,
            rewrite: Vec::new(),
            rewrite_at: Instant::now(),
            replicas_seen_at: None,
            warned_of_skew: false,
        }
    }

    /// Connects again and again for as long as the backend runs.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let fault = match self.live(&mut backoff).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            self.go_down(&fault);
            self.refuse_for(backoff.next()).await;
        }
    }

    /// One generation, up to whatever ends it.
    async fn live(&mut self, backoff: &mut Backoff) -> Result<Infallible, Fault> {
        let mut generation = self.connect().await?;
        self.set_up(&mut generation).await?;
        backoff.reset();
        loop {
            if let Err(fault) = self.work(&mut generation).await {
                // Before the sessions that are held back, with the generation, go on.
                self.core.lease.expire();
                return Err(fault);
            }
        }
    }

    /// The next thing to do, in order of urgency.
    async fn work(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let pushes = Arc::clone(&generation.pushes);
        if pushes.is_gone() {
            return Err(Fault::NotConnected);
        }
        // Before anything is asked of it or said by it.
        if self.connections.primary_of(Slot::REVOKED).as_ref() != Some(&generation.address) {
            return Err(Fault::NoPrimary(format!(
                "{} is not the primary of the revocations any more",
                generation.address
            )));
        }
        if pushes.has_lost_track() {
            return self.set_up_again(generation).await;
        }
        // Also while keys wait to be read, many of them perhaps: their sessions are held back, so
        // that the lease is of no use to them (V1 of the model).
        // All other work has a turn after each: where a round trip takes longer than half the
        // interval, a heartbeat is always due.
        let others_turn = mem::take(&mut generation.others_turn);
        if Instant::now() >= generation.next_heartbeat && !others_turn {
            generation.others_turn = true;
            return self.beat(generation).await;
        }
        // In turn with what comes from outside, which may not end: receipts wait for it.
        if self.comparison.is_its_turn() {
            return self.compare(generation).await;
        }
        if pushes.has_any() {
            return self.read_pushed(generation).await;
        }
        if let Ok(request) = self.requests.try_recv() {
            return self.operate(generation, request).await;
        }
        if self.has_chores(generation) {
            return self.do_chore(generation).await;
        }
        let (connections, core) = (Arc::clone(&self.connections), Arc::clone(&self.core));
        tokio::select! {
            () = pushes.arrived() => {}
            () = self.known_revocations.has_met.notified() => {}
            () = time::sleep_until(generation.next_heartbeat.min(generation.next_sweep)) => {
                if Instant::now() >= generation.next_sweep {
                    self.start_sweep(generation);
                }
            }
            request = self.requests.recv() => {
                if let Some(request) = request {
                    return self.operate(generation, request).await;
                }
            }
            () = connections.changed.notified() => {}
            () = core.stopped.notified() => generation.beat_next(),
        }
        Ok(())
    }

    /// The lease ends at once: the node cannot know what it would miss from here on.
    fn go_down(&mut self, fault: &Fault) {
        self.core.lease.expire();
        self.core.metrics.backend_synced.set(0);
        self.step("down").reason(fault).log();
        let news = self.core.status.set_down(fault.to_string());
        if news {
            // Sessions that waited for a moment find out that it will be longer.
            self.core.events.reopened();
            warn!(error = %fault, "out of touch with redis, sessions are silent");
        } else {
            debug!(error = %fault, "still out of touch with redis");
        }
    }

    /// Answers whatever is asked, for a while, that it cannot be done now.
    async fn refuse_for(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while let Ok(Some(request)) = time::timeout_at(until, self.requests.recv()).await {
            match request {
                // Made by whatever brings the node back in touch.
                Request::Compare { reply } => self.comparison.wait(reply),
                request => request.refuse(),
            }
        }
        time::sleep_until(until).await;
    }

    /// The lease is held until `until`, unless everything may have changed. False when
    /// this process was stopped since `stretch` began, and the proof is to be asked for again.
    fn renew_lease(&mut self, generation: &Generation, until: Duration, stretch: Stretch) -> bool {
        let lease = &self.core.lease;
        let opened = generation
            .pushes
            .unless_lost(|| lease.renew(until, stretch));
        let Some(opened) = opened else { return true };
        let Some(reopened) = opened else { return false };
        if self.core.status.set_leased_until(until) {
            info!(generation = self.generation, "in touch with redis");
        }
        let metrics = &self.core.metrics;
        metrics.backend_synced.set(1);
        let now = i64::try_from(self.core.clock.unix()).unwrap_or(i64::MAX);
        metrics.revocation_last_sync_timestamp.set(now);
        if reopened {
            self.core.events.reopened();
        }
        true
    }

    /// Ends the sessions that a revocation covers, whose key the node heard of when it `learned`.
    fn apply(&self, revoked: &Revoked, learned: Instant) -> Ended {
        let Revoked { key, revocation } = revoked;
        self.core
            .events
            .revoked(key, revocation, learned.into_std())
    }
}

/// Ends every session when the node has been out of touch for longer than `backend.grace`.
pub(crate) async fn watch_isolation(core: Arc<Core>) {
    /// Between two looks.
    const LOOK: Duration = Duration::from_millis(100);
    let mut isolated = false;
    loop {
        time::sleep(LOOK).await;
        let away = core.status.without_lease_for().unwrap_or_default();
        if away <= core.config.grace {
            isolated = false;
        } else if !isolated {
            isolated = true;
            core.events.isolated();
        }
    }
}
