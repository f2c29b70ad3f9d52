//! Searches with liberties. A node may take only some of these liberties.

use super::table::{FAILOVER, FAILOVER_AND_LIFT, RESTART, WIPE, WIPE_AND_AGAIN, one, run};
use super::{Expect, Part, Run};
use crate::model::Asked;
use crate::rules::OnDataLoss::{Reassert, Reauth};
use crate::rules::{Forgetting, OnDataLoss, PushedInSetup, Rules};
use crate::state::Events;

pub(super) fn all() -> Vec<Run> {
    let mut runs = allowed();
    runs.extend(liberties());
    runs.extend(memory());
    runs
}

/// The rules of the specified protocol, with the liberties that `take` takes.
fn with(policy: OnDataLoss, take: fn(&mut Rules)) -> Rules {
    let mut rules = Rules::specified(policy);
    take(&mut rules);
    rules
}

fn allowed() -> Vec<Run> {
    let all = |policy| {
        with(policy, |rules| {
            rules.heartbeat_waits = false;
            rules.null_push_keeps_connection = true;
            rules.pushed_in_setup = PushedInSetup::AskedLater;
            rules.epoch_when_synced = true;
            rules.reassert_with_floor = true;
            rules.admission_apart = true;
            rules.admission_remembers = true;
        })
    };
    let holds = |id, title, policy, events| {
        let searched = (all(policy), one(events));
        run(Part::Allowed, id, title, searched, Expect::Holds)
    };
    let never_forgets = |id, title, events| {
        let mut run = holds(id, title, Reassert, events);
        run.ask(Asked::NeverForget);
        run
    };
    vec![
        holds("L1", "reauth: FLUSHALL", Reauth, WIPE),
        holds("L2", "reauth: restart without data", Reauth, RESTART),
        never_forgets("L3", "reassert, R6+: FLUSHALL", WIPE),
        never_forgets("L4", "reassert, R6+: restart without data", RESTART),
        never_forgets("L5", "reassert, R6+: failover", FAILOVER),
        holds("L6", "reassert: DEL, failover", Reassert, FAILOVER_AND_LIFT),
    ]
}

/// A search with a liberty that a node may take.
fn may(id: &'static str, title: &'static str, rules: Rules, events: Events) -> Run {
    let searched = (rules, one(events));
    run(Part::Liberties, id, title, searched, Expect::Holds)
}

fn liberties() -> Vec<Run> {
    let early = |policy| with(policy, |rules| rules.heartbeat_waits = false);
    let patient = |policy| with(policy, |rules| rules.null_push_keeps_connection = true);
    let first = |policy| {
        with(policy, |rules| {
            rules.pushed_in_setup = PushedInSetup::AskedFirst;
        })
    };
    let later = |policy| {
        with(policy, |rules| {
            rules.pushed_in_setup = PushedInSetup::AskedLater;
        })
    };
    let late = |policy| with(policy, |rules| rules.epoch_when_synced = true);
    let generous = with(Reauth, |rules| rules.reassert_with_floor = true);
    vec![
        may(
            "V1",
            "heartbeats while a GET is due or under way: failover",
            early(Reauth),
            FAILOVER,
        ),
        may("V1a", "the same: DEL", early(Reauth), FAILOVER_AND_LIFT),
        may("V1b", "the same: FLUSHALL, reassert", early(Reassert), WIPE),
        may(
            "V2",
            "a null push drops the awaited answer: FLUSHALL, reauth",
            patient(Reauth),
            WIPE,
        ),
        may("V2a", "the same: reassert", patient(Reassert), WIPE),
        may(
            "V3",
            "keys pushed in set-up asked for before the heartbeat",
            first(Reauth),
            FAILOVER_AND_LIFT,
        ),
        may(
            "V3a",
            "keys pushed in set-up asked for when synced",
            later(Reauth),
            FAILOVER_AND_LIFT,
        ),
        may(
            "V4",
            "the epoch is remembered when synced: FLUSHALL, reauth",
            late(Reauth),
            WIPE,
        ),
        may("V4a", "the same: reassert", late(Reassert), WIPE),
        may("V5", "reauth re-asserts too: FLUSHALL", generous, WIPE),
    ]
}

/// Searches with liberties about the connection and the memory that an admission uses, and about
/// the time at which a known revocation is forgotten.
fn memory() -> Vec<Run> {
    let apart = |remembers: bool| Rules {
        admission_remembers: remembers,
        ..with(Reassert, |rules| rules.admission_apart = true)
    };
    let never_forgets = |id, title, events| {
        let mut run = may(id, title, apart(true), events);
        run.ask(Asked::NeverForget);
        run
    };
    let careful = with(Reassert, |rules| {
        rules.forgetting = Forgetting::AfterHeartbeat;
    });
    let title = "forgotten after a heartbeat: SET twice, FLUSHALL";
    let mut forgets = may("V8", title, careful, WIPE_AND_AGAIN);
    forgets.ask(Asked::NeverLose);
    vec![
        may(
            "V6",
            "admission over another connection: failover",
            apart(false),
            FAILOVER,
        ),
        may("V6a", "the same: FLUSHALL", apart(false), WIPE),
        may(
            "V6b",
            "the same: restart without data",
            apart(false),
            RESTART,
        ),
        never_forgets(
            "V7",
            "and heeds what the node knows, R6+: failover",
            FAILOVER,
        ),
        never_forgets("V7a", "the same: FLUSHALL", WIPE),
        never_forgets("V7b", "the same: restart without data", RESTART),
        forgets,
    ]
}
