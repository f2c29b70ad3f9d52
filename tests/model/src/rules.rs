//! The rules of the protocol, one switch each.

/// What the protocol does. [`Rules::specified`] is the protocol; every other value leaves a rule
/// out, or takes a liberty whose safety is in question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rules {
    /// What a node does when Redis has lost its data: `backend.on_data_loss`.
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

/// What a node does when Redis has lost its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDataLoss {
    /// It writes back the revocations it knows.
    Reassert,
    /// It also makes every older token be renewed.
    Reauth,
}

/// When a node forgets a revocation whose key was pushed and is not there: lifted, or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forgetting {
    /// Never. A node of the model can afford it.
    Never,
    /// When the answer says so.
    AtOnce,
    /// When a heartbeat has been answered after that, and no null push has come before it.
    AfterHeartbeat,
}

/// What becomes of keys that are pushed during set-up, before sessions have been compared.
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
