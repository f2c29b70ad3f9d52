//! The configuration. Every crate owns its section, and this module composes them.

mod backend;
mod extract;
mod files;
mod layers;
mod path;
pub(crate) mod schema;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use curfew_model::Problems;
use curfew_server::Listen;
use curfew_telemetry::StandardVariables;
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use backend::Backend;
pub(crate) use backend::BackendKind;
use extract::{Misfit, extract};
pub(crate) use files::Files;
use layers::File;
use path::KeyPath;
use schema::Schema;

/// The whole configuration, section by section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The public listener.
    pub(crate) server: curfew_server::ServerConfig,
    /// The listener for operators: health, metrics and the admin API.
    pub(crate) admin: curfew_server::AdminConfig,
    /// Authentication: the sources of tokens, and the verification of tokens.
    pub(crate) auth: curfew_auth::AuthConfig,
    /// Timeouts, pings and limits of sessions, and the claims by which sessions can be revoked.
    pub(crate) session: curfew_session::SessionConfig,
    /// Limits of one connection, and of the node as a whole.
    pub(crate) limits: curfew_session::LimitsConfig,
    /// Rights to subscribe and to publish, by channel.
    pub(crate) policy: curfew_policy::PolicyConfig,
    /// Options of channels, such as a stream of the last publications.
    pub(crate) channels: Vec<curfew_node::ChannelConfig>,
    /// The backend that connects the nodes with each other.
    pub(crate) backend: Backend,
    /// The endpoints for the SDKs of Centrifugo.
    pub(crate) centrifuge: curfew_server::CentrifugeConfig,
    /// The drain, by which a node leaves service on SIGTERM.
    pub(crate) drain: curfew_node::DrainConfig,
    /// Logs and traces.
    pub(crate) telemetry: curfew_telemetry::TelemetryConfig,
}

impl Config {
    /// The section `auth`, with the demands that other sections make on tokens added.
    pub(crate) fn auth(&self) -> curfew_auth::AuthConfig {
        let grants = Some(&self.policy.grants_claim).filter(|claim| !claim.is_empty());
        let claims = self.session.revocable_claims.iter().chain(grants);
        curfew_auth::AuthConfig {
            claims_in_use: claims.cloned().collect(),
            centrifuge_claims: self.centrifuge.enabled,
            ..self.auth.clone()
        }
    }

    /// Reports every problem of the values: first the problems within each section, then the
    /// problems between sections. Also reads the files that the values name.
    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.within("server", |problems| self.server.check(problems));
        problems.within("admin", |problems| self.admin.check(problems));
        problems.within("auth", |problems| {
            self.auth.check(problems);
            curfew_auth::check_files(&self.auth, problems);
        });
        problems.within("session", |problems| self.session.check(problems));
        problems.within("limits", |problems| self.limits.check(problems));
        problems.within("policy", |problems| self.policy.check(problems));
        curfew_node::check_channels(&self.channels, problems);
        problems.within("backend", |problems| self.backend.check(problems));
        problems.within("drain", |problems| self.drain.check(problems));
        problems.within("telemetry", |problems| self.telemetry.check(problems));
        if self.auth.uses_cookie() && self.server.allowed_origins.is_empty() {
            problems.report(
                "server.allowed_origins",
                "must list the origins of your pages if auth.token_sources has \"cookie\", because browsers also send cookies for pages of other sites",
            );
        }
        let is_opaque = |origin: &&String| matches!(origin.as_str(), "null" | "file://");
        if self.auth.uses_cookie()
            && let Some(opaque) = self.server.allowed_origins.iter().find(is_opaque)
        {
            problems.warn(
                "server.allowed_origins",
                format!("has {opaque:?}, an origin that pages of any site can have: cookies from this origin are ignored, so its pages must send their token in another way"),
            );
        }
        let least = self.auth.least_head_bytes();
        if self.limits.head_bytes < least {
            problems.report(
                "limits.head_bytes",
                format!("must be at least {least}: auth.max_token_bytes plus 16 KiB for the rest of the request head"),
            );
        }
        let refresh = self.auth.auth_frame_bytes();
        if self.limits.message_bytes < refresh {
            problems.warn(
                "limits.message_bytes",
                format!("is less than {refresh} (auth.max_token_bytes plus 1 KiB): the longest tokens can open a session but not refresh it"),
            );
        }
        if self.server.listen == Listen::Tcp(self.admin.listen) && self.admin.listen.port() != 0 {
            problems.report(
                "admin.listen",
                "is the same address as server.listen; the admin API needs another address",
            );
        }
    }
}

/// The scope of a check of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Checks that every key is known and every value has the right form.
    Form,
    /// Also checks that the values make sense together, and that the named files can be used. Files
    /// that are not on this machine are skipped.
    Offline,
    /// Also checks that all named files exist and can be used.
    Everything,
}

/// A configuration that has passed its check.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The effective configuration.
    pub(crate) config: Config,
    /// The file of the configuration, which a reload reads again.
    pub(crate) file: Option<PathBuf>,
    /// Warnings about valid settings that may not have the intended effect.
    pub(crate) warnings: Vec<ConfigProblem>,
    /// The merged values, for [`Loaded::source`].
    merged: Merged,
}

/// A problem of the configuration, with its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ConfigProblem {
    /// A file's path, an environment variable's name, `--set` or `defaults`.
    pub(crate) source: String,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The key's full path; empty if the problem concerns the source as a whole.
    pub(crate) key: String,
    /// The fault, and its remedy.
    pub(crate) message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Loads the configuration: defaults, then the standard variables of OpenTelemetry, then `file`,
/// then the other environment variables, then `sets` (`section.key=value`). The error has every
/// problem.
pub(crate) fn load(
    file: Option<&Path>,
    sets: &[String],
    check: Check,
) -> Result<Loaded, Vec<ConfigProblem>> {
    load_from(file, std::env::vars_os(), sets, check)
}

/// Loads only the telemetry settings from the environment, for a node whose other settings come
/// from elsewhere. The error has every problem.
pub(crate) fn telemetry() -> Result<Loaded, Vec<ConfigProblem>> {
    let section = format!("{}TELEMETRY__", layers::ENV_PREFIX);
    let env = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with(&section) || !name.starts_with("CURFEW")
    });
    let loaded = load_from(None, env, &[], Check::Form)?;
    let mut problems = Problems::new();
    problems.within("telemetry", |problems| {
        loaded.config.telemetry.check(problems);
    });
    let found: Vec<_> = problems
        .into_vec()
        .into_iter()
        .map(|problem| {
            let path = KeyPath::parse(&problem.key);
            loaded.merged.problem(&path, problem.message)
        })
        .collect();
    match found.is_empty() {
        true => Ok(loaded),
        false => Err(found),
    }
}

/// Like [`load`], with the given environment.
fn load_from(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    sets: &[String],
    check: Check,
) -> Result<Loaded, Vec<ConfigProblem>> {
    let schema = Schema::of::<Config>();
    let mut found = Vec::new();
    let file = match file.map(File::read).transpose() {
        Ok(file) => file,
        Err(problem) => {
            found.push(problem);
            None
        }
    };
    // If the file could not be read, its settings are missing, and a check would report them. Only
    // problems that do not depend on the file are then reported.
    let whole = found.is_empty();
    let environment: Vec<_> = env.into_iter().collect();
    let mut given = StandardVariables::from(environment.iter().cloned());
    found.extend(given.problems.iter().map(of_variable));
    let figment = layers::merge(
        &schema,
        &given.settings,
        file.as_ref(),
        environment,
        sets,
        &mut found,
    );
    let merged = Merged::new(figment, file);
    let extracted = extract::<Config>(&schema, &merged.root);
    let mut problems = Problems::new();
    match &extracted.config {
        Some(config) if whole && check != Check::Form => config.check(&mut problems),
        _ => {}
    }
    let absent = match &extracted.config {
        Some(config) if check == Check::Offline => Files::of(config).absent(),
        _ => Vec::new(),
    };
    found.extend(
        extracted
            .problems
            .iter()
            .map(|Misfit { path, message, .. }| merged.problem(path, message.clone())),
    );
    if let Some(config) = &extracted.config
        && config.telemetry.otlp_endpoint.is_none()
    {
        given.warn_of_no_endpoint();
    }
    let warnings = problems.take_warnings().into_iter();
    let warnings = warnings
        .map(|problem| merged.problem(&KeyPath::parse(&problem.key), problem.message))
        .chain(given.warnings.iter().map(of_variable))
        .collect();
    for problem in problems.into_vec() {
        if absent.contains(&problem.key) {
            continue;
        }
        let path = KeyPath::parse(&problem.key);
        if !extracted
            .problems
            .iter()
            .any(|misfit| misfit.explains(&path))
        {
            found.push(merged.problem(&path, problem.message));
        }
    }
    match extracted.config {
        Some(mut config) if found.is_empty() => Ok(Loaded {
            config: {
                config.telemetry.standard = given.standard;
                config
            },
            file: merged.file.as_ref().map(|file| file.path.clone()),
            warnings,
            merged,
        }),
        _ => Err(found),
    }
}

/// Returns the problem of a standard variable of OpenTelemetry, which has no Curfew key.
fn of_variable((name, message): &(String, String)) -> ConfigProblem {
    ConfigProblem {
        source: name.clone(),
        line: None,
        key: String::new(),
        message: message.clone(),
    }
}

impl Loaded {
    /// Logs the warnings.
    pub(crate) fn warn(&self) {
        for warning in &self.warnings {
            warn!(source = %warning.source, line = warning.line, key = %warning.key, "{}", warning.message);
        }
    }

    /// The source of the value of `key`: a file with its line, an environment variable or
    /// `--set`; `None` for a default.
    pub(crate) fn source(&self, key: &str) -> Option<String> {
        let path = KeyPath::parse(key);
        let (source, line) = self.merged.exact(&path)?;
        Some(line.map_or_else(|| source.clone(), |line| format!("{source}:{line}")))
    }
}

/// The values of all layers, merged into one tree. Each value has its source.
#[derive(Debug)]
struct Merged {
    figment: Figment,
    root: Value,
    file: Option<File>,
}

impl Merged {
    fn new(figment: Figment, file: Option<File>) -> Self {
        let dict: Dict = figment
            .data()
            .ok()
            .and_then(|mut profiles| profiles.remove(&Profile::Default))
            .unwrap_or_default();
        Self {
            figment,
            root: Value::from(dict),
            file,
        }
    }

    /// Source and line of the value at `path`, if a layer has it.
    fn exact(&self, path: &KeyPath) -> Option<(String, Option<usize>)> {
        let value = path.find(&self.root)?;
        let source = self.figment.get_metadata(value.tag())?.name.to_string();
        let file = self
            .file
            .as_ref()
            .filter(|file| file.path.display().to_string() == source);
        Some((source, file.and_then(|file| file.line(path))))
    }

    /// A problem of the key at `path`. A key that no layer has is reported as missing in the file.
    fn problem(&self, path: &KeyPath, message: String) -> ConfigProblem {
        let (source, line) = self.exact(path).unwrap_or_else(|| match &self.file {
            Some(file) => (file.path.display().to_string(), file.line(path)),
            None => ("defaults".to_owned(), None),
        });
        ConfigProblem {
            source,
            line,
            key: path.to_string(),
            message,
        }
    }
}
