//! Random sequences of client actions.

use std::fmt;

use fastrand::Rng;

use crate::commands::{command, key, words};
use crate::compare::show;
use crate::pair::CONNECTIONS;

/// One action.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends commands in one write on one connection.
    Send(usize, Vec<Vec<Vec<u8>>>),
    /// Memory runs out, or recovers.
    OutOfMemory(bool),
    /// Time passes until short-lived keys are due.
    Pass,
}

/// Lifetime of short-lived keys, in milliseconds.
pub(crate) const SHORT: u64 = 150;

/// A sequence of about `length` steps.
pub(crate) fn sequence(random: &mut Rng, length: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < length {
        match random.u32(..1000) {
            0..12 => steps.push(Step::OutOfMemory(random.bool())),
            12..13 => short_lived(random, &mut steps),
            _ => {
                let several = if random.u8(..4) == 0 {
                    random.usize(2..6)
                } else {
                    1
                };
                let place = random.usize(..CONNECTIONS);
                let commands = (0..several).map(|_| {
                    let command = command(random);
                    // A command of the last connection that subscribes is mostly replaced by
                    // `RESET`, because a subscribed connection can do nothing else in RESP2.
                    let is_muting = place + 1 == CONNECTIONS && command[0].ends_with(b"SUBSCRIBE");
                    match is_muting && random.u8(..8) > 0 {
                        true => words(&["RESET"]),
                        false => command,
                    }
                });
                let commands = commands.collect();
                steps.push(Step::Send(place, commands));
            }
        }
    }
    steps
}

/// Steps with a key that may expire while it is watched.
fn short_lived(random: &mut Rng, steps: &mut Vec<Step>) {
    let key = key(random);
    let short = SHORT.to_string();
    let place = random.usize(..CONNECTIONS);
    steps.push(Step::Send(
        place,
        vec![words(&["SET", &key, "v", "PX", &short])],
    ));
    if random.bool() {
        let place = random.usize(..CONNECTIONS);
        steps.push(Step::Send(place, vec![words(&["WATCH", &key])]));
        steps.push(Step::Pass);
        let transaction = [words(&["MULTI"]), words(&["GET", &key]), words(&["EXEC"])];
        steps.push(Step::Send(place, transaction.to_vec()));
    } else {
        steps.push(Step::Pass);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(place, commands) => {
                write!(f, "{place}:")?;
                for command in commands {
                    let line = show(&command.join(&b' '));
                    write!(f, " {};", line.chars().take(120).collect::<String>())?;
                }
                Ok(())
            }
            Self::OutOfMemory(out) => write!(f, "out of memory: {out}"),
            Self::Pass => write!(f, "time passes"),
        }
    }
}
