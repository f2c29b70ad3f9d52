//! The program that `curfew dev -- PROGRAM` runs beside the node: a back end that makes tokens and
//! calls the admin API. Its environment has the node's addresses and keys.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future;
use std::process::{Child, Command};
use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};
use tracing::warn;

use crate::failure::Failure;

/// Interval at which the node checks if the program has ended.
const POLL: Duration = Duration::from_millis(200);

/// A running program, which is killed when this value is dropped; `None` if no program is given.
#[derive(Debug)]
pub(super) struct Backend(Option<Child>);

impl Backend {
    /// Starts the program that the first word of `command` names, with the other words as
    /// arguments. The program gets the environment of this process and `variables`. Nothing is
    /// started if `command` is empty.
    pub(super) fn start(
        command: &[OsString],
        variables: [(&str, String); 4],
    ) -> Result<Self, Failure> {
        let Some((program, arguments)) = command.split_first() else {
            return Ok(Self(None));
        };
        let child = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn()
            .map_err(|error| {
                let program = program.display();
                Failure::usage(format!(
                    "cannot run {program}: {error}; give a program and its arguments after --"
                ))
            })?;
        Ok(Self(Some(child)))
    }

    /// Logs the end of the program, once. The node continues without the program.
    pub(super) async fn watch(&mut self) -> Infallible {
        let Some(child) = &mut self.0 else {
            return future::pending().await;
        };
        let mut poll = time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => warn!(%status, "the program given after -- has ended"),
                Err(error) => {
                    warn!(%error, "the state of the program given after -- cannot be read")
                }
            }
            return future::pending().await;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Both calls fail only if the program has already ended.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> [(&'static str, String); 4] {
        ["CURFEW_ONE", "CURFEW_TWO", "CURFEW_THREE", "CURFEW_FOUR"].map(|name| (name, name.into()))
    }

    #[tokio::test]
    async fn it_has_the_variables_and_ends_with_its_owner() {
        let script = "test \"$CURFEW_FOUR\" = CURFEW_FOUR && exec sleep 600";
        let command = ["sh", "-c", script].map(OsString::from);
        let mut backend = Backend::start(&command, variables()).unwrap();
        let id = backend.0.as_ref().unwrap().id();
        let watched = time::timeout(POLL * 2, backend.watch()).await;
        assert!(watched.is_err());
        let running = backend.0.as_mut().unwrap().try_wait().unwrap();
        assert_eq!(
            running, None,
            "the program ended, because it does not have the variables"
        );
        drop(backend);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let command = [OsString::from("/no/such/program")];
        let Err(Failure::Usage(message)) = Backend::start(&command, variables()) else {
            panic!("the result is not a usage error");
        };
        assert!(message.contains("/no/such/program"), "{message}");
    }

    #[test]
    fn without_a_program_there_is_none() {
        assert!(Backend::start(&[], variables()).unwrap().0.is_none());
    }
}
