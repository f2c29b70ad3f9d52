//! `curfew print-config`: the effective configuration, secrets redacted.

use anyhow::Context as _;
use clap::Args;
use toml_edit::{DocumentMut, Item, Table, Value};

use crate::cli::ConfigArgs;
use crate::config::{Check, Loaded};
use crate::failure::Failure;
use crate::{output, reference};

/// Arguments of `curfew print-config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew print-config --config /etc/curfew.toml
  curfew print-config --reference > CONFIG.md")]
pub(crate) struct PrintConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of TOML
    #[arg(long, conflicts_with = "reference")]
    json: bool,
    /// Print the reference instead: every key with its type, default and effect, in Markdown
    #[arg(long, conflicts_with_all = ["config", "sets"])]
    reference: bool,
}

/// Prints the configuration, or the reference.
pub(crate) fn run(args: &PrintConfigArgs) -> Result<(), Failure> {
    if args.reference {
        return Ok(output::print(&reference::markdown())?);
    }
    let loaded = args.config.load(Check::Form)?;
    if args.json {
        output::print_json(&loaded.config)?;
    } else {
        output::print(&toml(&loaded)?)?;
    }
    // The problems are reported after the output, so that an operator can compare them with the
    // output.
    args.config.load(Check::Everything).map(drop)
}

/// Writes the configuration as TOML. A value that is not a default names its source.
fn toml(loaded: &Loaded) -> Result<String, Failure> {
    let mut document: DocumentMut = toml_edit::ser::to_string_pretty(&loaded.config)
        .context("write the configuration as TOML")?
        .parse()
        .context("parse the written configuration")?;
    annotate(document.as_table_mut(), "", loaded);
    Ok(document.to_string())
}

/// Adds a comment with the source to every value that is not a default.
fn annotate(table: &mut Table, path: &str, loaded: &Loaded) {
    for (key, item) in table.iter_mut() {
        let key = key.get();
        let path = if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        };
        match item {
            Item::Value(value) => {
                // An inline list of tables gets one comment with the source of the whole list.
                if let Some(source) = loaded.source(&path) {
                    comment(value, &source);
                }
            }
            Item::Table(table) => annotate(table, &path, loaded),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter_mut().enumerate() {
                    annotate(table, &format!("{path}[{index}]"), loaded);
                }
            }
            Item::None => {}
        }
    }
}

fn comment(value: &mut Value, source: &str) {
    value
        .decor_mut()
        .set_suffix(format!("  # {}", output::clean(source)));
}
