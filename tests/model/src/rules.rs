//! The rules of the protocol. Each rule is a switch.

/// Rules of the protocol. [`Rules::specified`] is the protocol. Every other value removes rules, or
/// takes liberties whose safety is to be examined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rules {
    /// A node's reaction to data loss in Redis: `backend.on_data_loss`.
    pub on_data_loss: OnDataLoss,

    /// M1: a session is registered before its keys are read, so that a push finds it.
    pub register_first: bool,
    /// M2: sessions are compared with Redis before the node uses a new connection.
    pub reconcile: bool,
    /// M3: the lease counts from the moment the heartbeat is sent, not from its answer.
    pub lease_from_send: bool,
    /// M4: nothing is delivered without an unexpired lease.
    pub lease: bool,
    /// M5: tracking is on before sessions are compared.
    pub track_first: bool,
    /// M6: the heartbeat is a write, which an isolated or demoted primary refuses.
    pub fenced_heartbeat: bool,
    /// M7: the node reacts to a lost epoch, as [`Rules::on_data_loss`] says.
    pub heed_loss: bool,
    /// M8: the floor becomes visible together with the new epoch, not after it.
    pub floor_with_epoch: bool,
    /// M9: the heartbeat uses the connection on which pushes arrive.
    pub one_connection: bool,
    /// M11: one more round trip follows the heartbeat before the lease is renewed.
    pub barrier: bool,
    /// M12: the node writes every revocation that it knows to a primary that it was not synced
    /// with.
    pub reassert: bool,
    /// M13: after a null push the node reads the epoch again.
    pub heed_null_push: bool,
    /// M14: a primary counts as known only when the node is synced with it.
    pub known_when_synced: bool,
    /// M15: an admission writes to the primary from which it has read.
    pub admission_writes: bool,
    /// M16: a session that a push may concern is suspended until its key has been read.
    pub suspend_on_push: bool,
    /// M17: after a loss the node re-asserts every known revocation at once, also to a known
    /// primary.
    pub reassert_after_loss: bool,
    /// M18: after a loss no primary is known, so that the next connection completes an interrupted
    /// re-assertion.
    pub forget_primaries: bool,
    /// M19: a key that an admission has read before a null push does not count as known after the
    /// null push. Otherwise the node would never re-assert the key.
    pub forget_reads: bool,

    /// M20: before a write for a session, to its client or to Redis, the node first loads the lease
    /// and then checks the session. In the other order the lease may be newer than the check: a
    /// session is found open, and its frame is set aside because there is no lease. When a
    /// heartbeat renews the lease, the frame is written, although the push that revokes the session
    /// has already arrived.
    pub lease_before_session: bool,
    /// M21: the loaded lease must still hold when the system call begins. Otherwise a process that
    /// is stopped between the check and the write still writes when it continues, even if this is
    /// much later.
    pub lease_at_write: bool,
    /// M22: a publication carries a deadline, after which Redis does not execute it. Otherwise a
    /// publication in a socket or in the network takes effect at any later time.
    pub fence: bool,
    /// M23: a publication's deadline is the end of the lease under which it was accepted, not the
    /// end of the lease at the write. A heartbeat after the revocation may have renewed the later
    /// lease.
    pub fence_from_acceptance: bool,
    /// M24: the time that Redis sends counts from the moment at which the node receives the answer,
    /// not from the moment at which the node sent the request. Otherwise a deadline is late by the
    /// duration of the round trip.
    pub fence_from_receipt: bool,
    /// M25: the deadline is computed with the clock of the server that executes the publication. If
    /// the clock of another server is used and is ahead, the deadline is late by the difference.
    pub fence_by_executing_clock: bool,
    /// M26: the publisher is told `unavailable` only if the publication was never written. If it
    /// was written and Redis did not answer, the publisher gets `unknown_outcome`. Otherwise a
    /// publication that was reported as failed may still take effect.
    pub unknown_outcome: bool,

    /// M27: a node that finds that it did not run for a while does not trust its lease, even if the
    /// lease still holds. Otherwise one of its tasks may send `connected` to a session while the
    /// push that revokes it lies unread in another task's socket.
    pub distrust_after_stall: bool,
    /// M28: the node trusts its lease again after the answers to a heartbeat and a barrier that it
    /// sent after it had noticed the stall. The answer to an earlier heartbeat may be in the socket
    /// before the push.
    pub prove_after_stall: bool,
    /// M29: a lease that was loaded before a stall is void after the stall. Otherwise a frame that
    /// was about to be written is written when the node continues, before the node has noticed the
    /// stall.
    pub void_loaded_leases: bool,

    /// M30: when settings change, open sessions are indexed by their new keys. Otherwise neither a
    /// push nor a comparison finds the sessions by the new keys.
    pub index_after_reload: bool,
    /// M31: after the indexing, sessions are compared with Redis. Otherwise a revocation that was
    /// written before the change, or during the indexing, is never found.
    pub compare_after_reload: bool,
    /// M32: indexing comes first, comparing second. In the other order, a revocation that is
    /// written between the two steps is never found: the comparison is over, and the push of the
    /// revocation finds no session yet.
    pub index_before_comparing: bool,
    /// M33: sessions that are being admitted are indexed and compared too. Otherwise a session
    /// whose old keys were read becomes active, and is not found by its new keys.
    pub index_pending: bool,
    /// M34: a session is registered under the keys of the settings in force at that moment.
    /// Otherwise a session whose token was verified before the change is registered under its old
    /// keys after the indexing.
    pub register_by_settings_in_force: bool,
    /// M35: until every session was compared, the node confirms no revocation to a receipt, because
    /// it may have sessions that the revocation names and that it does not find.
    pub confirm_when_compared: bool,
    /// M36: a node does not confirm a revocation of a kind that its settings lack. Otherwise the
    /// receipt counts the node as confirmed, although the node has open sessions that the
    /// revocation names once the settings include the kind.
    pub confirm_known_kinds: bool,

    /// M37: for a pushed key, the node asks for both spellings of its name. Otherwise a revocation
    /// in the other spelling (readable or digest) seems lifted.
    pub get_both_spellings: bool,
    /// M38: admissions and comparisons ask for both spellings too. Otherwise a session is admitted
    /// once one of the two spellings is deleted.
    pub compare_both_spellings: bool,

    /// R1: the node's generation is compared again when a session is activated.
    pub recheck_generation: bool,

    /// V1 is taken if this is false: the node may then send a heartbeat while the GET for a pushed
    /// key is not sent or not answered yet. The sessions that the key may concern are suspended
    /// meanwhile.
    pub heartbeat_waits: bool,
    /// V2: a null push during the wait for an answer does not end the connection: the node drops
    /// the answer and reads the epoch again.
    pub null_push_keeps_connection: bool,
    /// V3: the treatment of keys that are pushed before every session was compared.
    pub pushed_in_setup: PushedInSetup,
    /// V4: the node stores a new epoch when it is synced, not when it reads the epoch.
    pub epoch_when_synced: bool,
    /// V5: every known revocation is re-asserted after a loss even with `reauth`, although the
    /// floor covers it.
    pub reassert_with_floor: bool,
    /// V6: an admission uses its own connection, which may lead to a primary with which the node is
    /// not synced.
    pub admission_apart: bool,
    /// V7: an admission is also denied by revocations that the node knows, not only by Redis.
    pub admission_remembers: bool,
    /// V8: the time at which a node forgets a pushed key that no longer exists.
    pub forgetting: Forgetting,
}

/// A node's reaction to data loss in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDataLoss {
    /// The node writes back the revocations that it knows.
    Reassert,
    /// The node raises a floor: every token from before the loss must be renewed.
    Reauth,
}

/// The time at which a node forgets a revocation whose key was pushed and is missing, because the
/// key was deleted or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forgetting {
    /// Never. The model does not limit a node's memory.
    Never,
    /// At the answer that shows that the key is missing.
    AtOnce,
    /// At the answer to a later heartbeat, if no null push has arrived before that answer.
    AfterHeartbeat,
}

/// Treatment of keys that are pushed during set-up, before sessions were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PushedInSetup {
    /// The comparison covers the pushed keys, so the node sends no separate request.
    Answered,
    /// The node asks for the pushed keys after the comparison, before the heartbeat.
    AskedFirst,
    /// The node asks for the pushed keys when it is synced. The sessions stay suspended until then.
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

    /// Every protocol that a node may use: the specified protocol under each policy, combined with
    /// every set of the liberties V2 to V5.
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
    /// All variants.
    pub const ALL: [Self; 3] = [Self::Answered, Self::AskedFirst, Self::AskedLater];
}
