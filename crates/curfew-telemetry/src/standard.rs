//! Reads OpenTelemetry's standard environment variables. Each variable is accepted, refused or
//! reported as unsupported.
//!
//! A Curfew setting takes precedence over these variables if it is set in the configuration file,
//! by a variable `CURFEW__…` or by `--set`. No variable is ignored silently: a variable without
//! effect is either refused or causes a warning that names it.

mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

pub use table::{VARIABLES, Variable};

/// The prefix of the names of standard variables.
const PREFIX: &str = "OTEL_";

/// The values of standard variables that no setting of Curfew covers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standard {
    pub(crate) disabled: bool,
    pub(crate) service_name: Option<String>,
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) export_timeout: Option<Duration>,
    pub(crate) delay: Option<Duration>,
    pub(crate) queue: Option<usize>,
    pub(crate) batch: Option<usize>,
}

/// A setting whose value comes from a standard variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenSetting {
    /// The variable's name.
    pub variable: &'static str,
    /// The name of the setting within `[telemetry]`.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
}

/// The standard variables of an environment, after they have been read and checked.
#[derive(Debug, Default)]
pub struct StandardVariables {
    /// The values that no setting covers.
    pub standard: Standard,
    /// The values that settings cover. If several entries have the same key, the last entry counts.
    pub settings: Vec<GivenSetting>,
    /// The name of each refused variable, and the reason. The reason never contains the value,
    /// because it may be secret.
    pub problems: Vec<(String, String)>,
    /// The name of each variable that has no effect, or not the full effect, and an explanation.
    pub warnings: Vec<(String, String)>,
    taken: Vec<&'static str>,
    sampler: Option<Sampler>,
    sampler_arg: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampler {
    On,
    Off,
    Ratio,
}

impl StandardVariables {
    /// Reads the standard variables in `environment`. A variable with an empty value counts as
    /// absent.
    pub fn from(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let given: BTreeMap<String, OsString> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        let mut read = Self::default();
        // Variables are read in the order of the table, which lists variables for traces after
        // variables for all signals. A variable for traces therefore replaces the value of the
        // variable for all signals.
        for variable in VARIABLES {
            let Some(value) = given.get(variable.name) else {
                continue;
            };
            let taken = match value.to_str() {
                Some(text) => (variable.read)(&mut read, variable.name, text.trim()),
                None => Err("is not UTF-8 text".to_owned()),
            };
            match taken {
                Ok(()) => read.taken.push(variable.name),
                Err(why) => read.problems.push((variable.name.to_owned(), why)),
            }
        }
        let is_known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
        let others = given.keys().filter(|name| !is_known(name));
        read.warnings.extend(others.map(|name| {
            (
                name.clone(),
                "is not supported and has no effect".to_owned(),
            )
        }));
        read.sample();
        read.compare();
        read
    }

    /// Adds a warning for each accepted variable, because no collector is configured. Adds none if
    /// the variables turn tracing off.
    pub fn warn_of_no_endpoint(&mut self) {
        let idle = self.taken.iter().filter(|_| !self.standard.disabled);
        self.warnings.extend(idle.map(|name| {
            let why = "has no effect: without telemetry.otlp_endpoint or OTEL_EXPORTER_OTLP_ENDPOINT no traces are exported";
            ((*name).to_owned(), why.to_owned())
        }));
    }

    /// Combines the variables of the sampler and its argument into the setting
    /// `trace_sample_ratio`.
    fn sample(&mut self) {
        let sampler = table::SAMPLER;
        let ratio = match (self.sampler, self.sampler_arg.take()) {
            (None, None) => return,
            (Some(Sampler::On), None) => "1".to_owned(),
            (Some(Sampler::Off), None) => "0".to_owned(),
            (Some(Sampler::Ratio), ratio) => ratio.unwrap_or_else(|| "1".to_owned()),
            (None | Some(Sampler::On | Sampler::Off), Some(_)) => {
                let why = format!(
                    "has an effect only with {sampler}=traceidratio or parentbased_traceidratio"
                );
                self.problems.push((table::SAMPLER_ARG.to_owned(), why));
                return;
            }
        };
        match ratio.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => self.settings.push(GivenSetting {
                variable: sampler,
                key: "trace_sample_ratio",
                value: ratio,
            }),
            _ => self.problems.push((
                table::SAMPLER_ARG.to_owned(),
                "must be a number from 0 to 1".to_owned(),
            )),
        }
    }

    fn compare(&mut self) {
        if let (Some(batch), queue) = (self.standard.batch, self.standard.queue())
            && batch > queue
        {
            let why = format!(
                "must be at most {queue}, the capacity of the export queue ({})",
                table::QUEUE
            );
            self.problems.push((table::BATCH.to_owned(), why));
        }
    }
}

impl Standard {
    /// Returns the capacity of the export queue, in spans.
    pub(crate) fn queue(&self) -> usize {
        self.queue.unwrap_or(crate::trace::QUEUE)
    }
}

#[cfg(test)]
mod tests;
