//! `curfew publish`.

use std::io::Read as _;

use clap::Args;
use http::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{AdminClient, trace_line};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew publish`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew publish room:1 '{\"text\":\"hello\"}' --key-file admin-key
  date +%s | curfew publish clock - --key-file admin-key
  curfew publish order:77 '\"paid\"' --key paid-77 --key-file admin-key")]
pub(crate) struct PublishArgs {
    /// The channel
    channel: String,
    /// The data, JSON; `-` reads it from stdin
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    data: String,
    /// An idempotency key of 1 to 64 bytes, in a channel with history: if a publication is sent
    /// again with the same key within five minutes, it gets the first answer and is not delivered
    /// again
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Publishes the data, which is sent byte for byte as given. Prints the publication's offset if the
/// channel has history, and the URL or the id of the publication's trace if a trace is recorded.
pub(crate) fn run(args: PublishArgs) -> Result<(), Failure> {
    let mut data = args.data;
    if data == "-" {
        data.clear();
        std::io::stdin().read_to_string(&mut data)?;
    }
    let data: Box<RawValue> = serde_json::from_str(data.trim()).map_err(|error| {
        Failure::usage(format!(
            "the data is not JSON: {error}; write a text in quotes: '\"hello\"'"
        ))
    })?;
    #[derive(serde::Serialize)]
    struct Publish {
        channel: String,
        data: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    }
    let body = serde_json::to_string(&Publish {
        channel: args.channel,
        data,
        key: args.key,
    })?;
    let answer = AdminClient::new(&args.admin)?.send(Method::POST, "/v1/publish", Some(body))?;
    if args.json {
        return answer.print();
    }
    let answer: Value = answer.json()?;
    let offset = answer["offset"].as_u64();
    let mut told = offset.map_or_else(String::new, |offset| format!("offset: {offset}\n"));
    told.push_str(&trace_line(&answer));
    Ok(output::print(&told)?)
}
