//! The findings of `curfew doctor`, and their text.

use serde::Serialize;

use crate::output;

/// The result of one comparison.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// True if the comparison found no fault.
    well: bool,
    /// The result in words: the effect on sessions or on logouts.
    finding: String,
    /// The change to make, or further information.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
}

/// All findings, in order.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn good(&mut self, finding: impl Into<String>) {
        self.0.push(Finding {
            well: true,
            finding: finding.into(),
            change: None,
        });
    }

    /// Adds a finding without a fault, with further information.
    pub(super) fn note(&mut self, finding: impl Into<String>, more: impl Into<String>) {
        self.0.push(Finding {
            well: true,
            finding: finding.into(),
            change: Some(more.into()),
        });
    }

    pub(super) fn bad(&mut self, finding: impl Into<String>, change: impl Into<String>) {
        self.0.push(Finding {
            well: false,
            finding: finding.into(),
            change: Some(change.into()),
        });
    }

    pub(super) fn are_well(&self) -> bool {
        self.0.iter().all(|finding| finding.well)
    }

    pub(super) fn all(&self) -> &[Finding] {
        &self.0
    }

    /// Each finding on its own line, with its change below it.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.0 {
            text += &output::verdict(finding.well, &finding.finding);
            if let Some(change) = &finding.change {
                text += &format!("      {}\n", output::clean(change));
            }
        }
        text
    }
}
