//! `curfew revoke`.

use clap::Args;
use curfew_model::{Clock as _, SystemClock};
use http::Method;
use serde_json::{Value, json};

use super::{AdminClient, text, trace_line};
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::{output, time};

/// The text for a user without an open session.
const NOBODY: &str = "\
No session of this user is open. If the name is right, there is nothing to do: the revocation is in force. Tokens name
the user by the claim sub (auth.subject_claim), which many providers set to an id and not to the name with which people
sign in: curfew sessions lists users by the name in their tokens. To revoke by the sign-in name, list its claim in
session.revocable_claims and run: curfew revoke --claim preferred_username=NAME
";

/// Arguments of `curfew revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew revoke user alice --reason 'left the company' --key-file admin-key
  curfew revoke user alice --before now --key-file admin-key   # she may sign in again
  curfew revoke --claim preferred_username=alice --key-file admin-key   # a claim that is revocable
  curfew revoke all --before now --key-file admin-key          # all users must
  curfew revoke tenant acme --dry-run --key-file admin-key     # the sessions that would be closed")]
pub(crate) struct RevokeArgs {
    /// user, session, token, anonymous, all, or a claim listed in session.revocable_claims
    #[arg(required_unless_present = "claim")]
    kind: Option<String>,
    /// The user, session id, token id (jti) or claim's value; none for anonymous and all
    value: Option<String>,
    /// A claim listed in session.revocable_claims, and its value, in place of kind and value
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["kind", "value"])]
    claim: Option<String>,
    /// Only tokens issued at or before this time: now, Unix seconds, 2026-11-23T12:00:00Z or -1h.
    /// Without it every token is revoked, new ones included
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    before: Option<String>,
    /// Lifetime of the revocation; give at least the longest lifetime of your tokens
    #[arg(long, value_name = "DURATION", default_value = "24h",
          value_parser = curfew_model::setting::duration::parse)]
    ttl: std::time::Duration,
    /// Reason, shown to operators; clients do not receive it
    #[arg(long)]
    reason: Option<String>,
    /// Change nothing: only show the sessions that would be closed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
}

/// Revokes access and prints the receipt. With `--dry-run`, only prints the sessions that would be
/// closed.
pub(crate) fn run(args: RevokeArgs) -> Result<(), Failure> {
    let (kind, value) = match (&args.claim, &args.kind) {
        (Some(claim), _) => claim
            .split_once('=')
            .ok_or_else(|| Failure::usage("--claim takes NAME=VALUE"))?,
        (None, kind) => (
            kind.as_deref().unwrap_or_default(),
            args.value.as_deref().unwrap_or_default(),
        ),
    };
    let value = target(kind, (!value.is_empty()).then_some(value))?;
    let ttl_secs = args.ttl.as_secs();
    if ttl_secs == 0 {
        return Err(Failure::usage("--ttl must be at least 1s"));
    }
    let mut body = json!({ "kind": kind, "value": value, "ttl": ttl_secs });
    if let Some(before) = &args.before {
        let now = SystemClock.unix();
        body["before"] = time::parse(before, now).map_err(Failure::Usage)?.into();
    }
    if let Some(reason) = args.reason {
        body["reason"] = reason.into();
    }
    if args.dry_run {
        body["dry_run"] = true.into();
    }
    let client = AdminClient::new(&args.admin)?;
    let answer = client.send(Method::POST, "/v1/revocations", Some(body.to_string()))?;
    if args.json {
        return answer.print();
    }
    let answer = answer.json()?;
    let text = match args.dry_run {
        true => preview(&answer),
        false => receipt(&answer) + &trace_line(&answer),
    } + nobody(kind, &answer);
    Ok(output::print(&text)?)
}

/// The sessions that would be closed, each on its own line.
fn preview(answer: &Value) -> String {
    let mut lines = format!(
        "{} would close {}; nothing was changed\n",
        output::clean(&text(answer, "key")),
        count(&answer["would_close"], "session"),
    );
    for session in answer["sessions"].as_array().into_iter().flatten() {
        let [id, user, node] = ["session", "user", "node"].map(|name| text(session, name));
        let line = format!("{id}  {}  on {node}\n", output::clean(&user));
        lines.push_str(&line);
    }
    lines
}

/// The value to send for `kind`. The kinds `all` and `anonymous` take no value, so the name of the
/// kind is sent as the value.
pub(super) fn target<'a>(kind: &str, value: Option<&'a str>) -> Result<&'a str, Failure> {
    match (kind, value) {
        ("all", None | Some("all")) => Ok("all"),
        ("all", Some(_)) => Err(Failure::usage(
            "the kind all takes no value: it covers everyone",
        )),
        ("anonymous", None | Some("anonymous")) => Ok("anonymous"),
        ("anonymous", Some(_)) => Err(Failure::usage(
            "the kind anonymous takes no value: it covers every session without a user",
        )),
        (_, Some(value)) if !value.is_empty() => Ok(value),
        (kind, _) => Err(Failure::usage(format!(
            "the kind {kind} needs a value: give the value after the kind"
        ))),
    }
}

/// The receipt in sentences.
fn receipt(receipt: &Value) -> String {
    let nodes = &receipt["nodes"];
    let mut sentence = format!(
        "revoked {}: {} closed, confirmed by {} of {} in {} ms\n",
        output::clean(&text(receipt, "key")),
        count(&receipt["closed"], "session"),
        text(nodes, "confirmed"),
        count(&nodes["live"], "node"),
        text(receipt, "took_ms"),
    );
    if receipt["durability"] == "primary-only" {
        sentence.push_str("No replica has the revocation yet: if the primary of Redis fails now, the revocation may be lost.\n");
    }
    let missing: Vec<String> = nodes["missing"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| named(node.as_str().unwrap_or("?"), &nodes["names"]))
        .collect();
    if !missing.is_empty() {
        let line = format!(
            "Missing: {}. A node that is cut off from Redis delivers nothing after the end of its lease (backend.lease). \
             A node without the kind in its settings keeps the revoked sessions until it has reloaded them.\n",
            missing.join(", ")
        );
        sentence.push_str(&line);
    }
    sentence
}

/// Returns a node's name followed by its id, or only the id if no name is known.
fn named(id: &str, names: &Value) -> String {
    match names[id].as_str() {
        Some(name) => output::clean(&format!("{name} ({id})")),
        None => output::clean(id),
    }
}

/// Returns the likely reason that a user has no session. The text is empty if sessions were found,
/// or if the answers of some nodes are missing.
fn nobody(kind: &str, answer: &Value) -> &'static str {
    let found = [&answer["closed"], &answer["would_close"]];
    let is_known = answer["nodes"]["missing"]
        .as_array()
        .is_none_or(Vec::is_empty);
    match kind == "user" && is_known && found.iter().all(|found| found.as_u64().unwrap_or(0) == 0) {
        true => NOBODY,
        false => "",
    }
}

fn count(number: &Value, noun: &str) -> String {
    match number.as_u64() {
        Some(1) => format!("1 {noun}"),
        Some(number) => format!("{number} {noun}s"),
        None => format!("? {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipt_is_one_sentence() {
        let json = json!({"key":"user:alice","nodes":{"live":1,"confirmed":1,"missing":[]},
                "closed":5,"took_ms":4});
        assert_eq!(
            receipt(&json),
            "revoked user:alice: 5 sessions closed, confirmed by 1 of 1 node in 4 ms\n"
        );
        let json = json!({"key":"all","nodes":{"live":4,"confirmed":2,"missing":["n\u{1b}1","n2"],
            "names":{"n2":"curfew-7d9"}},
            "closed":1,"took_ms":900});
        assert!(receipt(&json).contains("confirmed by 2 of 4 nodes"));
        assert!(
            receipt(&json).contains("Missing: n\\u{1b}1, curfew-7d9 (n2). ")
                && receipt(&json).contains("lease")
        );
    }

    #[test]
    fn a_dry_run_names_the_sessions() {
        let json = json!({"key":"k","would_close":1,"sessions":[
            {"session":"s1","user":"a\u{1b}b","node":"n1"}]});
        let text = preview(&json);
        assert!(text.starts_with("k would close 1 session; nothing"));
        assert!(text.contains("s1") && text.contains("n1") && !text.contains('\u{1b}'));
    }

    /// Detects this fault: if no token has the user name, its revocation looks like a success.
    #[test]
    fn nobody_is_told_where_a_user_has_no_session() {
        let none = json!({"closed":0,"nodes":{"missing":[]}});
        assert!(nobody("user", &none).contains("sub"));
        for (kind, answer) in [
            ("session", none.clone()),
            ("user", json!({"closed":1,"nodes":{"missing":[]}})),
            ("user", json!({"closed":0,"nodes":{"missing":["n1"]}})),
            ("user", json!({"would_close":1})),
        ] {
            assert_eq!(nobody(kind, &answer), "", "{answer}");
        }
    }

    #[test]
    fn some_kinds_have_no_value_and_all_others_have_one() {
        for (kind, value, expect) in [
            ("user", Some("alice"), Some("alice")),
            ("all", None, Some("all")),
            ("all", Some("alice"), None),
            ("anonymous", None, Some("anonymous")),
            ("anonymous", Some("anonymous"), Some("anonymous")),
            ("anonymous", Some("alice"), None),
            ("user", None, None),
            ("user", Some(""), None),
        ] {
            assert_eq!(target(kind, value).ok(), expect, "{kind} {value:?}");
        }
    }
}
