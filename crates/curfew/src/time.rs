//! Points in time, in the forms that people type and read.

use std::time::Duration;

use curfew_model::setting::duration;

/// Reads `now`, Unix seconds, RFC 3339 (`2026-11-23T12:00:00Z`), or a duration from now: `+5m`,
/// `-1h`. Returns Unix seconds.
pub(crate) fn parse(text: &str, now: u64) -> Result<u64, String> {
    let offset = |text: &str| duration::parse(text).map(|d| d.as_secs());
    if text == "now" {
        return Ok(now);
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return Ok(now.saturating_add(offset(ahead)?));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Ok(now.saturating_sub(offset(ago)?));
    }
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    humantime::parse_rfc3339_weak(text)
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map(|since| since.as_secs())
        .ok_or_else(|| {
            format!(
                "{text:?} is not a time: use now, Unix seconds, 2026-11-23T12:00:00Z, +5m or -1h"
            )
        })
}

/// The distance of `time` from `now`, for a table, in at most two units: `in 59m 58s`, `2h 1m ago`.
pub(crate) fn relative(time: u64, now: u64) -> String {
    match time.cmp(&now) {
        std::cmp::Ordering::Equal => "now".to_owned(),
        std::cmp::Ordering::Greater => format!("in {}", short(time - now)),
        std::cmp::Ordering::Less => format!("{} ago", short(now - time)),
    }
}

/// Formats a duration in its two largest units, rounded down.
fn short(seconds: u64) -> String {
    let unit = match seconds {
        0..3600 => 1,
        3600..86_400 => 60,
        _ => 3600,
    };
    duration::shown(Duration::from_secs(seconds / unit * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let now = 1_764_000_000;
        for (text, expect) in [
            ("now", Some(now)),
            ("1763999999", Some(now - 1)),
            ("2025-11-24T16:00:00Z", Some(now)),
            ("2025-11-24 16:00:00", Some(now)),
            ("+5m", Some(now + 300)),
            ("-1h", Some(now - 3600)),
            ("", None),
            ("-", None),
            ("yesterday", None),
            ("+5", None),
        ] {
            assert_eq!(parse(text, now).ok(), expect, "{text}");
        }
    }

    #[test]
    fn times_are_shown_from_now() {
        for (time, expect) in [
            (100, "now"),
            (90, "10s ago"),
            (100 + 3723, "in 1h 2m"),
            (100 + 3601, "in 1h"),
            (100 + 86_399, "in 23h 59m"),
            (100 + 86_401, "in 1 day"),
            (100 + 90_061, "in 1 day 1h"),
            (100 + 200_000, "in 2 days 7h"),
        ] {
            assert_eq!(relative(time, 100), expect);
        }
    }
}
