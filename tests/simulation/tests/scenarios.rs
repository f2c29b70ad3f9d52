//! Hand-written runs, and shortened runs of seeds that found a fault. `simulate shrink SEED` prints
//! a plan in the form that is used here.

use std::thread;
use std::time::Duration;

use curfew_simulation::plan::Act::*;
use curfew_simulation::plan::Whom::*;
use curfew_simulation::plan::Written::*;
use curfew_simulation::plan::{Act, Plan};
use curfew_simulation::run::run;
use curfew_simulation::world::Comeback::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs a plan with these acts on a new thread, because virtual time belongs to a thread. Fails if
/// a promise is broken, or if Redis executes too few publications. Returns the story of the run.
fn kept(plan: Plan, acts: &[(Duration, Act)]) -> Vec<(Duration, String)> {
    let plan = plan.with(acts);
    let outcome = thread::spawn(move || run(&plan)).join();
    let outcome = outcome.expect("a run does not panic");
    for (at, what) in &outcome.story {
        println!("{at:>12.3?} {what}");
    }
    assert_eq!(outcome.violations, []);
    let count = outcome.publications;
    assert!(count > 20, "Redis executed only {count} publications");
    outcome.story
}

#[test]
fn nothing_happens_and_everyone_is_served() {
    kept(Plan::quiet(1), &[]);
}

#[test]
fn users_are_revoked_and_welcome_again() {
    let acts = [
        (ms(2_000), Ban(User(0), Plain)),
        (ms(3_000), Ban(User(2), Digest)),
        (ms(4_000), Revoke(1, User(3))),
        (ms(6_000), Lift(User(0))),
    ];
    kept(Plan::quiet(2), &acts);
}

#[test]
fn a_node_that_is_cut_off_over_a_revocation_falls_silent() {
    let acts = [
        (ms(2_000), Cut(0, [true, true], ms(5_000))),
        (ms(2_500), Ban(User(1), Plain)),
    ];
    kept(Plan::quiet(3), &acts);
}

#[test]
fn a_node_that_stands_still_over_a_revocation_delivers_nothing_afterwards() {
    let mut acts = Vec::new();
    for (n, places) in [3, 17, 41, 90, 180].into_iter().enumerate() {
        let at = 2_000 + 5_000 * n as u64;
        acts.push((ms(at), Trap(0, places, ms(3_600))));
        acts.push((ms(at + 700), Ban(User(n), Plain)));
    }
    kept(Plan::quiet(4), &acts);
}

#[test]
fn what_a_redis_that_comes_back_empty_has_lost_is_written_back() {
    let acts = [
        (ms(2_000), Ban(User(1), Plain)),
        (ms(6_000), Restart(ms(900), Empty)),
        (ms(12_000), Restart(ms(100), Behind)),
    ];
    kept(Plan::quiet(5), &acts);
}

#[test]
fn a_crashed_node_leaves_nothing_behind() {
    let acts = [(ms(3_000), Crash(1, ms(4_000)))];
    kept(Plan::quiet(6), &acts);
}

/// Seed 36 found this fault: two round trips took longer than the interval of heartbeats. A
/// heartbeat was therefore always due, and no other work had its turn.
#[test]
fn over_a_slow_link_what_is_revoked_is_read_and_confirmed() {
    let acts = [
        (ms(2_000), Slow(ms(700), ms(9_000))),
        (ms(3_000), Ban(User(1), Plain)),
        (ms(3_500), Revoke(0, User(2))),
    ];
    let story = kept(Plan::quiet(8), &acts);
    // Clients 1 and 7 are bob's. They get the close while the link is slow.
    for client in [1, 7] {
        let closed = format!("client {client} is closed with 4403");
        let told = story.iter().find(|(_, what)| *what == closed);
        let (at, _) = told.expect("the revoked client is closed");
        assert!(*at < ms(9_000), "{closed} only at {at:?}");
    }
}

/// Seed 6103 found this fault: if a node crashed between its first session and its registration,
/// the record of this session stayed until the token's end.
#[test]
fn a_node_that_crashes_as_it_begins_leaves_nothing_behind() {
    for lived in [20, 24, 28, 32, 36, 40, 60] {
        let acts = [
            (ms(3_000), Crash(0, ms(500))),
            (ms(3_500 + lived), Crash(0, ms(5_000))),
        ];
        kept(Plan::quiet(9), &acts);
    }
}

#[test]
fn clients_of_a_stream_come_back_to_everything() {
    let plan = Plan {
        history: 200,
        ..Plan::quiet(10)
    };
    let acts = [
        (ms(2_000), Break(0, 1)),
        (ms(3_000), Crash(1, ms(1_500))),
        (ms(5_000), Cut(0, [true, false], ms(900))),
        (ms(7_000), Restart(ms(300), Behind)),
        (ms(9_000), Flush),
    ];
    kept(plan, &acts);
}

/// Seed 251 found this fault: a lease ended after the feed's check and before the broadcast's
/// check. The feed counted the publication as delivered, although listeners got a gap without a
/// position.
#[test]
fn a_stop_in_the_middle_of_a_delivery_loses_nothing_of_a_stream() {
    let plan = Plan {
        seed: 12_733_094_171_507_208_417,
        clients: 6,
        tenants: false,
        history: 20,
        ..Plan::quiet(0)
    };
    let acts = [
        (ms(4_596), Ban(User(2), Cutoff)),
        (ms(6_947), Trap(0, 89, ms(3_010))),
    ];
    kept(plan, &acts);
}
