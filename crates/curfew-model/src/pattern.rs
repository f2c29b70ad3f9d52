//! Channel patterns: `room:{tenant}:*`.
//!
//! Segments are separated by `:`. A segment is a literal, a `{name}` or a `*`. Only the last
//! segment can be a `*`. `{name}` matches exactly one non-empty segment. `*` matches the rest of
//! the name: one or more segments, at least one byte. So `room:*` matches `room:1`, `room:1:x` and
//! `room::x`, but neither `room:` nor `room`. The pattern `*` alone matches every channel. No other
//! character of a pattern is special. In a channel's name, no character is special.

/// A well-formed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// The reason why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("a pattern must not be empty; * matches every channel")]
    Empty,
    /// The text has a control character or white space.
    #[error("matches no channel: channel names have no control characters and no spaces")]
    ForbiddenCharacter,
    /// The pattern starts with `$`.
    #[error("matches no channel: names that start with $ are reserved")]
    Reserved,
    /// A `*` has segments after it.
    #[error(
        "* matches the rest of the name, so it must be the last segment; {{x}} matches one segment"
    )]
    StarNotLast,
    /// A `*` is part of this segment.
    #[error(
        "* must be a whole segment in {0:?}; part of a segment cannot be a wildcard, so use {{x}} for one whole segment or * as the last segment for the rest of the name"
    )]
    StarWithinSegment(Box<str>),
    /// A brace is part of this segment.
    #[error("braces must enclose the whole segment in {0:?}, as in room:{{id}}")]
    BraceWithinSegment(Box<str>),
    /// This name is not an identifier.
    #[error(
        "{{{0}}} is not a valid capture name: use letters, digits and _, and do not start with a digit"
    )]
    BadName(Box<str>),
    /// Two segments have this name.
    #[error("{{{0}}} captures two segments; give each segment its own name")]
    RepeatedName(Box<str>),
}

impl Pattern {
    /// Checks `text` and copies it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// Returns true if the pattern has a segment `{name}`.
    pub fn captures(&self, name: &str) -> bool {
        self.0.split(':').filter_map(captured).any(|it| it == name)
    }

    /// Returns true if the pattern matches `channel`. Passes each `{name}` with its segment to
    /// `capture`, even if a later segment does not match.
    pub fn matches<'a>(&'a self, channel: &'a str, capture: impl FnMut(&'a str, &'a str)) -> bool {
        matches(&self.0, channel, capture)
    }
}

impl Pattern {
    /// True if this pattern matches every channel that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.0.split(':');
        for part in self.0.split(':') {
            if part == "*" {
                // `*` matches at least one byte. So `other` must have more segments, and not only a
                // single empty one.
                let rest: Vec<_> = others.collect();
                return !matches!(rest[..], [] | [""]);
            }
            match others.next() {
                None => return false,
                Some("*") => return false,
                Some(theirs) if captured(part).is_some() => {
                    if theirs.is_empty() {
                        return false;
                    }
                }
                Some(theirs) if theirs != part || captured(theirs).is_some() => return false,
                Some(_) => {}
            }
        }
        others.next().is_none()
    }
}

/// Checks that `text` is well formed. It allocates only for an error.
pub fn check(text: &str) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    if text.starts_with('$') {
        return Err(PatternError::Reserved);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(PatternError::ForbiddenCharacter);
    }
    let mut segments = text.split(':').enumerate().peekable();
    while let Some((at, segment)) = segments.next() {
        if segment == "*" {
            if segments.peek().is_some() {
                return Err(PatternError::StarNotLast);
            }
        } else if let Some(name) = captured(segment) {
            if !is_identifier(name) {
                return Err(PatternError::BadName(name.into()));
            }
            if text.split(':').take(at).any(|earlier| earlier == segment) {
                return Err(PatternError::RepeatedName(name.into()));
            }
        } else if segment.contains('*') {
            return Err(PatternError::StarWithinSegment(segment.into()));
        } else if segment.contains(['{', '}']) {
            return Err(PatternError::BraceWithinSegment(segment.into()));
        }
    }
    Ok(())
}

/// Returns true if `pattern`, which must be well formed, matches `channel`. Takes time in
/// proportion to the length of both texts.
pub fn matches<'a>(
    pattern: &'a str,
    channel: &'a str,
    mut capture: impl FnMut(&'a str, &'a str),
) -> bool {
    let mut rest = Some(channel);
    for part in pattern.split(':') {
        let Some(left) = rest else {
            return false;
        };
        if part == "*" {
            return !left.is_empty();
        }
        let segment;
        (segment, rest) = match left.split_once(':') {
            Some((segment, after)) => (segment, Some(after)),
            None => (left, None),
        };
        match captured(part) {
            Some(_) if segment.is_empty() => return false,
            Some(name) => capture(name, segment),
            None if part != segment => return false,
            None => {}
        }
    }
    rest.is_none()
}

/// The name in a `{name}` segment.
fn captured(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_segment_by_segment() {
        let none: &[(&str, &str)] = &[];
        for (pattern, channel, expect) in [
            ("room:1", "room:1", Some(none)),
            ("room:1", "room:10", None),
            ("room:1", "room:1:x", None),
            ("room:1", "room", None),
            ("room:1", "ROOM:1", None),
            ("room:", "room:", Some(none)),
            ("room:", "room", None),
            ("räume:ä", "räume:ä", Some(none)),
            ("room:{id}", "room:1", Some(&[("id", "1")])),
            ("room:{id}", "room:", None),
            ("room:{id}", "room:1:x", None),
            ("room:{id}", "room", None),
            ("{a}:{b}", "a_b:c", Some(&[("a", "a_b"), ("b", "c")])),
            ("{a}:{b}", "a:b_c", Some(&[("a", "a"), ("b", "b_c")])),
            ("{a}:{b}", "a:b:c", None),
            ("{a}", "*", Some(&[("a", "*")])),
            ("{a}:x", "{a}:x", Some(&[("a", "{a}")])),
            ("room:*", "room:1", Some(none)),
            ("room:*", "room:1:x", Some(none)),
            ("room:*", "room::x", Some(none)),
            ("room:*", "room:*", Some(none)),
            ("room:*", "room:", None),
            ("room:*", "room", None),
            ("room:*", "rooms:1", None),
            ("room:{t}:*", "room:a:b:c", Some(&[("t", "a")])),
            ("room:{t}:*", "room::b", None),
            ("room:{t}:*", "room:a", None),
            ("room:{t}:*", "room:a:", None),
            ("*", "anything", Some(none)),
            ("*", "any:thing", Some(none)),
            ("*", ":", Some(none)),
        ] {
            let mut captures = Vec::new();
            let pattern = Pattern::parse(pattern).unwrap();
            let matched = pattern.matches(channel, |name, value| captures.push((name, value)));
            assert_eq!(
                matched.then_some(captures.as_slice()),
                expect,
                "{pattern:?} on {channel:?}"
            );
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_wholly() {
        for (pattern, other, expect) in [
            ("*", "a", true),
            ("*", "a:*", true),
            ("*", "*", true),
            ("a:*", "a:{x}:b", true),
            ("a:*", "a:", false),
            ("a:*", "a::b", true),
            ("a:*", "a", false),
            ("a:{x}", "a:{y}", true),
            ("a:{x}", "a:b", true),
            ("a:{x}", "a:", false),
            ("a:{x}", "a:*", false),
            ("a:b", "a:{x}", false),
            ("a:b", "a:b", true),
            ("a", "a:b", false),
            ("{x}", "*", false),
        ] {
            let [pattern, other] = [pattern, other].map(|text| Pattern::parse(text).unwrap());
            assert_eq!(pattern.covers(&other), expect, "{pattern:?} {other:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_with_a_reason() {
        for (pattern, expect) in [
            ("", PatternError::Empty),
            ("$sys:*", PatternError::Reserved),
            ("a b", PatternError::ForbiddenCharacter),
            ("a\n", PatternError::ForbiddenCharacter),
            ("*:a", PatternError::StarNotLast),
            ("a:*:b", PatternError::StarNotLast),
            ("*:*", PatternError::StarNotLast),
            ("foo*", PatternError::StarWithinSegment("foo*".into())),
            ("a:**", PatternError::StarWithinSegment("**".into())),
            ("a:*b", PatternError::StarWithinSegment("*b".into())),
            ("a{x}", PatternError::BraceWithinSegment("a{x}".into())),
            ("a:{x", PatternError::BraceWithinSegment("{x".into())),
            ("a:x}", PatternError::BraceWithinSegment("x}".into())),
            ("{}", PatternError::BadName("".into())),
            ("{1a}", PatternError::BadName("1a".into())),
            ("{a-b}", PatternError::BadName("a-b".into())),
            ("{ä}", PatternError::BadName("ä".into())),
            ("{*}", PatternError::BadName("*".into())),
            ("{{a}}", PatternError::BadName("{a}".into())),
            ("{a}:b:{a}", PatternError::RepeatedName("a".into())),
        ] {
            assert_eq!(Pattern::parse(pattern), Err(expect), "{pattern:?}");
        }
    }
}
