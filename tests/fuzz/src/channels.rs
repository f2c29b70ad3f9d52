//! Names of channels, and the patterns of rules, keys and grants.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{Action, Channel, Claims, Principal, PrincipalParts};
use curfew_policy::{ChannelPatterns, Policy, PolicyConfig, Rule};
use serde_json::json;

/// Longest name of a channel, in bytes.
const MOST_BYTES: usize = 255;

/// The characters with Unicode's property White_Space, except control characters.
const WHITE_SPACE: &str = " \u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\
    \u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// One segment of a pattern.
#[derive(Debug)]
enum Part<'a> {
    Is(&'a str),
    One(&'a str),
    Rest,
}

/// Checks the name of a channel against patterns. The first line of the input is the name, and each
/// further line is a pattern. Curfew and the independent matcher in this file must agree on the
/// valid names and patterns, on the patterns that match, on their captures, and on the permissions
/// by a rule, by a key's list of channels and by a grant.
///
/// # Panics
///
/// Curfew and the independent matcher disagree.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let (name, rest) = text.split_once('\n').unwrap_or((text, "*"));
    let channel = Channel::parse(name);
    let is_name = (1..=MOST_BYTES).contains(&name.len()) && is_plain(name);
    assert_eq!(channel.is_ok(), is_name, "{name:?}");
    let Ok(channel) = channel else {
        return false;
    };
    assert_eq!(channel.as_str(), name);

    let patterns: Vec<String> = rest.split('\n').map(str::to_owned).collect();
    let opinions: Vec<_> = patterns.iter().map(|pattern| parts(pattern)).collect();
    let segments: Vec<&str> = name.split(':').collect();
    let matching = opinions
        .iter()
        .map(|parts| captures(parts.as_deref()?, &segments));
    let matching: Vec<_> = matching.collect();
    let matches = matching.iter().any(Option::is_some);

    let bad = (0..patterns.len()).filter(|at| opinions[*at].is_none());
    let bad: Vec<usize> = bad.collect();
    match ChannelPatterns::parse(&patterns) {
        Ok(channels) => {
            assert_eq!(bad, [0; 0], "{patterns:?}");
            assert_eq!(
                channels.contains(&channel),
                matches,
                "{name:?} {patterns:?}"
            );
        }
        Err(problems) => {
            let told: Vec<usize> = problems.iter().map(|(at, _)| *at).collect();
            assert_eq!(told, bad, "{patterns:?}");
        }
    }

    // A rule with an invalid pattern allows nothing.
    let rule = Rule {
        name: "rule".to_owned(),
        channels: patterns.clone(),
        actions: vec![Action::Subscribe],
        ..Rule::default()
    };
    let policy = |rule| {
        Policy::new(&PolicyConfig {
            rules: vec![rule],
            ..PolicyConfig::default()
        })
    };
    let rules = policy(rule);
    let granted = principal(json!({"curfew": {"publish": patterns}}).to_string());
    let subject = rules.subject(&granted);
    let allowed = subject.decide(Action::Subscribe, &channel).allowed;
    assert_eq!(allowed, bad.is_empty() && matches, "{name:?} {patterns:?}");
    // A pattern with captures grants nothing, because a grant cannot compare a capture with
    // anything.
    let grants = |(at, captured): (usize, &Option<_>)| {
        captured.is_some() && !patterns[at].contains(['{', '}'])
    };
    let granted = matching.iter().enumerate().any(grants);
    let allowed = subject.decide(Action::Publish, &channel).allowed;
    assert_eq!(allowed, granted, "{name:?} {patterns:?}");

    let capturing = patterns
        .iter()
        .zip(&matching)
        .find_map(|(pattern, captured)| {
            let captured = captured.as_ref()?.first()?;
            Some((pattern, captured))
        });
    if let Some((pattern, (parameter, value))) = capturing {
        let rules = policy(Rule {
            name: "capture".to_owned(),
            channels: vec![pattern.clone()],
            actions: vec![Action::Subscribe],
            when: Some(format!("params.{parameter} == claims.value")),
            ..Rule::default()
        });
        for (claim, expect) in [((*value).to_owned(), true), (format!("{value}x"), false)] {
            let principal = principal(json!({ "value": claim }).to_string());
            let allowed = rules
                .decide(&principal, Action::Subscribe, &channel)
                .allowed;
            assert_eq!(allowed, expect, "{parameter} of {pattern:?} for {name:?}");
        }
    }
    matches
}

fn principal(claims: String) -> Principal {
    Principal::new(PrincipalParts {
        user: "alice".into(),
        issuer: Arc::from("main"),
        key_id: None,
        token_id: None,
        issued_at: None,
        expires_at: 1,
        leeway: Duration::ZERO,
        claims: Claims::from_json(claims),
    })
}

/// True if the text has no control characters (C0 and C1) and no white space, and does not begin
/// with `$`, which is reserved.
fn is_plain(text: &str) -> bool {
    let is_control = |c: char| matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f);
    !text.starts_with('$') && !text.contains(|c| is_control(c) || WHITE_SPACE.contains(c))
}

/// The segments of a pattern; `None` if it is invalid.
fn parts(pattern: &str) -> Option<Vec<Part<'_>>> {
    if pattern.is_empty() || !is_plain(pattern) {
        return None;
    }
    let segments: Vec<&str> = pattern.split(':').collect();
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let inner = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        parts.push(match (inner, *segment) {
            (Some(name), _) => {
                let letters = name.trim_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
                let begins = name.starts_with(|c: char| !c.is_ascii_digit());
                let is_new = |part: &Part<'_>| !matches!(part, Part::One(other) if *other == name);
                if !letters.is_empty() || !begins || !parts.iter().all(is_new) {
                    return None;
                }
                Part::One(name)
            }
            (None, "*") if at + 1 == segments.len() => Part::Rest,
            (None, other) if other.contains(['*', '{', '}']) => return None,
            (None, other) => Part::Is(other),
        });
    }
    Some(parts)
}

/// The captures of a pattern; `None` if the segments do not match. Segments are matched from the
/// end to the beginning.
fn captures<'a>(parts: &[Part<'a>], segments: &[&'a str]) -> Option<Vec<(&'a str, &'a str)>> {
    let Some((last, before)) = parts.split_last() else {
        return segments.is_empty().then(Vec::new);
    };
    if let Part::Rest = last {
        let (head, rest) = segments.split_at_checked(before.len())?;
        let is_some = !rest.is_empty() && rest != [""];
        return is_some.then(|| captures(before, head)).flatten();
    }
    let (segment, head) = segments.split_last()?;
    let mut found = captures(before, head)?;
    match last {
        Part::One(name) if !segment.is_empty() => found.push((name, segment)),
        Part::Is(text) if text == segment => {}
        _ => return None,
    }
    Some(found)
}
