//! The rules of the protocol, one switch each.

/// Rules of the protocol. [`Rules::specified`] is the protocol; every other value leaves a rule
/// out, or takes a liberty whose safety is in question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rules {
    /// A node's reaction to data loss in Redis: `backend.on_data_loss`.
    pub on_data_loss: OnDataLoss,

    /// M1: a session is registered before its keys are read, so that a push finds it.
    pub register_first: bool,
    /// M2: sessions are compared with Redis before a new connection counts.
    pub reconcile: bool,
    /// M3: the lease counts from the moment the heartbeat is sent, not from its answer.
    pub lease_from_send: bool,
    /// M4: nothing is delivered without an unexpired lease.
    pub lease: bool,
    /// M5: tracking is on before sessions are compared.
    pub track_first: bool,
    /// M6: the heartbeat is a write, which an isolated or demoted primary refuses.
    pub fenced_heartbeat: bool,
    /// M7: a lost epoch is acted upon, as [`Rules::on_data_loss`] says.
    pub heed_loss: bool,
    /// M8: the floor becomes visible together with the new epoch, not after it.
    pub floor_with_epoch: bool,
    /// M9: the heartbeat goes over the connection that pushes come on.
    pub one_connection: bool,
    /// M11: one more round trip follows the heartbeat before the lease is renewed.
    pub barrier: bool,
    /// M12: a primary the node has not been synced with is told every revocation it knows.
    pub reassert: bool,
    /// M13: a null push makes the node read the epoch again.
    pub heed_null_push: bool,
    /// M14: a primary counts as known only when the node is synced with it.
    pub known_when_synced: bool,
    /// M15: an admission writes to the primary it has read from.
    pub admission_writes: bool,
    /// M16: a session that a push may concern is suspended until its key has been read.
    pub suspend_on_push: bool,
    /// M17: after a loss everything known is re-asserted at once, to a known primary too.
    pub reassert_after_loss: bool,
    /// M18: after a loss no primary is known any more, so that a re-assertion that was cut short
    /// is made up for on the next connection.
    pub forget_primaries: bool,
    /// M19: what an admission has read before a null push does not count as known after it: the
    /// node would never re-assert it.
    pub forget_reads: bool,

    /// M20: before something of a session is written, to its client or to Redis, the lease is loaded
    /// first and the session is looked at second. The other way round the lease may be newer than
    /// the look: a frame that was put aside for want of a lease, its session found open, goes out
    /// when the heartbeat brings the lease back, though the push that revokes the session came
    /// before it.
    pub lease_before_session: bool,
    /// M21: the lease that was loaded has to last still when the system call begins. Otherwise a
    /// process that is stopped between the question and the write writes when it goes on, however
    /// long after.
    pub lease_at_write: bool,
    /// M22: a publication carries a deadline, after which Redis does not execute it. Otherwise what
    /// lies in a socket, or in the network, takes effect whenever it gets through.
    pub fence: bool,
    /// M23: that deadline is the end of the lease by which it was accepted, not of the lease that the
    /// node has when it writes. The later one may rest on a heartbeat from after the revocation.
    pub fence_from_acceptance: bool,
    /// M24: Redis' time is reckoned from when its answer was received, not from when it was asked.
    /// Otherwise a deadline is late by as long as the question was on its way.
    pub fence_from_receipt: bool,
    /// M25: the deadline is reckoned with the clock of the server that executes the publication.
    /// Another one's may be ahead of it, and then the deadline is late by that.
    pub fence_by_executing_clock: bool,
    /// M26: the publisher is told `unavailable` only of what was never written; of what was written
    /// and not answered, `unknown_outcome`. Otherwise what was called a failure happens.
    pub unknown_outcome: bool,

    /// M27: a node that finds that it did not run for a while does not trust its lease, though that
    /// lasts. Otherwise one of its tasks tells a session `connected` while the push that revokes it
    /// lies unread in the socket of another.
    pub distrust_after_stall: bool,
    /// M28: it trusts it again when a heartbeat with its barrier has been answered that was sent
    /// after it found out. The answer to an earlier one may lie in the socket before the push.
    pub prove_after_stall: bool,
    /// M29: a lease that was loaded before a stall is void after it. Otherwise a frame that was about to
    /// be written is written when the node goes on, before it has found out anything.
    pub void_loaded_leases: bool,

    /// M30: when settings change, sessions that are open are indexed by their new keys. Otherwise no
    /// push and no comparison finds them by these.
    pub index_after_reload: bool,
    /// M31: after that they are compared with Redis. Otherwise a revocation that was written before
    /// the change, or while sessions were indexed, is never found.
    pub compare_after_reload: bool,
    /// M32: in this order. A revocation that is written after a comparison and before the indexing
    /// is found by neither: its push concerns no session yet.
    pub index_before_comparing: bool,
    /// M33: sessions that are being admitted are indexed and compared as well. Otherwise one that has
    /// read its old keys becomes active, and stays out of reach by the new ones.
    pub index_pending: bool,
    /// M34: a session is registered under the keys of the settings in force at that moment.
    /// Otherwise one whose token was verified before the change comes in, by its old keys, behind the
    /// indexing.
    pub register_by_settings_in_force: bool,
    /// M35: until every session has been compared, the node confirms no revocation to a receipt: it
    /// may have sessions that the revocation names and that it does not find.
    pub confirm_when_compared: bool,
    /// M36: nor does a node confirm a revocation of a kind that its settings lack. Otherwise the
    /// receipt counts it, and when its settings know the kind it has sessions of that kind open.
    pub confirm_known_kinds: bool,

    /// M37: when a key is pushed, both spellings of its name are asked for. Otherwise the revocation
    /// in the other spelling, readable or digest, reads as lifted.
    pub get_both_spellings: bool,
    /// M38: admissions and comparisons ask for both spellings too. Otherwise a session is admitted
    /// once one of the two is deleted.
    pub compare_both_spellings: bool,

    /// R1: the node's generation is compared again when a session is activated.
    pub recheck_generation: bool,

    /// V1, when off: a heartbeat may be sent while a pushed key waits for its GET, or for that
    /// GET's answer; the sessions it may concern are suspended.
    pub heartbeat_waits: bool,
    /// V2: a null push that comes while an answer is awaited does not end the connection: the
    /// answer is dropped and the node reads the epoch again.
    pub null_push_keeps_connection: bool,
    /// V3: what becomes of keys that are pushed before every session has been compared.
    pub pushed_in_setup: PushedInSetup,
    /// V4: a new epoch is remembered when the node is synced, not when it is read.
    pub epoch_when_synced: bool,
    /// V5: with `reauth` too, everything known is re-asserted after a loss, floor or no floor.
    pub reassert_with_floor: bool,
    /// V6: an admission reads and writes over a connection of its own, which may lead to another
    /// primary than the node is synced with.
    pub admission_apart: bool,
    /// V7: an admission is denied by what the node knows, too, not by Redis alone.
    pub admission_remembers: bool,
    /// V8: when a key that was pushed and is not found is forgotten.
    pub forgetting: Forgetting,
}

/// A node's reaction to data loss in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDataLoss {
    /// It writes back the revocations it knows.
    Reassert,
    /// It also makes every older token be renewed.
    Reauth,
}

/// Time to forget a revocation whose key was pushed and is not there: lifted, or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forgetting {
    /// Never. A node of the model can afford it.
    Never,
    /// With the answer that says so.
    AtOnce,
    /// With a heartbeat's answer after that, before which no null push has come.
    AfterHeartbeat,
}

/// Treatment of keys that are pushed during set-up, before sessions have been compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PushedInSetup {
    /// The comparison answers them.
    Answered,
    /// They are asked for after it, before the heartbeat.
    AskedFirst,
    /// They are asked for when the node is synced. Sessions stay suspended until then.
    AskedLater,
}

impl Rules {
    /// The protocol as it is specified.
    pub fn specified(on_data_loss: OnDataLoss) -> Self {
        Self {
            on_data_loss,
            register_first: true,
            reconcile: true,
            lease_from_send: true,
            lease: true,
            track_first: true,
            fenced_heartbeat: true,
            heed_loss: true,
            floor_with_epoch: true,
            one_connection: true,
            barrier: true,
            reassert: true,
            heed_null_push: true,
            known_when_synced: true,
            admission_writes: true,
            suspend_on_push: true,
            reassert_after_loss: true,
            forget_primaries: true,
            forget_reads: true,
            lease_before_session: true,
            lease_at_write: true,
            fence: true,
            fence_from_acceptance: true,
            fence_from_receipt: true,
            fence_by_executing_clock: true,
            unknown_outcome: true,
            distrust_after_stall: true,
            prove_after_stall: true,
            void_loaded_leases: true,
            index_after_reload: true,
            compare_after_reload: true,
            index_before_comparing: true,
            index_pending: true,
            register_by_settings_in_force: true,
            confirm_when_compared: true,
            confirm_known_kinds: true,
            get_both_spellings: true,
            compare_both_spellings: true,
            recheck_generation: true,
            heartbeat_waits: true,
            null_push_keeps_connection: false,
            pushed_in_setup: PushedInSetup::Answered,
            epoch_when_synced: false,
            reassert_with_floor: false,
            admission_apart: false,
            admission_remembers: false,
            forgetting: Forgetting::Never,
        }
    }

    /// Every protocol a node may speak: the specified one under either policy, and each with the
    /// liberties V2 to V5, alone and together.
    pub fn allowed() -> Vec<Self> {
        let mut allowed = Vec::new();
        for on_data_loss in [OnDataLoss::Reassert, OnDataLoss::Reauth] {
            for pushed_in_setup in PushedInSetup::ALL {
                for liberties in 0..8_u8 {
                    allowed.push(Self {
                        pushed_in_setup,
                        null_push_keeps_connection: liberties & 1 != 0,
                        epoch_when_synced: liberties & 2 != 0,
                        reassert_with_floor: liberties & 4 != 0,
                        ..Self::specified(on_data_loss)
                    });
                }
            }
        }
        allowed
    }
}

impl PushedInSetup {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Answered, Self::AskedFirst, Self::AskedLater];
}
