//! The configuration of a test's gateway.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use curfew_testkit::mint::SECRET;

/// The admin key of the default settings.
pub const ADMIN_KEY: &str = "admin-key-of-the-tests-0123456789";

/// A configuration. The default is complete and permissive: it has the memory backend, one HS256
/// issuer, a rule that allows everything, and an admin key. Tests change single keys of the
/// default.
#[derive(Debug, Clone)]
pub struct Settings {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    issuers: String,
    rules: String,
}

impl Default for Settings {
    fn default() -> Self {
        let settings = Self {
            sections: BTreeMap::new(),
            issuers: format!("[[auth.issuers]]\nname = \"main\"\nsecret = \"{SECRET}\"\n"),
            rules: "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
                    actions = [\"subscribe\", \"publish\"]\n"
                .to_owned(),
        };
        settings
            .with("server.listen = \"127.0.0.1:0\"")
            .with("admin.listen = \"127.0.0.1:0\"")
            .with(&format!("admin.key = \"{ADMIN_KEY}\""))
            .with("backend.kind = \"memory\"")
            .with("telemetry.log_level = \"debug\"")
    }
}

impl Settings {
    /// Sets one key, written as in TOML: `limits.subscriptions = 1`.
    pub fn with(mut self, setting: &str) -> Self {
        let (path, value) = setting
            .split_once('=')
            .expect("the setting has the form section.key = value");
        let (section, key) = path
            .trim()
            .rsplit_once('.')
            .expect("the path has the form section.key");
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.trim().to_owned());
        self
    }

    /// Uses the Redis at `url`.
    pub fn on_redis(self, url: &str) -> Self {
        self.with("backend.kind = \"redis\"")
            .with(&format!("backend.redis.url = {url:?}"))
    }

    /// Removes one key, such as `admin.key`.
    pub fn without(mut self, path: &str) -> Self {
        let (section, key) = path
            .rsplit_once('.')
            .expect("the path has the form section.key");
        if let Some(section) = self.sections.get_mut(section) {
            section.remove(key);
        }
        self
    }

    /// Replaces the issuers by this TOML (`[[auth.issuers]]` tables).
    pub fn issuers(mut self, toml: &str) -> Self {
        self.issuers = toml.to_owned();
        self
    }

    /// Replaces the rules by this TOML (`[[policy.rules]]` tables). Empty text means no rules.
    pub fn rules(mut self, toml: &str) -> Self {
        self.rules = toml.to_owned();
        self
    }

    /// The text of the configuration file.
    pub fn to_toml(&self) -> String {
        let mut toml = String::new();
        for (section, keys) in &self.sections {
            writeln!(toml, "[{section}]").expect("a string takes all text");
            for (key, value) in keys {
                writeln!(toml, "{key} = {value}").expect("a string takes all text");
            }
        }
        toml.push_str(&self.issuers);
        toml.push('\n');
        toml.push_str(&self.rules);
        toml
    }
}
