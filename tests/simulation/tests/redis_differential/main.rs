//! Comparison of the simulated Redis with a real one. Both execute the same random sequences of
//! commands on several connections, and every reply and push is compared.
//!
//! `CURFEW_SIMULATION_SEED` repeats a run. `CURFEW_SIMULATION_SEQUENCES` is the number of
//! sequences.

mod commands;
mod compare;
mod directed;
mod pair;
mod real;
mod steps;

use std::env;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use pair::Pair;
use real::Real;
use steps::{SHORT, Step, sequence};

/// The default number of sequences of a run.
const SEQUENCES: u64 = 200;
/// The approximate number of steps of a sequence.
const STEPS: usize = 60;

fn setting(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("the variable is a number"))
}

#[test]
fn any_sequence_is_answered_as_redis_answers_it() {
    let real = Real::start();
    let first = setting("CURFEW_SIMULATION_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let count = setting("CURFEW_SIMULATION_SEQUENCES").unwrap_or(SEQUENCES);
    for seed in first..first + count {
        let steps = sequence(&mut Rng::with_seed(seed), STEPS);
        if let Err((place, differs)) = play(&real, &steps) {
            let mut told = String::new();
            for step in &steps[..=place] {
                writeln!(told, "  {step}").expect("writing to a string cannot fail");
            }
            panic!("CURFEW_SIMULATION_SEED={seed}, after these steps:\n{told}{differs}");
        }
    }
}

/// Returns the first step at which the servers differ, and the difference.
fn play(real: &Real, steps: &[Step]) -> Result<(), (usize, String)> {
    let mut pair = Pair::new(real);
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Send(connection, commands) => {
                pair.send(*connection, commands)
                    .map_err(|differs| (place, differs))?;
            }
            Step::OutOfMemory(out) => pair.set_out_of_memory(*out),
            // The pause ends well after the expiry of short-lived keys.
            Step::Pass => thread::sleep(Duration::from_millis(SHORT + SHORT / 2)),
        }
    }
    Ok(())
}
