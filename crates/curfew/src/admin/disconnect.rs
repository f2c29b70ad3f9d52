//! `curfew disconnect`.

use clap::Args;
use http::Method;

use super::{AdminClient, segment, trace_line};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew disconnect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew disconnect 0198c2a4-7d1e-7b3a-9f52-3a1d7c1e0b11 --key-file admin-key

The client may reconnect at once: to keep the user out, use curfew revoke.")]
pub(crate) struct DisconnectArgs {
    /// The session's id, as `curfew sessions` lists it
    session: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Closes one session.
pub(crate) fn run(args: DisconnectArgs) -> Result<(), Failure> {
    let path = format!("/v1/sessions/{}", segment(&args.session));
    let answer = AdminClient::new(&args.admin)?.send(Method::DELETE, &path, None)?;
    if args.json {
        return answer.print();
    }
    Ok(output::print(&format!(
        "closed session {}\n{}",
        output::clean(&args.session),
        trace_line(&answer.json()?)
    ))?)
}
