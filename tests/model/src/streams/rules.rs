//! The rules of streams. Each rule is a switch. Their numbers are the numbers in the README's
//! table.

/// The rules of a node for a channel with a stream. [`StreamRules::specified`] has all rules. Every
/// other value removes a check.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamRules {
    /// SR1: frames that arrive while a subscription waits are buffered for the subscription.
    pub buffer: bool,
    /// SR1: the read is sent only after the broker has confirmed that the node listens.
    pub listen_first: bool,
    /// SR1: a subscription whose buffer is full waits for a new read.
    pub overflow_waits: bool,
    /// SR2: the answer is queued before any live frame.
    pub answer_first: bool,
    /// SR3: the top and the entries come from one read.
    pub read_at_once: bool,
    /// SR4: the epoch of the client's position is compared.
    pub compare_epoch: bool,
    /// SR4: a position beyond the top is not recovered.
    pub compare_top: bool,
    /// SR4: a position whose next entry was removed is not recovered.
    pub compare_first: bool,
    /// SR5 and SR6: frames that are not beyond the subscription's position are dropped.
    pub dedupe: bool,
    /// SR6: an open subscription accepts only the next frame.
    pub check_gap: bool,
    /// SR7: a frame of another epoch is never the next frame, regardless of its offset.
    pub compare_live_epoch: bool,
    /// SR8: a subscription from which a frame is withheld waits for a read.
    pub withheld_waits: bool,
    /// SR9: a read serves only subscriptions that waited before the read was sent.
    pub share_only_earlier: bool,
    /// SR9: if a session subscribes again, a read that was sent for its earlier subscription does
    /// not serve the new subscription.
    pub read_of_incarnation: bool,
    /// SR9: a read covers the frames that arrived before the read was sent, so these frames are
    /// dropped.
    pub drop_covered: bool,
    /// SR10: a loss of the link or a new generation voids the read under way.
    pub void_reads: bool,
    /// SR11: after a loss of the link, open subscriptions wait for a read.
    pub wait_after_link_loss: bool,
    /// SR12: a new generation connects the link again, to the server of the generation.
    pub relink: bool,
    /// SR12: a null push voids reads and makes open subscriptions wait.
    pub heed_null_push: bool,
    /// SR13: a loss of the link empties the window.
    pub empty_on_link_loss: bool,
    /// SR13: a new generation and a null push empty the window.
    pub empty_on_generation: bool,
    /// SR13: a publication whose offset does not follow the window's top restarts the window.
    pub window_without_holes: bool,
    /// SR14: a void read does not fill the window.
    pub fill_by_valid_reads: bool,
    /// SR14: a read that was sent before the window was dropped for lack of memory does not fill
    /// the window.
    pub fill_after_eviction: bool,
    /// SR14: a read that does not reach the window's first entry does not fill the window.
    pub fill_touching: bool,
    /// SR14: an answer of an epoch other than the window's empties the window.
    pub fill_same_epoch: bool,
    /// SR15: the window does not serve positions before its first entry.
    pub window_compares_first: bool,
    /// SR15: the window does not serve a position beyond its top.
    pub window_compares_top: bool,
    /// SR15: the window serves only after a read of this generation has found the window's epoch.
    pub window_confirmed: bool,
    /// SR16: a stream of another `master_replid` is a new stream.
    pub compare_replid: bool,
    /// SR16: the `master_replid` that a connection passes was read from a primary.
    pub replid_of_primary: bool,
    /// SR17: reads go to the primary.
    pub read_primary: bool,
    /// SR18: access is checked when recovered frames are written.
    pub gate_at_write: bool,
    /// SR18: the check of access at the write includes the lease.
    pub lease_at_write: bool,
    /// SR19: a reload reconsiders the subscriptions that wait for their answer.
    pub reconsider_waiting: bool,
    /// SR19: a reload removes the queued frames of a lost channel.
    pub reconsider_queued: bool,
    /// SR20: the position of a channel that receives nothing is compared with Redis from time to
    /// time.
    pub compare_idle: bool,
    /// SR21: when a read is given up, a gap is sent before the first frame beyond the position,
    /// unless this frame is the next frame.
    pub give_up_compares: bool,
    /// SR21: a frame of another epoch does not end the wait of a given-up read.
    pub give_up_in_epoch: bool,
    /// SR21: only the wait for a missing frame is given up. After a loss of the link or of data,
    /// the subscription waits for a read without limit.
    pub give_up_holes_only: bool,
    /// SR22: a deletion of the history empties the window.
    pub empty_on_deletion: bool,
    /// SR22: a read that is under way at the report of a deletion is void.
    pub void_on_deletion: bool,
}

impl StreamRules {
    /// All rules.
    pub fn specified() -> Self {
        Self {
            buffer: true,
            listen_first: true,
            overflow_waits: true,
            answer_first: true,
            read_at_once: true,
            compare_epoch: true,
            compare_top: true,
            compare_first: true,
            dedupe: true,
            check_gap: true,
            compare_live_epoch: true,
            withheld_waits: true,
            share_only_earlier: true,
            read_of_incarnation: true,
            drop_covered: true,
            void_reads: true,
            wait_after_link_loss: true,
            relink: true,
            heed_null_push: true,
            empty_on_link_loss: true,
            empty_on_generation: true,
            window_without_holes: true,
            fill_by_valid_reads: true,
            fill_after_eviction: true,
            fill_touching: true,
            fill_same_epoch: true,
            window_compares_first: true,
            window_compares_top: true,
            window_confirmed: true,
            compare_replid: true,
            replid_of_primary: true,
            read_primary: true,
            gate_at_write: true,
            lease_at_write: true,
            reconsider_waiting: true,
            reconsider_queued: true,
            compare_idle: true,
            give_up_compares: true,
            give_up_in_epoch: true,
            give_up_holes_only: true,
            empty_on_deletion: true,
            void_on_deletion: true,
        }
    }
}
