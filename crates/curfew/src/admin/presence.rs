//! `curfew presence`.

use anyhow::anyhow;
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AdminClient, segment};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Arguments of `curfew presence`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew presence room:1 --key-file admin-key")]
pub(crate) struct PresenceArgs {
    /// The channel
    channel: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, as the admin API answers about the channel
    #[arg(long)]
    json: bool,
}

/// The members that are read from the admin API's answer about a channel.
#[derive(Debug, Deserialize)]
struct Channel {
    presence: Option<Presence>,
}

#[derive(Debug, Deserialize)]
struct Presence {
    sessions: Vec<Present>,
    count: u64,
    users: u64,
}

#[derive(Debug, Deserialize)]
struct Present {
    session: String,
    user: String,
    info: Option<Box<RawValue>>,
}

/// Lists the sessions that are subscribed to the channel, on any node.
pub(crate) fn run(args: PresenceArgs) -> Result<(), Failure> {
    let path = format!("/v1/channels/{}", segment(&args.channel));
    let answer = AdminClient::new(&args.admin)?.send(Method::GET, &path, None)?;
    if args.json {
        return answer.print();
    }
    let channel: Channel = answer.json()?;
    let Some(presence) = channel.presence else {
        return Err(anyhow!(
            "the channel has no presence: set presence = true for it in [[channels]]"
        )
        .into());
    };
    let rows: Vec<Vec<String>> = presence
        .sessions
        .iter()
        .map(|present| {
            let info = present.info.as_ref();
            vec![
                present.session.clone(),
                present.user.clone(),
                info.map_or_else(|| "-".to_owned(), |info| info.get().to_owned()),
            ]
        })
        .collect();
    let mut shown = match rows.is_empty() {
        true => String::new(),
        false => output::table(&["SESSION", "USER", "INFO"], &rows),
    };
    let (count, users) = (presence.count, presence.users);
    shown.push_str(&format!("sessions: {count}, users: {users}"));
    let left_out = count.saturating_sub(rows.len() as u64);
    if left_out > 0 {
        shown.push_str(&format!(", not listed: {left_out}"));
    }
    shown.push('\n');
    Ok(output::print(&shown)?)
}
