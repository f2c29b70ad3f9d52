//! `[[admin.keys]]`: keys that are limited to some operations of the admin API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_model::{Channel, Problems, Secret};
use curfew_policy::ChannelPatterns;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AdminConfig;

/// Minimum length of an admin key, in bytes. Even a key in hexadecimal digits then has 128 bits.
const MIN_ADMIN_KEY_BYTES: usize = 32;

/// Maximum length of a key's name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The name of `admin.key` in logs and traces.
const ADMIN: &str = "admin";

/// A right that a key of the admin API may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Publish and broadcast.
    Publish,
    /// List and inspect sessions, revocations, nodes, channels and issuers.
    Read,
    /// Write and lift revocations.
    Revoke,
    /// Close sessions.
    Disconnect,
    /// Ask which rule allows or denies an action.
    Explain,
}

impl Power {
    /// The right's name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Revoke => "revoke",
            Self::Disconnect => "disconnect",
            Self::Explain => "explain",
        }
    }
}

/// `[[admin.keys]]`: a key that is limited to some operations of the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminKeyConfig {
    /// The name of the key in logs and traces. Required and unique. The name `admin` is reserved
    /// for `admin.key`.
    pub name: String,
    /// The key, at least 32 bytes.
    pub key: Option<Secret>,
    /// File that holds `key`; a line break at its end does not count. Re-read when it changes.
    pub key_file: Option<PathBuf>,
    /// The kinds of calls that the key may be used for: `publish`, `read`, `revoke` (which includes
    /// lifting revocations), `disconnect`, `explain`. Required. A call of another kind is answered
    /// 403.
    pub may: Vec<Power>,
    /// The channels that calls with this key may name or list, as patterns: `["news:*"]`. Empty:
    /// all channels.
    pub channels: Vec<String>,
}

/// A configured key of the admin API, with its rights.
pub struct AdminKey {
    name: String,
    key: Secret,
    /// `None`: all rights.
    may: Option<Vec<Power>>,
    /// `None`: all channels.
    channels: Option<ChannelPatterns>,
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl AdminKey {
    /// The key's name in logs and traces.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key(&self) -> &Secret {
        &self.key
    }

    /// True if the key has the right `power`.
    pub(crate) fn may(&self, power: Power) -> bool {
        self.may.as_ref().is_none_or(|may| may.contains(&power))
    }

    /// True if the key may be used for `channel`.
    pub(crate) fn may_use(&self, channel: &Channel) -> bool {
        let channels = self.channels.as_ref();
        channels.is_none_or(|channels| channels.contains(channel))
    }
}

impl AdminConfig {
    /// Reports keys that cannot be used, and errors in their entries.
    pub(super) fn check_keys(&self, problems: &mut Problems) {
        if self.key.is_some() && self.key_file.is_some() {
            problems.report("key", "set admin.key or admin.key_file, not both");
            return;
        }
        if let Err(bad) = self.read_keys() {
            for (key, message) in bad {
                problems.report(&key, message);
            }
        }
    }

    /// Returns all keys: `admin.key` and the keys of `[[admin.keys]]`, read from files if the
    /// settings name files. Each error is the path of a setting within `[admin]`, and a text that
    /// says what is wrong with the setting.
    pub fn read_keys(&self) -> Result<Vec<Arc<AdminKey>>, Vec<(String, String)>> {
        let mut keys: Vec<Arc<AdminKey>> = Vec::new();
        let mut problems = Vec::new();
        match read("", self.key.as_ref(), self.key_file.as_deref()) {
            Ok(None) => {}
            Ok(Some(key)) => keys.push(Arc::new(AdminKey {
                name: ADMIN.to_owned(),
                key,
                may: None,
                channels: None,
            })),
            Err(problem) => problems.push(problem),
        }
        for (at, config) in self.keys.iter().enumerate() {
            let within = format!("keys[{at}].");
            let Some(key) = config.read(&within, &mut problems) else {
                continue;
            };
            if keys.iter().any(|known| known.name == key.name) {
                let taken = "is the name of another key";
                problems.push((format!("{within}name"), taken.to_owned()));
            }
            if keys.iter().any(|known| known.key == key.key) {
                let same = "is the same as another key: each key must be different";
                let name = config.key_setting();
                problems.push((format!("{within}{name}"), same.to_owned()));
            }
            keys.push(Arc::new(key));
        }
        match problems.is_empty() {
            true => Ok(keys),
            false => Err(problems),
        }
    }
}

impl AdminKeyConfig {
    fn key_setting(&self) -> &'static str {
        match self.key_file {
            Some(_) => "key_file",
            None => "key",
        }
    }

    fn read(&self, within: &str, problems: &mut Vec<(String, String)>) -> Option<AdminKey> {
        let before = problems.len();
        let mut report = |key: &str, message: &str| {
            problems.push((format!("{within}{key}"), message.to_owned()))
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || !self.name.bytes().all(is_name)
        {
            report("name", "must be 1 to 64 letters, digits, dots, - and _");
        }
        if self.name == ADMIN {
            report("name", "is reserved for admin.key: choose another name");
        }
        if self.may.is_empty() {
            let powers =
                "must list what the key may do: publish, read, revoke, disconnect, explain";
            report("may", powers);
        }
        if self.key.is_some() == self.key_file.is_some() {
            report("key_file", "set exactly one of key_file and key");
        }
        let channels = match ChannelPatterns::parse(&self.channels) {
            Ok(channels) => (!self.channels.is_empty()).then_some(channels),
            Err(bad) => {
                for (at, message) in bad {
                    report(&format!("channels[{at}]"), &message);
                }
                None
            }
        };
        let key = match read(within, self.key.as_ref(), self.key_file.as_deref()) {
            Ok(key) => key,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let is_good = problems.len() == before;
        key.filter(|_| is_good).map(|key| AdminKey {
            name: self.name.clone(),
            key,
            may: Some(self.may.clone()),
            channels,
        })
    }
}

/// Returns `key`, or the text of `key_file` if `key` is not set; `None` if neither is set. The
/// error is the path of the setting, which begins with `within`, and a text that says what is wrong
/// with the setting.
fn read(
    within: &str,
    key: Option<&Secret>,
    key_file: Option<&Path>,
) -> Result<Option<Secret>, (String, String)> {
    let (name, key) = match (key, key_file) {
        (Some(key), _) => ("key", key.clone()),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => ("key_file", Secret::new(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                let path = path.display();
                let message =
                    format!("{path}: {error}; make a key with openssl rand -hex 32 > {path}");
                return Err((format!("{within}key_file"), message));
            }
        },
        (None, None) => return Ok(None),
    };
    if key.expose().len() < MIN_ADMIN_KEY_BYTES {
        let message = format!(
            "the admin key must have at least {MIN_ADMIN_KEY_BYTES} bytes; make a key with openssl rand -hex 32"
        );
        return Err((format!("{within}{name}"), message));
    }
    // HTTP strips spaces around a header's value, so no caller could send a key that begins or ends
    // with a space.
    if key.expose().trim() != key.expose() {
        let message = "the admin key must not begin or end with a space; make a key with openssl rand -hex 32";
        return Err((format!("{within}{name}"), message.to_owned()));
    }
    Ok(Some(key))
}
