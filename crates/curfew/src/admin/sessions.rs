//! `curfew sessions`.

use clap::Args;
use curfew_model::{Clock as _, SystemClock};
use http::Method;
use serde_json::{Value, json};

use super::{AdminClient, list, segment, text, when};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Maximum number of sessions that one request asks for.
const PAGE: usize = 500;

/// Arguments of `curfew sessions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew sessions --user alice --key-file admin-key")]
pub(crate) struct SessionsArgs {
    /// Only sessions of this user
    #[arg(long)]
    user: Option<String>,
    /// Maximum number of sessions
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, as the admin API answers
    #[arg(long)]
    json: bool,
}

/// Lists sessions. Several requests are sent if there are more than [`PAGE`] sessions.
pub(crate) fn run(args: SessionsArgs) -> Result<(), Failure> {
    let client = AdminClient::new(&args.admin)?;
    let limit = args.limit as usize;
    let mut sessions: Vec<Value> = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut path = format!("/v1/sessions?limit={}", PAGE.min(limit - sessions.len()));
        for (name, value) in [("user", args.user.as_deref()), ("cursor", cursor.as_str())] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        let mut page: Value = client.send(Method::GET, &path, None)?.json()?;
        sessions.extend_from_slice(list(&page, "sessions")?);
        cursor = page["cursor"].take();
        if cursor.is_null() || sessions.len() >= limit {
            break;
        }
    }
    if args.json {
        return output::print_json(&json!({ "sessions": sessions, "cursor": cursor }));
    }
    let now = SystemClock.unix();
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            vec![
                text(session, "session"),
                text(session, "user"),
                text(session, "node"),
                when(session, "connected_at", now),
                when(session, "expires_at", now),
                text(session, "address"),
            ]
        })
        .collect();
    let mut shown = output::table(
        &["SESSION", "USER", "NODE", "CONNECTED", "EXPIRES", "ADDRESS"],
        &rows,
    );
    if !cursor.is_null() {
        shown.push_str("There are more sessions: raise --limit to list them.\n");
    }
    Ok(output::print(&shown)?)
}
