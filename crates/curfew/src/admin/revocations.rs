//! `curfew revocations`.

use clap::Args;
use curfew_model::{Clock as _, SystemClock};
use http::Method;
use serde_json::Value;

use super::{AdminClient, list, text, when};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew revocations`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew revocations --key-file admin-key")]
pub(crate) struct RevocationsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, as the admin API answers
    #[arg(long)]
    json: bool,
}

/// Lists the revocations in force.
pub(crate) fn run(args: RevocationsArgs) -> Result<(), Failure> {
    let answer = AdminClient::new(&args.admin)?.send(Method::GET, "/v1/revocations", None)?;
    if args.json {
        return answer.print();
    }
    let now = SystemClock.unix();
    let answer: Value = answer.json()?;
    let rows: Vec<Vec<String>> = list(&answer, "revocations")?
        .iter()
        .map(|revocation| row(revocation, now))
        .collect();
    Ok(output::print(&output::table(
        &["KIND", "VALUE", "COVERS", "ENDS", "REASON"],
        &rows,
    ))?)
}

fn row(revocation: &Value, now: u64) -> Vec<String> {
    let covers = match revocation["before"].as_u64() {
        _ if !revocation["ineffective"].is_null() => {
            format!("no session: {}", text(revocation, "ineffective"))
        }
        Some(before) => format!("issued up to {}", crate::time::relative(before, now)),
        None => "every token".to_owned(),
    };
    let ends = match &revocation["expires_at"] {
        Value::Null => "when lifted".to_owned(),
        _ => when(revocation, "expires_at", now),
    };
    vec![
        text(revocation, "kind"),
        text(revocation, "value"),
        covers,
        ends,
        text(revocation, "reason"),
    ]
}
