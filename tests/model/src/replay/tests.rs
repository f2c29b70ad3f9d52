//! Logs that the checker accepts, and logs that it refuses.

mod walks;

use super::{Summary, Violation, check};

/// The log of a node with these steps. The generation is 1 until a step such as `connect 3` names
/// another one.
fn log(steps: &str) -> Vec<String> {
    let mut generation = 1_u64;
    let mut entries = Vec::new();
    for step in steps.split(',') {
        let mut words = step.split_whitespace();
        let (name, detail) = (words.next().expect("each item names a step"), words.next());
        if name == "connect" {
            generation = detail.map_or(generation, |detail| {
                detail.parse().expect("the generation is a number")
            });
        }
        let fields = match name {
            "epoch" => format!(
                r#","outcome":"{}""#,
                detail.expect("`epoch` has an outcome")
            ),
            "reconcile" | "sweep" => r#","sessions":3,"revoked":1"#.to_owned(),
            "push" => format!(r#","keys":{}"#, detail.unwrap_or("1")),
            "get" => r#","keys":1,"revoked":0"#.to_owned(),
            "down" => r#","reason":"cut""#.to_owned(),
            _ => String::new(),
        };
        entries.push(format!(
            r#"{{"level":"DEBUG","message":"protocol","step":"{name}","generation":{generation}{fields}}}"#
        ));
    }
    entries
}

fn checked(steps: &str) -> Result<Summary, Violation> {
    let log = log(steps);
    check(log.iter().map(String::as_str))
}

fn accept(steps: &str) -> Summary {
    checked(steps).unwrap_or_else(|violation| panic!("{steps}\n{violation}"))
}

/// Returns the violation in the log with these steps. Fails unless the violation is at the last
/// step.
fn refuse(steps: &str) -> Violation {
    let violation = checked(steps).expect_err(steps);
    assert_eq!(violation.number, steps.split(',').count(), "{violation}");
    violation
}

/// The steps of a node's first connection up to the end of its set-up.
const UP: &str =
    "connect 1, track, epoch first, new_epoch, reassert, reconcile, heartbeat, barrier, synced";

/// The end of every set-up.
const REST: &str = "reconcile, heartbeat, barrier, synced";

fn up(more: &str) -> String {
    format!("{UP}, {more}")
}

/// A first connection, and a second connection to the same primary up to the reading of its epoch.
/// The steps in `more` follow.
fn again(more: &str) -> String {
    up(&format!("down, connect 2, track, epoch same, {more}"))
}

/// The beginning of a first connection. The steps in `more` follow.
fn begun(more: &str) -> String {
    format!("connect 1, track, epoch same, reassert, {more}")
}

#[test]
fn a_life_without_trouble_is_allowed() {
    let summary = accept(&up(
        "heartbeat, barrier, push, get, sweep, op, heartbeat, barrier",
    ));
    let expected = Summary {
        steps: 17,
        connections: 1,
        synced: 1,
        pushes: 1,
        reassertions: 1,
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    accept(&begun(REST));
    accept(&format!("connect 7, track, epoch first, reassert, {REST}"));
    accept(&again(REST));
}

#[test]
fn other_lines_are_skipped() {
    let mut lines = log(UP);
    let other = r#"{"message":"listening","step":"get","generation":9}"#;
    lines.insert(3, other.to_owned());
    lines.insert(5, "protocol".to_owned());
    lines.insert(6, r#"["protocol"]"#.to_owned());
    let summary = check(lines.iter().map(String::as_str)).unwrap();
    assert_eq!(summary.steps, 9);
    assert_eq!(check([]), Ok(Summary::default()));
}

#[test]
fn lines_that_are_not_understood_are_violations() {
    for (fields, problem) in [
        (
            r#""step":"jump","generation":1"#,
            "no step is called \"jump\"",
        ),
        (
            r#""generation":1"#,
            "the field step is missing, or is not a text",
        ),
        (
            r#""step":"connect""#,
            "the field generation is missing, or is not a whole number",
        ),
        (
            r#""step":"epoch","generation":1"#,
            "the field outcome is missing, or is not a text",
        ),
        (
            r#""step":"epoch","generation":1,"outcome":"odd""#,
            "no outcome is called \"odd\"",
        ),
        (
            r#""step":"push","generation":1,"keys":-1"#,
            "the field count is missing, or is not a whole number",
        ),
    ] {
        let line = format!(r#"{{"message":"protocol",{fields}}}"#);
        let violation = check([line.as_str()]).unwrap_err();
        assert_eq!(violation.problem, problem);
        assert_eq!(violation.line, line);
    }
}

#[test]
fn a_violation_says_what_was_possible() {
    let violation = refuse(&up("push, sweep, heartbeat, barrier, heartbeat"));
    assert_eq!(
        violation.problem,
        "possible here: confirm, down, get, index, null_push, op, push, sweep"
    );
    assert_eq!(violation.before.len(), 8);
    assert!(violation.before[7].contains(r#""step":"barrier""#));
    let told = violation.to_string();
    assert!(
        told.starts_with("line 14 of the log: possible here: confirm, "),
        "{told}"
    );
}

#[test]
fn generations_grow() {
    accept(&up("down, connect 2, track"));
    accept(&up("down, connect 9, track"));
    let violation = refuse(&up("down, connect 1"));
    assert_eq!(
        violation.problem,
        "generation 1 does not follow 1: each `connect` has a greater one"
    );
    let mut lines = log(UP);
    lines.push(log("connect 2")[0].replace("connect", "op"));
    let violation = check(lines.iter().map(String::as_str)).unwrap_err();
    assert_eq!(
        violation.problem,
        "the step has generation 2, but the node's generation is 1"
    );
}

#[test]
fn a_node_that_is_down_connects() {
    for step in [
        "track",
        "heartbeat",
        "push",
        "null_push",
        "synced",
        "op",
        "sweep",
        "reconcile",
    ] {
        refuse(&up(&format!("down, {step}")));
    }
    let violation = refuse(&up("down, get"));
    assert_eq!(violation.problem, "possible here: connect, down, index");
    refuse(&up("connect 2"));
    accept(&up("down, down, down, connect 2, down, connect 3"));
}

#[test]
fn a_connection_can_end_at_any_step() {
    let steps: Vec<&str> = UP.split(", ").collect();
    for end in 1..=steps.len() {
        accept(&format!(
            "{}, down, connect 2, track",
            steps[..end].join(", ")
        ));
    }
}

#[test]
fn set_up_has_one_order() {
    let steps: Vec<&str> = UP.split(", ").collect();
    for missing in 0..steps.len() - 1 {
        let is_optional = steps[missing] == "new_epoch";
        if !is_optional {
            let next = missing + 1;
            refuse(&[&steps[..missing], &steps[next..=next]].concat().join(", "));
        }
    }
    refuse(&begun("reconcile, heartbeat, barrier, heartbeat"));
    refuse(&begun("reconcile, heartbeat, barrier, sweep"));
}

#[test]
fn no_reconciliation_is_caught_m2() {
    refuse(&again("heartbeat"));
}

#[test]
fn reconciliation_before_tracking_is_caught_m5() {
    refuse(&up("down, connect 2, epoch same"));
    refuse(&up("down, connect 2, reconcile"));
}

#[test]
fn a_heartbeat_elsewhere_or_without_a_barrier_is_caught_m9_m11() {
    refuse(&again("reconcile, synced"));
    refuse(&again("reconcile, barrier"));
    refuse(&again("reconcile, heartbeat, synced"));
    refuse(&up("heartbeat, heartbeat"));
    refuse(&up("heartbeat, get"));
    refuse(&up("barrier"));
}

#[test]
fn a_null_push_leads_back_to_the_epoch_or_down_m13() {
    let summary = accept(&up(&format!(
        "null_push, epoch same, {REST}, heartbeat, barrier"
    )));
    assert_eq!((summary.null_pushes, summary.synced), (1, 2));
    accept(&up("null_push, down, connect 2, track, epoch same"));
    accept(&begun(
        "reconcile, heartbeat, barrier, null_push, epoch same",
    ));
    refuse(&up("null_push, heartbeat, barrier"));
    refuse(&up("null_push, reconcile"));
    refuse(&up("null_push, get"));
    refuse(&up("null_push, track"));
}

#[test]
fn what_was_on_its_way_when_a_null_push_came_is_dropped() {
    accept(&up("null_push, heartbeat, epoch same, reconcile"));
    accept(&up("push, null_push, get, epoch same, reconcile"));
    accept(&up("null_push, sweep, op, epoch same, reconcile"));
    accept(&up(
        "null_push, push, epoch same, null_push, reconcile, epoch lost",
    ));
    refuse(&up("null_push, epoch same, op"));
}

#[test]
fn a_pushed_key_is_asked_for_before_the_next_heartbeat() {
    accept(&up("push, push, get, heartbeat"));
    accept(&up("push, push, get, get, heartbeat"));
    accept(&up("push, heartbeat, barrier, get, heartbeat"));
    accept(&up("heartbeat, push, barrier, get, heartbeat"));
    accept(&up("push 0, heartbeat, barrier, heartbeat, barrier"));
    refuse(&up("push, heartbeat, barrier, heartbeat"));
    refuse(&up("heartbeat, push, barrier, heartbeat"));
    refuse(&up("get"));
    refuse(&up("push, get, get"));
}

#[test]
fn pushes_count_as_soon_as_tracking_is_on() {
    refuse("connect 1, push");
    refuse("connect 1, null_push");
    accept(&begun(
        "push, reconcile, push, heartbeat, push, barrier, push, synced, get",
    ));
    accept(&begun(
        "push, reconcile, get, heartbeat, barrier, synced, heartbeat",
    ));
    accept(&begun(
        "push, reconcile, heartbeat, barrier, synced, get, heartbeat",
    ));
    accept(&begun(
        "push, reconcile, heartbeat, barrier, synced, heartbeat",
    ));
    refuse(&begun("push, get"));
    refuse(&begun(
        "reconcile, heartbeat, push, barrier, synced, heartbeat",
    ));
}

#[test]
fn nothing_is_confirmed_between_a_reload_and_a_comparison_m31_m34_m35() {
    accept(&up(
        "confirm, index, heartbeat, barrier, op, compare, confirm",
    ));
    accept(&up(
        "index, sweep, compare, index, compare, confirm, confirm",
    ));
    accept(&up(&format!(
        "down, index, connect 2, track, epoch same, {REST}, confirm"
    )));
    accept(&up(&format!(
        "index, null_push, epoch same, {REST}, confirm"
    )));
    accept(&begun(
        "reconcile, heartbeat, index, barrier, synced, compare, confirm",
    ));
    refuse(&up("index, confirm"));
    refuse(&up("index, compare, index, confirm"));
    refuse(&up("compare"));
    refuse(&up("index, compare, compare"));
    refuse(&up("index, null_push, epoch same, compare"));
    refuse("connect 1, confirm");
}

#[test]
fn a_comparison_that_began_before_the_indexing_does_not_count_m32() {
    for before in ["reassert", "reassert, index"] {
        let steps = format!("connect 1, track, epoch same, {before}, index, {REST}");
        refuse(&format!("{steps}, confirm"));
        accept(&format!("{steps}, compare, confirm"));
    }
    let in_time = format!("connect 1, track, epoch same, index, reassert, {REST}");
    accept(&format!("{in_time}, confirm"));
}

#[test]
fn a_lost_epoch_is_renewed_or_a_floor_raised() {
    let lost = up("null_push, epoch lost");
    let summary = accept(&format!("{lost}, new_epoch, reassert, {REST}"));
    assert_eq!((summary.losses, summary.reassertions), (1, 2));
    accept(&format!("{lost}, reassert, {REST}"));
    accept(&format!("{lost}, floor, {REST}"));
    accept(&format!("{lost}, floor, reassert, {REST}"));
    refuse(&format!("{lost}, reconcile"));
    refuse(&format!("{lost}, floor, new_epoch"));
    refuse(&format!("{lost}, new_epoch, floor"));
    refuse("connect 1, track, epoch first, floor");
}

#[test]
fn a_node_keeps_to_its_policy() {
    let reassert = up(&format!(
        "null_push, epoch lost, new_epoch, reassert, {REST}"
    ));
    refuse(&format!("{reassert}, null_push, epoch lost, floor"));
    accept(&format!("{reassert}, null_push, epoch lost, new_epoch"));
}

#[test]
fn an_epoch_is_first_once_and_not_lost_before() {
    refuse("connect 1, track, epoch lost");
    refuse(&up("down, connect 2, track, epoch first"));
    accept("connect 1, track, epoch first, down, connect 2, track, epoch first, new_epoch");
}

#[test]
fn nothing_re_asserted_after_a_loss_is_caught_m17() {
    refuse(&up("null_push, epoch lost, new_epoch, reconcile"));
    refuse(&up(
        "down, connect 2, track, epoch lost, new_epoch, reconcile",
    ));
}

#[test]
fn a_re_assertion_that_was_cut_short_is_made_up_for_m14_m18() {
    for cut in [
        "down",
        "reassert, down",
        "reassert, reconcile, down",
        "reassert, reconcile, heartbeat, down",
    ] {
        for loss in [
            "down, connect 2, track, epoch lost",
            "null_push, epoch lost",
        ] {
            let cut = up(&format!("{loss}, new_epoch, {cut}, connect 3, track"));
            accept(&format!("{cut}, epoch same, reassert, {REST}"));
            accept(&format!("{cut}, epoch lost, new_epoch, reassert, {REST}"));
            refuse(&format!("{cut}, epoch same, reconcile"));
        }
    }
    let failover = again("reassert, reconcile, down, connect 3, track, epoch same");
    accept(&format!("{failover}, reassert, {REST}"));
    refuse(&format!("{failover}, reconcile"));
    let first = "connect 1, track, epoch same, down, connect 2, track, epoch same";
    refuse(&format!("{first}, reconcile"));
}

#[test]
fn a_known_primary_is_not_told_again() {
    refuse(&up("null_push, epoch same, reassert"));
    accept(&again(&format!(
        "{REST}, down, connect 3, track, epoch same, {REST}"
    )));
}
