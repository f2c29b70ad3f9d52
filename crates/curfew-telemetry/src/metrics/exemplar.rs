//! Exemplars. An exemplar is the trace of one observation in a bucket of a histogram.
//!
//! prometheus-client (0.25) writes exemplars only for its own histogram, which takes a lock for
//! every observation. Other crates cannot construct the exemplars of prometheus-client. This module
//! therefore inserts exemplars into the text that prometheus-client has written.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use curfew_model::TraceContext;

/// One observation, the time of the observation, and its trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exemplar {
    trace_id: u128,
    value: f64,
    at: SystemTime,
}

impl Exemplar {
    /// Creates an exemplar for an observation that was made just now.
    #[expect(
        clippy::disallowed_methods,
        reason = "operators look for the trace by this machine's time"
    )]
    pub(super) fn new(trace: &TraceContext, value: f64) -> Self {
        Self {
            trace_id: u128::from_be_bytes(trace.trace_id()),
            value,
            at: SystemTime::now(),
        }
    }
}

/// Writes the exemplar in the form in which it follows the value on the line of a bucket.
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = self.trace_id;
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(
            f,
            " # {{trace_id=\"{trace_id:032x}\"}} {:?} {:.3}",
            self.value,
            at.as_secs_f64()
        )
    }
}

/// The exemplars of all histograms of one metric: one entry for each bucket, in the order of the
/// output.
pub(super) struct OfHistogram {
    /// The beginning of the lines of these buckets.
    bucket: String,
    exemplars: std::vec::IntoIter<Option<Exemplar>>,
}

impl OfHistogram {
    /// Collects the exemplars of the metric that has the name `name` in the output.
    pub(super) fn new(name: &str, exemplars: impl Iterator<Item = Option<Exemplar>>) -> Self {
        let exemplars: Vec<_> = exemplars.collect();
        Self {
            bucket: format!("{name}_bucket{{"),
            exemplars: exemplars.into_iter(),
        }
    }
}

/// Inserts each exemplar into the line of its bucket in `text`, and returns the result.
pub(super) fn add(text: String, mut histograms: Vec<OfHistogram>) -> String {
    histograms.retain(|histogram| histogram.exemplars.as_slice().iter().any(Option::is_some));
    if histograms.is_empty() {
        return text;
    }
    let mut with = String::with_capacity(text.len() + 4 * 1024);
    for line in text.lines() {
        with.push_str(line);
        let histogram = histograms
            .iter_mut()
            .find(|histogram| line.starts_with(&histogram.bucket));
        if let Some(exemplar) = histogram.and_then(|histogram| histogram.exemplars.next()?) {
            write!(with, "{exemplar}").expect("writing to a string does not fail");
        }
        with.push('\n');
    }
    with
}
