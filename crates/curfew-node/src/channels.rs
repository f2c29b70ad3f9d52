//! `[[channels]]`: the options of channels, such as a stream or presence.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::StreamBounds;
use curfew_model::pattern::Pattern;
use curfew_model::{Channel, Problems};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum number of publications that a stream may store.
const MAX_HISTORY_SIZE: u32 = 10_000;

/// The range of a stream's `ttl`.
const HISTORY_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// Options of channels. A channel may store its last publications, from which a reconnecting client
/// recovers what it missed. A channel may also list the sessions that are present. The first entry
/// whose pattern matches a channel sets the channel's options. A channel that matches no entry has
/// no stream and no presence. Give every node the same entries. After a reload, the entries apply
/// to all publications and to new subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelConfig {
    /// The pattern of the channels' names, as in a rule: `{x}` matches one segment, and `*` as the
    /// last segment matches the rest. Required. An entry that no channel can reach, because an
    /// earlier entry matches all of its channels, is refused.
    pub pattern: String,
    /// The publications that a channel stores: its stream. Default: none, the channels have no
    /// stream, and a client cannot recover what it missed while disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryConfig>,
    /// Replays missed publications to a client that subscribes with its last position. `false`:
    /// clients can still read the history, but `subscribe` recovers nothing.
    pub recover: bool,
    /// Keeps a list of the sessions that are subscribed. Clients may read the list if the policy
    /// allows them the action `presence`.
    pub presence: bool,
    /// Sends notices of sessions that join or leave. `true`: to the sessions that ask for them with
    /// `join_leave` in `subscribe`. `"all"`: to every subscribed session. Needs `presence`.
    pub join_leave: JoinLeave,
    /// Sends a publication as its difference to the previous publication, if the difference is
    /// shorter. Only sessions that ask for differences get them. Only clients of the Centrifuge
    /// protocol can ask (`delta`). Needs `history`.
    pub delta: bool,
    /// `"json"`: publications are JSON values. `"binary"`: publications are arbitrary bytes. Only
    /// the Protobuf encoding of the Centrifuge protocol carries such bytes, so other clients cannot
    /// subscribe, and the admin API cannot publish. Set `"binary"` only when no node runs a version
    /// without this setting.
    pub format: DataFormat,
}

/// The form of the publications of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// JSON values.
    #[default]
    Json,
    /// Bytes.
    Binary,
}

/// The sessions of a channel that receive its joins and leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JoinLeave {
    /// No session: `false`.
    #[default]
    Never,
    /// The sessions that ask for joins and leaves: `true`.
    Asked,
    /// All subscribed sessions: `"all"`.
    All,
}

/// The text form of [`JoinLeave::All`].
const ALL: &str = "all";

impl Serialize for JoinLeave {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_bool(false),
            Self::Asked => serializer.serialize_bool(true),
            Self::All => serializer.serialize_str(ALL),
        }
    }
}

impl<'de> Deserialize<'de> for JoinLeave {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoolOrAll;
        impl Visitor<'_> for BoolOrAll {
            type Value = JoinLeave;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"all\"")
            }

            fn visit_bool<E>(self, asked: bool) -> Result<JoinLeave, E> {
                Ok(match asked {
                    true => JoinLeave::Asked,
                    false => JoinLeave::Never,
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<JoinLeave, E> {
                match text {
                    ALL => Ok(JoinLeave::All),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(BoolOrAll)
    }
}

impl JsonSchema for JoinLeave {
    fn schema_name() -> Cow<'static, str> {
        "JoinLeave".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [true, false, ALL] })
    }
}

/// The bounds of a channel's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// The number of publications stored for one channel, 1 to 10000. Required.
    pub size: u32,
    /// Time for which a channel's publications are stored after its last publication: a duration
    /// from `1s` to `30days`. Required.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            pattern: String::new(),
            history: None,
            recover: true,
            presence: false,
            join_leave: JoinLeave::Never,
            delta: false,
            format: DataFormat::Json,
        }
    }
}

/// The entries of `[[channels]]`, from which the options of a channel are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelEntries(Arc<[(Pattern, ChannelOptions)]>);

/// The options of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelOptions {
    /// The bounds of the channel's stream; `None` if the channel has no stream.
    pub stream: Option<StreamBounds>,
    /// True if a subscriber may recover the publications that it missed.
    pub recover: bool,
    /// True if the channel has a list of its sessions.
    pub presence: bool,
    /// The sessions that receive the channel's joins and leaves.
    pub join_leave: JoinLeave,
    /// True if sessions that ask for differences receive them. The channel then has a stream.
    pub delta: bool,
    /// True if publications are bytes that need not be JSON.
    pub is_binary: bool,
}

impl ChannelEntries {
    /// Creates the list from entries that were [checked](check).
    pub fn new(entries: &[ChannelConfig]) -> Self {
        let entries = entries.iter().filter_map(|entry| {
            let stream = entry.history.as_ref().map(|history| StreamBounds {
                size: history.size,
                ttl: history.ttl,
            });
            let options = ChannelOptions {
                stream,
                recover: entry.recover,
                presence: entry.presence,
                join_leave: entry.join_leave,
                delta: entry.delta && stream.is_some(),
                is_binary: entry.format == DataFormat::Binary,
            };
            Some((Pattern::parse(&entry.pattern).ok()?, options))
        });
        Self(entries.collect())
    }

    /// The options of the first entry that matches the channel; the default options if no entry
    /// matches.
    pub fn of(&self, channel: &Channel) -> ChannelOptions {
        let found = self
            .0
            .iter()
            .find(|(pattern, _)| pattern.matches(channel.as_str(), |_, _| {}));
        found.map(|(_, options)| *options).unwrap_or_default()
    }
}

/// Reports invalid values, and entries that never take effect because an earlier entry matches
/// every channel that they match.
pub fn check(entries: &[ChannelConfig], problems: &mut Problems) {
    let mut earlier: Vec<(usize, Pattern)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        problems.within(format!("channels[{at}]"), |problems| {
            if let Some(history) = &entry.history {
                history.check(problems);
            }
            if entry.join_leave != JoinLeave::Never && !entry.presence {
                problems.report("join_leave", "needs presence = true in the same entry");
            }
            if entry.delta && entry.history.is_none() {
                let message = "needs history: a delta is the difference to the previous publication, \
                               which a subscriber without a position may have missed";
                problems.report("delta", message);
            }
            match Pattern::parse(&entry.pattern) {
                Ok(pattern) => {
                    let covering = earlier.iter().find(|(_, other)| other.covers(&pattern));
                    if let Some((first, _)) = covering {
                        let message = format!(
                            "never takes effect: the earlier channels[{first}] matches every channel that this pattern matches; move this entry before channels[{first}]"
                        );
                        problems.report("pattern", message);
                    }
                    earlier.push((at, pattern));
                }
                Err(error) => problems.report("pattern", error.to_string()),
            }
        });
    }
}

impl HistoryConfig {
    fn check(&self, problems: &mut Problems) {
        if !(1..=MAX_HISTORY_SIZE).contains(&self.size) {
            let message = format!("must be between 1 and {MAX_HISTORY_SIZE}");
            problems.report("history.size", message);
        }
        if !HISTORY_TTL.contains(&self.ttl) {
            problems.report("history.ttl", "must be between 1s and 30 days");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pattern: &str, size: u32) -> ChannelConfig {
        ChannelConfig {
            pattern: pattern.to_owned(),
            history: Some(HistoryConfig {
                size,
                ttl: Duration::from_secs(60),
            }),
            ..ChannelConfig::default()
        }
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let none = ChannelConfig {
            pattern: "room:{t}:log".to_owned(),
            ..ChannelConfig::default()
        };
        let channels = ChannelEntries::new(&[none, entry("room:{t}:*", 5), entry("*", 7)]);
        let size = |name: &str| {
            let options = channels.of(&Channel::parse(name).unwrap());
            options.stream.map(|bounds| bounds.size)
        };
        assert_eq!(size("room:a:log"), None);
        assert_eq!(size("room:a:b:c"), Some(5));
        assert_eq!(size("news"), Some(7));
        let nothing = ChannelEntries::default().of(&Channel::parse("news").unwrap());
        assert_eq!(nothing.stream, None);
    }

    #[test]
    fn join_leave_is_true_false_or_all() {
        let cases = [
            ("false", JoinLeave::Never),
            ("true", JoinLeave::Asked),
            ("\"all\"", JoinLeave::All),
        ];
        for (written, expect) in cases {
            assert_eq!(serde_json::from_str::<JoinLeave>(written).unwrap(), expect);
            assert_eq!(serde_json::to_string(&expect).unwrap(), written);
        }
        for bad in ["\"true\"", "\"ALL\"", "1", "null", "[]"] {
            let error = serde_json::from_str::<JoinLeave>(bad).unwrap_err();
            let expected = "expected true, false or \"all\"";
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn differences_need_history_and_joins_need_presence() {
        let bare = |entry: ChannelConfig| ChannelConfig {
            pattern: "a".to_owned(),
            ..entry
        };
        let delta = bare(ChannelConfig {
            delta: true,
            ..ChannelConfig::default()
        });
        let told = [JoinLeave::Asked, JoinLeave::All].map(|join_leave| {
            bare(ChannelConfig {
                join_leave,
                ..ChannelConfig::default()
            })
        });
        for (entry, key) in [
            (&delta, "channels[0].delta"),
            (&told[0], "channels[0].join_leave"),
            (&told[1], "channels[0].join_leave"),
        ] {
            let mut problems = Problems::default();
            check(std::slice::from_ref(entry), &mut problems);
            assert_eq!(problems.into_vec()[0].key, key);
        }
        let channel = Channel::parse("a").unwrap();
        let of = |entry: ChannelConfig| ChannelEntries::new(&[entry]).of(&channel);
        assert!(!of(delta).delta);
        let whole = ChannelConfig {
            delta: true,
            ..entry("a", 1)
        };
        let mut problems = Problems::default();
        check(std::slice::from_ref(&whole), &mut problems);
        assert!(problems.is_empty() && of(whole).delta);
    }

    #[test]
    fn entries_that_make_no_sense_are_named() {
        for (entries, expect) in [
            (vec![entry("a*", 1)], "channels[0].pattern"),
            (vec![entry("", 1)], "channels[0].pattern"),
            (vec![entry("a", 0)], "channels[0].history.size"),
            (vec![entry("a", 10_001)], "channels[0].history.size"),
            (
                vec![entry("room:*", 1), entry("room:{x}", 1)],
                "channels[1].pattern",
            ),
            (
                vec![entry("{y}:b", 1), entry("a:b", 1)],
                "channels[1].pattern",
            ),
            (vec![entry("a", 1), entry("a", 2)], "channels[1].pattern"),
        ] {
            let mut problems = Problems::default();
            check(&entries, &mut problems);
            let found = problems.into_vec();
            let keys: Vec<_> = found.iter().map(|problem| &*problem.key).collect();
            assert_eq!(keys, [expect]);
        }
        let mut problems = Problems::default();
        let entries = [entry("room:{x}", 1), entry("room:*", 1), entry("*", 1)];
        check(&entries, &mut problems);
        assert!(problems.is_empty());
    }
}
