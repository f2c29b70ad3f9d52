//! `curfew nodes`.

use clap::Args;
use curfew_model::{Clock as _, SystemClock};
use http::Method;

use super::{AdminClient, list, text, when};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew nodes`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew nodes --key-file admin-key")]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, as the admin API answers
    #[arg(long)]
    json: bool,
}

/// Lists the live nodes.
pub(crate) fn run(args: NodesArgs) -> Result<(), Failure> {
    let answer = AdminClient::new(&args.admin)?.send(Method::GET, "/v1/nodes", None)?;
    if args.json {
        return answer.print();
    }
    let now = SystemClock.unix();
    let answer: serde_json::Value = answer.json()?;
    let rows: Vec<Vec<String>> = list(&answer, "nodes")?
        .iter()
        .map(|node| {
            vec![
                text(node, "name"),
                text(node, "node"),
                text(node, "address"),
                text(node, "version"),
                when(node, "started_at", now),
                text(node, "sessions"),
            ]
        })
        .collect();
    Ok(output::print(&output::table(
        &["NAME", "NODE", "ADDRESS", "VERSION", "STARTED", "SESSIONS"],
        &rows,
    ))?)
}
