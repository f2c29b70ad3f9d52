//! Searches in which one rule is removed.

use super::table::{CUT, FAILOVER, RESTART, WIPE, one, run, two};
use super::{Expect, Part, Run};
use crate::rules::OnDataLoss::{Reassert, Reauth};
use crate::rules::Rules;
use crate::state::Start;

pub(super) fn all() -> Vec<Run> {
    let mut runs = with_reauth();
    runs.extend(with_reassert());
    runs
}

fn with_reauth() -> Vec<Run> {
    let all = || Rules::specified(Reauth);
    let breaks =
        |id, title, rules, bounds| run(Part::Removals, id, title, (rules, bounds), Expect::Breaks);
    let mut runs = Vec::new();
    let mut remove = |id, title, bounds, off: fn(&mut Rules)| {
        let mut rules = all();
        off(&mut rules);
        runs.push(breaks(id, title, rules, bounds));
    };
    remove(
        "M1",
        "keys are read, then the session is registered",
        one(CUT),
        |rules| {
            rules.register_first = false;
        },
    );
    remove(
        "M2",
        "no reconciliation after a reconnect",
        one(CUT),
        |rules| {
            rules.reconcile = false;
        },
    );
    remove(
        "M3",
        "the lease counts from the answer",
        one(CUT),
        |rules| {
            rules.lease_from_send = false;
        },
    );
    remove("M4", "no lease", one(CUT), |rules| rules.lease = false);
    remove(
        "M5",
        "reconciliation before tracking is on",
        one(CUT),
        |rules| {
            rules.track_first = false;
        },
    );
    remove(
        "M6",
        "the heartbeat is not a write",
        one(FAILOVER),
        |rules| {
            rules.fenced_heartbeat = false;
        },
    );
    remove("M7", "no floor after a loss", one(RESTART), |rules| {
        rules.heed_loss = false;
    });
    remove(
        "M8",
        "2 nodes: the epoch is renewed before the floor is raised",
        two(RESTART, Start::SyncedAndRevoked),
        |rules| rules.floor_with_epoch = false,
    );
    remove(
        "M9",
        "the heartbeat has a connection of its own",
        one(CUT),
        |rules| {
            rules.one_connection = false;
        },
    );
    remove(
        "M11",
        "no round trip after the heartbeat",
        one(CUT),
        |rules| {
            rules.barrier = false;
        },
    );
    remove(
        "M12",
        "no re-assertion after a failover",
        one(FAILOVER),
        |rules| {
            rules.reassert = false;
        },
    );
    remove("M13", "a null push is ignored", one(WIPE), |rules| {
        rules.heed_null_push = false;
    });
    remove(
        "M14",
        "a primary is known before it is told all",
        one(FAILOVER),
        |rules| {
            rules.known_when_synced = false;
        },
    );
    remove(
        "M15",
        "an admission does not write",
        one(FAILOVER),
        |rules| {
            rules.admission_writes = false;
        },
    );
    remove(
        "M16",
        "sessions stay open between push and GET",
        one(FAILOVER),
        |rules| {
            rules.suspend_on_push = false;
        },
    );
    runs
}

/// Searches whose removed rule matters only after a data loss, under `reassert`, the policy without
/// a floor.
fn with_reassert() -> Vec<Run> {
    let mut runs = Vec::new();
    let mut remove = |id, title, events, off: fn(&mut Rules)| {
        let mut rules = Rules::specified(Reassert);
        off(&mut rules);
        let searched = (rules, one(events));
        runs.push(run(Part::Removals, id, title, searched, Expect::Breaks));
    };
    remove("M7a", "reassert: a lost epoch is ignored", WIPE, |rules| {
        rules.heed_loss = false;
    });
    remove(
        "M12a",
        "reassert: nothing is re-asserted",
        RESTART,
        |rules| {
            rules.reassert = false;
            rules.reassert_after_loss = false;
        },
    );
    remove("M13a", "reassert: a null push is ignored", WIPE, |rules| {
        rules.heed_null_push = false;
    });
    remove(
        "M14a",
        "reassert: a primary is known before it is told all",
        RESTART,
        |rules| {
            rules.known_when_synced = false;
        },
    );
    remove(
        "M17",
        "reassert: a known primary is told nothing after a loss",
        WIPE,
        |rules| {
            rules.reassert_after_loss = false;
            rules.forget_primaries = false;
        },
    );
    remove(
        "M18",
        "reassert: primaries stay known after a loss",
        WIPE,
        |rules| {
            rules.forget_primaries = false;
        },
    );
    remove(
        "M19",
        "reassert: a read from before a null push counts after it",
        WIPE,
        |rules| {
            rules.forget_reads = false;
        },
    );
    runs
}
