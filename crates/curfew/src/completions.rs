//! `curfew completions`: prints the script with which a shell completes the arguments of `curfew`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew completions bash > /etc/bash_completion.d/curfew
  curfew completions fish > ~/.config/fish/completions/curfew.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "curfew", &mut script);
    Ok(output::print(&String::from_utf8(script)?)?)
}
