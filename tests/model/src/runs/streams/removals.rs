//! Searches of streams with one check removed.

use super::super::{Expect, Part, Run};
use super::{
    failover, flush, link, reload, returning, revocation, run, slow_and_flush, small_window, tight,
    two, window, window_and_deletion, window_and_failover, window_and_flush, window_of_two,
    window_without_room,
};
use crate::streams::{StreamBounds, StreamRules};

/// Each search removes one rule of the README's table.
pub(super) fn all() -> Vec<Run> {
    let mut runs = Vec::new();
    let mut remove =
        |id, title, bounds: fn() -> StreamBounds, off: fn(&mut StreamRules), promises| {
            let mut rules = StreamRules::specified();
            off(&mut rules);
            let searched = (rules, bounds());
            let expect = Expect::BreaksOnly(promises);
            runs.push(run(Part::StreamRemovals, id, title, searched, expect));
        };
    remove(
        "SR1",
        "nothing is buffered",
        link,
        |rules| rules.buffer = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR1a",
        "the read is sent before the node listens",
        link,
        |rules| rules.listen_first = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR1b",
        "a full buffer drops",
        tight,
        |rules| rules.overflow_waits = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR2",
        "live frames before the answer",
        link,
        |rules| rules.answer_first = false,
        &["ST7"],
    );
    remove(
        "SR3",
        "entries and top are read apart",
        link,
        |rules| rules.read_at_once = false,
        &["ST1", "ST1q", "ST2"],
    );
    remove(
        "SR4",
        "the epoch of a position is not compared",
        flush,
        |rules| rules.compare_epoch = false,
        &["ST1", "ST1q", "ST5"],
    );
    remove(
        "SR4a",
        "a position is not compared with the first entry",
        link,
        |rules| rules.compare_first = false,
        &["ST1", "ST2"],
    );
    remove(
        "SR5",
        "what is buffered is not compared with the answer",
        link,
        |rules| rules.dedupe = false,
        &["ST1"],
    );
    remove(
        "SR6",
        "no gap check",
        link,
        |rules| rules.check_gap = false,
        &["ST1"],
    );
    remove(
        "SR7",
        "the epoch of a live frame is not compared",
        flush,
        |rules| rules.compare_live_epoch = false,
        &["ST1", "ST1q"],
    );
    remove(
        "SR8",
        "what is withheld counts as delivered",
        revocation,
        |rules| rules.withheld_waits = false,
        &["ST1", "ST1q"],
    );
    remove(
        "SR9",
        "a read under way is joined",
        two,
        |rules| rules.share_only_earlier = false,
        &["ST1q", "ST2", "ST2f"],
    );
    remove(
        "SR9a",
        "a read serves the session's next subscription",
        returning,
        |rules| rules.read_of_incarnation = false,
        &["ST1q", "ST2", "ST2f"],
    );
    remove(
        "SR9b",
        "what came before the read is merged",
        flush,
        |rules| rules.drop_covered = false,
        &["ST1w"],
    );
    remove(
        "SR10",
        "a read outlives its link",
        link,
        |rules| rules.void_reads = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR10a",
        "a read outlives its generation",
        failover,
        |rules| rules.void_reads = false,
        &["ST1q", "ST2f", "ST5"],
    );
    remove(
        "SR11",
        "open subscriptions do not wait after a break",
        link,
        |rules| rules.wait_after_link_loss = false,
        &["ST1q"],
    );
    remove(
        "SR12",
        "the link outlives its generation",
        failover,
        |rules| rules.relink = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR12a",
        "a null push is ignored",
        flush,
        |rules| rules.heed_null_push = false,
        &["ST5"],
    );
    remove(
        "SR13",
        "the window outlives its link",
        window,
        |rules| rules.empty_on_link_loss = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR13a",
        "the window outlives its generation",
        window_and_failover,
        |rules| rules.empty_on_generation = false,
        &["ST1q", "ST5"],
    );
    remove(
        "SR13b",
        "the window outlives a null push",
        window_and_flush,
        |rules| rules.empty_on_generation = false,
        &["ST1q", "ST5"],
    );
    remove(
        "SR13c",
        "the window has holes",
        window,
        |rules| rules.window_without_holes = false,
        &["ST1", "ST2"],
    );
    remove(
        "SR14",
        "a void read fills the window",
        window_of_two,
        |rules| rules.fill_by_valid_reads = false,
        &["ST1q", "ST2"],
    );
    remove(
        "SR14a",
        "a read of another epoch fills the window",
        window_and_flush,
        |rules| rules.fill_same_epoch = false,
        &["ST1w"],
    );
    remove(
        "SR14b",
        "a read that does not reach the window fills it",
        window,
        |rules| rules.fill_touching = false,
        &["ST1", "ST2"],
    );
    remove(
        "SR14c",
        "a read fills the window that was given up meanwhile",
        window_without_room,
        |rules| rules.fill_after_eviction = false,
        &["ST1q", "ST1w", "ST2"],
    );
    remove(
        "SR15",
        "the window serves what is before it",
        small_window,
        |rules| rules.window_compares_first = false,
        &["ST2f"],
    );
    remove(
        "SR15a",
        "the window serves what is beyond it",
        window,
        |rules| rules.window_compares_top = false,
        &["ST2f"],
    );
    remove(
        "SR15b",
        "the window serves an epoch that no read has found",
        window_and_flush,
        |rules| rules.window_confirmed = false,
        &["ST1q", "ST5"],
    );
    remove(
        "SR16",
        "the stream's primary is not compared",
        failover,
        |rules| rules.compare_replid = false,
        &["ST1", "ST5"],
    );
    remove(
        "SR16a",
        "a connection keeps the id of before the promotion",
        failover,
        |rules| rules.replid_of_primary = false,
        &["ST1", "ST5"],
    );
    remove(
        "SR17",
        "a replica is read",
        failover,
        |rules| rules.read_primary = false,
        &["ST1q", "ST2", "ST2f"],
    );
    remove(
        "SR18",
        "recovered frames are written without a look",
        revocation,
        |rules| rules.gate_at_write = false,
        &["ST4"],
    );
    remove(
        "SR18a",
        "recovered frames are written without a lease",
        revocation,
        |rules| rules.lease_at_write = false,
        &["ST4"],
    );
    remove(
        "SR19",
        "a reload passes by who waits",
        reload,
        |rules| rules.reconsider_waiting = false,
        &["ST4"],
    );
    remove(
        "SR19a",
        "a reload leaves what is queued",
        reload,
        |rules| rules.reconsider_queued = false,
        &["ST4"],
    );
    remove(
        "SR20",
        "a channel that hears nothing is not compared",
        link,
        |rules| rules.compare_idle = false,
        &["ST1q"],
    );
    remove(
        "SR21",
        "a gap before what was buffered, whatever that is",
        tight,
        |rules| rules.give_up_compares = false,
        &["ST1g"],
    );
    remove(
        "SR21a",
        "a gap to where a frame of another epoch is",
        slow_and_flush,
        |rules| rules.give_up_in_epoch = false,
        &["ST1g", "ST1q"],
    );
    remove(
        "SR21b",
        "a wait after a loss is given up like a hole",
        slow_and_flush,
        |rules| rules.give_up_holes_only = false,
        &["ST1q"],
    );
    remove(
        "SR22",
        "the window outlives a deletion",
        window_and_deletion,
        |rules| rules.empty_on_deletion = false,
        &["ST2d"],
    );
    remove(
        "SR22a",
        "a read outlives a deletion",
        window_and_deletion,
        |rules| rules.void_on_deletion = false,
        &["ST1q", "ST1w", "ST2", "ST2d"],
    );
    runs
}
