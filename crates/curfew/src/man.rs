//! `curfew man`: writes the manual, for packages. The manual is made from the help texts, which
//! `curfew help` shows too.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use crate::cli::Cli;
use crate::failure::Failure;

/// Arguments of `curfew man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew man ./man && man ./man/curfew-serve.1")]
pub(crate) struct ManArgs {
    /// The directory for the pages, made if it is missing
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Writes `curfew.1` and a page for each command that the help lists.
pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("write the manual to {}", directory.display()))?;
    Ok(())
}
