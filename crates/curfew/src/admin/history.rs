//! `curfew history`.

use clap::Args;
use curfew_model::{Clock as _, MAX_HISTORY_LIMIT, Position, SystemClock};
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AdminClient, segment};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::{output, time};

/// Arguments of `curfew history`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew history room:1 --limit 20 --key-file admin-key
  curfew history room:1 --since kdWqZx3a:42 --key-file admin-key

The last line is the position of the newest publication, for --since here and in curfew connect.")]
pub(crate) struct HistoryArgs {
    /// The channel
    channel: String,
    /// Maximum number of publications; 0 reads only the position [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MAX_HISTORY_LIMIT))]
    limit: Option<u64>,
    /// Only publications before this offset, newest first
    #[arg(long, value_name = "OFFSET", conflicts_with = "since")]
    before: Option<u64>,
    /// Only publications after this position, oldest first
    #[arg(long, value_name = "EPOCH:OFFSET")]
    since: Option<Position>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, as the admin API answers
    #[arg(long)]
    json: bool,
}

/// The admin API's answer.
#[derive(Debug, Deserialize)]
struct History {
    #[serde(flatten)]
    position: Position,
    publications: Vec<Entry>,
}

/// A stored publication.
#[derive(Debug, Deserialize)]
struct Entry {
    offset: u64,
    data: Box<RawValue>,
    from: Option<String>,
    /// The time of the publication, in Unix milliseconds.
    at: u64,
}

/// Lists the stored publications of the channel. Reports if publications after `--since` are no
/// longer stored.
pub(crate) fn run(args: HistoryArgs) -> Result<(), Failure> {
    let mut path = format!("/v1/channels/{}/history", segment(&args.channel));
    let parameters = [
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("before", args.before.map(|offset| offset.to_string())),
        ("since", args.since.map(|since| since.to_string())),
    ];
    let mut sign = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push_str(&format!("{sign}{name}={}", segment(&value)));
            sign = '&';
        }
    }
    let answer = AdminClient::new(&args.admin)?.send(Method::GET, &path, None)?;
    if args.json {
        return answer.print();
    }
    let history: History = answer.json()?;
    let mut shown = String::new();
    if !history.publications.is_empty() {
        shown = table(&history.publications);
    }
    // With a limit of 0 no publication is listed, so a missing publication proves nothing.
    let since = args.since.filter(|_| args.limit != Some(0));
    if let Some(lost) = since.and_then(|since| history.lost(since)) {
        shown.push_str(&lost);
    }
    shown.push_str(&format!("position: {}\n", history.position));
    Ok(output::print(&shown)?)
}

fn table(publications: &[Entry]) -> String {
    let now = SystemClock.unix();
    let rows: Vec<Vec<String>> = publications
        .iter()
        .map(|entry| {
            vec![
                entry.offset.to_string(),
                time::relative(entry.at / 1000, now),
                entry.from.clone().unwrap_or_else(|| "-".to_owned()),
                entry.data.get().to_owned(),
            ]
        })
        .collect();
    output::table(&["OFFSET", "PUBLISHED", "FROM", "DATA"], &rows)
}

impl History {
    /// Returns a line about the publications after `since` that are no longer stored, if there are
    /// any.
    fn lost(&self, since: Position) -> Option<String> {
        if self.position.epoch != since.epoch {
            return Some(format!(
                "The channel's history has begun another epoch, so the publications after {since} are not known.\n"
            ));
        }
        let newest = self.position.offset;
        let first = self
            .publications
            .first()
            .map_or(newest + 1, |first| first.offset);
        let lost = since.offset + 1..first;
        (!lost.is_empty()).then(|| {
            format!(
                "The publications with the offsets {} to {} are no longer stored.\n",
                lost.start,
                lost.end - 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_told() {
        let lost = |since: &str, first: Option<u64>| {
            let kept = first.map(|first| format!(r#"{{"offset":{first},"data":1,"at":1}}"#));
            let answer = format!(
                r#"{{"epoch":"kdWqZx3a","offset":45,"publications":[{}]}}"#,
                kept.unwrap_or_default()
            );
            let history: History = serde_json::from_str(&answer).unwrap();
            history.lost(since.parse().unwrap())
        };
        for (since, first, told) in [
            ("kdWqZx3a:41", Some(42), None),
            ("kdWqZx3a:41", Some(44), Some("offsets 42 to 43 are")),
            ("kdWqZx3a:41", None, Some("offsets 42 to 45 are")),
            ("kdWqZx3a:45", None, None),
            ("kdWqZx3a:90", None, None),
            ("AAAAAAAA:45", None, Some("another epoch")),
        ] {
            let lost = lost(since, first);
            let is_told =
                told.is_none_or(|told| lost.as_ref().is_some_and(|lost| lost.contains(told)));
            assert!(
                is_told && told.is_some() == lost.is_some(),
                "{since}: {lost:?}"
            );
        }
    }
}
