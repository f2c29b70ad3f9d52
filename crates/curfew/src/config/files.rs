//! The files that a configuration names, and the detection of changes of these files.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Config;

/// The suffix of every key whose value is the path of a file.
const SUFFIX: &str = "_file";

/// Keys of files that take effect without a reload. The code that uses such a file reads it again,
/// at each use or when it is notified. A change of any other file takes effect when the whole
/// configuration is read again.
const READ_WHERE_NEEDED: [&str; 12] = [
    "auth.issuers.ca_file",
    "auth.issuers.event_stream.authorization_file",
    "auth.issuers.jwks_file",
    "auth.issuers.public_key_file",
    "auth.issuers.secret_file",
    "backend.redis.ca_file",
    "backend.redis.cert_file",
    "backend.redis.key_file",
    "backend.redis.password_file",
    "backend.redis.sentinel_password_file",
    "server.tls_cert_file",
    "server.tls_key_file",
];

/// A file that the configuration names, with its last seen contents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WatchedFile {
    path: PathBuf,
    /// The hash of the file's contents; `None` if the file cannot be read. The contents are not
    /// stored, because they may be secret.
    digest: Option<u64>,
}

/// Every file that a configuration names, by its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<String, WatchedFile>);

/// Files that changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The keys of the files.
    pub(crate) keys: Vec<String>,
    /// True if at least one of the files takes effect only when the configuration is read again.
    pub(crate) needs_reload: bool,
}

impl Files {
    /// The files that `config` names, with their present contents.
    pub(crate) fn of(config: &Config) -> Self {
        let mut files = Self::default();
        // The conversion does not fail, because the configuration is plain data.
        let value = serde_json::to_value(config).unwrap_or_default();
        files.collect("", &value);
        files
    }

    fn collect(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let key = match key {
                        "" => name.clone(),
                        key => format!("{key}.{name}"),
                    };
                    self.collect(&key, value);
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter().enumerate() {
                    self.collect(&format!("{key}[{index}]"), value);
                }
            }
            Value::String(path) if key.ends_with(SUFFIX) => {
                let path = PathBuf::from(path);
                let digest = digest(&path);
                self.0.insert(key.to_owned(), WatchedFile { path, digest });
            }
            _ => {}
        }
    }

    /// The keys of the files that cannot be read.
    pub(crate) fn absent(&self) -> Vec<String> {
        let absent = self.0.iter().filter(|(_, seen)| seen.digest.is_none());
        absent.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the files whose contents have changed since the last check. A missing file that only
    /// a reload reads does not count as changed, because it is probably being replaced.
    pub(crate) fn changed(&mut self) -> Changed {
        let mut changed = Changed::default();
        for (key, seen) in &mut self.0 {
            let now = digest(&seen.path);
            let reloads = !is_read_where_needed(key);
            if now == seen.digest || now.is_none() && reloads {
                continue;
            }
            seen.digest = now;
            changed.needs_reload |= reloads;
            changed.keys.push(key.clone());
        }
        changed
    }
}

fn is_read_where_needed(key: &str) -> bool {
    let mut names = key.to_owned();
    names.retain(|letter| !matches!(letter, '[' | ']') && !letter.is_ascii_digit());
    READ_WHERE_NEEDED.contains(&names.as_str())
}

fn digest(path: &Path) -> Option<u64> {
    let contents = std::fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Check, load_from};
    use super::*;

    /// A configuration with a file in `folder` for every key that takes one.
    fn everything(folder: &Path) -> Config {
        let text = r#"
            [server]
            tls_cert_file = "DIR/tls-cert"
            tls_key_file = "DIR/tls-key"
            [admin]
            key_file = "DIR/admin"
            keys = [{ name = "a", key_file = "DIR/first", may = ["read"] }, { name = "b", key_file = "DIR/second", may = ["read"] }]
            [[auth.issuers]]
            name = "a"
            secret_file = "DIR/secret"
            [[auth.issuers]]
            name = "b"
            ca_file = "DIR/issuer-ca"
            jwks_file = "DIR/jwks"
            public_key_file = "DIR/public"
            event_stream = { audience = ["us"], authorization_file = "DIR/authorization" }
            [backend.redis]
            ca_file = "DIR/ca"
            cert_file = "DIR/cert"
            key_file = "DIR/key"
            password_file = "DIR/password"
            sentinel_password_file = "DIR/sentinel"
        "#;
        let text = text.replace("DIR", folder.to_str().unwrap());
        let file = folder.join("curfew.toml");
        std::fs::write(&file, text).unwrap();
        load_from(Some(&file), [], &[], Check::Form).unwrap().config
    }

    fn without_places(key: &str) -> String {
        let mut parts = key.split('[');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |key, part| key + part.split_once(']').unwrap().1)
    }

    /// The keys in the reference whose values are files.
    fn referenced() -> BTreeSet<String> {
        let mut section = String::new();
        let mut keys = BTreeSet::new();
        for line in crate::reference::markdown().lines() {
            let quoted = line.split('`').nth(1).unwrap_or_default();
            if line.starts_with('#') {
                section = quoted.trim_matches(['[', ']']).to_owned();
            } else if line.starts_with('|') && quoted.ends_with(SUFFIX) {
                keys.insert(format!("{section}.{quoted}"));
            }
        }
        keys
    }

    /// Detects this fault: a file is read only once, so its changes have no effect.
    #[test]
    fn every_file_that_can_be_named_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let config = everything(folder.path());
        let mut files = Files::of(&config);
        let watched: BTreeSet<String> = files.0.keys().map(|key| without_places(key)).collect();
        assert_eq!(watched, referenced(), "a key is missing in `everything`");
        assert_eq!(files.changed(), Changed::default());
        for (key, WatchedFile { path, .. }) in files.0.clone() {
            for contents in ["one", "another"] {
                std::fs::write(&path, contents).unwrap();
                let changed = files.changed();
                assert_eq!(changed.keys, [key.as_str()]);
                let needed = READ_WHERE_NEEDED.contains(&without_places(&key).as_str());
                assert_eq!(changed.needs_reload, !needed, "{key}");
                assert_eq!(files.changed(), Changed::default(), "{key}");
            }
            std::fs::remove_file(&path).unwrap();
            let gone = files.changed();
            assert!(
                !gone.needs_reload,
                "the missing file of {key} causes a reload"
            );
        }
        let known = READ_WHERE_NEEDED.map(str::to_owned).into_iter().collect();
        assert!(
            watched.is_superset(&known),
            "READ_WHERE_NEEDED has a key that does not exist"
        );
    }
}
