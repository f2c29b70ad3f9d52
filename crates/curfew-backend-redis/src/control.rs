//! The control connection, through which a node learns of every revocation in time. While the node
//! cannot learn of revocations, it has no delivery lease, and delivers nothing.
//!
//! One task owns the connection and all state that is read through it. The task does one thing at a
//! time. The task's states are *down* (no connection, no lease), *setup* (tracking is on, but some
//! sessions have not been compared with Redis yet) and *synced* (the node holds the delivery lease,
//! renewed by every heartbeat). A generation is the lifetime of one control connection.
//! `tests/model` states each rule, with its reason and the fault that occurs without the rule.
//!
//! [`setup`] connects and does everything up to the first lease. [`heartbeat`] renews the lease.
//! [`pushes`] handles the pushes of Redis. [`reconcile`] compares sessions with Redis. [`compare`]
//! compares sessions with Redis after a change of settings, while traffic continues. [`operations`]
//! executes the requests of the admin API.

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
use crate::request::ControlRequest;
use crate::slots::Slot;
pub(crate) use ineffective::why as why_ineffective;
pub use pushes::TouchedKey;
pub(crate) use read::{SpelledKey, find_names, read};

use compare::Comparison;
pub(crate) use known_revocations::{Known, KnownRevocations};
use pushes::Pushes;
use setup::Primary;

/// Longest interval between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Lifetime of a node's heartbeat in Redis. A node without a heartbeat counts as dead.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(10);

/// Interval between two sweeps over every session, varied by a fifth. A sweep finds revocations
/// that no push has announced, for example after `SWAPDB`.
const SWEEP: Duration = Duration::from_secs(30);

/// Shortest interval between two setups on one connection. Without this interval, a client that
/// empties another database again and again would keep the node busy with setups.
const RESETUP: Duration = Duration::from_secs(1);

/// The owner of the control connection.
#[derive(Debug)]
pub(crate) struct Control {
    core: Arc<Core>,
    connections: Arc<Connections>,
    requests: mpsc::Receiver<ControlRequest>,
    /// The number of the current generation, for logs and the protocol log.
    generation: u64,
    /// The primary with which this node was last synced. At that time the primary had every
    /// revocation in `known_revocations`.
    known: Option<Primary>,
    /// The primary whose risks were last logged.
    told_of: Option<Primary>,
    /// The epoch of the data with which this node was last synced. A new epoch begins when data is
    /// lost.
    epoch: Option<String>,
    /// Every revocation that this node knows.
    known_revocations: Arc<KnownRevocations>,
    /// Names of the ineffective keys that were found and that `known_revocations` cannot hold.
    nameless: HashSet<Vec<u8>>,
    /// Sessions ended by recent revocations of the admin API, counted for receipts.
    counted: VecDeque<Counted>,
    /// Sessions that are yet to be compared under changed settings.
    comparison: Comparison,
    /// True if this node has written its heartbeat to the data of the current primary. If the
    /// heartbeat is missing in Redis nevertheless, other nodes may have removed this node's
    /// records.
    registered: bool,
    /// Sessions whose records are to be written again. They stay here until the write succeeds.
    rewrite: Vec<SessionId>,
    /// Earliest time of the next attempt to write the records of `rewrite`.
    rewrite_at: Instant,
    /// The time when the primary was last seen with a connected replica.
    replicas_seen_at: Option<Instant>,
    /// True if the last clock difference was large, and a warning about it was logged.
    warned_of_skew: bool,
}

/// Sessions that the node ended because of a revocation of the admin API.
#[derive(Debug)]
struct Counted {
    /// The id of the admin API's write of the revocation.
    id: String,
    /// The sessions that the node ended.
    ended: Ended,
    /// The time at which the node first counted sessions for the revocation.
    at: Instant,
}

/// The state of one control connection.
#[derive(Debug)]
struct Generation {
    /// The server that the connection leads to.
    address: RedisAddress,
    connection: Connection,
    /// The pushes received on the connection.
    pushes: Arc<Pushes>,
    primary: Primary,
    /// The time when the next heartbeat is due.
    next_heartbeat: Instant,
    /// The time when the next sweep starts.
    next_sweep: Instant,
    /// Sessions that the current sweep has not reached yet.
    sweep: Vec<SessionId>,
    /// Known keys that were read and no longer exist. They are forgotten once it is certain that
    /// they were lifted and not lost together with all data.
    gone: Vec<SpelledKey>,
    /// Revocations that this node knows and has not looked up on this connection yet. Each may have
    /// been lifted while the node was disconnected.
    recall: Vec<SpelledKey>,
    /// The offset at which the reading of the index continues; `None` once the whole index was
    /// read.
    learn: Option<isize>,
    /// True if the last step was a heartbeat, so that the next step is not a heartbeat.
    others_turn: bool,
    /// The time when the latest setup began.
    set_up_at: Instant,
}

impl Generation {
    /// Makes a heartbeat the next step.
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
        requests: mpsc::Receiver<ControlRequest>,
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

    /// Connects, and reconnects after each fault, for as long as the backend runs.
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

    /// Runs one generation until a fault ends it.
    async fn live(&mut self, backoff: &mut Backoff) -> Result<Infallible, Fault> {
        let mut generation = self.connect().await?;
        self.set_up(&mut generation).await?;
        backoff.reset();
        loop {
            if let Err(fault) = self.work(&mut generation).await {
                // The lease expires before the generation is dropped, because the drop releases the
                // sessions that are held back.
                self.core.lease.expire();
                return Err(fault);
            }
        }
    }

    /// Does the most urgent next step.
    async fn work(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let pushes = Arc::clone(&generation.pushes);
        if pushes.is_gone() {
            // The connection is lost, so nothing that was received over it may be used any more.
            return Err(Fault::NotConnected);
        }
        // The primary is checked before each step, because the answers of a replaced primary must
        // not be used.
        if self.connections.primary_of(Slot::REVOKED).as_ref() != Some(&generation.address) {
            return Err(Fault::NoPrimary(format!(
                "{} is no longer the primary that stores the revocations",
                generation.address
            )));
        }
        if pushes.has_lost_track() {
            return self.set_up_again(generation).await;
        }
        // A heartbeat that is due comes before the waiting pushes, even if many pushes wait. This
        // is safe: the sessions that the waiting keys may name are held back, so a renewed lease
        // lets nothing through to these sessions (V1 of the model).
        //
        // Every heartbeat is followed by one other step. Without this rule, a heartbeat would
        // always be due if a round trip took longer than half the interval.
        let others_turn = mem::take(&mut generation.others_turn);
        if Instant::now() >= generation.next_heartbeat && !others_turn {
            generation.others_turn = true;
            return self.beat(generation).await;
        }
        // The comparison takes turns with pushes and requests. It cannot wait for a pause, because
        // pushes and requests may never pause, and receipts wait for the end of the comparison.
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

    /// Ends the lease at once, because the node may miss revocations from here on.
    fn go_down(&mut self, fault: &Fault) {
        self.core.lease.expire();
        self.core.metrics.backend_synced.set(0);
        self.step("down").reason(fault).log();
        let news = self.core.status.set_down(fault.to_string());
        if news {
            // `reopened` wakes the sessions that wait for the end of a short interruption, because
            // this interruption may be long.
            self.core.events.reopened();
            warn!(error = %fault, "disconnected from redis, sessions receive nothing until the node has reconnected");
        } else {
            debug!(error = %fault, "still disconnected from redis");
        }
    }

    /// Refuses every request for the duration of `wait`.
    async fn refuse_for(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while let Ok(Some(request)) = time::timeout_at(until, self.requests.recv()).await {
            match request {
                // The next setup compares every session, and answers this request.
                ControlRequest::Compare { reply } => self.comparison.wait(reply),
                request => request.refuse(),
            }
        }
        time::sleep_until(until).await;
    }

    /// Renews the lease until `until`, unless the node lost track of the revocations meanwhile.
    /// Returns false if this process was paused since `stretch` began. The caller must then send
    /// another heartbeat.
    fn renew_lease(&mut self, generation: &Generation, until: Duration, stretch: Stretch) -> bool {
        let lease = &self.core.lease;
        let opened = generation
            .pushes
            .unless_lost(|| lease.renew(until, stretch));
        // If the node lost track, the lease stays expired, and the next step is another setup.
        let Some(opened) = opened else { return true };
        // If the process was paused since `stretch` began, the lease was not renewed.
        let Some(reopened) = opened else { return false };
        if self.core.status.set_leased_until(until) {
            info!(
                generation = self.generation,
                "connected to redis, sessions receive messages"
            );
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

    /// Ends the sessions that a revocation covers. `learned` is the time when the node learned of
    /// the revocation's key.
    fn apply(&self, revoked: &Revoked, learned: Instant) -> Ended {
        let Revoked { key, revocation } = revoked;
        self.core
            .events
            .revoked(key, revocation, learned.into_std())
    }
}

/// Ends every session once the node has been without a lease for longer than `backend.grace`.
pub(crate) async fn watch_isolation(core: Arc<Core>) {
    /// Interval between two checks.
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
