//! Repeats a test, because some faults show in only one of ten runs.

use std::time::Duration;

use curfew_tests::Dice;
use tokio::sync::Mutex;

/// Environment variable with the number of rounds of each test.
const ROUNDS: &str = "CURFEW_TEST_ROUNDS";

/// Number of rounds that CI runs.
const FEW: usize = 1;

/// Maximum number of rounds without a result. After more such rounds, the machine counts as too
/// busy for the test.
const MOST_BLIND: usize = 5;

/// A lock that lets only one test run at a time, because tests would change each other's load.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The result of a round.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The round did not break the bound.
    Held(String),
    /// The round broke the bound.
    Broken(String),
    /// The machine stood still for so long that the round proves nothing.
    Blind(Duration),
}

/// Runs the requested number of rounds. Fails at the end if any round broke the bound.
pub(super) async fn rounds(name: &str, mut round: impl AsyncFnMut(&mut Dice) -> Verdict) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut dice = Dice::new();
    let asked = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok());
    let asked: usize = asked.unwrap_or(FEW);
    let (mut shown, mut blind, mut broken) = (0, 0, Vec::new());
    while shown < asked {
        match round(&mut dice).await {
            Verdict::Held(told) => {
                shown += 1;
                eprintln!("{name}, round {shown}: held: {told}");
            }
            Verdict::Broken(told) => {
                shown += 1;
                eprintln!("{name}, round {shown}: BROKEN: {told}");
                broken.push(told);
            }
            Verdict::Blind(gap) => {
                blind += 1;
                eprintln!("{name}: the machine stood still for {gap:?}: again");
                assert!(blind <= MOST_BLIND, "{name}: the machine is too busy");
            }
        }
    }
    assert!(
        broken.is_empty(),
        "{name}: {} of {shown} rounds broke the bound: {broken:#?}",
        broken.len()
    );
}
