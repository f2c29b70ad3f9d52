//! `curfew check-config`: every problem of a configuration at once.

use clap::Args;
use serde_json::json;

use crate::cli::ConfigArgs;
use crate::config::Check;
use crate::failure::Failure;
use crate::output;

/// Exit code for an invalid configuration.
const INVALID: u8 = 2;

/// Arguments of `curfew check-config`.
#[derive(Debug, Args)]
#[command(after_help = "Example, before a restart or a reload:
  curfew check-config --config /etc/curfew.toml && systemctl reload curfew")]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: {\"valid\",\"problems\":[{\"source\",\"line\",\"key\",\"message\"}],\"warnings\":[…]}
    #[arg(long)]
    json: bool,
}

/// Checks values and the files they name.
pub(crate) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    match args.config.load(Check::Everything) {
        Ok(loaded) if args.json => {
            let mut told = json!({ "valid": true, "problems": [] });
            if !loaded.warnings.is_empty() {
                told["warnings"] = json!(loaded.warnings);
            }
            output::print_json(&told)
        }
        Ok(loaded) => {
            let warnings = loaded.warnings.iter();
            let warnings: String = warnings.map(|told| format!("warning: {told}\n")).collect();
            Ok(output::print(&format!(
                "{warnings}the configuration is valid\n"
            ))?)
        }
        Err(Failure::Config(problems)) if args.json => {
            output::print_json(&json!({ "valid": false, "problems": problems }))?;
            Err(Failure::Told(INVALID))
        }
        Err(failure) => Err(failure),
    }
}
