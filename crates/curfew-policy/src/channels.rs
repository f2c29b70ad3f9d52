//! A set of channels, for settings outside the policy that apply only to some channels.

use curfew_model::Channel;

use curfew_model::pattern::Pattern;

/// The channels that match at least one pattern of a list. The patterns are written as in rules:
/// `{x}` matches one segment, and a last `*` matches the rest of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPatterns(Vec<Pattern>);

impl ChannelPatterns {
    /// Parses patterns. The error lists every bad pattern by its index, with the problem.
    pub fn parse(patterns: &[String]) -> Result<Self, Vec<(usize, String)>> {
        let mut parsed = Vec::with_capacity(patterns.len());
        let mut problems = Vec::new();
        for (at, pattern) in patterns.iter().enumerate() {
            match Pattern::parse(pattern) {
                Ok(pattern) => parsed.push(pattern),
                Err(error) => problems.push((at, error.to_string())),
            }
        }
        match problems.is_empty() {
            true => Ok(Self(parsed)),
            false => Err(problems),
        }
    }

    /// Returns true if some pattern matches `channel`.
    pub fn contains(&self, channel: &Channel) -> bool {
        let mut patterns = self.0.iter();
        patterns.any(|pattern| pattern.matches(channel.as_str(), |_, _| {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_matched_as_by_rules() {
        let patterns = ["news:*", "room:{id}"].map(str::to_owned);
        let channels = ChannelPatterns::parse(&patterns).unwrap();
        for (channel, contains) in [
            ("news:a:b", true),
            ("room:1", true),
            ("room:1:2", false),
            ("news", false),
        ] {
            let channel = Channel::parse(channel).unwrap();
            assert_eq!(channels.contains(&channel), contains, "{channel:?}");
        }
        let bad = ChannelPatterns::parse(&["ok".to_owned(), "a*".to_owned()]).unwrap_err();
        assert_eq!(bad[0].0, 1);
    }
}
