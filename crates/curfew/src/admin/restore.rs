//! `curfew restore`.

use clap::Args;
use http::Method;

use super::{AdminClient, revoke, segment, trace_line};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew restore`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew restore user alice --key-file admin-key")]
pub(crate) struct RestoreArgs {
    /// The kind, as `curfew revocations` lists it
    kind: String,
    /// The value, as `curfew revocations` lists it; none for all and anonymous
    value: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Lifts a revocation.
pub(crate) fn run(args: RestoreArgs) -> Result<(), Failure> {
    let value = revoke::target(&args.kind, args.value.as_deref())?;
    let path = format!("/v1/revocations/{}/{}", segment(&args.kind), segment(value));
    let answer = AdminClient::new(&args.admin)?.send(Method::DELETE, &path, None)?;
    if args.json {
        return answer.print();
    }
    let name = match args.kind.as_str() {
        "all" | "anonymous" => args.kind,
        kind => format!("{kind}:{value}"),
    };
    Ok(output::print(&format!(
        "lifted the revocation of {}\n{}",
        output::clean(&name),
        trace_line(&answer.json()?)
    ))?)
}
