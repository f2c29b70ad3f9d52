//! Failures of a command, and the exit code of each.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::ConfigProblem;

/// Exit code for wrong usage and invalid configuration. clap uses the same code.
const USAGE: u8 = 2;

/// The failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The configuration has these problems.
    Config(Vec<ConfigProblem>),
    /// The failure is already reported, so only the exit code is left to return.
    Told(u8),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// The failure for a wrong command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Prints the failure to stderr and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(message) => (format!("curfew: {message}\n"), USAGE),
            Self::Config(problems) => (list(&problems), USAGE),
            Self::Told(code) => (String::new(), code),
            Self::Other(error) if is_broken_pipe(&error) => (String::new(), 0),
            Self::Other(error) => (format!("curfew: {error:#}\n"), 1),
        };
        // If stderr is closed, only the exit code can report the failure.
        io::stderr().write_all(text.as_bytes()).ok();
        ExitCode::from(code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// All problems, each on its own line.
fn list(problems: &[ConfigProblem]) -> String {
    let mut text = match problems.len() {
        1 => "curfew: the configuration has a problem\n".to_owned(),
        n => format!("curfew: the configuration has {n} problems\n"),
    };
    for problem in problems {
        writeln!(text, "  {problem}").expect("writing to a string does not fail");
    }
    text
}

/// True if the reader of the output has closed the pipe, as in `curfew sessions | head`. A closed
/// pipe does not count as a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
