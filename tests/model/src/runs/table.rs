//! The rows of the table, and the bounds that rows share.

use super::{Expect, Part, Run, Searched, extras, liberties, removals, streams};
use crate::model::{Asked, Protocol};
use crate::rules::OnDataLoss::{Reassert, Reauth};
use crate::rules::{Forgetting, Rules};
use crate::state::{Bounds, Events, Extras, Start};

/// All searches.
pub fn all() -> Vec<Run> {
    let mut runs = specified();
    runs.extend(extras::specified());
    runs.extend(removals::all());
    runs.extend(extras::removals());
    runs.extend(redundant());
    runs.extend(liberties::all());
    runs.extend(extras::liberties());
    runs.extend(not_promised());
    runs.extend(extras::not_promised());
    runs.extend(streams::all());
    runs
}

pub(super) const REVOKE: Events = Events {
    revocations: 1,
    lifts: 0,
    failovers: 0,
    wipes: 0,
    restarts: 0,
    stale_restarts: 0,
    cuts: 0,
    respellings: 0,
    stalls: 0,
};
pub(super) const CUT: Events = Events { cuts: 1, ..REVOKE };
pub(super) const FAILOVER: Events = Events {
    failovers: 1,
    ..CUT
};
pub(super) const TWO_CUTS: Events = Events { cuts: 2, ..REVOKE };
pub(super) const WIPE: Events = Events { wipes: 1, ..CUT };
pub(super) const RESTART: Events = Events { restarts: 1, ..CUT };
pub(super) const STALE_RESTART: Events = Events {
    stale_restarts: 1,
    ..CUT
};
pub(super) const LIFT: Events = Events { lifts: 1, ..CUT };
/// A wipe, with a revocation's key that is written twice.
pub(super) const WIPE_AND_AGAIN: Events = Events {
    revocations: 2,
    ..WIPE
};
pub(super) const FAILOVER_AND_LIFT: Events = Events {
    lifts: 1,
    ..FAILOVER
};

/// Bounds with one node, which is down when the search starts.
pub(super) fn one(events: Events) -> Bounds {
    Bounds {
        nodes: 1,
        events,
        generations: 3,
        start: Start::Down,
        extras: Extras::default(),
    }
}

/// Bounds with two nodes. The nodes are synced when the search starts, because the steps up to this
/// state are known to be safe. A connection is cut only if it does not lead to the primary any
/// more.
pub(super) fn two(events: Events, start: Start) -> Bounds {
    Bounds {
        nodes: 2,
        events: Events { cuts: 0, ..events },
        generations: 2,
        start,
        extras: Extras::default(),
    }
}

pub(super) fn run(
    part: Part,
    id: &'static str,
    title: &'static str,
    (rules, bounds): (Rules, Bounds),
    expect: Expect,
) -> Run {
    let protocol = Protocol {
        rules,
        bounds,
        asked: None,
    };
    Run {
        id,
        title,
        part,
        searched: Searched::Protocol(protocol),
        expect,
    }
}

fn specified() -> Vec<Run> {
    let holds = |part, id, title, policy, bounds| {
        run(
            part,
            id,
            title,
            (Rules::specified(policy), bounds),
            Expect::Holds,
        )
    };
    let reauth = |id, title, bounds| holds(Part::Reauth, id, title, Reauth, bounds);
    let reassert = |id, title, bounds| holds(Part::Reassert, id, title, Reassert, bounds);
    let without_resuming = |run| Run {
        expect: Expect::HoldsWithoutResuming,
        ..run
    };
    let new = Bounds {
        start: Start::New,
        ..one(CUT)
    };
    vec![
        reauth("S1", "1 node: revoke, failover, 1 cut", one(FAILOVER)),
        reauth("S2", "1 node: revoke, 2 cuts", one(TWO_CUTS)),
        reauth("S3", "1 node: revoke, FLUSHALL, 1 cut", one(WIPE)),
        reauth(
            "S4",
            "1 node: revoke, restart without data, 1 cut",
            one(RESTART),
        ),
        reauth("S5", "1 node: revoke, DEL, 1 cut", one(LIFT)),
        reauth(
            "S6",
            "2 nodes: revoke, failover",
            two(FAILOVER, Start::Synced),
        ),
        without_resuming(reauth(
            "S7",
            "2 nodes: revoke, restart without data",
            two(RESTART, Start::SyncedAndRevoked),
        )),
        reauth(
            "S8",
            "1 node: revoke, restart from an old snapshot, 1 cut",
            one(STALE_RESTART),
        ),
        reassert("A1", "1 node: revoke, failover, 1 cut", one(FAILOVER)),
        reassert("A2", "1 node: revoke, FLUSHALL, 1 cut", one(WIPE)),
        reassert(
            "A3",
            "1 node: revoke, restart without data, 1 cut",
            one(RESTART),
        ),
        reassert(
            "A4",
            "1 node: revoke, restart from an old snapshot, 1 cut",
            one(STALE_RESTART),
        ),
        reassert("A5", "1 node: the first ever, revoke, 1 cut", new),
        reassert(
            "A6",
            "2 nodes: revoke, failover",
            two(FAILOVER, Start::Synced),
        ),
        reassert(
            "A7",
            "2 nodes: revoke, restart without data",
            two(RESTART, Start::SyncedAndRevoked),
        ),
        reassert(
            "A8",
            "2 nodes: revoke, FLUSHALL",
            two(WIPE, Start::SyncedAndRevoked),
        ),
    ]
}

fn redundant() -> Vec<Run> {
    let rules = Rules {
        recheck_generation: false,
        ..Rules::specified(Reauth)
    };
    let title = "no comparison of generations at activation";
    let searched = (rules, one(FAILOVER));
    vec![run(Part::Redundant, "R1", title, searched, Expect::Holds)]
}

fn not_promised() -> Vec<Run> {
    let breaks = |id, title, bounds, asked| {
        let mut rules = Rules::specified(Reassert);
        if asked == Asked::NeverLose {
            rules.forgetting = Forgetting::AtOnce;
        }
        let searched = (rules, bounds);
        let mut run = run(Part::NotPromised, id, title, searched, Expect::Breaks);
        run.ask(asked);
        run
    };
    vec![
        breaks(
            "N1",
            "2 nodes: heed what another node alone has seen",
            two(RESTART, Start::SyncedAndRevoked),
            Asked::HeedOthers,
        ),
        breaks(
            "N2",
            "admission by Redis alone, R6+: FLUSHALL",
            one(WIPE),
            Asked::NeverForget,
        ),
        breaks(
            "N3",
            "what is not found is forgotten at once: SET twice, FLUSHALL",
            one(WIPE_AND_AGAIN),
            Asked::NeverLose,
        ),
    ]
}
