//! `curfew publish`.

use std::io::Read as _;

use clap::Args;
use http::Method;
use serde_json::value::RawValue;

use super::{AdminClient, trace_line};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew publish`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew publish room:1 '{\"text\":\"hello\"}' --key-file admin-key
  date +%s | curfew publish clock - --key-file admin-key")]
pub(crate) struct PublishArgs {
    /// The channel
    channel: String,
    /// The data, JSON; `-` reads it from stdin
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    data: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Publishes, and prints where the trace of that is, if one is recorded. The data goes byte for byte as it was typed.
pub(crate) fn run(args: PublishArgs) -> Result<(), Failure> {
    let mut data = args.data;
    if data == "-" {
        data.clear();
        std::io::stdin().read_to_string(&mut data)?;
    }
    let data: Box<RawValue> = serde_json::from_str(data.trim()).map_err(|error| {
        Failure::usage(format!(
            "the data is not JSON: {error}; texts need quotes: '\"hello\"'"
        ))
    })?;
    #[derive(serde::Serialize)]
    struct Publish {
        channel: String,
        data: Box<RawValue>,
    }
    let body = serde_json::to_string(&Publish {
        channel: args.channel,
        data,
    })?;
    let answer = AdminClient::new(&args.admin)?.send(Method::POST, "/v1/publish", Some(body))?;
    if args.json {
        return answer.print();
    }
    Ok(output::print(&trace_line(&answer.json()?))?)
}
