//! The same again and again: what happens once in ten times is to be seen.

use std::time::Duration;

use curfew_tests::Dice;
use tokio::sync::Mutex;

/// Variable with the number of rounds of each.
const ROUNDS: &str = "CURFEW_TEST_ROUNDS";

/// Rounds in CI's time.
const FEW: usize = 1;

/// Rounds that may prove nothing before the machine is said to be too busy for the test.
const MOST_BLIND: usize = 5;

/// Load is no load beside another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The result of a round.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The bound was kept.
    Held(String),
    /// It was not.
    Broken(String),
    /// The machine stood still for so long that nothing can be said.
    Blind(Duration),
}

/// Plays as many rounds as are asked for; fails at the end if the bound was not kept in any.
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
        "{name}: broken in {} of {shown} rounds: {broken:#?}",
        broken.len()
    );
}
