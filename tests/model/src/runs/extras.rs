//! The searches with additional state: an outgoing item, stalls, reload, two spellings. Some use
//! the protocol as specified. The others remove one rule about this state, take a liberty, or check
//! a property that is not promised.

use super::table::{CUT, FAILOVER, REVOKE, one, run};
use super::{Expect, Part, Run};
use crate::model::Asked;
use crate::outgoing::Kind;
use crate::rules::OnDataLoss::Reauth;
use crate::rules::Rules;
use crate::state::{Bounds, Events, Extras, Start};

/// Bounds with a synced node that has a session. The node makes at most one more connection.
fn synced(events: Events, extras: Extras) -> Bounds {
    Bounds {
        generations: 1,
        start: Start::Synced,
        extras,
        ..one(events)
    }
}

fn outgoing(kind: Kind, events: Events) -> Bounds {
    let extras = Extras {
        outgoing: Some(kind),
        ..Extras::default()
    };
    synced(events, extras)
}

fn frame() -> Bounds {
    outgoing(Kind::Frame, CUT)
}

fn publication() -> Bounds {
    outgoing(Kind::Publication, CUT)
}

/// Bounds with a failover while a publication is under way. The server that takes over has its own
/// clock.
fn publication_in_failover() -> Bounds {
    let events = Events {
        cuts: 0,
        ..FAILOVER
    };
    outgoing(Kind::Publication, events)
}

fn stall() -> Bounds {
    let extras = Extras {
        timely: true,
        ..Extras::default()
    };
    synced(Events { stalls: 1, ..CUT }, extras)
}

/// Bounds with a stall while the node is about to write a frame.
fn stall_with_frame() -> Bounds {
    let extras = Extras {
        outgoing: Some(Kind::Frame),
        timely: true,
        ..Extras::default()
    };
    synced(Events { stalls: 1, ..CUT }, extras)
}

/// Bounds with a stall while a session is being admitted.
fn stall_in_admission() -> Bounds {
    Bounds {
        start: Start::Down,
        ..stall()
    }
}

const RELOAD: Extras = Extras {
    outgoing: None,
    reload: true,
    timely: false,
};

/// Bounds with a change of settings while the session is open.
fn reload() -> Bounds {
    synced(CUT, RELOAD)
}

/// Bounds with a change of settings, and a session that arrives before, during or after the change.
fn reload_in_admission() -> Bounds {
    Bounds {
        start: Start::Down,
        generations: 0,
        ..synced(REVOKE, RELOAD)
    }
}

/// Bounds in which the key is written and deleted in both spellings.
fn spellings() -> Bounds {
    let events = Events {
        respellings: 1,
        lifts: 2,
        ..REVOKE
    };
    Bounds {
        start: Start::Down,
        generations: 0,
        ..synced(events, Extras::default())
    }
}

/// The searches of the protocol as specified.
pub(super) fn specified() -> Vec<Run> {
    let holds = |id, title, bounds: fn() -> Bounds, expect| {
        let searched = (Rules::specified(Reauth), bounds());
        run(Part::Extras, id, title, searched, expect)
    };
    let all = Expect::Holds;
    let once = Expect::HoldsWithoutResuming;
    vec![
        holds("P1", "a frame, 1 cut", frame, all),
        holds("P2", "a publication, 1 cut", publication, all),
        holds(
            "P3",
            "a publication, failover",
            publication_in_failover,
            all,
        ),
        holds("P4", "a stall, 1 cut", stall, all),
        holds(
            "P5",
            "a stall in an admission, 1 cut",
            stall_in_admission,
            all,
        ),
        holds("P6", "a stall with a frame in hand", stall_with_frame, all),
        holds("P7", "a reload, 1 cut", reload, all),
        holds("P8", "a reload in an admission", reload_in_admission, once),
        holds("P9", "two spellings, each deleted", spellings, once),
    ]
}

/// The searches in which one rule about the additional state is removed.
pub(super) fn removals() -> Vec<Run> {
    let mut runs = Vec::new();
    let mut remove = |id, title, bounds: fn() -> Bounds, off: fn(&mut Rules), invariants| {
        let mut rules = Rules::specified(Reauth);
        off(&mut rules);
        let searched = (rules, bounds());
        let expect = Expect::BreaksOnly(invariants);
        runs.push(run(Part::Removals, id, title, searched, expect));
    };
    remove(
        "M20",
        "frame: the session is looked at, then the lease is loaded",
        frame,
        |rules| rules.lease_before_session = false,
        &["W1"],
    );
    remove(
        "M20a",
        "publication: the same",
        publication,
        |rules| rules.lease_before_session = false,
        &["E1"],
    );
    remove(
        "M21",
        "frame: the lease is not asked for at the write",
        frame,
        |rules| rules.lease_at_write = false,
        &["W1"],
    );
    remove(
        "M22",
        "no fence",
        publication,
        |rules| rules.fence = false,
        &["E1"],
    );
    remove(
        "M23",
        "the fence is the lease at the write",
        publication,
        |rules| rules.fence_from_acceptance = false,
        &["E1"],
    );
    remove(
        "M24",
        "Redis' time counts from the question",
        publication,
        |rules| rules.fence_from_receipt = false,
        &["E1"],
    );
    remove(
        "M25",
        "the fence is reckoned with another server's clock",
        publication_in_failover,
        |rules| rules.fence_by_executing_clock = false,
        &["E1"],
    );
    remove(
        "M26",
        "a lost answer is told as a refusal",
        publication,
        |rules| rules.unknown_outcome = false,
        &["U1"],
    );
    remove(
        "M27",
        "the lease is trusted after a stall",
        stall,
        |rules| rules.distrust_after_stall = false,
        &["T1"],
    );
    remove(
        "M27a",
        "the same in an admission",
        stall_in_admission,
        |rules| rules.distrust_after_stall = false,
        &["T1"],
    );
    remove(
        "M28",
        "a heartbeat from before a stall is trusted after it",
        stall,
        |rules| rules.prove_after_stall = false,
        &["T1"],
    );
    remove(
        "M29",
        "what was loaded before a stall is good after it",
        stall_with_frame,
        |rules| rules.void_loaded_leases = false,
        &["T2"],
    );
    remove(
        "M30",
        "sessions are not indexed by new settings",
        reload,
        |rules| rules.index_after_reload = false,
        &["C1", "C2"],
    );
    remove(
        "M31",
        "sessions are not compared by new settings",
        reload,
        |rules| rules.compare_after_reload = false,
        &["C2"],
    );
    remove(
        "M32",
        "sessions are compared, then indexed",
        reload,
        |rules| rules.index_before_comparing = false,
        &["C2"],
    );
    remove(
        "M33",
        "sessions being admitted are not indexed by new settings",
        reload_in_admission,
        |rules| rules.index_pending = false,
        &["C1", "C2"],
    );
    remove(
        "M34",
        "sessions are registered by the settings they came under",
        reload_in_admission,
        |rules| rules.register_by_settings_in_force = false,
        &["C1", "C2"],
    );
    remove(
        "M35",
        "a node confirms before every session is compared",
        reload,
        |rules| rules.confirm_when_compared = false,
        &["C1"],
    );
    remove(
        "M36",
        "a node confirms a kind that its settings lack",
        reload,
        |rules| rules.confirm_known_kinds = false,
        &["C1"],
    );
    remove(
        "M37",
        "a pushed key is asked for in one spelling",
        spellings,
        |rules| rules.get_both_spellings = false,
        &["I1/I2", "I1'", "N1"],
    );
    remove(
        "M38",
        "admissions and comparisons ask for one spelling",
        spellings,
        |rules| rules.compare_both_spellings = false,
        &["I1/I2", "I1'", "I3", "N1"],
    );
    runs
}

/// The search with a liberty that a node may take.
pub(super) fn liberties() -> Vec<Run> {
    let rules = Rules {
        lease_at_write: false,
        ..Rules::specified(Reauth)
    };
    let title = "publication: nothing is asked at the write, for there is the fence";
    let searched = (rules, publication());
    vec![run(Part::Liberties, "V9", title, searched, Expect::Holds)]
}

/// The search for a property that is not promised.
pub(super) fn not_promised() -> Vec<Run> {
    let extras = Extras {
        outgoing: Some(Kind::Publication),
        ..RELOAD
    };
    let searched = (Rules::specified(Reauth), synced(REVOKE, extras));
    let title = "nothing takes effect after a receipt: a publication is in the socket";
    let expect = Expect::BreaksOnly(&["R5+"]);
    let mut run = run(Part::NotPromised, "N4", title, searched, expect);
    run.ask(Asked::NothingAfterReceipt);
    vec![run]
}
